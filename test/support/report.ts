// Made-up reports for tests of what shows them: one of a model with 18 layers with every part filled, from synthetic events
// that go through the real Profiler, and one where every part that may be missing is. The same call gives the same report.

import type { ImpactFigure, OptimizationEffect, OptimizationImpact } from "../../profiler/impact.ts";
import type { OpInfo } from "../../profiler/index.ts";
import { Profiler } from "../../profiler/index.ts";
import type {
  AmountRow,
  CacheCounts,
  CacheName,
  CacheStatistics,
  JavaScriptSpan,
  MachineRoofs,
  MemoryCounts,
  MemoryOperations,
  Region,
  Report,
  RequestRow,
  Roofline,
  RooflineRow,
  SystemSample,
  SystemUse,
  TraceData,
} from "../../profiler/report.ts";
import { encode, opList, type TestEvent } from "../profiler/stream.ts";
import { Random } from "./random.ts";

/** Layers of the made-up model. */
export const LAYERS = 18;
const START_NS = 7_000_000_000_000;
const LINE_BYTES = 64;
const SAMPLE_MS = 10;

export interface MadeUp {
  readonly report: Report;
  readonly trace: TraceData;
  readonly ops: readonly OpInfo[];
}

/** Two requests after one another, each with its prompt, on two threads. */
export function madeUpReport(): MadeUp {
  const random = new Random(11);
  const ops = modelOps();
  const requests = [
    { id: 1, promptSteps: [256, 44], generated: 40, first: 0, last: 0, ends: [] as number[] },
    { id: 2, promptSteps: [96], generated: 24, first: 0, last: 0, ends: [] as number[] },
  ];
  const events: TestEvent[] = [];
  let at = START_NS;
  let step = 0;
  const perRequest = new Map<number, { ns: number; count: number }>();
  for (const request of requests) {
    at += 400_000;
    request.first = at;
    let inSteps = 0;
    for (const rows of [...request.promptSteps, ...new Array<number>(request.generated - 1).fill(1)]) {
      step++;
      const end = appendStep(events, ops, step, rows, at, random);
      inSteps += end - at;
      if (rows === 1 || rows === request.promptSteps.at(-1)) request.ends.push(end);
      request.last = end;
      at = end + 6_000 + Math.floor(random.uniform() * 2_000);
    }
    perRequest.set(request.id, { ns: inSteps, count: request.promptSteps.length + request.generated - 1 });
  }
  const profiler = new Profiler(ops);
  const bytes = encode(events);
  profiler.drain(bytes);
  const profile = profiler.result({ histograms: true });
  const endNs = at + 500_000;
  const wallMs = (endNs - START_NS) / 1e6;

  const rows: RequestRow[] = requests.map((request) => {
    const { ns, count } = perRequest.get(request.id) ?? { ns: 0, count: 0 };
    const [tokenizingNs, queueNs, deliveryNs, javascriptNs, unattributedNs] = [210_000, 150_000, 48_000, 31_000, 7_000];
    const betweenNs = request.last - request.first - ns;
    return {
      id: request.id,
      promptTokens: request.promptSteps.reduce((sum, rows) => sum + rows, 0),
      reusedTokens: 0,
      generatedTokens: request.generated,
      wallNs: tokenizingNs + queueNs + ns + betweenNs + deliveryNs + javascriptNs + unattributedNs,
      firstTokenNs: tokenizingNs + queueNs + num(request.ends[0]) - request.first + deliveryNs,
      tokenizingNs,
      queueNs,
      stepsNs: ns,
      steps: count,
      betweenNs,
      deliveryNs,
      javascriptNs,
      unattributedNs,
    };
  });
  const gaps = requests.flatMap(({ ends }) => ends.slice(1).map((end, index) => end - num(ends[index])));
  const time = (values: readonly number[]) => timeRow(ops, values);
  const spans: JavaScriptSpan[] = requests.flatMap(({ first, ends, last }) => [
    { name: "tokenizing" as const, startNs: first - 360_000, endNs: first - 150_000 },
    ...ends.map((end) => ({ name: "consumer" as const, startNs: end + 1_000, endNs: end + 4_500 })),
    { name: "detokenizing" as const, startNs: last + 8_000, endNs: last + 21_000 },
  ]);
  const system = systemUse(wallMs, random);
  const memory = memoryOperations(profile.byOp, profile.steps.count);
  const report: Report = {
    ...profile,
    schema: 1,
    run: {
      model: "made-up-270m.gguf",
      architecture: "gemma3",
      weightsBytes: 253_000_000,
      level: "avx512_vnni",
      threads: 2,
      contextLength: 4096,
      batchSize: 16,
      options: {
        screening: false,
        screeningProblem: null,
        kvCache: "f16",
        prefixCache: true,
        prepared: true,
        tuning: "measured",
        widestLevel: "avx512_vnni",
        usableCpus: 2,
      },
      startedAt: "2026-11-25T05:00:00.000Z",
      wallMs,
      version: "0.1.0",
    },
    machine: {
      cpu: "Made-Up Processor",
      cores: 2,
      memoryBytes: 16 * 2 ** 30,
      system: "linux 6.1.0 x64",
      bun: "1.4.5",
      fingerprint: "0123456789abcdef",
    },
    memoryOps: memory.loads + memory.stores,
    requests: rows,
    requestCount: rows.length,
    requestTimes: time(rows.map((row) => row.wallNs)),
    betweenTokens: time(gaps),
    firstTokens: time(rows.map((row) => row.firstTokenNs ?? 0)),
    memory,
    cache: cacheStatistics(memory, profile.steps.count),
    roofline: roofline(ops, events, profile.byKind),
    javascript: {
      wallNs: endNs - START_NS,
      rows: [
        { name: "tokenizing", count: 2, totalNs: 420_000, p50Ns: 210_000, p99Ns: 210_000, maxNs: 210_000 },
        { name: "submitting", count: 2, totalNs: 32_000, p50Ns: 16_000, p99Ns: 16_000, maxNs: 16_000 },
        { name: "records", count: 66, totalNs: 396_000, p50Ns: 6_000, p99Ns: 9_000, maxNs: 9_200 },
        { name: "detokenizing", count: 64, totalNs: 128_000, p50Ns: 2_000, p99Ns: 3_000, maxNs: 13_000 },
        { name: "consumer", count: 64, totalNs: 224_000, p50Ns: 3_500, p99Ns: 3_500, maxNs: 3_500 },
        { name: "profiling", count: 12, totalNs: 900_000, p50Ns: 70_000, p99Ns: 120_000, maxNs: 120_000 },
        { name: "garbageCollection", count: 1, totalNs: 800_000, p50Ns: 800_000, p99Ns: 800_000, maxNs: 800_000 },
      ],
      nativeCalls: { total: 68, requests: 2, steps: 65, logits: 0, vectors: 0, sessions: 0, cancelled: 1 },
      cpuNs: 3_400_000,
      garbageCollection: "Pauses were found by a timer that came late while the heap shrank.",
    },
    system,
    findings: [
      {
        severity: "advice",
        text: "The output head takes most of a token.",
        evidence: [{ label: "share of the steps", value: 0.6, unit: "share" }],
        knob: { option: "screening: true", flag: "--screening" },
      },
      { severity: "note", text: "There is nothing to turn here.", evidence: [], knob: null },
    ],
  };
  const trace: TraceData = {
    ...{ events: [bytes], spans, samples: system.samples, startNs: START_NS },
    ...{ dropped: 0, spansDropped: 0 },
  };
  return { report, trace, ops };
}

