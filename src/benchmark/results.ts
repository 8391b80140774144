// The results of a benchmark as a file: the guide's JSON, whose fields are never changed, and beside them what tells where and how the
// figures came about, and the samples they were computed from.

import { OptionError } from "../errors.ts";

/** Kinds of benchmarks. `training` is known by name and refused until there is training. */
export const benchmarkTypes = ["inference", "training", "memory", "system"] as const;
export type BenchmarkType = (typeof benchmarkTypes)[number];

/** What an inference benchmark measures. */
export const metrics = ["latency", "throughput", "memory_usage"] as const;
export type Metric = (typeof metrics)[number];

/** Names of metrics, each once. `memory` is `memory_usage`. @throws {OptionError} if there is none of a name. */
export function metricsOf(names: readonly string[], option = "--metrics"): readonly Metric[] {
  if (names.length === 0) throw new OptionError(option, `names none; there are ${metrics.join(", ")}`);
  return [...new Set(names.map((name) => metricOf(name, option)))];
}

/** The metric of a name. `memory` is `memory_usage`. @throws {OptionError} if there is none. */
export function metricOf(name: string, option = "--metric"): Metric {
  const found = metrics.find((metric) => metric === (name === "memory" ? "memory_usage" : name));
  if (found) return found;
  throw new OptionError(option, `there is no metric ${JSON.stringify(name)}; there are ${metrics.join(", ")}`);
}

/** The version of the format that this program writes; files of the guide's fields alone have none. */
export const resultsVersion = 1;

export interface BenchmarkResults {
  readonly benchmark_info: BenchmarkInfo;
  readonly results: Figures;
}

export interface BenchmarkInfo {
  /** The model's file name, or the name it was pulled by; of type `system`, "none". */
  readonly model: string;
  readonly type: BenchmarkType;
  /** When measuring began: ISO 8601, UTC. */
  readonly timestamp: string;
  readonly system_info: SystemInfo;
  /** What follows is missing in files that have the guide's fields alone. */
  readonly version?: number;
  /** TinyAI's version. */
  readonly tinyai?: string;
  readonly fingerprint?: MachineFingerprint;
  readonly settings?: Settings;
  readonly model_details?: ModelDetails;
  /** How it was measured and what was assumed, a sentence each. */
  readonly methodology?: readonly string[];
  /** What a reader of the figures has to know, a sentence each; empty: nothing was amiss. */
  readonly warnings?: readonly string[];
  /** Whether Ctrl-C ended it before its time; the figures are of what was measured until then. */
  readonly interrupted?: boolean;
  /** Whether it took turns with other models, whose weights then go through the caches between its iterations; missing: it did not. */
  readonly in_turns?: boolean;
}

export interface SystemInfo {
  readonly cpu: string;
  /** "32GB" */
  readonly memory: string;
  /** "Linux 5.4.0" */
  readonly os: string;
}

/** What tells a machine, as it was, from others. */
export interface MachineFingerprint {
  /** The same for the same CPU, cores, caches and instruction sets. */
  readonly id: string;
  readonly cpu: string;
  readonly cores: number;
  readonly memory_bytes: number;
  readonly kernel: string;
  readonly bun: string;
  /** The frequency governor, null where the system tells none. */
  readonly governor: string | null;
  /** Whether the CPU may clock above its base, null where the system does not tell. */
  readonly turbo: boolean | null;
  /** "docker", "firecracker", "kvm"; null on bare metal or where it cannot be told. */
  readonly virtualization: string | null;
}

/** What was asked for; null: found while measuring. */
export interface Settings {
  /** Iterations of each batch size; null: until the interval is narrow enough, or the time is over. */
  readonly iterations: number | null;
  /** Seconds for each batch size at most, warm-up not counted; null: no limit. */
  readonly time_s: number | null;
  /** Without a number of iterations: half the interval of the mean latency, as a part of the mean, at which measuring ends. */
  readonly precision: number;
  /** Iterations before the first that counts; null: until the times are steady. */
  readonly warmup: number | null;
  /**
   * Times that a model is loaded at least, or as often as there are iterations, which are spread over them; null: 10, to compare models in
   * turns 20. Missing in older files, whose model was loaded once.
   */
  readonly loadings?: number | null;
  readonly batch_sizes: readonly number[];
  readonly metrics: readonly Metric[];
  /** Tokens of each prompt or text. */
  readonly prompt_tokens: number;
  /** Tokens generated for each prompt; of models that only embed, 0. */
  readonly generated_tokens: number;
  readonly threads: number | null;
  /** The instruction-set level's name; null: the widest that there is. */
  readonly simd: string | null;
  /** Draws orders and resamples. */
  readonly seed: number;
  /** Of type `system`: where its file is written and read; missing: in TinyAI's folder, where models are kept. */
  readonly disk_folder?: string;
}

export interface ModelDetails {
  readonly path: string;
  /** Of the model file; of a prepared file, of the one that it was made from. */
  readonly bytes: number;
  /** Of the same. */
  readonly sha256: string | null;
  readonly architecture: string;
  readonly parameters: number;
  /** Bytes of weights by format: { "Q4_0": 170e6 }. */
  readonly formats: Readonly<Record<string, number>>;
  readonly layers: number;
  readonly context: number;
  readonly simd: string;
  readonly threads: number;
}

