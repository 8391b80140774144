// Signals: what only computes is ended at once, and what listens is told again afterwards.

import { expect, test } from "bun:test";
import { join } from "node:path";

const module = JSON.stringify(join(import.meta.dir, "../../src/cli/interrupt.ts"));

/** How a program ends that is sent a signal as soon as it has printed something. */
async function ended(script: string, signal: "SIGINT" | "SIGTERM") {
  const running = Bun.spawn(
    [
      process.execPath,
      "-e",
      `const { endingAtOnce, interruption, watchInterruptions } = await import(${module});\n${script}`,
    ],
    { stdout: "pipe", stderr: "inherit" },
  );
  const reader = running.stdout.getReader();
  const said = [(await reader.read()).value];
  running.kill(signal);
  for (let part = await reader.read(); !part.done; part = await reader.read()) said.push(part.value);
  await running.exited;
  return {
    said: said.map((part) => new TextDecoder().decode(part)).join(""),
    by: running.signalCode ?? running.exitCode,
  };
}

test.each(["SIGINT", "SIGTERM"] as const)(
  "%s ends what computes without a pause, even where others are told",
  async (signal) => {
    const script = `
    watchInterruptions();
    interruption();
    await endingAtOnce(() => {
      console.log("computing");
      const until = Date.now() + 4000;
      while (Date.now() < until);
    });
    console.log("computed");`;
    expect(await ended(script, signal)).toEqual({ said: "computing\n", by: signal });
  },
);

test("after what computed, who listens is told, and gets time", async () => {
  const script = `
    watchInterruptions();
    const signal = interruption();
    await endingAtOnce(() => 1);
    console.log("listening");
    const waiting = setTimeout(() => {}, 20_000);
    signal.addEventListener("abort", () => { console.log("told"); clearTimeout(waiting); });`;
  expect((await ended(script, "SIGINT")).said).toBe("listening\ntold\n");
});
