// What a long part shows of itself on a terminal: how far it is, and how long the rest takes.

import { expect, test } from "bun:test";
import { join } from "node:path";
import { remainingSeconds } from "../../src/cli/progress.ts";
import { runProgram } from "../../src/setup/python.ts";

test("the rest takes as long as what is done took, by their sizes", () => {
  expect(remainingSeconds(30, 25, 100)).toBe(90);
  expect(remainingSeconds(30, 100, 100)).toBe(0);
  // More than all of it, as where a file grew.
  expect(remainingSeconds(30, 120, 100)).toBe(0);
});

test("of too little no rest is told", () => {
  expect(remainingSeconds(0.5, 50, 100)).toBeUndefined();
  expect(remainingSeconds(30, 0.5, 100)).toBeUndefined();
  expect(remainingSeconds(30, 0, 100)).toBeUndefined();
});

test("the line says what is being done, and how much time is left", async () => {
  const progress = join(import.meta.dir, "..", "..", "src", "cli", "progress.ts");
  const program = `
    process.stderr.isTTY = true;
    const { startProgress } = await import(${JSON.stringify(progress)});
    const began_ms = performance.now() - 100_000;
    const shown = startProgress({ label: "measuring", unit: "seconds", total: 1, began_ms });
    shown.update(0.1, "warming up");
    shown.update(0.5);
    await Bun.sleep(250);
    shown.done();
  `;
  const { stderr } = await runProgram([process.execPath, "-e", program]);
  expect(stderr).toContain("measuring [############------------] 50 % 100 s, 100 s left, warming up");
  expect(stderr).toEndWith("measuring: 100 s\n");
});