/** A figure of a set of samples. `std` is the samples' standard deviation (n - 1); 0 of one sample. */
export interface Statistics {
  readonly mean: number;
  readonly std: number;
  readonly min: number;
  readonly max: number;
  /** Of the mean, by bootstrap; missing with fewer than six samples. */
  readonly interval?: Interval;
  /** In the order in which they were measured; missing in files of the guide's fields alone. */
  readonly samples?: readonly number[];
}

export interface Interval {
  readonly level: number;
  readonly low: number;
  readonly high: number;
}

export interface Latency extends Statistics {
  readonly percentiles: { readonly "50": number; readonly "90": number; readonly "95": number; readonly "99": number };
  /** Of the percentiles, where there are samples enough. */
  readonly percentile_intervals?: Readonly<Record<string, Interval>>;
}

/** MB, 10^6 bytes, of the process. */
export interface MemoryUsage {
  readonly peak: number;
  readonly mean: number;
  readonly std: number;
  readonly min?: number;
  readonly max?: number;
  readonly interval?: Interval;
  readonly samples?: readonly number[];
}

/** Figures of one batch size. */
export interface InferenceFigures {
  /** Milliseconds from asking until every request of the batch has its whole answer. */
  readonly latency?: Latency;
  /** Milliseconds from asking until a request's first token; not of models that only embed. */
  readonly first_token?: Latency;
  /** Tokens a second that all requests of the batch got together; of models that only embed, texts a second. */
  readonly throughput?: Statistics;
  readonly memory_usage?: MemoryUsage;
  readonly utilization?: Utilization;
  /** How many iterations warmed up, and whether their times had become steady. */
  readonly warmup?: { readonly iterations: number; readonly steady: boolean };
  /** Iterations of each loading of the model, which follow each other; missing in older files: there was one. */
  readonly loadings?: readonly number[];
}

/** Percent of all CPUs that may be used, and of each GPU. */
export interface Utilization {
  /** Of this process. */
  readonly cpu?: Statistics;
  /** Of everything on the machine. */
  readonly machine?: Statistics;
  readonly gpu?: Statistics;
}

/** The first batch size's figures where the guide has them, and all by batch size; or those of a type of their own. */
export interface Figures extends InferenceFigures {
  readonly by_batch_size?: Readonly<Record<string, InferenceFigures>>;
  readonly memory?: MemoryFigures;
  readonly system?: SystemFigures;
}

/**
 * What type `memory` measures beside latency and memory_usage. Every part is missing that was not measured: the run was interrupted,
 * or the system does not tell.
 */
export interface MemoryFigures {
  /** Loading the model: a sample for each time. */
  readonly loading?: LoadingFigures;
  /** Answering requests: a sample for each. */
  readonly running?: RunningFigures;
  /** The model's memory by what it is for, at the end of the run. Parts that take nothing are left out. */
  readonly parts?: readonly MemoryPartFigures[];
  readonly allocations?: AllocationFigures;
  readonly cache?: CacheFigures;
  /** The machine's, nearest cache first, memory last; measured in this run. */
  readonly bandwidth?: readonly BandwidthFigures[];
}

export interface LoadingFigures {
  /** Milliseconds. */
  readonly time?: Statistics;
  /** MB, 10^6 bytes: the process's resident memory at its highest. */
  readonly peak?: Statistics;
  /** MB of the peak beyond what was resident before. */
  readonly added?: Statistics;
}

export interface RunningFigures {
  /** MB, 10^6 bytes: the process's resident memory at its highest during a request. */
  readonly peak?: Statistics;
}

/** MB, 10^6 bytes, of the model. */
export interface MemoryPartFigures {
  /** Such as "weights" or "keysAndValues". */
  readonly name: string;
  /** By calculation, before it was loaded: after one short request, and after all that it can run at a time. */
  readonly estimated_min?: number;
  readonly estimated_max?: number;
  /** What was set aside; much of it costs nothing until it is written. */
  readonly taken?: number;
  /** What of it was in memory. */
  readonly resident?: number;
}

/** What was allocated. */
export interface AllocationFigures {
  /** By the native library while the model was loaded. */
  readonly loading?: NativeAllocationFigures;
  /** By the native library, a sample for each request. */
  readonly native?: NativeAllocationFigures;
  /** By JavaScript, a sample for each request. */
  readonly javascript?: JavaScriptAllocationFigures;
}

export interface NativeAllocationFigures {
  /** Pieces taken. */
  readonly count?: Statistics;
  /** Bytes of them. */
  readonly bytes?: Statistics;
  /** Bytes of a piece, over all that were taken; missing where none was. */
  readonly sizes?: AmountFigures;
  /** Milliseconds from taking a piece to giving it back, of those that were given back; missing where none was. */
  readonly lifetimes?: AmountFigures;
}

