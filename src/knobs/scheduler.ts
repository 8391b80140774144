// The layer scheduler's options: how much memory steps may take for how much speed. Here they are checked and become the options
// of a plan; what is asked of a scheduler afterwards is layer-scheduler.ts's.

import { checkBoolean, checkInteger, checkKeys, checkNumber } from "../check.ts";
import { OptionError } from "../errors.ts";
import type { Graph } from "../graph/graph.ts";
import type * as checkpointsModule from "../plan/checkpoints.ts";
import type * as fitModule from "../plan/fit.ts";
import { type KvDType, kvBlock } from "../plan/formats.ts";
import { explainPlan, type Plan, type PlanOptions, planArenaBytes, type WithoutEffect } from "../plan/plan.ts";
import { screenProblem } from "../plan/screen.ts";

/** What the layer scheduler works with. */
export interface SchedulerOptions {
  /**
   * Whether the plan says which activations training would keep, those at the borders of segments of layers, and which it would
   * compute once more. Generating and embedding keep none: it changes the plan and nothing that runs. Default false.
   */
  readonly enableCheckpointing?: boolean | undefined;
  /**
   * From 0, least memory, to 1, most speed. Each quarter stands for a choice of what is left open; an option that says otherwise
   * wins (`kvCache`, `prefixCache`, `screening`).
   *
   * | from | rows of a step | rows with logits | keys and values | kept of ended texts | screened head |
   * | ---- | -------------- | ---------------- | --------------- | ------------------- | ------------- |
   * | 0    | 64             | 8                | Q8_0            | nothing             | no            |
   * | 0.25 | 128            | 16               | F16             | 64 MiB              | no            |
   * | 0.5  | 256            | 32               | F16             | 256 MiB             | no            |
   * | 0.75 | 512            | 64               | F16             | 1 GiB               | yes           |
   *
   * A step has at least a row for each sequence of a batch. Where texts are computed whole, steps have twice as many rows, and never
   * fewer than the longest text. Keys and values in Q8_0 change results a little; they are kept in F16 where heads have another width than a
   * multiple of 32. A screened head leaves log-probabilities out (`screening`), and where it cannot be, it is not. Default 0.5: what
   * is done without a scheduler.
   */
  readonly memorySpeedTradeoff?: number | undefined;
  /**
   * Whether the plan says so of activations that cost little to compute once more (norms, additions, activation functions): as with
   * checkpoints, it changes nothing that runs. Default false.
   */
  readonly recomputeActivations?: boolean | undefined;
  /**
   * Bytes that activations may take. Steps get fewer rows until they fit; results stay the same, prompts take longer. Default: no
   * limit.
   */
  readonly maxActivationMemory?: number | undefined;
}

/** The same with nothing left open; without a limit `maxActivationMemory` is undefined. */
export interface SchedulerConfig {
  readonly enableCheckpointing: boolean;
  readonly memorySpeedTradeoff: number;
  readonly recomputeActivations: boolean;
  readonly maxActivationMemory: number | undefined;
}

const activationMemoryMax = 2 ** 44;
const tradeoffDefault = 0.5;

/** @throws {OptionError} if a field is out of its bounds. */
export function checkScheduler(option: unknown = {}): SchedulerConfig {
  checkKeys("scheduler", option, [
    "enableCheckpointing",
    "memorySpeedTradeoff",
    "recomputeActivations",
    "maxActivationMemory",
  ]);
  const {
    enableCheckpointing = false,
    memorySpeedTradeoff = tradeoffDefault,
    recomputeActivations = false,
    maxActivationMemory: limit,
  } = option as SchedulerOptions;
  return {
    enableCheckpointing: checkBoolean("scheduler.enableCheckpointing", enableCheckpointing),
    memorySpeedTradeoff: checkNumber("scheduler.memorySpeedTradeoff", memorySpeedTradeoff, 0, 1),
    recomputeActivations: checkBoolean("scheduler.recomputeActivations", recomputeActivations),
    maxActivationMemory:
      limit === undefined ? undefined : checkInteger("scheduler.maxActivationMemory", limit, 1, activationMemoryMax),
  };
}

/** What the trade-off decides unless an option does. */
interface Choice {
  readonly rows: number;
  readonly kvDtype: KvDType;
  readonly keptBytesMax: number;
  readonly screening: boolean;
}

const mebibyte = 2 ** 20;
/**
 * One for each quarter. The third is what is done without a scheduler: enough rows that each weight read from memory is used many
 * times, few enough that others wait at most for one step.
 */
const choices: readonly [Choice, Choice, Choice, Choice] = [
  { rows: 64, kvDtype: "Q8_0", keptBytesMax: 0, screening: false },
  { rows: 128, kvDtype: "F16", keptBytesMax: 64 * mebibyte, screening: false },
  { rows: 256, kvDtype: "F16", keptBytesMax: 256 * mebibyte, screening: false },
  { rows: 512, kvDtype: "F16", keptBytesMax: 1024 * mebibyte, screening: true },
];
/** Rows of a step for each row of logits: with Gemma's vocabulary such a row takes 1 MB. */
const rowsPerLogits = 8;
/** Nobody waits for steps of texts that are computed whole to draw a token. */
const wholeTextFactor = 2;

