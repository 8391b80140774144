// The index of vectors: what it finds beside a plain computation of every product, its file, and what it refuses.

import { describe, expect, test } from "bun:test";
import { copyFileSync, mkdirSync, readFileSync, renameSync } from "node:fs";
import { createIndex, IndexFileError, OptionError, openIndex, similarity } from "../../src/index.ts";
import { temporaryFolder } from "../support/folder.ts";
import { Random } from "../support/random.ts";

const folder = temporaryFolder();

function randomVectors(count: number, columns: number, seed: number): Float32Array[] {
  const random = new Random(seed);
  return Array.from({ length: count }, () => Float32Array.from({ length: columns }, () => random.normal()));
}

/** Rows by falling score, equal ones by their number. */
function ranked(scores: readonly number[]): { index: number; score: number }[] {
  return scores.map((score, index) => ({ index, score })).sort((a, b) => b.score - a.score || a.index - b.index);
}

describe("a search", () => {
  // Odd widths leave a part of a vector register; two queries over 3,000 · 384 values are searched on threads.
  for (const [count, columns] of [
    [1, 1],
    [5, 7],
    [200, 33],
    [3000, 384],
  ] as const) {
    test(`of ${count} vectors of ${columns} values finds the largest cosines`, async () => {
      const vectors = randomVectors(count, columns, 1);
      const queries = randomVectors(2, columns, 2);
      using index = await createIndex(vectors);
      const found = await index.search(queries, { count: 12 });
      for (const [place, query] of queries.entries()) {
        const hits = found[place] ?? [];
        const scores = vectors.map((vector) => similarity(vector, query));
        const expected = ranked(scores).slice(0, 12);
        expect(hits.length).toBe(expected.length);
        expect(new Set(hits.map((hit) => hit.index)).size).toBe(hits.length);
        for (const [rank, hit] of hits.entries()) {
          expect(hit.score).toBeCloseTo(scores[hit.index] ?? Number.NaN, 5);
          expect(hit.score).toBeCloseTo(expected[rank]?.score ?? Number.NaN, 5);
        }
      }
      expect(await index.search(queries[0] ?? new Float32Array(), { count: 12 })).toEqual(found[0] ?? []);
    });
  }

  test("gives equal vectors in their order, and the same on every number of threads", async () => {
    const random = new Random(3);
    // Whole numbers, whose products are exact, and many of them equal.
    const vectors = Array.from({ length: 20_000 }, () =>
      Float32Array.from({ length: 128 }, (_, place) => (place < 2 ? random.below(3) : 0)),
    );
    const query = Float32Array.from({ length: 128 }, (_, place) => (place < 2 ? place + 1 : 0));
    const expected = ranked(vectors.map((vector) => (vector[0] ?? 0) + 2 * (vector[1] ?? 0))).slice(0, 1000);
    for (const threads of [1, 2]) {
      using index = await createIndex(vectors, { metric: "dot", threads });
      expect(await index.search(query, { count: 1000 })).toEqual(expected);
    }
  });

  test("for more hits than there are gives all, with their ids", async () => {
    const data = Float32Array.of(0, 1, 2, 0, 0, 0);
    using index = await createIndex({ rows: 3, columns: 2, data }, { ids: ["a", "", "日本"] });
    expect(await index.search(Float32Array.of(3, 0))).toEqual([
      { index: 1, score: 1, id: "" },
      { index: 0, score: 0, id: "a" },
      { index: 2, score: 0, id: "日本" },
    ]);
    expect([index.count, index.dimensions, index.metric, index.model]).toEqual([3, 2, "cosine", undefined]);
    expect(index.vector(1)).toEqual(Float32Array.of(1, 0));
  });

  test("by products gives them as they are", async () => {
    const vectors = [Float32Array.of(0, 1), Float32Array.of(2, 0), Float32Array.of(0, 0)];
    using index = await createIndex(vectors, { metric: "dot", model: "mine" });
    expect(await index.search(Float32Array.of(3, 0), { count: 1 })).toEqual([{ index: 1, score: 6 }]);
    expect(index.vector(1)).toEqual(Float32Array.of(2, 0));
    expect(index.model).toBe("mine");
  });

  // Their searches have threads of their own.
  const many = randomVectors(3000, 384, 4);

  test("of many at once answers each", async () => {
    using index = await createIndex(many);
    const some = many.slice(0, 20);
    const hits = await Promise.all(some.map((vector) => index.search([vector, vector], { count: 1 })));
    expect(hits.map(([first]) => first?.[0]?.index)).toEqual(some.map((_, place) => place));
  });

  test("fails where it waits when the index is closed; what runs ends first", async () => {
    const index = await createIndex(many);
    const running = many.slice(0, 3).map((vector) => index.search([vector, ...many.slice(0, 500)], { count: 1 }));
    setImmediate(() => index.close());
    const ends = await Promise.allSettled(running);
    for (const [place, end] of ends.entries()) {
      if (end.status === "fulfilled") expect(end.value[0]?.[0]?.index).toBe(place);
      else expect(end.reason.message).toContain("the index is closed");
    }
    expect(ends.at(-1)?.status).toBe("rejected");
    index.close();
    expect(() => index.vector(0)).toThrow("the index is closed");
    await expect(index.search(Float32Array.of(1))).rejects.toThrow("the index is closed");
  });

  test("ends when its signal does, and leaves the index as it was", async () => {
    using index = await createIndex(many);
    const queries = many.slice(0, 500);
    await expect(index.search(queries, { signal: AbortSignal.abort(new Error("mine")) })).rejects.toThrow("mine");
    const controller = new AbortController();
    const running = index.search(queries, { signal: controller.signal });
    setImmediate(() => controller.abort(new Error("mine")));
    await expect(running).rejects.toThrow("mine");
    expect(await index.search(index.vector(7), { count: 1 })).toMatchObject([{ index: 7 }]);
  });
});

