// Vectors of texts: of encoders and of language models, against forward passes in double precision; the same bits whatever runs
// beside a text; and what happens to those that are cancelled, damaged or too long.

import { afterAll, describe, expect, test } from "bun:test";
import { nativeMemory } from "../../src/engine/allocations.ts";
import type { EngineRequest } from "../../src/engine/engine.ts";
import { openLibrary } from "../../src/engine/library.ts";
import { EngineError } from "../../src/errors.ts";
import { embed, embedding, openEngine, planFile, startEngine } from "../support/engine.ts";
import { temporaryFolder } from "../support/folder.ts";
import { Random } from "../support/random.ts";
import { cosine, pooled, referenceEncoder } from "../support/reference-encoder.ts";
import { referenceModel } from "../support/reference-model.ts";
import { type TinyEncoderOptions, tinyEncoder, writeTinyEncoder } from "../support/tiny-encoder.ts";
import { tinyModel } from "../support/tiny-model.ts";

const folder = temporaryFolder();
const random = new Random(11);

function texts(lengths: readonly number[], vocabulary = 256): Uint32Array[] {
  return lengths.map((length) => Uint32Array.from({ length }, () => random.below(vocabulary)));
}

/** Float32 and 16-bit activations differ from double precision by so much of an angle's cosine. Measured: below 1·10^-7. */
const cosineBound = 1e-6;

const families: Readonly<Record<string, TinyEncoderOptions>> = {
  bert: { heads: 2, layers: 3 },
  "bert of narrow heads": { dtype: "BF16", heads: 4 },
  "bert of wide heads": { dtype: "BF16", width: 192, heads: 3, ffn: 224, context: 100 },
  "nomic-bert": { architecture: "nomic-bert", dtype: "BF16", context: 200 },
};

for (const [name, options] of Object.entries(families)) {
  describe(name, async () => {
    const path = folder.file(`${name}.gguf`);
    writeTinyEncoder(path, options);
    const { engine, plan } = await openEngine(path, {}, { threadCount: 2 });
    afterAll(() => engine.close());
    const context = plan.options.contextMax;
    const several = texts([1, 2, 31, 32, 33, context]);
    const reference = referenceEncoder(options);
    const hidden = several.map((tokens) => reference.hidden(tokens));

    for (const pooling of ["mean", "first", "last"] as const) {
      test(`gives the vectors of a forward pass in double precision, pooled by ${pooling}`, async () => {
        for (const normalise of [true, false]) {
          const vectors = await Promise.all(several.map((tokens) => embed(engine, tokens, { pooling, normalise })));
          for (const [index, rows] of hidden.entries()) {
            const expected = pooled(rows, pooling, normalise);
            const vector = vectors[index] ?? new Float32Array(0);
            expect(vector.length).toBe(expected.length);
            expect(cosine(vector, expected)).toBeGreaterThan(1 - cosineBound);
            const [length, wanted] = [Math.hypot(...vector), Math.hypot(...expected)];
            expect(Math.abs(length / wanted - 1)).toBeLessThan(normalise ? 1e-6 : 1e-3);
          }
        }
      });
    }

    test("gives a text the same vector alone, beside others, in any order and on any number of threads", async () => {
      const many = texts(Array.from({ length: 90 }, () => 1 + random.below(context)));
      const alone: Float32Array[] = [];
      for (const tokens of many) alone.push(await embed(engine, tokens));
      expect(await Promise.all(many.map((tokens) => embed(engine, tokens)))).toEqual(alone);
      for (const [changes, threadCount] of [
        [{ batchMax: 3 }, 1],
        [{ chunkPositions: 40 }, 3],
      ] as const) {
        const { engine: other } = await openEngine(path, changes, { threadCount });
        const backwards = await Promise.all(many.toReversed().map((tokens) => embed(other, tokens)));
        await other.close();
        expect(backwards.toReversed()).toEqual(alone);
      }
    });
  });
}