/** The same run where nothing but time was watched. */
export function bareReport(): Report {
  const { report } = madeUpReport();
  const nothing = { count: 0, totalNs: 0, share: 0, p50Ns: 0, p90Ns: 0, p99Ns: 0, maxNs: 0 };
  return {
    ...report,
    memoryOps: null,
    requests: [],
    requestCount: 0,
    requestTimes: nothing,
    betweenTokens: nothing,
    firstTokens: nothing,
    memory: null,
    cache: null,
    roofline: null,
    javascript: null,
    system: null,
    findings: [],
  };
}

/** A report where no step ran and nothing was watched. */
export function emptyReport(): Report {
  return { ...bareReport(), ...new Profiler(modelOps()).result(), findings: [] };
}

/** A report with some of its fields replaced, at any depth; lists are replaced whole. */
export function changed<T>(value: T, changes: Changes<T>): T {
  const result = { ...(value as Record<string, unknown>) };
  for (const [key, change] of Object.entries(changes as Record<string, unknown>)) {
    const before = result[key];
    const nested = isRecord(change) && isRecord(before);
    result[key] = nested ? changed(before, change as Changes<typeof before>) : change;
  }
  return result as T;
}

export type Changes<T> = T extends readonly unknown[]
  ? T
  : T extends object
    ? { readonly [K in keyof T]?: Changes<T[K]> }
    : T;

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function modelOps(): OpInfo[] {
  const matmul = (name: string, format: string, layer: number, rows: number, columns: number, bits: number) => ({
    name,
    kind: "matmul",
    kernel: `matmul.${format}.avx512_vnni`,
    layer,
    bytesPerStep: (rows * columns * bits) / 8,
    bytesPerRow: 4 * (rows + columns),
    operationsPerRow: 2 * rows * columns,
  });
  const small = (name: string, kind: string, layer: number, bytes: number) => ({
    name,
    kind,
    kernel: `${kind}.avx512_vnni`,
    layer,
    bytesPerRow: bytes,
    operationsPerRow: bytes,
  });
  const layers = Array.from({ length: LAYERS }, (_, layer) => {
    const name = (op: string): string => `blk.${layer}.${op}`;
    return [
      small(name("attn_norm"), "norm", layer, 5_000),
      matmul(name("attn_q"), "q5_0", layer, 1024, 640, 5.5),
      matmul(name("attn_k"), "q5_0", layer, 256, 640, 5.5),
      matmul(name("attn_v"), "q8_0", layer, 256, 640, 8.5),
      small(name("attn_rope"), "rope_store", layer, 9_000),
      small(name("attn"), "attention", layer, 60_000),
      matmul(name("attn_output"), "q4_k", layer, 640, 1024, 4.5),
      small(name("ffn_norm"), "norm", layer, 5_000),
      matmul(name("ffn_gate"), "q5_0", layer, 2048, 640, 5.5),
      matmul(name("ffn_up"), "q5_0", layer, 2048, 640, 5.5),
      small(name("ffn_glu"), "glu", layer, 24_000),
      matmul(name("ffn_down"), "q6_k", layer, 640, 2048, 6.5625),
    ];
  });
  return opList([
    small("embed", "embed", -1, 3_240),
    ...layers.flat(),
    small("output_norm", "norm", -1, 5_000),
    matmul("token_embd", "q8_0", -1, 262_144, 640, 8.5),
  ]);
}

