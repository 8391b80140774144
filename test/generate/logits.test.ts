// Rows of logits as a program gets them while it scores: its own, in order, each once, whatever runs in the same step.

import { afterAll, describe, expect, test } from "bun:test";
import { loadModel } from "../../src/index.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyModel } from "../support/gguf-writer.ts";

const folder = temporaryFolder();
const path = folder.file("tiny.gguf");
writeTinyModel(path, { architecture: "gemma3" });
const model = await loadModel(path);
afterAll(() => model.close());
const tokens = Uint32Array.from({ length: 120 }, (_, index) => (index * 17) % 500);

async function rowsOf(oneByOne = false): Promise<Float32Array[]> {
  const list: Float32Array[] = [];
  await model.score(tokens, {
    oneByOne,
    onLogits(rows, count) {
      const width = rows.length / count;
      for (let row = 0; row < count; row++) list.push(rows.slice(row * width, (row + 1) * width));
    },
  });
  return list;
}

describe("logits", () => {
  test("are a row for each token, and give the log-probabilities that scoring gives", async () => {
    const rows = await rowsOf();
    expect(rows.length).toBe(tokens.length);
    const { logprobs } = await model.score(tokens);
    logprobs.forEach((logprob, index) => {
      const row = rows[index] ?? new Float32Array(0);
      const sum = row.reduce((total, value) => total + Math.exp(value), 0);
      expect(Math.abs((row[tokens[index + 1] ?? 0] ?? Number.NaN) - Math.log(sum) - logprob)).toBeLessThan(1e-5);
    });
  });

  test("are the same rows beside sequences that generate, beside others that are scored, and token by token", async () => {
    const alone = await rowsOf();
    const beside = [1, 2, 3].map((token) => model.generate(Uint32Array.of(token), { maxLength: 300, ignoreEos: true }));
    expect(await rowsOf()).toEqual(alone);
    for (const rows of await Promise.all([rowsOf(), rowsOf(), rowsOf(true)])) expect(rows).toEqual(alone);
    await Promise.all(beside);
  });

  test("are not handed over after an abort", async () => {
    const controller = new AbortController();
    let calls = 0;
    const scoring = model.score(tokens, {
      signal: controller.signal,
      onLogits() {
        calls += 1;
        controller.abort();
      },
    });
    expect(
      await scoring.then(
        () => undefined,
        (error) => error,
      ),
    ).toBeInstanceOf(DOMException);
    await model.score(tokens);
    expect(calls).toBe(1);
  });

  test("end the scoring with the error of the function that gets them, and the model goes on", async () => {
    const why = new Error("disk full");
    for (const name of ["onLogits", "onProgress"]) {
      const scoring = model.score(tokens, {
        [name]: () => {
          throw why;
        },
      });
      expect(
        await scoring.then(
          () => undefined,
          (error) => error,
        ),
      ).toBe(why);
    }
    expect((await rowsOf()).length).toBe(tokens.length);
  });
});
