// `bun run bench:kernels`: every kernel with the shapes that small models give it, timed by mitata, beside what this machine
// does at most: how fast it reads memory and a second-level cache, and how fast the level's instructions multiply on the same
// threads. Memory is measured before and after each row, so that a busy moment is in both.
//
//   bun run bench:kernels [WORD...] [--level NAME] [--threads N] [--time MS] [--json]
//
// Only rows in which every WORD stands are measured, such as `matmul Q4_K` or `attention prompt`.

import { parseArgs } from "node:util";
import { measure } from "mitata";
import { type Demand, judge, peakOf } from "../profiler/roofline.ts";
import { summarise } from "../src/benchmark/statistics/summary.ts";
import { openBandwidth } from "../src/engine/bandwidth.ts";
import { chooseLevel, cpu } from "../src/engine/cpu.ts";
import { openLibrary } from "../src/engine/library.ts";
import { measurePeak } from "../src/engine/roofs.ts";
import { openStand } from "../src/engine/stand.ts";
import { chooseTuning, findTuning } from "../src/tuning.ts";
import { whole } from "./flags.ts";
import { type KernelCase, kernelCases, memoryBytes } from "./kernel-cases.ts";

const usage = `usage: bun run bench:kernels [WORD...] [--level NAME] [--threads N] [--time MS] [--json]
  rows in which every WORD stands are measured, such as: matmul Q4_K`;

function readArguments() {
  try {
    const options = {
      level: { type: "string" },
      threads: { type: "string" },
      time: { type: "string", default: "100" },
      json: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    } as const;
    return parseArgs({ allowPositionals: true, options });
  } catch (error) {
    console.error(`${(error as Error).message}\n${usage}`);
    process.exit(2);
  }
}

const { values: flags, positionals } = readArguments();
if (flags.help) {
  console.log(usage);
  process.exit(0);
}
if (flags.level !== undefined) process.env["TINYAI_SIMD"] = flags.level;
const threads = flags.threads === undefined ? cpu.cores : whole("threads", flags.threads, 1, 64, usage);
const time_ms = whole("time", flags.time, 1, 60_000, usage);
const library = await openLibrary();
const level = chooseLevel(library, undefined);
const options = { level: level.index, threadCount: threads };
// As an engine would work here.
const { tuning, source } = findTuning(library, level.index, threads, chooseTuning(undefined));

// Twice what a row goes through: the roof is of memory alone.
const bandwidthBytes = 2 * memoryBytes;
const share = Math.ceil(bandwidthBytes / threads);
const meter = openBandwidth(library, { ...options, bytesMax: share });

/** GB/s. */
function readMemory(): number {
  return meter.measure("read", share, bandwidthBytes);
}

/** The most of runs that take about 20 ms together, of a working set beyond every first-level cache and within every second one; GB/s. */
function readSecondLevel(): number {
  let best = 0;
  for (let run = 0; run < 20; run++) best = Math.max(best, meter.measure("read", 128 << 10, 128 << 20));
  return best;
}

const peaks = {
  float: measurePeak(library, "float", options),
  int8: measurePeak(library, "int8", options),
  int16: measurePeak(library, "int16", options),
  bf16: measurePeak(library, "bf16", options),
};
const secondLevel = readSecondLevel();

/** A row: mitata's statistics of a run in nanoseconds, and what they reach. */
async function row(kernelCase: KernelCase) {
  const { kernel, shape, measurement, bytes, operations, arithmetic, fromMemory } = kernelCase;
  const before = readMemory();
  const stand = openStand(library, measurement, options);
  stand.tune(tuning);
  try {
    // A run is long beside a reading of the clock: none is measured in batches.
    const stats = await measure(() => stand.run(1), { min_cpu_time: time_ms * 1e6, batch_threshold: 0 });
    const { min, p25, p50, p75, p99, samples } = stats;
    const bandwidth = (before + readMemory()) / 2;
    const source: Demand = fromMemory
      ? { bound: "memory", amount: bytes, roof: bandwidth }
      : { bound: "L2", amount: bytes, roof: secondLevel };
    const verdict = judge([source, { ...peakOf(arithmetic, peaks), amount: operations }], p50);
    return {
      kernel,
      shape,
      level: level.name,
      threads,
      operands: fromMemory ? "memory" : "cache",
      time_ns: { min, p25, p50, p75, p99, samples: samples.length },
      bytes,
      operations,
      ...verdict,
      memory_gb_per_s: bandwidth,
    };
  } finally {
    stand.close();
  }
}