/** Appends a step's events on two threads; gives the time at which it ended. */
function appendStep(
  events: TestEvent[],
  ops: readonly OpInfo[],
  step: number,
  rows: number,
  start: number,
  random: Random,
): number {
  let at = start + 1_500;
  for (const op of ops) {
    const opRows = op.name === "token_embd" || op.name === "output_norm" ? 1 : rows;
    // 45 bytes a ns from memory, 700 operations a ns, and something for the start of it.
    const bytes = op.bytesPerStep + op.bytesPerRow * opRows;
    const ideal = Math.max(bytes / 45, (op.operationsPerRow * opRows) / 700) + 350;
    const wall = Math.round(ideal * (1.02 + 0.2 * random.uniform() ** 4));
    const other = Math.round(wall * (0.9 + 0.1 * random.uniform()));
    const done = Math.round(wall * 0.96);
    const common = { op: op.index, step, rows: opRows, aux: 8 };
    events.push(
      { kind: "work", thread: 0, start: at, end: at + done, ...common },
      { kind: "work", thread: 1, start: at + 40, end: at + other, ...common },
      { kind: "barrier", thread: 1, start: at + other, end: at + wall, ...common },
      { kind: "barrier", thread: 0, start: at + done, end: at + wall, ...common },
    );
    at += wall;
  }
  events.push({ kind: "sampling", step, rows: 1, start: at, end: at + 100_000 });
  at += 100_000 + 2_200;
  events.push({ kind: "step", step, rows, start, end: at, aux: 1 });
  return at;
}

