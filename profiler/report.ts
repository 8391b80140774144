// What a whole profile says: the time (profile.ts), memory operations, cache statistics, the roofline, JavaScript's share, what
// the system gave, and findings in words. Plain data, JSON as it is; schema.json describes it. Types only: each part is made by
// a file of its own, and all parts but the time may be missing (null) when they were not asked for.

import type { HistogramData } from "./histogram.ts";
import type { OptimizationImpact } from "./impact.ts";
import type { Profile, TimeRow } from "./profile.ts";

/** What ran. Findings and fingerprints are made from it. */
export interface RunInfo {
  /** The model's file name, without its folder. */
  readonly model: string;
  /** Such as `gemma3`. */
  readonly architecture: string;
  readonly weightsBytes: number;
  /** The instruction-set level of the kernels. */
  readonly level: string;
  readonly threads: number;
  readonly contextLength: number;
  readonly batchSize: number;
  /** As `loadModel` took them. */
  readonly options: {
    readonly screening: boolean;
    /** Why the model cannot be screened; null: it can. */
    readonly screeningProblem: string | null;
    readonly kvCache: "f16" | "q8_0";
    readonly prefixCache: boolean;
    readonly prepared: boolean;
    readonly tuning: "measured" | "fixed";
    /** The widest level that this CPU has. */
    readonly widestLevel: string;
    /** CPUs that the process may use. */
    readonly usableCpus: number;
  };
  /** ISO 8601. */
  readonly startedAt: string;
  /** From start to stop, by JavaScript's monotonic clock. */
  readonly wallMs: number;
  /** TinyAI's own. */
  readonly version: string;
}

/** Where it ran. */
export interface MachineInfo {
  /** The processor's name as the system gives it. */
  readonly cpu: string;
  readonly cores: number;
  readonly memoryBytes: number;
  /** Such as `linux 6.1.0 x64`. */
  readonly system: string;
  readonly bun: string;
  /** What tells machines of different speed apart: a hash of the CPU's name, its cores, caches and instruction-set levels. */
  readonly fingerprint: string;
}

/** A histogram of amounts that are no times. */
export interface AmountRow {
  readonly unit: "bytes" | "operations" | "misses" | "ns";
  readonly count: number;
  readonly total: number;
  readonly min: number;
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly max: number;
  readonly histogram?: HistogramData;
}

/** Loads and stores are machine operations at the level's register width; bytes are what they move, caches or not. */
export interface MemoryCounts {
  readonly loads: number;
  readonly stores: number;
  readonly bytesRead: number;
  readonly bytesWritten: number;
}

/** What memory is for. `other` is stack, constants of the code and what else lies outside of all others. */
export const regions = ["weights", "constants", "keysValues", "activations", "scratch", "input", "other"] as const;
/** What a piece of memory is for. */
export type Region = (typeof regions)[number];

export interface OpMemoryRow extends MemoryCounts {
  /** As in the profile's `byOp`. */
  readonly index: number;
  readonly name: string;
  readonly kind: string;
  readonly layer: number;
}

/**
 * What the kernels read and wrote in all profiled steps, summed over the threads. Counted by kernels that report every access,
 * once for each shape of a step, and multiplied out.
 */
export interface MemoryOperations extends MemoryCounts {
  readonly byOp: readonly OpMemoryRow[];
  readonly byRegion: readonly (MemoryCounts & { readonly region: Region })[];
  /** Drawing tokens, which depends on the logits: counted on one draw for each kind of request. */
  readonly sampling: MemoryCounts;
  readonly perStep: {
    readonly loads: AmountRow;
    readonly stores: AmountRow;
    readonly bytesRead: AmountRow;
    readonly bytesWritten: AmountRow;
  };
  /** Arithmetic operations, from the ops' static cost. */
  readonly operations: number;
  /** Steps whose shape was not known (their records were lost): in no count. */
  readonly uncountedSteps: number;
}

/** A level of the caches that hold data. */
export type CacheName = "L1D" | "L2" | "L3";

/** A cache as the system describes it, or as it was measured. */
export interface CacheGeometry {
  readonly name: CacheName;
  readonly bytes: number;
  readonly ways: number;
  readonly lineBytes: number;
  /** Threads of the engine that share one. */
  readonly sharedBy: number;
}

/** What one level of the caches had, and had not. */
export interface CacheCounts {
  readonly name: CacheName;
  /** Accesses that reached this level, a line each; of those that were found, and that were not. */
  readonly accesses: number;
  readonly hits: number;
  readonly misses: number;
  /** hits / accesses; 1 when there were none. */
  readonly hitRate: number;
}