describe("an index's file", () => {
  const path = folder.file("small.index");
  const ids = ["one", "zwei", "三"];
  const vectors = [Float32Array.of(1, 2, 3), Float32Array.of(-1, 0, 0.5), Float32Array.of(0, 0, 7)];
  const saved = (async () => {
    using index = await createIndex(vectors, { ids, metric: "dot", model: "a model" });
    await index.save(path);
    return readFileSync(path);
  })();
  const outcome = (opening: Promise<Disposable>) =>
    opening.then(
      (index) => {
        index[Symbol.dispose]();
        return "opened";
      },
      (error: Error) => error.constructor,
    );

  test("holds all that the index does", async () => {
    await saved;
    for (const verify of [true, false]) {
      using opened = await openIndex(path, { verify });
      expect([opened.count, opened.dimensions, opened.metric, opened.model]).toEqual([3, 3, "dot", "a model"]);
      expect([0, 1, 2].map((index) => opened.vector(index))).toEqual(vectors);
      expect([0, 1, 2].map((index) => opened.id(index))).toEqual(ids);
      expect(await opened.search(Float32Array.of(0, 0, 2))).toEqual([
        { index: 2, score: 14, id: "三" },
        { index: 0, score: 6, id: "one" },
        { index: 1, score: 1, id: "zwei" },
      ]);
    }
  });

  test("begins each vector at a multiple of 64 bytes, as float32 values", async () => {
    const bytes = await saved;
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    expect([0, 4, 8].map((place) => view.getFloat32(64 + 64 + place, true))).toEqual([-1, 0, 0.5]);
    expect([0, 8].map((place) => view.getFloat32(64 + 128 + place, true))).toEqual([0, 7]);
  });

  test("may be replaced while it is open, also by the index that was opened from it", async () => {
    const own = folder.file("own.index");
    using first = await createIndex(randomVectors(500, 40, 7));
    await first.save(own);
    using opened = await openIndex(own);
    await opened.save(own);
    using other = await createIndex([Float32Array.of(1)]);
    await other.save(own);
    expect(opened.vector(499)).toEqual(first.vector(499));
    using last = await openIndex(own);
    expect([last.count, last.id(0)]).toEqual([1, undefined]);
  });

  test("is opened as one of both where another takes its place meanwhile", async () => {
    const own = folder.file("replaced.index");
    const ways = await Promise.all(
      ["a", "b"].map(async (name, which) => {
        using index = await createIndex(
          [which, 1 - which].map((x) => Float32Array.of(x, 1 - x)),
          { ids: [name, name] },
        );
        const from = folder.file(`${name}.index`);
        await index.save(from);
        return from;
      }),
    );
    const place = (which: number) => {
      copyFileSync(ways[which] ?? "", `${own}.next`);
      renameSync(`${own}.next`, own);
    };
    for (let round = 0; round < 80; round++) {
      place(round % 2);
      const opening = openIndex(own, { verify: round % 4 < 2 });
      for (let turn = 0; turn < round % 10; turn++) await new Promise((resolve) => setImmediate(resolve));
      place((round + 1) % 2);
      using opened = await opening;
      expect([round, opened.id(0), opened.vector(0)[0]]).toEqual(
        opened.id(0) === "a" ? [round, "a", 0] : [round, "b", 1],
      );
    }
  });

  test("with any byte changed is refused", async () => {
    const bytes = await saved;
    for (let place = 0; place < bytes.length; place++) {
      const copy = Buffer.from(bytes);
      copy[place] = (copy[place] ?? 0) ^ 0x10;
      expect([place, await outcome(openIndex(folder.write("damaged.index", copy)))]).toEqual([place, IndexFileError]);
    }
  });

  test("that was cut short or grew is refused at every length", async () => {
    const bytes = await saved;
    for (let length = 0; length < bytes.length; length += 3) {
      const cut = folder.write("cut.index", bytes.subarray(0, length));
      expect([length, await outcome(openIndex(cut, { verify: false }))]).toEqual([length, IndexFileError]);
    }
    const longer = folder.write("cut.index", Buffer.concat([bytes, Buffer.alloc(1)]));
    await expect(openIndex(longer)).rejects.toThrow("it was cut short or damaged");
  });

  test("that is none, not there, or no file is refused in words", async () => {
    const text = folder.write(
      "text.index",
      "A text that is as long as the head of an index, but begins in another way.",
    );
    await expect(openIndex(text)).rejects.toThrow("is no index");
    await expect(openIndex(folder.file("none.index"))).rejects.toBeInstanceOf(IndexFileError);
    mkdirSync(folder.file("folder.index"));
    await expect(openIndex(folder.file("folder.index"))).rejects.toThrow("it is no regular file");
    using index = await createIndex([Float32Array.of(1)]);
    await expect(index.save(folder.file("none/x.index"))).rejects.toBeInstanceOf(IndexFileError);
  });
});

