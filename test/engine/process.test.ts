// The engine and the process it lives in: when a script ends, what low limits do, and that nothing is left open.

import { afterAll, describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { loadModel } from "../../src/index.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyModel } from "../support/gguf-writer.ts";
import { runScript } from "./support.ts";

const folder = temporaryFolder();
const path = folder.file("tiny.gguf");
writeTinyModel(path);
const linux = process.platform === "linux";
const ended = { code: 0, signal: null, errors: "" };

describe("a script ends by itself", () => {
  test("when its model is idle and was not closed", async () => {
    const result = await runScript(
      folder,
      path,
      `
      const model = await loadModel(path);
      console.log((await model.generate("hello", { maxLength: 5, ignoreEos: true })).tokens.length);
    `,
    );
    expect(result).toEqual({ ...ended, output: "5\n" });
  });

  test("when its model was only loaded", async () => {
    expect(await runScript(folder, path, "await loadModel(path);")).toEqual({ ...ended, output: "" });
  });

  test("when a stream was left early", async () => {
    const result = await runScript(
      folder,
      path,
      `
      const model = await loadModel(path);
      for await (const piece of model.stream("hello", { maxLength: 400, ignoreEos: true })) { console.log("left"); break; }
    `,
    );
    expect(result).toEqual({ ...ended, output: "left\n" });
  });

  test("when its model was closed, while it generated or not", async () => {
    const result = await runScript(
      folder,
      path,
      `
      const idle = await loadModel(path);
      await idle.close();
      const model = await loadModel(path);
      const running = model.generate("hello", { maxLength: 400, ignoreEos: true }).catch((error) => error.code);
      await Bun.sleep(1);
      await model.close();
      console.log(await running);
    `,
    );
    expect(result).toEqual({ ...ended, output: "engine\n" });
  });

  test("not before what it waits for is done", async () => {
    const result = await runScript(
      folder,
      path,
      `
      const model = await loadModel(path);
      void model.generate("hello", { maxLength: 400, ignoreEos: true }).then(({ tokens }) => console.log(tokens.length));
    `,
    );
    expect(result).toEqual({ ...ended, output: "400\n" });
  });

  test("with its own exit code in the middle of generating, on as many threads as there are", async () => {
    const result = await runScript(
      folder,
      path,
      `
      const model = await loadModel(path);
      void model.generate(["a", "b", "c"], { maxLength: 400, ignoreEos: true });
      await Bun.sleep(1);
      process.exit(3);
    `,
    );
    expect(result).toEqual({ ...ended, code: 3, output: "" });
  });

  test("with an error in the middle of generating", async () => {
    const result = await runScript(
      folder,
      path,
      `
      const model = await loadModel(path);
      for await (const piece of model.stream("hello", { maxLength: 400, ignoreEos: true })) throw new Error("mine");
    `,
    );
    expect(result.signal).toBe(null);
    expect(result.code).toBe(1);
    expect(result.errors).toContain("mine");
  });
});

describe("low limits", () => {
  test("of address space end in an error that names the memory, and the process goes on", async () => {
    if (!linux || !Bun.which("prlimit")) return;
    const big = folder.file("big.gguf");
    writeTinyModel(big, { context: 1 << 20 });
    const result = await runScript(
      folder,
      big,
      `
      import { readFileSync } from "node:fs";
      const small = await loadModel(path, { contextLength: 64, batchSize: 1 });
      const used = 1024 * Number(/VmSize:\\s+(\\d+)/.exec(readFileSync("/proc/self/status", "utf8"))[1]);
      Bun.spawnSync(["prlimit", "--pid", String(process.pid), "--as=" + (used + 100e6)]);
      console.log(await loadModel(path, { batchSize: 64 }).then(() => "opened", (error) => error.code + " " + error.message));
      console.log((await small.generate("hello", { maxLength: 5, ignoreEos: true })).tokens.length);
    `,
    );
    expect(result).toMatchObject({ ...ended, output: expect.stringMatching(/^engine .*memory.*\n5\n$/) });
  });

  test("of open files end in an error, leave none open, and the process goes on", async () => {
    if (!linux) return;
    const result = await runScript(
      folder,
      path,
      `
      import { openSync, closeSync, readdirSync } from "node:fs";
      await (await loadModel(path)).close();
      const held = [];
      try { for (;;) held.push(openSync("/dev/null")); } catch {}
      for (let free = 0; free < 12; free++) {
        const outcome = await loadModel(path).then((model) => model.close().then(() => "opened"), (error) => error.code);
        console.log(outcome);
        closeSync(held.pop());
      }
      for (const one of held) closeSync(one);
      console.log(readdirSync("/proc/self/fd").length < 40);
    `,
    );
    const lines = result.output.trim().split("\n");
    expect(result).toMatchObject(ended);
    expect(lines.at(-1)).toBe("true");
    expect(new Set(lines.slice(0, -1)).difference(new Set(["model_file", "engine", "opened"])).size).toBe(0);
    expect(lines[0]).not.toBe("opened");
    expect(lines.at(-2)).toBe("opened");
  });
});

describe("many models in one process", () => {
  const descriptors = () => readdirSync("/proc/self/fd").length;
  const threads = () => Number(/^Threads:\s+(\d+)/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1]);

  test("leave no descriptor and no thread behind", async () => {
    if (!linux) return;
    const round = async () => {
      const model = await loadModel(path);
      await model.generate("hello", { maxLength: 3 });
      await model.close();
    };
    for (let index = 0; index < 3; index++) await round();
    const before = [descriptors(), threads()];
    for (let index = 0; index < 30; index++) await round();
    const [open = 0, running = 0] = before;
    expect(descriptors()).toBeLessThanOrEqual(open);
    expect(threads()).toBeLessThanOrEqual(running + 2); // Bun's own pool may have grown.
  });

  test("may be open at once, and each answers for itself", async () => {
    const other = folder.file("other.gguf");
    writeTinyModel(other, { architecture: "qwen3", seed: 9 });
    const models = await Promise.all(
      [path, other, path, other].map((file) => loadModel(file, { threads: { count: 1 } })),
    );
    afterAll(() => Promise.all(models.map((model) => model.close())));
    const run = () =>
      Promise.all(models.map((model) => model.generate("hello", { seed: 1, maxLength: 20, ignoreEos: true })));
    const [a, b, c, d] = (await run()).map(({ tokens }) => tokens);
    expect(c).toEqual(a ?? []);
    expect(d).toEqual(b ?? []);
    expect(b).not.toEqual(a ?? []);
  });

  test("may be opened and given up while they load", async () => {
    if (!linux) return;
    const before = descriptors();
    for (let index = 0; index < 10; index++) {
      const controller = new AbortController();
      const loading = loadModel(path, { signal: controller.signal });
      controller.abort();
      expect(
        await loading.then(
          () => "opened",
          (error) => error,
        ),
      ).toBeInstanceOf(DOMException);
    }
    expect(descriptors()).toBeLessThanOrEqual(before);
  });
});