/** Cache statistics of all profiled steps, and where they come from. */
export interface CacheStatistics {
  readonly source: "hardware counters" | "simulator";
  /** One or two sentences: what was counted, what was simulated and scaled up, why not the other source. */
  readonly description: string;
  /** Of the first level. */
  readonly hitRate: number;
  readonly geometry: readonly CacheGeometry[];
  readonly levels: readonly CacheCounts[];
  readonly byOp: readonly {
    readonly index: number;
    readonly levels: readonly CacheCounts[];
    /** As the sum below; where a prefetcher is at work, misses do not tell it. */
    readonly memoryBytes: number;
  }[];
  /** Bytes that came from memory: lines that no level had, those a prefetcher brought included. */
  readonly memoryBytes: number;
  /** Whether a hardware prefetcher was modelled (simulator) or is at work (hardware). */
  readonly prefetcher: boolean;
  readonly simulatedSteps: number;
  readonly steps: number;
  /** Of all steps, each with what the simulated one that is most like it missed; empty: counters do not tell steps apart. */
  readonly missesPerStep: readonly { readonly name: CacheName; readonly misses: AmountRow }[];
  /** Hardware counters only. */
  readonly cycles: number | null;
  readonly instructions: number | null;
  readonly tlbMisses: number | null;
}

/** What this machine does at most, measured on as many threads at one instruction-set level, once, and kept. */
export interface MachineRoofs {
  /** ISO 8601. */
  readonly measuredAt: string;
  readonly level: string;
  readonly threads: number;
  /** GB/s; `workingBytes` a thread. */
  readonly bandwidth: readonly {
    readonly name: CacheName | "memory";
    readonly workingBytes: number;
    readonly read: number;
    readonly write: number;
    readonly copy: number;
  }[];
  /** 10^9 operations a second; 0 where the level has no such instructions. */
  readonly peaks: { readonly float: number; readonly int8: number; readonly int16: number; readonly bf16: number };
  /** Reading by working set (all threads together), GB/s, ascending. */
  readonly sweep: readonly { readonly bytes: number; readonly read: number }[];
  /** Where the sweep leaves the last level: its effective size, all threads together. */
  readonly lastLevelBytes: number;
}

/** What holds an op: a bandwidth, a peak, or neither, when it takes so little that starting it is most of it. */
export type Bound = "memory" | CacheName | "float" | "int8" | "int16" | "bf16" | "overhead";

/** An op, or all ops of a kind, on the roofline. Over all profiled steps. */
export interface RooflineRow {
  /** The op's index; -1: a kind. */
  readonly index: number;
  readonly name: string;
  readonly kind: string;
  readonly layer: number;
  readonly phase: "prompt" | "generation" | "all";
  /** Operations a byte. */
  readonly intensity: number;
  readonly bound: Bound;
  /** What it reached of the bound, in `unit`. */
  readonly achieved: number;
  readonly roof: number;
  readonly unit: "GB/s" | "GFLOP/s" | "GOP/s";
  /** Its wall time, and the time it would take at the roof. */
  readonly wallNs: number;
  readonly roofNs: number;
  /** roofNs / wallNs. */
  readonly share: number;
}

/** How near each op came to what the machine does at most. */
export interface Roofline {
  readonly machine: MachineRoofs;
  readonly byOp: readonly RooflineRow[];
  readonly byKind: readonly RooflineRow[];
}

/**
 * What JavaScript's thread did for the model. Times of one kind never overlap another's: each is without what ran inside it. A
 * consumer's is from when it is handed a piece of a stream until it asks for the next, or goes back to the event loop to wait.
 */
export interface JavaScriptRow {
  readonly name:
    | "tokenizing"
    | "submitting"
    | "records"
    | "detokenizing"
    | "consumer"
    | "profiling"
    | "garbageCollection";
  readonly count: number;
  readonly totalNs: number;
  readonly p50Ns: number;
  readonly p99Ns: number;
  readonly maxNs: number;
}

/**
 * Calls from JavaScript into the native library that requests needed. Looking whether something has come, reading clocks, and all that
 * watching needs is not in it, so that the same work has the same number: requests one after the other that end by themselves.
 */
export interface NativeCalls {
  /** Of all that follow. */
  readonly total: number;
  /** Requests handed over. */
  readonly requests: number;
  /**
   * Results taken over: one call for each step that told of some, and one more for each whose logits are read. A call may take those of
   * several steps where JavaScript comes late; it counts once for each.
   */
  readonly steps: number;
  /** Logits copied. */
  readonly logits: number;
  /** Vectors of texts copied. */
  readonly vectors: number;
  /** Pages of keys and values copied out of a session or into one, and sessions restored. */
  readonly sessions: number;
  /** Requests that were ended from outside, and sessions let go. */
  readonly cancelled: number;
}

/** What JavaScript's thread did meanwhile. */
export interface JavaScriptShare {
  /** From start to stop. */
  readonly wallNs: number;
  readonly rows: readonly JavaScriptRow[];
  readonly nativeCalls: NativeCalls;
  /** The thread's own CPU time, from the system; null where it is not known. */
  readonly cpuNs: number | null;
  /** How pauses of the garbage collector were found, or why they were not. */
  readonly garbageCollection: string;
}

