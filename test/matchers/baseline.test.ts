// The matcher of baselines in `bun test` processes of their own, on made-up runs of a machine whose speed wanders; and what its
// verdict is made from.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import type { Bucket } from "../../profiler/buckets.ts";
import { DurationHistogram } from "../../profiler/index.ts";
import type { Report } from "../../profiler/report.ts";
import { drawBeside } from "../../src/test/draw.ts";
import { deviations, knowsState } from "../../src/test/expected.ts";
import { temporaryFolder } from "../support/folder.ts";
import { Random } from "../support/random.ts";
import { bareReport, changed } from "../support/report.ts";
import { runTest } from "./support.ts";

setDefaultTimeout(120_000);

const steps = 30;
/** Ops that are as long as each other; how much of the memory's state is in them. */
const roles = [
  { name: "head", layers: 1, ns: 2_000_000, memory: 1 },
  { name: "up", layers: 9, ns: 100_000, memory: 0.9 },
  { name: "down", layers: 9, ns: 120_000, memory: 0.7 },
  { name: "mix", layers: 9, ns: 40_000, memory: 0.4 },
  { name: "norm", layers: 9, ns: 10_000, memory: 0 },
  { name: "tiny", layers: 1, ns: 200, memory: 0 },
] as const;
type Role = (typeof roles)[number]["name"];

/**
 * A run on a machine whose clock and memory differ from run to run, and for moments.
 * @param slower what each op's time is multiplied by.
 */
function madeUpRun(seed: number, slower: Partial<Record<Role, number>> = {}, state?: number): Report {
  const random = new Random(seed);
  const clock = 0.1 * random.normal();
  const memory = state ?? 0.2 * random.uniform();
  const byOp = roles
    .flatMap(({ name, layers, ns, memory: bound }) =>
      Array.from({ length: layers }, (_, layer) => {
        const durations = new DurationHistogram();
        const typical = ns * Math.exp(clock + bound * memory + 0.002 * random.normal()) * (slower[name] ?? 1);
        for (let step = 0; step < steps; step++) {
          const disturbed = random.uniform() < 0.2 ? 1 + random.uniform() : 1;
          durations.record(Math.round(typical * disturbed * (1 + 0.02 * random.uniform())));
        }
        return { name: layers === 1 ? name : `blk.${layer}.${name}`, layer: layers === 1 ? -1 : layer, durations };
      }),
    )
    .map(({ durations, ...op }, index) => ({
      ...op,
      index,
      kind: "matmul",
      kernel: "matmul.q8_0.avx2",
      rows: steps,
      count: steps,
      totalNs: durations.total,
      share: 0,
      p50Ns: durations.percentile(50),
      p90Ns: durations.percentile(90),
      p99Ns: durations.percentile(99),
      maxNs: durations.max,
      histogram: durations.toJSON(),
      waitNs: 0,
      wallNs: durations.total,
      bytes: 1,
      operations: 1,
      gigabytesPerSecond: null,
      gigaflopsPerSecond: null,
    }));
  return { ...bareReport(), rows: steps, byOp };
}

const recorded = Array.from({ length: 24 }, (_, seed) => madeUpRun(seed));
const filePath = "__performance__/model.test.ts.baselines.json";
/** What `bun test` allows a test by default is little for so many runs on a busy machine. */
const patient = { flags: ["--timeout", "60000"] };
const one = `expect(run).toMatchPerformanceBaseline("story");`;
const record = `for (const one of run.slice(0, 24)) expect(one).toMatchPerformanceBaseline("story");`;

