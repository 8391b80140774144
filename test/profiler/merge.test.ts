// Profiles of parts that are merged, beside the profile of the whole: of threads, of runs, of processes, through JSON text.

import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import fc from "fast-check";
import { mergeProfiles, type OpInfo, type Profile, ProfileMergeError, Profiler } from "../../profiler/index.ts";
import { temporaryFolder } from "../support/folder.ts";
import { Random } from "../support/random.ts";
import { encode, opList, randomStep, type TestEvent } from "./stream.ts";

const folder = temporaryFolder();

const OPS = opList([
  { name: "blk.0.norm", kind: "norm", layer: 0 },
  { name: "blk.0.q", kind: "matmul", layer: 0, bytesPerStep: 1000, bytesPerRow: 20, operationsPerRow: 500 },
  { name: "blk.1.q", kind: "matmul", layer: 1, bytesPerStep: 400, bytesPerRow: 10, operationsPerRow: 200 },
  { name: "head", kind: "matmul", layer: -1, bytesPerStep: 9000, bytesPerRow: 100, operationsPerRow: 4000 },
]);

/** Steps 1 to `count`, each with its events. */
function stepsOf(seed: number, count: number): TestEvent[][] {
  const random = new Random(seed);
  let at = 1000;
  return Array.from({ length: count }, (_, index) => {
    const { events, end } = randomStep(random, OPS.length, index + 1, at);
    at = end + random.below(5000);
    return events;
  });
}

function profileOf(steps: readonly TestEvent[][], ops: readonly OpInfo[] = OPS, lost = 0): Profile {
  const profiler = new Profiler(ops);
  profiler.drain(encode(steps.flat()), lost);
  return profiler.result({ histograms: true });
}

/** Spans are added and not joined, since clocks differ. */
function withoutSpan(profile: Profile): Omit<Profile, "spanNs"> {
  const { spanNs: _, ...rest } = profile;
  return rest;
}

/** A profile as another process would send it. */
function sent(profile: Profile): Profile {
  return JSON.parse(JSON.stringify(profile));
}

describe("merged profiles", () => {
  test("equal the profile of the whole, however the steps are dealt out, exactly and through JSON text", () => {
    const steps = stepsOf(3, 120);
    const whole = profileOf(steps, OPS, 5);
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 120, maxLength: 120 }), (part) => {
        const parts = [0, 1, 2, 3].map((index) =>
          profileOf(
            steps.filter((_, step) => part[step] === index),
            OPS,
            index === 0 ? 2 : 1,
          ),
        );
        const merged = mergeProfiles(parts.map(sent));
        expect(withoutSpan(merged)).toEqual(withoutSpan(whole));
        expect(merged.spanNs).toBe(parts.reduce((sum, { spanNs }) => sum + spanNs, 0));
      }),
      { numRuns: 20 },
    );
  });

  test("can be merged again", () => {
    const steps = stepsOf(4, 30);
    const parts = [steps.slice(0, 10), steps.slice(10, 15), steps.slice(15)].map((part) => profileOf(part));
    const [first, second, third] = parts as [Profile, Profile, Profile];
    const stepwise = mergeProfiles([mergeProfiles([first, second]), third]);
    expect(stepwise).toEqual(mergeProfiles(parts));
    expect(withoutSpan(stepwise)).toEqual(withoutSpan(profileOf(steps)));
  });

  test("come from other processes too", async () => {
    const steps = stepsOf(5, 40);
    const folderOf = join(import.meta.dir, "../../profiler/index.ts");
    const script = folder.write(
      "profile.ts",
      `import { Profiler } from ${JSON.stringify(folderOf)};
const profiler = new Profiler(${JSON.stringify(OPS)});
profiler.drain(await Bun.stdin.bytes());
console.log(JSON.stringify(profiler.result({ histograms: true })));`,
    );
    const parts = await Promise.all(
      [steps.slice(0, 13), steps.slice(13)].map(async (part): Promise<Profile> => {
        const child = Bun.spawn([process.execPath, script], { stdin: encode(part.flat()), stdout: "pipe" });
        return JSON.parse(await new Response(child.stdout).text());
      }),
    );
    expect(withoutSpan(mergeProfiles(parts))).toEqual(withoutSpan(profileOf(steps)));
  });

  test("have the ops of all, where some ran in one part alone", () => {
    const steps = stepsOf(6, 20);
    const without = (op: number) => steps.map((events) => events.filter((event) => event.op !== op));
    const merged = mergeProfiles([profileOf(without(1)), profileOf(without(3))]);
    expect(merged.byOp.map(({ name, count }) => [name, count])).toEqual([
      ["blk.0.norm", 40],
      ["blk.0.q", 20],
      ["blk.1.q", 40],
      ["head", 20],
    ]);
    expect(merged.byKind.map(({ kind, ops, count }) => [kind, ops, count])).toEqual([
      ["norm", 1, 40],
      ["matmul", 3, 80],
    ]);
  });

  test("of nothing, or of profiles without a step, are empty", () => {
    const empty = new Profiler(OPS).result();
    expect(mergeProfiles([])).toEqual(mergeProfiles([empty, empty]));
    expect(mergeProfiles([])).toMatchObject({ totalTime: 0, byOp: [], threads: [], steps: { count: 0 } });
  });

  test("are refused with the difference, if they are of different programs", () => {
    const steps = stepsOf(7, 3);
    const profile = profileOf(steps);
    const differing: [Partial<OpInfo>, RegExp][] = [
      [
        { name: "blk.0.k" },
        /profiles\[1\]: op 1 \(blk\.0\.k\) has the name blk\.0\.k, in the profiles before it blk\.0\.q/,
      ],
      [{ kernel: "matmul.q8_0.avx2" }, /op 1 \(blk\.0\.q\) has the kernel matmul\.q8_0\.avx2, .* matmul\.test/],
      [{ kind: "embed" }, /the kind embed/],
      [{ layer: 7 }, /the layer 7/],
    ];
    for (const [change, message] of differing) {
      const ops = OPS.map((op) => (op.index === 1 ? { ...op, ...change } : op));
      const merge = () => mergeProfiles([profile, profileOf(steps, ops)]);
      expect(merge).toThrow(ProfileMergeError);
      expect(merge).toThrow(message);
    }
  });

  test("are refused where a row has no histogram, or not its own", () => {
    const steps = stepsOf(8, 3);
    const profiler = new Profiler(OPS);
    profiler.drain(encode(steps.flat()));
    const [bare, full] = [profiler.result(), profiler.result({ histograms: true })];
    expect(() => mergeProfiles([full, bare])).toThrow(/profiles\[1\]\.byOp\[0\]: has no histogram; take profiles/);
    const damaged = sent(full);
    Object.assign(damaged.steps.histogram ?? {}, { encoded: "AAAA" });
    expect(() => mergeProfiles([damaged])).toThrow(/profiles\[0\]\.steps: histogram: the field encoded/);
    const changed = { ...full, waiting: { ...full.waiting, count: 9 } };
    expect(() => mergeProfiles([changed])).toThrow(ProfileMergeError);
    expect(() => mergeProfiles([changed])).toThrow(
      /profiles\[0\]\.waiting: its histogram has 3 times in ns, but the row 9/,
    );
  });
});