export interface JavaScriptAllocationFigures {
  /** Objects that a request makes, whether anybody still holds them or not, without hidden classes. The heap does not tell their bytes. */
  readonly objects?: Statistics;
  /** Objects a request by type, the most frequent first. */
  readonly types?: readonly { readonly name: string; readonly objects: number }[];
  /** The garbage collector's pauses in all requests; missing where they could not be found. */
  readonly collections?: { readonly count: number; readonly total_ms: number; readonly max_ms: number };
}

/** What is known of a set of amounts too many to keep. */
export interface AmountFigures {
  readonly count: number;
  readonly min: number;
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly max: number;
}

/** How well the caches were used while requests were answered. */
export interface CacheFigures {
  readonly source?: "hardware counters" | "simulator";
  /** What was counted or simulated, and how; one or two sentences. */
  readonly description?: string;
  /** Nearest first. */
  readonly levels?: readonly CacheLevelFigures[];
  /** MB that came from memory for each step. */
  readonly memory_per_step?: number;
  /** Steps of the model that it is of, and of them those that were followed one access at a time. */
  readonly steps?: number;
  readonly followed_steps?: number;
}

export interface CacheLevelFigures {
  /** "L1D", "L2", "L3" */
  readonly name: string;
  readonly bytes: number;
  /** Threads that share one. */
  readonly shared_by: number;
  /** Accesses that came to this level, a cache line each. */
  readonly accesses: number;
  readonly hits: number;
  /** hits / accesses; 1 where there were none. */
  readonly hit_rate: number;
}

/** GB/s, 10^9 bytes a second, of all threads together. A copy counts what it reads and what it writes. */
export interface BandwidthFigures {
  /** "L1D", "L2", "L3" or "memory" */
  readonly name: string;
  readonly threads: number;
  /** Bytes that each thread goes over. */
  readonly working_bytes: number;
  readonly read?: Statistics;
  readonly write?: Statistics;
  readonly copy?: Statistics;
}

/** What type `system` measures. Every part is missing that was not measured. */
export interface SystemFigures {
  readonly disk?: DiskFigures;
  readonly network?: NetworkFigures;
  readonly threads?: ThreadFigures;
  /** How busy the machine was during each part. */
  readonly utilization?: Readonly<Partial<Record<SystemPart, Utilization>>>;
}

export type SystemPart = "disk" | "network" | "threads";

export interface DiskFigures {
  /** Where the file was. */
  readonly folder: string;
  /** Such as "ext4"; null where the system does not tell. */
  readonly file_system: string | null;
  /** Whether the page cache was bypassed (O_DIRECT). If not, reads are of memory, and writes end in a flush to the disk. */
  readonly direct: boolean;
  /** Of the file that was written and read. */
  readonly file_bytes: number;
  readonly sequential_write?: DiskAccessFigures;
  readonly sequential_read?: DiskAccessFigures;
  readonly random_write?: DiskAccessFigures;
  readonly random_read?: DiskAccessFigures;
}

export interface DiskAccessFigures {
  /** Of each access. */
  readonly block_bytes: number;
  /** Accesses under way at once. */
  readonly queue_depth: number;
  /** Moved in all samples together. */
  readonly bytes: number;
  /** MB/s, 10^6 bytes a second; each sample is of a slice of time. */
  readonly rate?: Statistics;
  /** Accesses a second. */
  readonly operations?: Statistics;
  /** Milliseconds that one access takes, of some accesses of each slice. */
  readonly latency?: Latency;
}

/** TCP over 127.0.0.1. */
export interface NetworkFigures {
  /** 1: both ends in one process; 2: one in each of two. */
  readonly processes: number;
  /** MB/s, 10^6 bytes a second in one direction, as the receiving end counted them; each sample is of a slice of time. */
  readonly bandwidth?: Statistics;
  /** Received in all samples together. */
  readonly bytes?: number;
  /** Milliseconds that a message of `message_bytes` takes there and back, of some messages of each slice. */
  readonly latency?: Latency;
  readonly message_bytes?: number;
}

/** The same work on 1 to n threads. */
export interface ThreadFigures {
  /** What is computed, in words. */
  readonly kernel: string;
  /** The instruction-set level's name. */
  readonly simd: string;
  /** By ascending number of threads. */
  readonly curve?: readonly ThreadPoint[];
  /** Missing where only one thread was measured. */
  readonly amdahl?: AmdahlFigures;
}

export interface ThreadPoint {
  readonly threads: number;
  /** 10^9 operations a second, all threads together. */
  readonly rate: Statistics;
  /** Times the rate of one thread. */
  readonly speedup: number;
  readonly speedup_interval?: Interval;
  /** speedup / threads */
  readonly efficiency: number;
}

/** Amdahl's law, speedup(n) = 1 / (serial + (1 - serial) / n), fitted to the curve by least squares. */
export interface AmdahlFigures {
  /** The part that more threads do not make faster, 0 to 1. */
  readonly serial: number;
  readonly interval?: Interval;
  /** 1 / serial: what no number of threads would exceed; null where nothing is serial. */
  readonly speedup_max: number | null;
  /** Root mean square of what the law misses of the measured speed-ups. */
  readonly residual: number;
}
