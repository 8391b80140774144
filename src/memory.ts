// How much memory a model may take, and the plan that fits into it.

import { readFileSync } from "node:fs";
import { freemem } from "node:os";
import { groupMemoryLeft } from "./engine/cgroup.ts";
import { programMemory, totalMemory } from "./engine/footprint.ts";
import type { Library } from "./engine/library.ts";
import { EngineError, MemoryLimitError, OptionError } from "./errors.ts";
import type { Graph } from "./graph/graph.ts";
import { explainSchedule, fitLimit, scheduled } from "./knobs/scheduler.ts";
import type { CheckedLoadOptions } from "./load-options.ts";
import type { ModelFile } from "./model/file.ts";
import { type KvDType, kvBlock } from "./plan/formats.ts";
import { sequencesMax, stepRowsMax } from "./plan/layout.ts";
import { type Plan, planProgram } from "./plan/plan.ts";
import { screenProblem } from "./plan/screen.ts";

export const limitRemedy =
  "use a shorter context (contextLength), keys and values of 8 bits (kvCache), a smaller model, or a higher limit (limits.memoryPercent)";
const batchSizeDefault = 16;
/** Kept keys and values take at most this part of what memory is free. */
const keptPart = 1 / 8;
/** Where memory is short, a context is not halved below this many positions. */
export const contextMinimum = 512;

/** What a plan will run in. */
export interface Host {
  readonly library: Library;
  readonly threadCount: number;
  /** What a limit leaves of memory, in bytes; Infinity: no limit. */
  readonly limit: number;
}

/**
 * The plan that a model is loaded with.
 * @throws {OptionError} if options ask for what the model has not.
 * @throws {EngineError} if it does not fit into memory.
 * @throws {MemoryLimitError} if it would fit but for the limit.
 */
export function planModel(file: ModelFile, graph: Graph, checked: CheckedLoadOptions, host: Host): Plan {
  const { contextLength, kvDtype, screening } = checked;
  if (contextLength !== undefined && contextLength > graph.contextLength) {
    const problem = `is ${contextLength}, but the model was made for ${graph.contextLength} positions`;
    throw new OptionError("contextLength", problem);
  }
  if (contextLength !== undefined && contextLength > stepRowsMax && !graph.causal) {
    const problem = `is ${contextLength}, but a text that is computed whole has at most ${stepRowsMax} positions`;
    throw new OptionError("contextLength", problem);
  }
  if (kvDtype) checkHeadWidths(graph, kvDtype);
  const problem = screening ? screenProblem(graph) : undefined;
  if (problem !== undefined) throw new OptionError("screening", `is true, but ${problem}; leave it out`);
  return planForMemory(file, graph, checked, host);
}

/** @throws {OptionError} if keys and values of that format want heads of another width. */
export function checkHeadWidths(graph: Graph, kvDtype: KvDType): void {
  const block = kvBlock(kvDtype);
  for (const node of graph.nodes) {
    if (node.kind !== "attention" || node.shape.headWidth % block === 0) continue;
    const widths = `needs heads whose width is a multiple of ${block}, and those of ${node.name} have ${node.shape.headWidth}`;
    throw new OptionError("kvCache", `is "${kvDtype.toLowerCase()}", which ${widths}; leave it out`);
  }
}

/** Memory that can be had without pushing others out: the system's estimate, or less in a control group. */
function availableMemory(): number {
  return Math.min(systemMemory(), Math.max(0, groupMemoryLeft()));
}

function systemMemory(): number {
  try {
    const line = /^MemAvailable:\s+(\d+) kB/m.exec(readFileSync("/proc/meminfo", "utf8"));
    if (line) return Number(line[1]) * 1024;
  } catch {
    // Not Linux.
  }
  return freemem();
}

/**
 * The plan for the context asked for; if none was, for the model's own, halved until a sequence of it fits into memory.
 * @throws {EngineError} if it does not fit.
 * @throws {MemoryLimitError} if it would fit but for the limit.
 */
export function planForMemory(
  file: ModelFile,
  graph: Graph,
  checked: CheckedLoadOptions,
  { library, threadCount, limit }: Host,
): Plan {
  const free = availableMemory();
  const available = Math.min(free, Math.max(0, limit));
  const longest = graph.causal ? graph.contextLength : Math.min(graph.contextLength, stepRowsMax);
  let contextMax = checked.contextLength ?? longest;
  const batchMax = checked.batchSize ?? (graph.causal ? batchSizeDefault : sequencesMax);
  for (;;) {
    const { keptBytesMax, ...steps } = scheduled(graph, checked.scheduler, { contextMax, batchMax }, checked);
    const options = {
      contextMax,
      batchMax,
      ...steps,
      kvBytesMax: available / 2,
      keptBytesMax: keptWithin(keptBytesMax, available),
      packedWeights: file.packedWeights,
      fusion: checked.fusion,
    };
    const fitting = fitLimit(graph, options, checked.scheduler);
    const planFor = (kvBytesMax: number) => planProgram(graph, { ...fitting, kvBytesMax });
    const roomy = planFor(available / 2);
    const ownBytes = ({ program }: Plan) => besideKv(library, program, threadCount);
    // What the weights leave; one sequence always has its pages.
    const left = available - ownBytes(roomy);
    const plan = left < available / 2 ? planFor(Math.max(0, left)) : roomy;
    const needed = ownBytes(plan) + plan.kvBytesPerSequence;
    if (needed <= available) return explainSchedule(graph, plan, checked.scheduler);
    if (checked.contextLength !== undefined || contextMax < 2 * contextMinimum) {
      if (needed > free) throw tooLarge(file.path, plan, needed, free);
      throw new MemoryLimitError(file.path, needed, available, limitRemedy);
    }
    contextMax = Math.floor(contextMax / 2);
  }
}

/** Bytes that kept keys and values may have of those that were chosen, where so much memory is available. */
export function keptWithin(bytes: number, available = availableMemory()): number {
  return Math.min(bytes, available * keptPart);
}

/**
 * What an engine sets aside beside keys and values. All of it counts, touched or not, as it does while requests are held to a limit. Events
 * are only there while somebody profiles.
 */
function besideKv(library: Library, program: Uint8Array, threadCount: number): number {
  const taken = programMemory(library, program, threadCount, 0);
  return totalMemory(taken) - taken.keysAndValues;
}

function tooLarge(path: string, plan: Plan, needed: number, available: number): EngineError {
  const megabytes = (bytes: number) => `${Math.ceil(bytes / 1e6)} MB`;
  const rest = needed - plan.weightsBytes - plan.arenaBytes - plan.kvBytesPerSequence;
  return new EngineError(
    `${path}: needs ${megabytes(needed)} of memory (${megabytes(plan.weightsBytes)} of weights, ${megabytes(plan.arenaBytes)} of activations, ` +
      `${megabytes(plan.kvBytesPerSequence)} of KV cache for ${plan.options.contextMax} positions, ${megabytes(rest)} for the rest), but ${megabytes(available)} are available; ` +
      "use a shorter context (contextLength, --context), keys and values of 8 bits (kvCache, --kv-cache q8_0), a smaller model, or free memory",
  );
}