/** Durations as a row, through the profiler's own histogram: each as a step of an op of its own. */
function timeRow(ops: readonly OpInfo[], values: readonly number[]) {
  const profiler = new Profiler(ops);
  const events = values.flatMap((ns, index): TestEvent[] => [
    { kind: "sampling", step: index + 1, start: 1e9 * index, end: 1e9 * index + ns },
    { kind: "step", step: index + 1, start: 1e9 * index, end: 1e9 * index + ns },
  ]);
  profiler.drain(encode(events));
  const { steps } = profiler.result({ histograms: true });
  return { ...steps, share: 0 };
}

function amountRow(unit: AmountRow["unit"], values: readonly number[]): AmountRow {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (percent: number): number => sorted[Math.max(0, Math.ceil((percent / 100) * sorted.length) - 1)] ?? 0;
  const total = values.reduce((sum, value) => sum + value, 0);
  return { unit, count: values.length, total, min: at(0), p50: at(50), p90: at(90), p99: at(99), max: at(100) };
}

function memoryOperations(byOp: Report["byOp"], steps: number): MemoryOperations {
  const rows = byOp.map(({ index, name, kind, layer, bytes }) => {
    const bytesWritten = Math.round(bytes * 0.02);
    const counts = { loads: Math.ceil(bytes / LINE_BYTES), stores: Math.ceil(bytesWritten / LINE_BYTES) };
    return { index, name, kind, layer, ...counts, bytesRead: bytes, bytesWritten };
  });
  const sampling = { loads: 410_000, stores: 9_000, bytesRead: 410_000 * LINE_BYTES, bytesWritten: 9_000 * LINE_BYTES };
  const sum = (key: keyof MemoryCounts): number => rows.reduce((total, row) => total + row[key], sampling[key]);
  const whole = {
    loads: sum("loads"),
    stores: sum("stores"),
    bytesRead: sum("bytesRead"),
    bytesWritten: sum("bytesWritten"),
  };
  const parts: readonly (readonly [Region, number])[] = [
    ["weights", 0.9],
    ["constants", 0.001],
    ["keysValues", 0.03],
    ["activations", 0.05],
    ["scratch", 0.015],
    ["input", 0],
    ["other", 0.004],
  ];
  const perStep = (unit: AmountRow["unit"], total: number): AmountRow =>
    amountRow(
      unit,
      Array.from({ length: steps }, (_, step) => Math.round((total / steps) * (step === 0 ? 1.5 : 1))),
    );
  return {
    ...whole,
    byOp: rows,
    byRegion: parts.map(([region, part]) => ({
      region,
      loads: Math.round(whole.loads * part),
      stores: region === "weights" ? 0 : Math.round(whole.stores * part * 10),
      bytesRead: Math.round(whole.bytesRead * part),
      bytesWritten: region === "weights" ? 0 : Math.round(whole.bytesWritten * part * 10),
    })),
    sampling,
    perStep: {
      loads: perStep("operations", whole.loads),
      stores: perStep("operations", whole.stores),
      bytesRead: perStep("bytes", whole.bytesRead),
      bytesWritten: perStep("bytes", whole.bytesWritten),
    },
    operations: byOp.reduce((total, row) => total + row.operations, 0),
    uncountedSteps: 0,
  };
}