/** What the system gave the process while it was watched. */
export interface SystemUse {
  readonly samples: readonly SystemSample[];
  readonly peakResidentBytes: number;
  readonly minorFaults: number;
  readonly majorFaults: number;
  readonly voluntarySwitches: number;
  readonly involuntarySwitches: number;
  /** User and system time of the process, ns. */
  readonly cpuNs: number;
  readonly allocations: Allocations;
}

/** What the process held and used at one time. */
export interface SystemSample {
  /** Since profiling began. */
  readonly atMs: number;
  readonly residentBytes: number;
  /** JavaScript's heap as it was at most a second before: it is known anew after each collection, and added up seldom. */
  readonly heapBytes: number;
  /** Memory that the native library holds, without address space that is only reserved. */
  readonly nativeBytes: number;
  /** Of all threads, since the sample before; 100: one CPU. */
  readonly cpuPercent: number;
  /** Since the sample before. */
  readonly minorFaults: number;
  readonly majorFaults: number;
}

/**
 * Memory that the native library took and gave back while it was watched: heap and mappings, without address space that is only
 * reserved (keys and values, activations), threads' stacks, and files mapped for reading.
 */
export interface Allocations {
  readonly count: number;
  readonly frees: number;
  readonly allocatedBytes: number;
  readonly freedBytes: number;
  /** At the end. */
  readonly liveBytes: number;
  readonly peakLiveBytes: number;
  readonly sizes: AmountRow;
  /** Of what was freed while it was watched. */
  readonly lifetimes: AmountRow;
}

/** Something worth knowing, in words, with its evidence and a knob that exists, or what else to do. */
export interface Finding {
  readonly severity: "note" | "advice" | "warning";
  readonly text: string;
  readonly evidence: readonly { readonly label: string; readonly value: number; readonly unit: string }[];
  /** What to turn: an option of the API and its flag on the command line; null: none helps, and the text says what does. */
  readonly knob: { readonly option: string; readonly flag: string | null } | null;
}

/**
 * One request, from the call to its end. In nanoseconds:
 * wall = tokenizing + queue + steps + between + delivery + javascript + unattributed.
 */
export interface RequestRow {
  readonly id: number;
  readonly promptTokens: number;
  readonly reusedTokens: number;
  readonly generatedTokens: number;
  /** From the call to when its caller had the last token. */
  readonly wallNs: number;
  /** From the call to when its caller had the first token; null when none came. */
  readonly firstTokenNs: number | null;
  readonly tokenizingNs: number;
  /** From handing it to the engine to the start of its first step. */
  readonly queueNs: number;
  /** Steps that it was part of, whole: others share them. */
  readonly stepsNs: number;
  readonly steps: number;
  /** Between its first step's start and its last one's end, outside its steps. */
  readonly betweenNs: number;
  /** From a step's end to when JavaScript had its record, where that was waited for: after the last step. */
  readonly deliveryNs: number;
  /** JavaScript after the last record: detokenizing, the consumer. What it did during steps ran beside them. */
  readonly javascriptNs: number;
  /** Between tokenizing and handing it to the engine. */
  readonly unattributedNs: number;
}

/** All of it. */
export interface Report extends Profile {
  readonly schema: 1;
  readonly run: RunInfo;
  readonly machine: MachineInfo;
  /** Loads and stores in all profiled steps; null when they were not counted. */
  readonly memoryOps: number | null;
  /** The last ones that ended, at most 1,000. */
  readonly requests: readonly RequestRow[];
  /** Requests that ended. */
  readonly requestCount: number;
  /** From the call to when its caller had the last token, of all that ended. Its `share` is 0, as that of the next two. */
  readonly requestTimes: TimeRow;
  /** From one token of a request to its next one, as the engine stamped them. */
  readonly betweenTokens: TimeRow;
  /** From the call to the first token. */
  readonly firstTokens: TimeRow;
  readonly memory: MemoryOperations | null;
  readonly cache: CacheStatistics | null;
  readonly roofline: Roofline | null;
  readonly javascript: JavaScriptShare | null;
  readonly system: SystemUse | null;
  readonly findings: readonly Finding[];
  /** What each optimisation contributes, by an experiment beside the run; it is there only if that was made. */
  readonly impact?: OptimizationImpact;
}

/** A piece of JavaScript's thread, for traces; ns of the monotonic clock that events are stamped with. */
export interface JavaScriptSpan {
  readonly name: JavaScriptRow["name"];
  readonly startNs: number;
  readonly endNs: number;
}

/** What a trace is made from: raw events as events.ts describes them, kept up to a bound. */
export interface TraceData {
  /** In the order in which they were drained. */
  readonly events: readonly Uint8Array[];
  readonly spans: readonly JavaScriptSpan[];
  readonly samples: readonly SystemSample[];
  /** When the samples' clock began, ns of the monotonic clock. */
  readonly startNs: number;
  /** Events beyond the bound, which came after all that were kept. */
  readonly dropped: number;
  /** The same of spans. */
  readonly spansDropped: number;
}
