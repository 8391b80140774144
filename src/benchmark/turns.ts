// Models compared in turns: all are loaded, warmed up, and then each is asked once in every round, in an order that is drawn anew for
// each round. A slow moment of the machine is so in all of them, and the rounds are compared in pairs. How memory and threads lie differs
// from loading to loading by more than from round to round, and makes even the same model faster or slower as long as it is loaded: so
// all are loaded anew for every block of rounds, and what is judged are the blocks.

import { OptionError } from "../errors.ts";
import { estimateMemory } from "../estimate.ts";
import { type Batch, lengthsOf, samplesOf, takeBlocks, warmupOf } from "./blocks.ts";
import type { Compared } from "./comparable.ts";
import { type Blocks, type ComparisonReport, compareResults, namesOf } from "./compare.ts";
import { checkEnvironment, type EnvironmentFinding, watchEnvironment } from "./environment.ts";
import { shuffled } from "./experiment.ts";
import { provenance } from "./fingerprint.ts";
import { inferenceFigures } from "./inference.ts";
import { availableMemory } from "./machine/memory.ts";
import type { BenchmarkInfo, BenchmarkResults, BenchmarkType, InferenceFigures, Settings } from "./results.ts";
import { amiss } from "./run.ts";
import { batchWarnings } from "./sample-warnings.ts";
import { simdLevel } from "./simd-level.ts";
import { precisionOf, samplesMin } from "./statistics/describe.ts";
import { type Random, seededRandom } from "./statistics/random.ts";
import { median } from "./statistics/summary.ts";
import { type IterationSample, openSubject, type Subject } from "./subject.ts";

export interface CompareModelsOptions {
  /** Paths or names; two or more. The same one twice shows what chance does. */
  readonly models: readonly string[];
  /** Only `inference`, which is the default, can be measured in turns. */
  readonly type?: BenchmarkType | undefined;
  /** As for `runBenchmark`; an iteration is a round, of all blocks together, and `precision` is that of the change. */
  readonly settings: Settings;
  /** How sure a difference has to be to be called one. Default 0.95. */
  readonly level?: number | undefined;
  /** Ends it; the comparison is of the rounds until then, and says so. */
  readonly signal?: AbortSignal | undefined;
  /** Called with what is done of it, 0 to 1, and what is being done. */
  readonly onProgress?: ((share: number, doing: string) => void) | undefined;
  /** Another way to a model than `openSubject`. */
  readonly open?: typeof openSubject | undefined;
}

/** Fewer blocks are not enough for verdicts on many metrics at once, some blocks being disturbed: all on one side are chance's once in 2^19. */
const loadingsDefault = 20;

/** A sample of each model, in their order. */
interface Round {
  /** Of all of them. */
  readonly latencyMs: number;
  readonly samples: readonly IterationSample[];
}

/**
 * Compares models, the first being the base.
 * @throws {OptionError} if there are fewer than two, or fewer loadings than six, or no such model, of a type that is not measured in
 * turns, or if they have no room in memory together.
 * @throws the signal's reason if it came before every model had been measured once.
 */
export async function compareModels(options: CompareModelsOptions): Promise<ComparisonReport> {
  const { models, type = "inference", settings, level, signal, onProgress } = options;
  checkType(type);
  if (models.length < 2) throw new OptionError("--models", "names one model; two or more are compared");
  if (settings.loadings && settings.loadings < samplesMin) {
    throw new OptionError("--loadings", `is ${settings.loadings}; the fewest that tell models apart are ${samplesMin}`);
  }
  const metrics = metricsInTurns(settings);
  if (settings.simd !== null) await simdLevel(settings.simd);
  await checkMemory(models);
  onProgress?.(0, "looking at the machine");
  const before = await checkEnvironment({ noise: true, ...(signal && { signal }) });
  signal?.throwIfAborted();
  const watch = watchEnvironment();
  let meanwhile: readonly EnvironmentFinding[] = [];
  const measured = await measureInTurns({ ...options, settings: { ...settings, metrics } }).finally(() => {
    meanwhile = watch.stop();
  });
  const report = compareResults(measured.compared, { blocks: measured.blocks, level });
  const found = [
    ...amiss(before.findings).map((warning) => `before measuring: ${warning}`),
    ...amiss(meanwhile).map((warning) => `while measuring: ${warning}`),
  ];
  return { ...report, warnings: [...found, ...report.warnings] };
}

export interface MeasuredInTurns {
  readonly compared: readonly Compared[];
  /** By batch size, how many samples of each block follow each other. */
  readonly blocks: Blocks;
}

/**
 * Measures models in turns, and gives the results of each, whatever the machine is like.
 * @throws {OptionError} if there is no such model, or some only embed and others do not.
 * @throws the signal's reason if it came before every model had been measured once.
 */