describe("toMatchPerformanceBaseline", () => {
  test("passes while the whole machine wanders, and names the op that became slower alone", async () => {
    const folder = temporaryFolder();
    const fresh = Array.from({ length: 8 }, (_, seed) => madeUpRun(100 + seed));
    const runs = [
      ...recorded,
      ...fresh,
      madeUpRun(130, { down: 1.1 }),
      madeUpRun(131, {}, 0.7),
      madeUpRun(132, { head: 0.6 }),
    ];
    const { status, output } = await runTest(
      folder,
      runs,
      `${record}
      for (const one of run.slice(24, 32)) expect(one).toMatchPerformanceBaseline("story", { tolerance: 0.01 });
      // A memory slower than it ever was, and an op that became faster.
      for (const one of run.slice(33)) expect(one).toMatchPerformanceBaseline("story", { tolerance: 0.01 });
      expect(run[32]).not.toMatchPerformanceBaseline("story", { tolerance: 0.02 });
      expect(run[32]).toMatchPerformanceBaseline("story", { tolerance: 0.12 });
      expect(run[32]).toMatchPerformanceBaseline("story", { tolerance: 0.02 });`,
      patient,
    );
    expect(status).toBe(1);
    const longer = /"story": down \(matmul\.q8_0\.avx2\) in 9 layers took (\d+\.\d) % longer than the other ops/.exec(
      output,
    );
    expect(Math.abs(Number(longer?.[1]) - 10)).toBeLessThan(1.5);
    expect(output).toContain("the limit is 2.0 %");
    expect(output).toMatch(/the op to blame: down \(matmul\.q8_0\.avx2\) in 9 layers, \d+\.\d % slower/);
    expect(output).toMatch(/expected +measured\n/);
    // What passed was added, what failed was not.
    const kept = JSON.parse(readFileSync(folder.file(filePath), "utf8"));
    const [baseline] = Object.values<{ runs: number[][]; ops: string[] }>(kept["story"]);
    expect(baseline?.runs).toHaveLength(24 + 8 + 2 + 1);
    expect(baseline?.ops).toEqual(roles.map(({ name }) => name));
  });

  test("judges nothing in a state of the machine that no recorded run knew, says so, and knows it from then on", async () => {
    const folder = temporaryFolder();
    const slow = (seed: number, slower = {}): Report => madeUpRun(seed, slower, 0.9);
    const runs = [...recorded, slow(80), slow(81), slow(82), slow(83), slow(84, { down: 1.3 })];
    const { status, output } = await runTest(
      folder,
      runs,
      `${record}
      expect(run[24]).toMatchPerformanceBaseline("story");
      for (const one of run.slice(25, 28)) expect(one).toMatchPerformanceBaseline("story");
      expect(run[28]).not.toMatchPerformanceBaseline("story");`,
      patient,
    );
    expect({ status, output }).toEqual({
      status: 0,
      output: expect.stringContaining("in a state that none of 24 recorded runs knew; nothing is judged"),
    });
  });

  test("judges nothing until enough runs are recorded, and says how many there are", async () => {
    const folder = temporaryFolder();
    const runs = [...recorded.slice(0, 7), madeUpRun(50, { up: 3 })];
    const { status, output } = await runTest(folder, runs, record, patient);
    expect({ status, output }).toEqual({ status: 0, output: expect.stringContaining("8 runs of 48 recorded; ") });
    const listed = await runTest(temporaryFolder(), runs, one, patient);
    expect(listed.output).toContain("1 run of 48 recorded (this one of 8 profiles together); ");
  });

  test("says under .not that a run matches and was expected not to", async () => {
    const folder = temporaryFolder();
    const { status, output } = await runTest(
      folder,
      [...recorded, madeUpRun(60)],
      `${record}
      expect(run[24]).not.toMatchPerformanceBaseline("story");`,
      patient,
    );
    expect(status).toBe(1);
    expect(output).toContain('"story": expected not to match the baseline, but no op took more than 5.0 % longer');
  });

  test("is not written in CI without being asked, and a baseline that is too small is an error there", async () => {
    const folder = temporaryFolder();
    const [first = madeUpRun(0)] = recorded;
    const refused = await runTest(folder, first, one, { environment: { CI: "1" } });
    expect(refused.status).toBe(1);
    expect(refused.output).toMatch(
      /has 0 runs of "story" .* on .*: commit the __performance__ file .*TINYAI_UPDATE_BASELINES=add, or leave this matcher out/,
    );
    expect(existsSync(folder.file(filePath))).toBe(false);
    const added = await runTest(folder, first, one, { environment: { CI: "1", TINYAI_UPDATE_BASELINES: "add" } });
    expect(added).toEqual({
      status: 0,
      output: expect.stringContaining('the baseline "story": 1 run of 48 recorded, this one without a judgement\n'),
    });
    expect(existsSync(folder.file(filePath))).toBe(true);
    expect((await runTest(folder, recorded, record, patient)).status).toBe(0);
    const before = readFileSync(folder.file(filePath), "utf8");
    const judged = await runTest(folder, madeUpRun(60), one, {
      environment: { CI: "1" },
    });
    expect(judged.status).toBe(0);
    expect(readFileSync(folder.file(filePath), "utf8")).toBe(before);
  });

  test("begins anew with -u, and keeps other names and other machines apart", async () => {
    const folder = temporaryFolder();
    const other = recorded.map((run) => ({ ...run, machine: { ...run.machine, fingerprint: "other" } }));
    const runs = [...recorded.slice(0, 6), ...other.slice(0, 3)];
    const both = `for (const one of run) expect(one).toMatchPerformanceBaseline("story");
      for (const one of run.slice(5, 7)) expect(one).toMatchPerformanceBaseline("tale");`;
    expect((await runTest(folder, runs, both, patient)).status).toBe(0);
    const anew = await runTest(folder, recorded.slice(0, 9), record, { flags: ["-u", ...patient.flags] });
    expect(anew.status).toBe(0);
    expect(anew.output).toContain(
      'the baseline "story": it is begun anew, 1 run of 48 recorded; it is judged from 8 on\n',
    );
    expect(anew.output).toContain('the baseline "story": 2 runs of 48 recorded; ');
    const kept: Record<string, Record<string, { runs: number[][] }>> = JSON.parse(
      readFileSync(folder.file(filePath), "utf8"),
    );
    const sizes = Object.entries(kept).map(([name, machines]) => [
      name,
      Object.values(machines).map(({ runs }) => runs.length),
    ]);
    expect(sizes).toEqual([
      ["story", [9, 3]],
      ["tale", [1, 1]],
    ]);
  });

  test("keeps runs with other options apart, where they change how long an op takes", async () => {
    const folder = temporaryFolder();
    const run = madeUpRun(0);
    const runs = [
      run,
      changed(run, { run: { options: { kvCache: "q8_0" } } }),
      changed(run, { run: { options: { screening: true } } }),
      changed(run, { run: { options: { tuning: "fixed" } } }),
      changed(run, { run: { options: { prepared: !run.run.options.prepared } } }),
      changed(run, { run: { batchSize: run.run.batchSize + 1 } }),
      changed(run, { run: { contextLength: run.run.contextLength + 1 } }),
      changed(run, {
        run: { startedAt: "2031-01-01T00:00:00Z", options: { prefixCache: !run.run.options.prefixCache } },
      }),
    ];
    expect((await runTest(folder, runs, `for (const one of run) ${one.replace("(run)", "(one)")}`)).status).toBe(0);
    const kept: { story: Record<string, { runs: number[][] }> } = JSON.parse(
      readFileSync(folder.file(filePath), "utf8"),
    );
    expect(Object.values(kept.story).map(({ runs }) => runs.length)).toEqual([2, 1, 1, 1, 1, 1, 1]);
    expect((await runTest(folder, runs, one)).output).toContain("run[1]: is of another machine, model or options");
  });

  test("fails runs of other work, and refuses what is no name, option or file", async () => {
    const folder = temporaryFolder();
    const longer = { ...madeUpRun(70), rows: steps + 1 };
    const { status, output } = await runTest(
      folder,
      [...recorded, longer],
      `${record}
      for (const wrong of [undefined, "", 3]) expect(() => expect(run[0]).toMatchPerformanceBaseline(wrong)).toThrow(/^name/);
      for (const wrong of [{ tolerance: -1 }, { tolerance: "5 %" }, { limit: 1 }, 0.05])
        expect(() => expect(run[0]).toMatchPerformanceBaseline("story", wrong)).toThrow(/^options/);
      expect(() => expect([run[0], { ...run[0], machine: { fingerprint: "x" } }]).toMatchPerformanceBaseline("story")).toThrow(/^run\\[1\\]/);
      expect(run[24]).toMatchPerformanceBaseline("story");`,
    );
    expect(status).toBe(1);
    expect(output).toContain('the baseline "story" is of other work: 31 tokens went through the steps, before 30\n');
    expect(output).toContain("cachePrompt: false");
    writeFileSync(folder.file(filePath), `{"story": {"machine": {"runs": [[1]]}}}`);
    const damaged = await runTest(folder, recorded, record, patient);
    expect(damaged.status).toBe(1);
    expect(damaged.output).toContain('is damaged, or of another version: the entry "story"');
  });

  test("refuses a TINYAI_UPDATE_BASELINES that is none, and names the choices", async () => {
    const folder = temporaryFolder();
    for (const flags of [[], ["-u"]]) {
      const { status, output } = await runTest(folder, madeUpRun(0), one, {
        environment: { TINYAI_UPDATE_BASELINES: "foo" },
        flags,
      });
      expect(status).toBe(1);
      expect(output).toContain('OptionError: TINYAI_UPDATE_BASELINES: is "foo"; there are 1 or true');
    }
    for (const value of ["", "0", "false"]) {
      const { output } = await runTest(folder, madeUpRun(0), one, { environment: { TINYAI_UPDATE_BASELINES: value } });
      expect(output).toContain(" 0 fail");
      expect(output).not.toContain("begun anew");
    }
  });

  test("keeps what is whole of a damaged file that is begun anew, and says so", async () => {
    const folder = temporaryFolder();
    await runTest(folder, madeUpRun(0), one.replace("story", "tale"));
    const whole = JSON.parse(readFileSync(folder.file(filePath), "utf8"));
    for (const [text, names] of [
      ["{", ["story"]],
      ["", ["story"]],
      [JSON.stringify({ ...whole, other: 7 }), ["story", "tale"]],
    ] as const) {
      writeFileSync(folder.file(filePath), text);
      const { status, output } = await runTest(folder, madeUpRun(0), one, { flags: ["-u"] });
      expect({ text, status }).toEqual({ text, status: 0 });
      expect(output).toMatch(/baselines\.json: is damaged.*; that is begun anew\n/);
      expect(Object.keys(JSON.parse(readFileSync(folder.file(filePath), "utf8")))).toEqual([...names]);
    }
  });
});