describe("a language model", async () => {
  const writer = tinyModel({ architecture: "gemma3", layers: 6, context: 1024 });
  const built = writer.build();
  const path = folder.write("gemma3.gguf", built.bytes);
  const { engine } = await openEngine(path, { batchMax: 8 }, { threadCount: 2 });
  afterAll(() => engine.close());

  const generating: EngineRequest = { ...embedding(Uint32Array.of(7, 8, 9)), kind: "generate", generateMax: 200 };
  const generate = async () => {
    const { promise, resolve, reject } = Promise.withResolvers<number[]>();
    const drawn: number[] = [];
    const onToken = ({ token }: { token: number }) => drawn.push(token);
    engine.submit(generating, { onToken, onFinish: () => resolve(drawn), onError: reject });
    return promise;
  };

  test("gives the pooled hidden states behind its last norm, of texts of several steps too", async () => {
    const reference = referenceModel(built);
    for (const tokens of texts([1, 40, 300], 500)) {
      const hidden = reference.hidden(tokens);
      for (const pooling of ["mean", "first", "last"] as const) {
        const vector = await embed(engine, tokens, { pooling });
        expect(cosine(vector, pooled(hidden, pooling))).toBeGreaterThan(1 - cosineBound);
      }
    }
  });

  test("gives texts the same vectors while it generates, and the same tokens while it embeds", async () => {
    const several = texts([1, 2, 100, 255, 257, 700, 1024], 500);
    const alone: Float32Array[] = [];
    for (const tokens of several) alone.push(await embed(engine, tokens));
    const drawn = await generate();
    expect(drawn.length).toBe(200);
    const [again, ...vectors] = await Promise.all([
      generate(),
      ...[...several, ...several].map((tokens) => embed(engine, tokens)),
    ]);
    expect(again).toEqual(drawn);
    expect(vectors).toEqual([...alone, ...alone]);
  });
});

describe("texts", async () => {
  const path = folder.file("texts.gguf");
  writeTinyEncoder(path, { dtype: "BF16" });
  const { engine, plan } = await openEngine(path, {}, { threadCount: 1 });
  afterAll(() => engine.close());

  test("that are cancelled end as such, before and after their turn, and the others get their vectors", async () => {
    const many = texts(Array.from({ length: 200 }, () => 20));
    const expected: Float32Array[] = [];
    for (const tokens of many) expected.push(await embed(engine, tokens));
    const outcomes = await Promise.all(
      many.map((tokens, index) => {
        const { promise, resolve, reject } = Promise.withResolvers<readonly [string, Float32Array | undefined]>();
        let vector: Float32Array | undefined;
        const handle = engine.submit(embedding(tokens), {
          onToken() {},
          onEmbedding(values) {
            vector = values;
          },
          onFinish: (finish) => resolve([finish, vector]),
          onError: reject,
        });
        if (index % 3 === 0) handle.cancel();
        return promise;
      }),
    );
    for (const [index, [finish, vector]] of outcomes.entries()) {
      if (index % 3 === 0 && finish === "cancelled") expect(vector).toBeUndefined();
      else expect([finish, vector]).toEqual(["embedded", expected[index]]);
    }
    expect(outcomes.filter(([finish]) => finish === "cancelled").length).toBeGreaterThan(0);
  });

  test("that the model cannot take are refused: longer than the context, or to be continued", async () => {
    const [longest = new Uint32Array(0)] = texts([plan.options.contextMax + 1]);
    for (const changes of [{ tokens: longest }, { kind: "generate", generateMax: 1 }, { kind: "score" }] as const) {
      await expect(embed(engine, Uint32Array.of(1, 2), changes)).rejects.toThrow(EngineError);
    }
    expect((await embed(engine, longest.subarray(1))).length).toBe(plan.embeddingWidth ?? 0);
  });

  test("of more tokens than a product takes at once are computed whole, in steps of their own", async () => {
    const options = { width: 32, heads: 1, layers: 1, context: 1100 };
    const long = folder.file("long.gguf");
    writeTinyEncoder(long, options);
    const { engine: other } = await openEngine(long, {}, { threadCount: 2 });
    const several = texts([1100, 20, 1090, 20]);
    const vectors = await Promise.all(several.map((tokens) => embed(other, tokens)));
    await other.close();
    const reference = referenceEncoder(options);
    for (const [index, tokens] of several.entries()) {
      const expected = pooled(reference.hidden(tokens));
      expect(cosine(vectors[index] ?? [], expected)).toBeGreaterThan(1 - cosineBound);
    }
  });

  test("fail with the file's name where a weight is not a number", async () => {
    const { bytes, fields } = tinyEncoder({ dtype: "BF16" }).build();
    const weight = fields.find((field) => field.owner === "tensor blk.1.ffn_up.weight" && field.class === "data");
    // A bfloat16.
    new DataView(bytes.buffer, bytes.byteOffset).setUint16(weight?.offset ?? 0, 0x7fc0, true);
    const { engine: damaged } = await openEngine(folder.write("damaged.gguf", bytes));
    await expect(embed(damaged, Uint32Array.of(1, 2, 3))).rejects.toThrow(/damaged\.gguf.*not a finite number/);
    await damaged.close();
  });

  test("leave nothing behind in a hundred engines", async () => {
    const library = await openLibrary();
    const planned = planFile(path);
    const run = async () => {
      const other = await startEngine(path, planned);
      await embed(other, Uint32Array.of(1, 2, 3));
      await other.close();
    };
    await run();
    const before = nativeMemory(library).liveBytes;
    for (let round = 0; round < 100; round++) await run();
    expect(nativeMemory(library).liveBytes).toBe(before);
  });
});
