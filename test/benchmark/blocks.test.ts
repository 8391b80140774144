// Iterations in blocks, for each of which all is loaded anew. Models are made up: they take as long as they say, so that a test is over
// at once.

import { describe, expect, test } from "bun:test";
import { type BlockOptions, type BlockSettings, lengthsOf, samplesOf, takeBlocks } from "../../src/benchmark/blocks.ts";

interface Sample {
  readonly latencyMs: number;
  readonly loading: number;
}

const settings: BlockSettings = { iterations: null, time_s: null, precision: 0.02, warmup: 0, batch_sizes: [1] };

/** Loadings whose iterations take as long as `latencyMs` says, and what was asked of them, in order. */
function pretend(latencyMs: (loading: number, iteration: number) => number) {
  const log: string[] = [];
  let loading = -1;
  const options: BlockOptions<Sample> = {
    blocksMin: 10,
    async open() {
      loading++;
      log.push(`open ${loading}`);
      let iteration = 0;
      return {
        async iterate(batchSize) {
          log.push(`iterate ${batchSize}`);
          return { latencyMs: latencyMs(loading, iteration++), loading };
        },
        async close() {
          log.push(`close ${loading}`);
        },
      };
    },
  };
  return { options, log, opened: () => loading + 1 };
}

describe("iterations that are counted", () => {
  test("are spread over the loadings as evenly as can be, one loading after another", async () => {
    const { options, log } = pretend(() => 5);
    const { batches, ended } = await takeBlocks({ ...settings, iterations: 23 }, options);
    const [batch] = batches;
    expect(batch && lengthsOf(batch)).toEqual([3, 3, 3, 2, 2, 2, 2, 2, 2, 2]);
    expect(batch && samplesOf(batch).map(({ loading }) => loading)).toEqual(
      [3, 3, 3, 2, 2, 2, 2, 2, 2, 2].flatMap((count, loading) => Array.from({ length: count }, () => loading)),
    );
    expect(ended).toBe("count");
    expect(log.filter((line) => !line.startsWith("iterate"))).toEqual(
      Array.from({ length: 10 }, (_, loading) => [`open ${loading}`, `close ${loading}`]).flat(),
    );
  });

  test("have a loading each where there are fewer than those", async () => {
    const { options, opened } = pretend(() => 5);
    const { batches } = await takeBlocks({ ...settings, iterations: 3, batch_sizes: [1, 4] }, options);
    expect(batches.map(lengthsOf)).toEqual([
      [1, 1, 1],
      [1, 1, 1],
    ]);
    expect(opened()).toBe(3);
  });

  test("end when their time is over", async () => {
    const { options } = pretend(() => 100);
    const { batches, ended } = await takeBlocks({ ...settings, iterations: 1000, time_s: 1 }, options);
    expect(ended).toBe("time");
    // Which is told from their latencies, and within a loading from the clock.
    expect(batches[0] && samplesOf(batches[0]).length).toBeWithin(10, 1001);
  });
});