function cacheStatistics(memory: MemoryOperations, steps: number): CacheStatistics {
  const levelsOf = (loads: number): CacheCounts[] => {
    const names: readonly (readonly [CacheName, number])[] = [
      ["L1D", 0.62],
      ["L2", 0.35],
      ["L3", 0.2],
    ];
    let accesses = loads;
    return names.map(([name, hitRate]) => {
      const hits = Math.round(accesses * hitRate);
      const counts = { name, accesses, hits, misses: accesses - hits, hitRate: accesses === 0 ? 1 : hits / accesses };
      accesses = counts.misses;
      return counts;
    });
  };
  const levels = levelsOf(memory.loads + memory.stores);
  return {
    source: "simulator",
    description:
      "One prompt step and one step of generation were simulated and scaled up; the system refuses counters.",
    hitRate: levels[0]?.hitRate ?? 0,
    geometry: [
      { name: "L1D", bytes: 48 * 1024, ways: 12, lineBytes: LINE_BYTES, sharedBy: 1 },
      { name: "L2", bytes: 1024 * 1024, ways: 16, lineBytes: LINE_BYTES, sharedBy: 1 },
      { name: "L3", bytes: 32 * 1024 * 1024, ways: 16, lineBytes: LINE_BYTES, sharedBy: 2 },
    ],
    levels,
    byOp: memory.byOp.map((row) => {
      const ofOp = levelsOf(row.loads + row.stores);
      return { index: row.index, levels: ofOp, memoryBytes: (ofOp[2]?.misses ?? 0) * LINE_BYTES };
    }),
    memoryBytes: (levels[2]?.misses ?? 0) * LINE_BYTES,
    prefetcher: true,
    simulatedSteps: 2,
    steps,
    missesPerStep: levels.map(({ name, misses }) => ({
      name,
      misses: amountRow("misses", new Array<number>(steps).fill(Math.round(misses / steps))),
    })),
    cycles: null,
    instructions: null,
    tlbMisses: null,
  };
}

const ROOFS: MachineRoofs = {
  measuredAt: "2026-11-25T04:00:00.000Z",
  level: "avx512_vnni",
  threads: 2,
  bandwidth: [
    { name: "L1D", workingBytes: 24 * 1024, read: 900, write: 450, copy: 420 },
    { name: "L2", workingBytes: 512 * 1024, read: 400, write: 220, copy: 200 },
    { name: "L3", workingBytes: 8 * 1024 * 1024, read: 150, write: 90, copy: 80 },
    { name: "memory", workingBytes: 2 ** 29, read: 48, write: 26, copy: 24 },
  ],
  peaks: { float: 380, int8: 2300, int16: 1150, bf16: 0 },
  sweep: Array.from({ length: 16 }, (_, power) => ({
    bytes: 2 ** (14 + power),
    read: power < 2 ? 900 : power < 7 ? 400 : power < 11 ? 150 : 48,
  })),
  lastLevelBytes: 30 * 1024 * 1024,
};

function roofline(ops: readonly OpInfo[], events: readonly TestEvent[], byKind: Report["byKind"]): Roofline {
  const place = (row: { readonly bytes: number; readonly operations: number; readonly wallNs: number }) => {
    const memoryNs = row.bytes / 48;
    const integerNs = row.operations / 2300;
    const wallNs = Math.max(row.wallNs, 1);
    const roofNs = Math.round(Math.max(memoryNs, integerNs));
    const bound = roofNs < wallNs / 4 ? "overhead" : memoryNs > integerNs ? "memory" : "int8";
    const inBytes = bound !== "int8";
    return {
      intensity: row.bytes === 0 ? 0 : row.operations / row.bytes,
      bound,
      achieved: (inBytes ? row.bytes : row.operations) / wallNs,
      roof: inBytes ? 48 : 2300,
      unit: inBytes ? "GB/s" : "GOP/s",
      wallNs,
      roofNs,
      share: roofNs / wallNs,
    } as const;
  };
  const rowsOf = (phase: "prompt" | "generation"): RooflineRow[] => {
    const prompts = new Set(
      events.filter((event) => event.kind === "step" && num(event.rows) > 1).map(({ step }) => step),
    );
    const profiler = new Profiler(ops);
    profiler.drain(encode(events.filter(({ step }) => prompts.has(step) === (phase === "prompt"))));
    return profiler.result().byOp.map((row) => {
      const { index, name, kind, layer } = row;
      return { index, name, kind, layer, phase, ...place(row) };
    });
  };
  return {
    machine: ROOFS,
    byOp: [...rowsOf("prompt"), ...rowsOf("generation")],
    byKind: byKind.map((row) => ({
      index: -1,
      name: row.kind,
      kind: row.kind,
      layer: -1,
      phase: "all" as const,
      ...place(row),
    })),
  };
}