describe("what is out of bounds is refused by name", () => {
  const one = Float32Array.of(1, 2);
  for (const [what, vectors, options, option] of [
    ["no vectors", [], {}, "vectors"],
    ["a vector of nothing", [Float32Array.of()], {}, "vectors[0]"],
    ["vectors of different lengths", [one, Float32Array.of(1)], {}, "vectors[1]"],
    ["a value that is not finite", [one, Float32Array.of(1, Number.NaN)], {}, "vectors[1]"],
    ["a matrix of another size", { rows: 2, columns: 2, data: one }, {}, "vectors.data"],
    ["too few ids", [one], { ids: [] }, "ids"],
    ["an id with half a character", [one, one], { ids: ["a", "\ud800"] }, "ids[1]"],
    ["a metric that is none", [one], { metric: "euclid" }, "metric"],
    ["no thread", [one], { threads: 0 }, "threads"],
    ["an option that is none", [one], { count: 1 }, "options.count"],
  ] as const) {
    test(what, async () => {
      const error = await createIndex(vectors as never, options as never).catch((thrown) => thrown);
      expect(error).toBeInstanceOf(OptionError);
      expect(error.option).toBe(option);
    });
  }

  test("of a search", async () => {
    using index = await createIndex([one]);
    const search = (query: unknown, options: unknown = {}) =>
      index.search(query as Float32Array, options as object).catch((error: OptionError) => error.option);
    expect(await search(Float32Array.of(1))).toBe("query");
    expect(await search([one, Float32Array.of(1)])).toBe("queries[1]");
    expect(await search("text")).toBe("queries");
    expect(await search(one, { count: 0 })).toBe("count");
    expect(await search(one, { count: 1025 })).toBe("count");
    expect(await index.search([])).toEqual([]);
  });
});