describe("iterations that are not counted", () => {
  test("end when the mean of the loadings is known well enough", async () => {
    const { options, opened } = pretend((loading) => (loading % 2 === 0 ? 10 : 10.1));
    expect((await takeBlocks(settings, options)).ended).toBe("precision");
    expect(opened()).toBe(10);
  });

  test("do not while loadings differ, however little the iterations of each do", async () => {
    // Lengths that have nothing to do with each other, within a fifth of their mean.
    const { options, opened } = pretend((loading) => 100 * (1 + (((loading * 7) % 11) - 5) / 25));
    const { batches, ended } = await takeBlocks({ ...settings, time_s: 30 }, options);
    expect(opened()).toBeGreaterThan(20);
    const means = new Set(batches.flatMap((batch) => samplesOf(batch).map(({ latencyMs }) => latencyMs)));
    expect(means.size).toBe(11);
    expect(["precision", "time"]).toContain(ended);
  });

  test("of a batch size end when its time is over, and those of another go on until they are known", async () => {
    let loading = 0;
    const iterations = new Map([1, 64].map((size) => [size, 0]));
    const open = async () => {
      const current = loading++;
      return {
        async iterate(batchSize: number) {
          iterations.set(batchSize, (iterations.get(batchSize) ?? 0) + 1);
          // The small one's are known once there are some dozens of loadings.
          return { latencyMs: batchSize === 64 ? 5000 : 100 * (1 + (((current * 7) % 11) - 5) / 40), loading: current };
        },
        close: async () => {},
      };
    };
    const given = { ...settings, time_s: 60, precision: 0.012, batch_sizes: [1, 64] };
    const { batches, ended } = await takeBlocks(given, { blocksMin: 6, open });
    expect(ended).toBe("precision");
    const [small, large] = batches;
    // Twelve take a minute; those of a block that has begun are told from the clock.
    const count = large ? samplesOf(large).length : 0;
    expect(count).toBeWithin(12, 17);
    // None warmed up afterwards.
    expect(iterations.get(64)).toBe(count);
    expect(small && samplesOf(small).length * 100).toBeLessThan(60_000);
    expect(loading).toBeGreaterThan(large?.blocks.length ?? 0);
  });

  test("are of one loading where one is asked for, and end by their own mean", async () => {
    const { options, opened } = pretend((_, iteration) => 10 + (iteration % 3) / 100);
    const { batches, ended } = await takeBlocks(settings, { ...options, blocksMin: 1 });
    expect(ended).toBe("precision");
    expect(opened()).toBe(1);
    expect(batches[0] && lengthsOf(batches[0])).toEqual([10]);
  });

  test("are as many as later loadings take time, however long the first one takes", async () => {
    const { options } = pretend(() => 1);
    let first = true;
    const open: typeof options.open = async (onLoading) => {
      await Bun.sleep(first ? 1500 : 20);
      first = false;
      return options.open(onLoading);
    };
    const { batches } = await takeBlocks(settings, { ...options, open });
    // About twenty, or some more on a machine that is busy; 1,500 if the first loading told.
    for (const length of batches.flatMap(lengthsOf).slice(2)) expect(length).toBeWithin(10, 1000);
  });
});

test("later loadings warm up with three iterations at most", async () => {
  const asked = async (warmup: number) => {
    const { options, log } = pretend(() => 5);
    await takeBlocks({ ...settings, iterations: 10, warmup }, options);
    return log
      .join(" ")
      .split("close")
      .map((loading) => loading.split("iterate").length - 1)
      .slice(0, 3);
  };
  expect(await asked(8)).toEqual([9, 4, 4]);
  expect(await asked(1)).toEqual([2, 2, 2]);
  expect(await asked(0)).toEqual([1, 1, 1]);
});

describe("what ends it before its time", () => {
  test("keeps what was measured, closes what is open, and tells of each batch size that it is over", async () => {
    const controller = new AbortController();
    let iterations = 0;
    const { options, log } = pretend(() => {
      if (++iterations === 5) controller.abort();
      return 5;
    });
    const marks: string[] = [];
    const { batches, ended } = await takeBlocks(
      { ...settings, iterations: 40, batch_sizes: [2, 1] },
      {
        ...options,
        signal: controller.signal,
        onWarm: (size) => marks.push(`warm ${size}`),
        onOver: (size) => marks.push(`over ${size}`),
      },
    );
    expect(ended).toBe("signal");
    expect(batches.map(({ batchSize }) => batchSize)).toEqual([2, 1]);
    expect(batches.map((batch) => samplesOf(batch).length)).toEqual([4, 1]);
    expect(log.at(-1)).toBe("close 0");
    expect(marks).toEqual(["warm 2", "over 2", "warm 1", "over 1"]);
  });

  test("is an error of loading or of an iteration, which is thrown once all is closed", async () => {
    const { options, log } = pretend(() => {
      throw new Error("an iteration failed");
    });
    await expect(takeBlocks({ ...settings, iterations: 4 }, options)).rejects.toThrow("an iteration failed");
    expect(log.at(-1)).toBe("close 0");
    const open = () => Promise.reject(new Error("it cannot be loaded"));
    await expect(takeBlocks({ ...settings, iterations: 4 }, { ...options, open })).rejects.toThrow(
      "it cannot be loaded",
    );
  });
});

test("progress never falls, and names the loading", async () => {
  const { options } = pretend(() => 5);
  const told: (readonly [number, string])[] = [];
  const onProgress = (share: number, doing: string) => told.push([share, doing]);
  await takeBlocks({ ...settings, iterations: 40, batch_sizes: [1, 2] }, { ...options, onProgress });
  const shares = told.map(([share]) => share);
  expect(shares).toEqual([...shares].sort((a, b) => a - b));
  expect(shares.at(-1)).toBeWithin(0.9, 1.001);
  expect(told.at(0)).toEqual([0, "loading 1 of 10"]);
  expect(told.at(-1)?.[1]).toBe("loading 10 of 10");
});