/** What options say that the trade-off would decide. */
export interface Decided {
  readonly kvDtype?: KvDType | undefined;
  readonly keptBytesMax?: number | undefined;
  readonly screening?: boolean | undefined;
}

/** The options of a plan that the scheduler decides on, before any limit. */
export function scheduled(
  graph: Graph,
  { memorySpeedTradeoff }: SchedulerConfig,
  limits: { readonly contextMax: number; readonly batchMax: number },
  decided: Decided,
): Pick<PlanOptions, "rowsMax" | "logitsRowsMax" | "chunkPositions" | "keptBytesMax" | "kvDtype" | "screening"> {
  const choice = choices[quarterOf(memorySpeedTradeoff)] ?? choices[2];
  const { contextMax, batchMax } = limits;
  const rows = graph.causal ? choice.rows : wholeTextFactor * choice.rows;
  const rowsMax = Math.max(rows, batchMax, graph.causal ? 0 : contextMax);
  return {
    rowsMax,
    logitsRowsMax: graph.causal ? Math.max(choice.rows / rowsPerLogits, batchMax) : batchMax,
    chunkPositions: Math.min(rows, rowsMax),
    keptBytesMax: decided.keptBytesMax ?? choice.keptBytesMax,
    kvDtype: decided.kvDtype ?? (holdsHeads(graph, choice.kvDtype) ? choice.kvDtype : "F16"),
    screening: decided.screening ?? (choice.screening && screenProblem(graph) === undefined),
  };
}

function quarterOf(memorySpeedTradeoff: number): number {
  return Math.min(3, Math.floor(memorySpeedTradeoff * 4));
}

/** Whether keys and values of all heads can be kept in that format: `kvBlock` columns share a scale. */
function holdsHeads(graph: Graph, dtype: KvDType): boolean {
  return graph.nodes.every((node) => node.kind !== "attention" || node.shape.headWidth % kvBlock(dtype) === 0);
}

/**
 * The options with steps so small that their activations fit into the scheduler's limit.
 * @throws {OptionError} if none are, with the least that the model can do with.
 */
export function fitLimit(
  graph: Graph,
  options: PlanOptions,
  { maxActivationMemory: limit }: SchedulerConfig,
): PlanOptions {
  if (limit === undefined) return options;
  const { fitSteps, smallestSteps }: typeof fitModule = require("../plan/fit.ts");
  const fitting = fitSteps(graph, options, limit);
  if (fitting) return fitting;
  const least = planArenaBytes(graph, smallestSteps(graph, options));
  const [positions, sequences] = [options.contextMax, options.batchMax];
  throw new OptionError(
    "scheduler.maxActivationMemory",
    `is ${limit}, but activations take at least ${least} bytes for a context of ${positions} positions and a batch of ` +
      `${sequences}; raise it, or use a shorter context (contextLength) or a smaller batch (batchSize)`,
  );
}

/** A plan with what the scheduler has to say of it. */
export function explainSchedule(graph: Graph, plan: Plan, config: SchedulerConfig): Plan {
  const { enableCheckpointing, recomputeActivations } = config;
  const others = [...tradeoffReason(config), ...limitReason(graph, plan, config)];
  if (!enableCheckpointing && !recomputeActivations) return explainPlan(plan, { withoutEffect: others });
  const { planCheckpoints }: typeof checkpointsModule = require("../plan/checkpoints.ts");
  const reason =
    "this program only runs forward, and keeps no activations; `plan.checkpoints` says what training would";
  const knobs = { enableCheckpointing, recomputeActivations };
  const set = Object.entries(knobs).flatMap(([knob, on]) => (on ? [{ knob: `scheduler.${knob}`, reason }] : []));
  return explainPlan(plan, {
    checkpoints: planCheckpoints(graph, plan, config),
    withoutEffect: [...set, ...others],
  });
}

/** Named where it is another number for the choice that is the default. */
function tradeoffReason({ memorySpeedTradeoff }: SchedulerConfig): WithoutEffect[] {
  const same = memorySpeedTradeoff !== tradeoffDefault && quarterOf(memorySpeedTradeoff) === quarterOf(tradeoffDefault);
  const reason = `it goes by quarters, and ${memorySpeedTradeoff} is in that of the default, ${tradeoffDefault}`;
  return same ? [{ knob: "scheduler.memorySpeedTradeoff", reason }] : [];
}

/** Named where steps are as large as they would be without it. */
function limitReason(graph: Graph, plan: Plan, config: SchedulerConfig): WithoutEffect[] {
  if (config.maxActivationMemory === undefined) return [];
  const { rowsMax, logitsRowsMax } = scheduled(graph, config, plan.options, {});
  if (plan.options.rowsMax < rowsMax || plan.options.logitsRowsMax < logitsRowsMax) return [];
  return [{ knob: "scheduler.maxActivationMemory", reason: `activations take ${plan.arenaBytes} bytes without it` }];
}
