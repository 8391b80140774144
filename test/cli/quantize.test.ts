// `tinyai quantize` as a program: its output, its exit status, and what Ctrl-C leaves.

import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openGguf } from "../../src/model/gguf.ts";
import { runProgram } from "../../src/setup/python.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

// Processes take their time on a loaded machine.
setDefaultTimeout(60_000);

const main = join(import.meta.dir, "..", "..", "src", "cli", "main.ts");
const folder = temporaryFolder();
const source = folder.file("source.gguf");
writeTinyModel(source, { width: 256, layers: 2 });

function quantize(...arguments_: string[]) {
  return runProgram([process.execPath, main, "quantize", ...arguments_], { env: process.env });
}

test("quantize writes the file and tells what became of the tensors", async () => {
  const output = folder.file("q4.gguf");
  const { status, stdout, stderr } = await quantize(source, output, "--type", "q4_k_m", "--threads", "1");
  expect({ status, stderr }).toMatchObject({ status: 0 });
  expect(stdout).toContain(`${output}: Q4_K_M, `);
  expect(stdout).toMatch(/^tensors: .*\d+ Q4_K/m);
  expect(openGguf(output).metadata.integer("general.file_type")).toBe(15);
});

test("quantize --json prints one document, and nothing else, to stdout", async () => {
  const output = folder.file("q8.gguf");
  const { status, stdout } = await quantize(source, output, "--type", "Q8_0", "--json");
  expect(status).toBe(0);
  const result = JSON.parse(stdout);
  expect(result).toMatchObject({ path: output, type: "Q8_0", bytes: readFileSync(output).length });
  expect(result.tensors.find(({ name }: { name: string }) => name === "output.weight")).toMatchObject({
    from: "F16",
    to: "Q8_0",
  });
});

test("wrong usage ends with status 2, what cannot be done with 1, and both leave nothing behind", async () => {
  const there = folder.file("there.gguf");
  writeFileSync(there, "precious");
  const quantized = folder.file("quantized.gguf");
  writeTinyModel(quantized, { dtype: "Q8_0" });
  const fresh = folder.file("fresh.gguf");
  const before = readdirSync(folder.path);
  const cases: readonly (readonly [number, ...string[]])[] = [
    [2, source, fresh],
    [2, source, "--type", "Q8_0"],
    [2, source, fresh, "--type", "Q9_9"],
    [2, source, fresh, "--type", "Q8_0", "--threads", "none"],
    [2, source, source, "--type", "Q8_0", "--overwrite"],
    [2, source, there, "--type", "Q8_0"],
    [1, folder.file("missing.gguf"), fresh, "--type", "Q8_0"],
    [1, there, fresh, "--type", "Q8_0"],
    [1, quantized, fresh, "--type", "Q4_0"],
    [1, source, folder.file("no/folder.gguf"), "--type", "Q8_0"],
  ];
  for (const [expected, ...arguments_] of cases) {
    const { status, stdout, stderr } = await quantize(...arguments_);
    expect({ arguments_, status, stdout }).toEqual({ arguments_, status: expected, stdout: "" });
    expect(stderr).not.toBe("");
    expect(stderr).not.toContain("    at ");
  }
  expect(readdirSync(folder.path)).toEqual(before);
  expect(readFileSync(there, "utf8")).toBe("precious");
});

test("Ctrl-C ends it with status 130 and leaves nothing of the output", async () => {
  const large = folder.file("large.gguf");
  // Enough that it is still at work when it is interrupted.
  writeTinyModel(large, { width: 1024, ffn: 4096, layers: 4, vocabulary: 4096 });
  const output = folder.file("interrupted.gguf");
  const child = Bun.spawn([process.execPath, main, "quantize", large, output, "--type", "Q3_K_L", "--threads", "1"], {
    stdout: "ignore",
    stderr: "ignore",
    timeout: 50_000,
    killSignal: "SIGKILL",
  });
  const isPart = (name: string) => name.startsWith("interrupted.gguf.");
  while (child.exitCode === null && !readdirSync(folder.path).some(isPart)) await Bun.sleep(1);
  child.kill("SIGINT");
  expect(await child.exited).toBe(130);
  expect(readdirSync(folder.path).some(isPart)).toBe(false);
  expect(existsSync(output)).toBe(false);
});
