// Places ops on this machine's roofline (Williams et al. 2009): which of its limits an op runs into, how near it comes to it, and
// how long it would take there. An op makes demands: bytes that come out of a level, operations of a kind. The demand that takes
// longest at its roof is what holds the op; the others fit beside it.
//
// Bytes are from the cache statistics where they tell ops apart: what a level did not have came out of the one behind it. Without
// such it is taken that a step goes through all weights, and that they come from memory if the last level does not hold them
// all; what else an op touches comes from the first level behind L1D that holds it.

import type { OpInfo } from "./events.ts";
import type { OpRow, Profile } from "./profile.ts";
import type { Bound, CacheName, CacheStatistics, MachineRoofs, Roofline, RooflineRow } from "./report.ts";

/** What something is made of, and what the machine gives of it at most. */
export interface Demand {
  readonly bound: Exclude<Bound, "overhead">;
  /** Bytes, or operations. */
  readonly amount: number;
  /** In units a nanosecond: GB/s, GFLOP/s, GOP/s. */
  readonly roof: number;
}

export interface Verdict {
  readonly bound: Demand["bound"];
  readonly unit: RooflineRow["unit"];
  /** In `unit`, as `roof`. */
  readonly achieved: number;
  readonly roof: number;
  /** What it would take at the roof. */
  readonly roofNs: number;
  /** Of the roof that is reached; above 1 where the roof was measured in a slower moment. */
  readonly share: number;
}

/** The roof that allows no shorter time, and what is reached of it in `wallNs`. There is at least one demand. */
export function judge(demands: readonly [Demand, ...Demand[]], wallNs: number): Verdict {
  const [first, ...others] = demands;
  let longest = first;
  for (const demand of others) if (timeOf(demand) > timeOf(longest)) longest = demand;
  const { bound, amount, roof } = longest;
  const roofNs = timeOf(longest);
  return { bound, unit: unitOf(bound), achieved: amount / wallNs, roof, roofNs, share: roofNs / wallNs };
}

function timeOf({ amount, roof }: Demand): number {
  return amount === 0 ? 0 : amount / roof;
}

function unitOf(bound: Demand["bound"]): RooflineRow["unit"] {
  switch (bound) {
    case "float":
    case "bf16":
      return "GFLOP/s";
    case "int8":
    case "int16":
      return "GOP/s";
    default:
      return "GB/s";
  }
}

export type Arithmetic = "float" | "int8" | "int16";

/** Which peak holds an arithmetic: where no instruction multiplies int16, the same products are of float32. */
export function peakOf(arithmetic: Arithmetic, peaks: MachineRoofs["peaks"]): Demand {
  const bound = peaks[arithmetic] > 0 ? arithmetic : "float";
  return { bound, amount: 0, roof: peaks[bound] };
}

/** Kinds that multiply weights; the others compute with float32. */
const products: ReadonlySet<string> = new Set(["matmul", "screen", "screen_product"]);
const floatFormats: Readonly<Record<string, Arithmetic>> = { f32: "float", f16: "int16", bf16: "int16" };

/** What a kernel such as `matmul.q8_0.avx2` multiplies: quantized weights as int8, those of 16 bits as int16. */
export function arithmeticOf({ kind, kernel }: { readonly kind: string; readonly kernel: string }): Arithmetic {
  if (!products.has(kind)) return "float";
  return floatFormats[kernel.split(".")[1] ?? ""] ?? "int8";
}

/** An op that takes no longer in a step, and hardly anything of that at its roof, is held by being started and awaited. */
const overheadNs = 10_000;
const overheadShare = 0.25;

/**
 * Ops and kinds of a profile on the roofline of the machine that it was made on.
 * @param ops the program's op list, as the profile was made with.
 * @param cache of the same steps; null: there are none. Those of the CPU's counters do not tell ops apart, and are not used.
 * @param phase of the steps that the profile is of. Where prompt and generation are in one profile, an op's bound is that of both
 * together.
 */
export function placeOnRoofline(
  profile: Pick<Profile, "byOp" | "byKind">,
  ops: readonly OpInfo[],
  machine: MachineRoofs,
  cache: CacheStatistics | null,
  phase: RooflineRow["phase"] = "all",
): Roofline {
  const sources = countsByOp(cache) ? countedSources(cache) : assumedSources(ops, machine);
  const placed = profile.byOp.filter(({ wallNs }) => wallNs > 0).map((op) => place(op, ops, machine, sources, phase));
  const byKind = profile.byKind.flatMap((kind): RooflineRow[] => {
    const rows = placed.filter(({ row }) => row.kind === kind.kind);
    // What took longest at its roof stands for the kind.
    const [longest] = [...rows].sort((a, b) => b.verdict.roofNs - a.verdict.roofNs);
    if (!longest || kind.wallNs === 0) return [];
    const { bound, roof, unit } = longest.verdict;
    const roofNs = rows.reduce((sum, { verdict }) => sum + verdict.roofNs, 0);
    const share = roofNs / kind.wallNs;
    const steps = rows.reduce((sum, { count }) => sum + count, 0);
    return [
      {
        index: -1,
        name: kind.kind,
        kind: kind.kind,
        layer: -1,
        phase,
        intensity: intensityOf(kind),
        bound: withOverhead(bound, share, kind.wallNs / steps),
        achieved: share * roof,
        roof,
        unit,
        wallNs: kind.wallNs,
        roofNs,
        share,
      },
    ];
  });
  return { machine, byOp: placed.map(({ row }) => row), byKind };
}

