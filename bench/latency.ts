// `bun run bench:latency`: whether the latencies that `tinyai benchmark run` reports are those that are seen from outside. A child process
// measures a model as the benchmark does, and writes a byte into a pipe around each iteration; a Python process, with a clock of its own,
// notes when they arrive. Mean and percentiles of the two may differ by 2 %.
//
//   bun run bench:latency [--model NAME|PATH] [--iterations N] [--batch-size N] [--json]

import { mkdtempSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { resolveSettings } from "../src/benchmark/config.ts";
import { measureInference } from "../src/benchmark/inference.ts";
import type { Latency } from "../src/benchmark/results.ts";
import { latencyOf } from "../src/benchmark/statistics/describe.ts";
import { openSubject } from "../src/benchmark/subject.ts";
import { formatTable } from "../src/text-table.ts";
import { chooseModel } from "./model.ts";

/** How far the two may be apart, as a part. */
const bar = 0.02;
const warmup = 10;

const { values: flags } = parseArgs({
  options: {
    model: { type: "string" },
    iterations: { type: "string", default: "200" },
    "batch-size": { type: "string", default: "1" },
    json: { type: "boolean", default: false },
    /** Of the child: where its latencies go. */
    child: { type: "string" },
  },
});
const settings = resolveSettings(
  "inference",
  {},
  {
    iterations: Number(flags.iterations),
    warmup,
    loadings: 1,
    batch_sizes: [Number(flags["batch-size"])],
    metrics: ["latency"],
  },
);

if (flags.child === undefined) await compare();
else await measure(flags.model ?? "", flags.child, Number(process.env["TINYAI_MARKS"]));

/** Measures, with a mark around each iteration, and writes the latencies that the benchmark reports. */
async function measure(model: string, output: string, marks: number): Promise<void> {
  const open = async (...given: Parameters<typeof openSubject>) => {
    const subject = await openSubject(...given);
    return {
      ...subject,
      async iterate(batchSize: number) {
        writeSync(marks, "b");
        const sample = await subject.iterate(batchSize);
        writeSync(marks, "e");
        return sample;
      },
    };
  };
  const { figures } = await measureInference({ model, settings }, open);
  writeFileSync(output, JSON.stringify(figures.latency));
}

async function compare(): Promise<void> {
  const chosen = chooseModel(flags.model);
  const folder = mkdtempSync(join(tmpdir(), "tinyai-bench-"));
  try {
    const output = join(folder, "latency.json");
    const child = [process.execPath, import.meta.path, "--model", chosen.path, "--child", output];
    const sizes = ["--iterations", flags.iterations, "--batch-size", flags["batch-size"]];
    const timer = join(import.meta.dir, "outside_timer.py");
    const { stdout, exitCode } = Bun.spawnSync(["python3", timer, ...child, ...sizes], { stderr: "inherit" });
    if (exitCode !== 0) throw new Error(`the child ended with status ${exitCode}`);
    const reported: Latency = await Bun.file(output).json();
    const seen = latencyOf((JSON.parse(stdout.toString()) as number[]).slice(warmup));
    report(chosen.name, reported, seen);
  } finally {
    rmSync(folder, { recursive: true, force: true });
    chosen.remove();
  }
}

function report(model: string, reported: Latency, seen: Latency): void {
  const figures = ["mean", "50", "90", "95", "99"].map((name) => {
    const of = ({ mean, percentiles }: Latency) =>
      name === "mean" ? mean : percentiles[name as keyof Latency["percentiles"]];
    return { name, reported: of(reported), seen: of(seen), apart: of(reported) / of(seen) - 1 };
  });
  const holds =
    reported.samples?.length === seen.samples?.length && figures.every(({ apart }) => Math.abs(apart) <= bar);
  if (flags.json) console.log(JSON.stringify({ model, iterations: seen.samples?.length, figures, holds }));
  else {
    console.log(`${model}: ${seen.samples?.length} iterations of ${settings.batch_sizes} requests`);
    const rows = figures.map(({ name, ...each }) => [
      name === "mean" ? name : `percentile ${name}`,
      each.reported.toFixed(3),
      each.seen.toFixed(3),
      `${(100 * each.apart).toFixed(3)} %`,
    ]);
    console.log(formatTable([["latency", "reported, ms", "from outside, ms", "apart"], ...rows], 1));
    console.log(holds ? `all within ${100 * bar} %` : `more than ${100 * bar} % apart`);
  }
  process.exitCode = holds ? 0 : 1;
}