type Row = Awaited<ReturnType<typeof row>>;

function showTime(ns: number): string {
  return ns < 1e4 ? `${ns.toFixed(0)} ns` : ns < 1e7 ? `${(ns / 1e3).toFixed(1)} µs` : `${(ns / 1e6).toFixed(2)} ms`;
}

const columns: readonly { title: string; width: number; text: (row: Row) => string }[] = [
  { title: "kernel", width: -16, text: ({ kernel }) => kernel },
  { title: "shape", width: -46, text: ({ shape }) => shape },
  { title: "level", width: -13, text: (row) => row.level },
  { title: "median", width: 10, text: ({ time_ns }) => showTime(time_ns.p50) },
  { title: "p25", width: 10, text: ({ time_ns }) => showTime(time_ns.p25) },
  { title: "p75", width: 10, text: ({ time_ns }) => showTime(time_ns.p75) },
  { title: "p99", width: 10, text: ({ time_ns }) => showTime(time_ns.p99) },
  { title: "achieved", width: 16, text: ({ achieved, unit }) => `${achieved.toFixed(1)} ${unit}` },
  { title: "roof", width: 8, text: ({ roof }) => roof.toFixed(1) },
  { title: "share", width: 6, text: ({ share }) => `${(share * 100).toFixed(0)} %` },
  { title: "bound", width: -6, text: ({ bound }) => bound },
];

function line(texts: readonly string[]): string {
  return texts
    .map((text, index) => {
      const width = columns[index]?.width ?? 0;
      return width < 0 ? text.padEnd(-width) : text.padStart(width);
    })
    .join("  ")
    .trimEnd();
}

const words = positionals.map((word) => word.toLowerCase());
const chosen = kernelCases().filter(({ kernel, shape }) => {
  const text = `${kernel} ${shape}`.toLowerCase();
  return words.every((word) => text.includes(word));
});
if (chosen.length === 0) {
  console.error(`no row has ${positionals.join(" and ")}; there are ${kernelCases().length}\n${usage}`);
  process.exit(2);
}
const say = flags.json ? () => {} : console.log;
const more = [
  peaks.int16 > 0 ? `, int16 ${peaks.int16.toFixed(0)} GOP/s` : "",
  peaks.bf16 > 0 ? `, bfloat16 ${peaks.bf16.toFixed(0)} GFLOP/s` : "",
].join("");
say(
  `${cpu.model}, ${threads} threads, ${level.name}: float32 ${peaks.float.toFixed(0)} GFLOP/s, int8 ${peaks.int8.toFixed(0)} GOP/s${more}`,
);
say(`tuning: ${source === "measured" ? "measured on this machine" : "a table"}`);
say(`second-level caches read ${secondLevel.toFixed(0)} GB/s; memory is measured beside each row\n`);
say(line(columns.map(({ title }) => title)));
const rows: Row[] = [];
for (const kernelCase of chosen) {
  const measured = await row(kernelCase);
  rows.push(measured);
  say(line(columns.map(({ text }) => text(measured))));
}
meter.close();
const bandwidth = summarise(rows.map(({ memory_gb_per_s }) => memory_gb_per_s));
if (flags.json) {
  console.log(
    JSON.stringify(
      {
        cpu: cpu.model,
        threads,
        level: level.name,
        tuning: source,
        roofs: { ...peaks, L2: secondLevel, memory: bandwidth },
        rows,
      },
      null,
      2,
    ),
  );
} else
  say(
    `\nmemory read ${bandwidth.median.toFixed(1)} GB/s (${bandwidth.minimum.toFixed(1)} to ${bandwidth.maximum.toFixed(1)})`,
  );