export async function measureInTurns(options: CompareModelsOptions): Promise<MeasuredInTurns> {
  const { models, type = "inference", settings, signal, onProgress, open = openSubject } = options;
  const timestamp = new Date().toISOString();
  const random = seededRandom(settings.seed);
  const places = [...models.keys()];
  /** Those of the last block. */
  let subjects: readonly Subject[] = [];
  const { batches: measured, ended } = await takeBlocks(settings, {
    blocksMin: settings.loadings ?? loadingsDefault,
    precisionOf: precisionOfChanges,
    async open() {
      const opened: Subject[] = [];
      const close = async () => {
        for (const place of places) await opened[place]?.close();
      };
      try {
        for (const place of shuffled(places, random)) {
          opened[place] = await open(models[place] ?? "", settings, { signal, details: subjects[place]?.details });
        }
        checkAlike(models, opened);
      } catch (error) {
        await close();
        throw error;
      }
      subjects = opened;
      return { close, iterate: (batchSize) => takeRound(opened, batchSize, random) };
    },
    signal,
    onProgress,
  });
  if (measured.length === 0) throw signal?.reason;
  const names = namesOf(models);
  const compared = subjects.map(({ details, embeds }, place) => {
    const name = names[place] ?? "";
    const benchmark_info: BenchmarkInfo = {
      model: name,
      type,
      timestamp,
      ...provenance(),
      settings: embeds ? { ...settings, generated_tokens: 0 } : settings,
      model_details: details,
      methodology,
      warnings: measured.flatMap((batch) => warningsOf(batch, place, settings)),
      ...(ended === "signal" && { interrupted: true }),
      in_turns: true,
    };
    return { name, results: { benchmark_info, results: figuresOf(measured, place, settings) } };
  });
  return { compared, blocks: new Map(measured.map((batch) => [batch.batchSize, lengthsOf(batch)])) };
}

const methodology = [
  "Measured in turns with other models, so that the caches hold another's weights before each iteration: alone it may be faster.",
  "The memory of one model cannot be told from that of the others in one process, and was not measured.",
];

function checkType(type: BenchmarkType): void {
  if (type === "inference") return;
  throw new OptionError(
    "--type",
    type === "training"
      ? "training cannot be measured: TinyAI does not train models yet; there is inference"
      : `${type} cannot be measured in turns; run it for each model, and compare the files with --results`,
  );
}

/** @throws {OptionError} if none is left without the process's memory, which is of all models together. */
function metricsInTurns({ metrics }: Settings): Settings["metrics"] {
  const left = metrics.filter((metric) => metric !== "memory_usage");
  if (left.length > 0) return left;
  throw new OptionError(
    "--metrics",
    "memory cannot be told apart of models in one process; run each by itself, and compare the files with --results",
  );
}

/** Models of the same file share its weights. @throws {OptionError} if they have no room together. */
async function checkMemory(models: readonly string[]): Promise<void> {
  let needed = 0;
  for (const model of new Set(models)) needed += (await estimateMemory(model)).minMemory;
  const free = availableMemory()?.available ?? process.availableMemory();
  if (needed <= free) return;
  const megabytes = (bytes: number) => `${Math.round(bytes / 1e6)} MB`;
  throw new OptionError(
    "--models",
    `together take ${megabytes(needed)} at least, but ${megabytes(free)} are free; run each by itself, and compare the files with --results`,
  );
}

/** @throws {OptionError} if some only embed and others do not. */
function checkAlike(models: readonly string[], subjects: readonly Subject[]): void {
  const place = subjects.findIndex(({ embeds }) => embeds !== subjects[0]?.embeds);
  if (place < 0) return;
  const [embedder, other] = subjects[0]?.embeds ? [models[0], models[place]] : [models[place], models[0]];
  throw new OptionError("--models", `${embedder} only embeds, but ${other} generates; compare models of one kind`);
}

async function takeRound(subjects: readonly Subject[], batchSize: number, random: Random): Promise<Round> {
  const samples: IterationSample[] = [];
  for (const place of shuffled([...subjects.keys()], random)) {
    const sample = await subjects[place]?.iterate(batchSize);
    if (sample) samples[place] = sample;
  }
  return { latencyMs: samples.reduce((sum, { latencyMs }) => sum + latencyMs, 0), samples };
}

/** Half the interval of how many times as long another model took as the first, beside that: the widest of all. */
function precisionOfChanges({ blocks }: Batch<Round>): number {
  const ratiosOf = (place: number) =>
    blocks.map(({ samples: rounds }) =>
      median(
        rounds.map(({ samples }) => (samples[place]?.latencyMs ?? Number.NaN) / (samples[0]?.latencyMs ?? Number.NaN)),
      ),
    );
  const count = blocks[0]?.samples[0]?.samples.length ?? 1;
  return Math.max(...Array.from({ length: count - 1 }, (_, other) => precisionOf(ratiosOf(other + 1))));
}

function samplesAt(batch: Batch<Round>, place: number): IterationSample[] {
  return samplesOf(batch).flatMap(({ samples }) => samples[place] ?? []);
}

function figuresOf(
  batches: readonly Batch<Round>[],
  place: number,
  { metrics, seed }: Settings,
): BenchmarkResults["results"] {
  const bySize = batches.map((batch): readonly [string, InferenceFigures] => [
    `${batch.batchSize}`,
    {
      ...inferenceFigures(samplesAt(batch, place), metrics, seed),
      warmup: warmupOf(batch),
      loadings: lengthsOf(batch),
    },
  ]);
  return { ...bySize[0]?.[1], by_batch_size: Object.fromEntries(bySize) };
}

function warningsOf(batch: Batch<Round>, place: number, settings: Settings): string[] {
  const taken = { samples: samplesAt(batch, place), warmup: warmupOf(batch), ended: "count" } as const;
  return batchWarnings(taken, settings, batch.batchSize);
}