function systemUse(wallMs: number, random: Random): SystemUse {
  const samples: SystemSample[] = [];
  for (let atMs = 0; atMs <= wallMs; atMs += SAMPLE_MS) {
    const grown = Math.min(1, atMs / 120);
    samples.push({
      atMs,
      residentBytes: Math.round((240 + 60 * grown) * 2 ** 20),
      heapBytes: Math.round((12 + ((atMs / 25) % 6)) * 2 ** 20),
      nativeBytes: 22 * 2 ** 20,
      cpuPercent: Math.round(185 + 10 * random.uniform()),
      minorFaults: atMs < 60 ? 400 : 3,
      majorFaults: 0,
    });
  }
  const sizes = Array.from({ length: 40 }, (_, index) => 64 * (index + 1));
  return {
    samples,
    peakResidentBytes: Math.max(...samples.map((sample) => sample.residentBytes)),
    minorFaults: samples.reduce((sum, sample) => sum + sample.minorFaults, 0),
    majorFaults: 0,
    voluntarySwitches: 130,
    involuntarySwitches: 12,
    cpuNs: Math.round(wallMs * 1.9e6),
    allocations: {
      count: 40,
      frees: 38,
      allocatedBytes: sizes.reduce((sum, size) => sum + size, 0),
      freedBytes: 50_000,
      liveBytes: 22 * 2 ** 20,
      peakLiveBytes: 22 * 2 ** 20 + 6_000,
      sizes: amountRow("bytes", sizes),
      lifetimes: amountRow(
        "ns",
        sizes.slice(2).map((size) => size * 10_000),
      ),
    },
  };
}

function num(value: number | undefined): number {
  return value as number;
}

/** What an experiment on the made-up model may have found: every verdict, and what could not be switched. */
export function madeUpImpact(): OptimizationImpact {
  const figure = (changes: Partial<ImpactFigure>): ImpactFigure => ({
    metric: "generation",
    unit: "tokens/s",
    with: 180,
    without: 90,
    ratio: 2,
    low: 1.9,
    high: 2.1,
    verdict: "ahead",
    rounds: 9,
    ...changes,
  });
  const of = (name: string, title: string, besideAll: ImpactFigure[], alone: ImpactFigure[]): OptimizationEffect => ({
    ...{ name, title, on: "on", off: "off", sameText: name !== "kvCache" },
    besideAll,
    alone,
  });
  return {
    measuredAt: "2026-11-25T05:10:00.000Z",
    model: "made-up-270m.gguf",
    rounds: 9,
    interrupted: false,
    tookMs: 81_000,
    besideAll: { promptTokens: 256, generatedTokens: 64 },
    alone: { promptTokens: 16, generatedTokens: 4 },
    effects: [
      of("simd", "SIMD level", [figure({}), figure({ metric: "prompt", ratio: 20, low: 18, high: 21 })], [figure({})]),
      of(
        "kvCache",
        "keys and values",
        [
          figure({ with: 90, without: 90, ratio: 1, low: 0.98, high: 1.02, verdict: "draw" }),
          figure({ metric: "memory", unit: "bytes", with: 3e8, without: 3.1e8, ratio: 0.97, low: 0.96, high: 0.98 }),
        ],
        [figure({ metric: "firstToken", unit: "ms", ratio: 1.1, low: 1.05, high: 1.2, verdict: "behind" })],
      ),
      of("screening", "head screening", [figure({ low: null, high: null, verdict: "unknown", rounds: 2 })], []),
    ],
    withoutEffect: [{ name: "prepared", reason: "it has none: the model is so small that it is packed in a moment" }],
  };
}