describe("what the other ops let expect", () => {
  /** Runs of three ops: the second goes with the square of the first, the third with neither; each with a little noise. */
  const random = new Random(5);
  const runs = Array.from({ length: 200 }, () => {
    const state = 0.3 * random.normal();
    return [
      1000 * Math.exp(state),
      500 * Math.exp(2 * state + 0.001 * random.normal()),
      300 * Math.exp(0.001 * random.normal()),
    ];
  });

  test("is what ops did together before, also where they do not slow down alike", () => {
    const [, second, third] = deviations(runs, [1000 * Math.exp(0.4), 500 * Math.exp(0.8), 300], 0.01);
    expect(Math.abs((second?.foretold ?? 0) - 0.8)).toBeLessThan(0.02);
    expect(Math.abs(third?.foretold ?? 1)).toBeLessThan(0.01);
  });

  test("is surer the more runs are known, and less sure far from their states", () => {
    const chance = (count: number, state: number): number => {
      const run = [1000 * Math.exp(state), 500 * Math.exp(2 * state), 300];
      return deviations(runs.slice(0, count), run, 0.01)[1]?.chance ?? 0;
    };
    expect(chance(200, 0)).toBeLessThan(chance(20, 0));
    expect(chance(20, 0)).toBeLessThan(chance(6, 0));
    expect(chance(20, 0)).toBeLessThan(0.5 * chance(20, 5));
  });

  test("is of states that are known, where one op's time is not the machine's", () => {
    const known = [
      [1000, 500, 300],
      [2000, 1000, 600],
    ];
    expect(knowsState(known, [1050, 520, 290])).toBe(true);
    expect(knowsState(known, [2000, 1000, 3000])).toBe(true);
    expect(knowsState(known, [1500, 750, 450])).toBe(false);
  });

  test("leaves ops out that tell nothing of the machine", () => {
    const alike = Array.from({ length: 30 }, () => {
      const state = 0.3 * random.normal();
      return Array.from({ length: 6 }, () => 1000 * Math.exp(state + 0.003 * random.normal()));
    });
    const judged = deviations(alike, [500, 1000, 1000, 1000, 1000, 1000], 0.01);
    const mean = alike.reduce((sum, run) => sum + Math.log(run[0] ?? 1), 0) / alike.length;
    expect(Math.abs((judged[0]?.excess ?? 0) - Math.log(0.5))).toBeLessThan(0.02);
    for (const { foretold, excess, chance } of judged.slice(1)) {
      expect(Math.abs(foretold - (Math.log(1000) - mean))).toBeLessThan(0.02);
      expect(Math.abs(excess)).toBeLessThan(chance);
    }
  });
});

test("two distributions drawn beside each other have all their values", () => {
  const spread = (factor: number): Bucket[] =>
    Array.from({ length: 200 }, (_, index) => ({ value: factor * 1e5 * 1.01 ** index, count: 1 + (index % 7) }));
  for (const factor of [1, 1.1, 40]) {
    const drawn = drawBeside(spread(1), spread(factor)).slice(1);
    const shares = drawn.map((line) => [...line.matchAll(/(\d+\.\d) %/g)].map(([, share]) => Number(share)));
    for (const column of [0, 1]) {
      expect(shares.reduce((sum, row) => sum + (row[column] ?? 0), 0)).toBeCloseTo(100, 0);
    }
    expect(drawn).toHaveLength(8);
  }
});