/** Whether the statistics say of each op where its bytes came from. */
export function countsByOp(cache: CacheStatistics | null): cache is CacheStatistics {
  return cache !== null && cache.byOp.length > 0;
}

interface Placed {
  readonly row: RooflineRow;
  readonly verdict: Verdict;
  /** Steps that it ran in. */
  readonly count: number;
}

function place(
  op: OpRow,
  ops: readonly OpInfo[],
  machine: MachineRoofs,
  sources: Sources,
  phase: RooflineRow["phase"],
): Placed {
  const info = ops[op.index];
  const arithmetic: Demand = { ...peakOf(arithmeticOf(op), machine.peaks), amount: op.operations };
  const bytes = sources(op, info).map(({ name, bytes: amount }): Demand => ({ ...bandwidthOf(name, machine), amount }));
  const verdict = judge([arithmetic, ...bytes], op.wallNs);
  const { index, name, kind, layer, wallNs, count } = op;
  const bound = withOverhead(verdict.bound, verdict.share, wallNs / count);
  const intensity = intensityOf(op);
  return { row: { index, name, kind, layer, phase, intensity, wallNs, ...verdict, bound }, verdict, count };
}

function withOverhead(bound: Demand["bound"], share: number, stepNs: number): Bound {
  return share < overheadShare && stepNs < overheadNs ? "overhead" : bound;
}

function intensityOf({ bytes, operations }: { readonly bytes: number; readonly operations: number }): number {
  return bytes === 0 ? 0 : operations / bytes;
}

type Level = CacheName | "memory";
const levels: readonly Level[] = ["L1D", "L2", "L3", "memory"];

/** Reading from a level; from the one behind it where the machine has none such. */
function bandwidthOf(name: Level, { bandwidth }: MachineRoofs): Demand {
  for (const level of levels.slice(levels.indexOf(name))) {
    const row = bandwidth.find((each) => each.name === level);
    if (row) return { bound: level, amount: 0, roof: row.read };
  }
  throw new RangeError("the machine's roofs have no memory");
}

/** Bytes of an op by the level that they came out of. */
type Sources = (op: OpRow, info: OpInfo | undefined) => readonly { readonly name: Level; readonly bytes: number }[];

function countedSources({ byOp, geometry }: CacheStatistics): Sources {
  const counted = new Map(byOp.map((row) => [row.index, row]));
  return (op) => {
    const row = counted.get(op.index);
    if (!row) return [{ name: "L1D", bytes: op.bytes }];
    const { memoryBytes } = row;
    // What a prefetcher has brought into a level is no miss there, but has come from behind it all the same.
    const behind = geometry.slice(1).map(({ name }, place) => {
      const before = row.levels.find((level) => level.name === geometry[place]?.name);
      return { name, bytes: Math.max(memoryBytes, (before?.misses ?? 0) * (geometry[place]?.lineBytes ?? 0)) };
    });
    return [{ name: "L1D", bytes: op.bytes }, ...behind, { name: "memory", bytes: memoryBytes }];
  };
}

function assumedSources(ops: readonly OpInfo[], machine: MachineRoofs): Sources {
  const weightBytes = ops.reduce((sum, { bytesPerStep }) => sum + bytesPerStep, 0);
  const weightSource = holderOf(weightBytes, machine);
  return (op, info) => {
    const weights = (info?.bytesPerStep ?? 0) * op.count;
    const others = Math.max(0, op.bytes - weights);
    return [
      { name: weightSource, bytes: weights },
      { name: holderOf(others / op.count, machine), bytes: others },
    ];
  };
}

/** The first level behind L1D that holds so many bytes, of all threads together. */
function holderOf(bytes: number, { bandwidth, threads, lastLevelBytes }: MachineRoofs): Level {
  for (const { name, workingBytes } of bandwidth) {
    // A level's bandwidth is measured with half of it.
    const held = name === "L3" ? lastLevelBytes : 2 * workingBytes * threads;
    if (name !== "L1D" && bytes <= held) return name;
  }
  return "memory";
}
