// How much memory a model may take, and the plan that fits into it.

import { readFileSync } from "node:fs";
import { freemem } from "node:os";
import { EngineError, OptionError } from "./errors.ts";
import type { Graph } from "./graph/graph.ts";
import type { CheckedLoadOptions } from "./load-options.ts";
import type { ModelFile } from "./model/file.ts";
import { type KvDType, kvBlock } from "./plan/formats.ts";
import { sequencesMax, stepRowsMax } from "./plan/layout.ts";
import { type Plan, planProgram } from "./plan/plan.ts";

const batchSizeDefault = 16;
/** Kept keys and values take at most this part of what memory is free. */
const keptPart = 1 / 8;
/** Where memory is short, a context is not halved below this many positions. */
export const contextMinimum = 512;
/** Rows of a step: enough that each weight read from memory is used many times, few enough that others wait at most for one. */
const stepRows = 256;
/** The same where texts are computed whole, whose steps nobody waits for to draw a token. Longer texts have a step to themselves. */
const encoderStepRows = 512;
/** Rows of logits of a step: with Gemma's vocabulary each takes 1 MB. */
const scoreRows = 32;

/** @throws {OptionError} if keys and values of that format want heads of another width. */
export function checkHeadWidths(graph: Graph, kvDtype: KvDType): void {
  const block = kvBlock(kvDtype);
  for (const node of graph.nodes) {
    if (node.kind !== "attention" || node.shape.headWidth % block === 0) continue;
    const widths = `needs heads whose width is a multiple of ${block}, and those of ${node.name} have ${node.shape.headWidth}`;
    throw new OptionError("kvCache", `is "${kvDtype.toLowerCase()}", which ${widths}; leave it out`);
  }
}

/** Memory that can be had without pushing others out: the system's estimate, and the control group's limit. */
function availableMemory(): number {
  let available = freemem();
  try {
    const line = /^MemAvailable:\s+(\d+) kB/m.exec(readFileSync("/proc/meminfo", "utf8"));
    if (line) available = Number(line[1]) * 1024;
    const limit = Number(readFileSync("/sys/fs/cgroup/memory.max", "utf8"));
    const used = Number(readFileSync("/sys/fs/cgroup/memory.current", "utf8"));
    // Cached files count as used but make room when memory is asked for.
    const statistics = readFileSync("/sys/fs/cgroup/memory.stat", "utf8");
    const cached = ["active_file", "inactive_file"].map((name) =>
      Number(new RegExp(`^${name} (\\d+)$`, "m").exec(statistics)?.[1] ?? 0),
    );
    const free = limit - used + cached.reduce((sum, bytes) => sum + bytes, 0);
    if (Number.isFinite(free)) available = Math.min(available, free);
  } catch {
    // Not Linux, or no control group: the system's figure stands.
  }
  return available;
}

/**
 * The plan for the context asked for; if none was, for the model's own, halved until a sequence of it fits into memory.
 * @throws {EngineError} if it does not fit.
 */
export function planForMemory(file: ModelFile, graph: Graph, checked: CheckedLoadOptions): Plan {
  const available = availableMemory();
  const longest = graph.causal ? graph.contextLength : Math.min(graph.contextLength, stepRowsMax);
  let contextMax = checked.contextLength ?? longest;
  for (;;) {
    const planFor = (kvBytesMax: number) =>
      planProgram(graph, {
        contextMax,
        ...stepSizes(graph, contextMax, checked.batchSize),
        kvBytesMax,
        keptBytesMax: Math.min(checked.keptBytesMax, available * keptPart),
        kvDtype: checked.kvDtype,
        packedWeights: file.packedWeights,
        screening: checked.screening,
      });
    const roomy = planFor(available / 2);
    // What the weights leave; one sequence always has its pages.
    const left = available - ownBytes(roomy);
    const plan = left < available / 2 ? planFor(Math.max(0, left)) : roomy;
    const needed = ownBytes(plan) + plan.kvBytesPerSequence;
    if (needed <= available) return plan;
    if (checked.contextLength !== undefined || contextMax < 2 * contextMinimum)
      throw tooLarge(file.path, plan, needed, available);
    contextMax = Math.floor(contextMax / 2);
  }
}

/** What a step may have. */
function stepSizes(graph: Graph, contextMax: number, batchSize: number | undefined) {
  if (graph.causal) {
    const batchMax = batchSize ?? batchSizeDefault;
    const rowsMax = Math.max(stepRows, batchMax);
    return { batchMax, rowsMax, logitsRowsMax: Math.max(scoreRows, batchMax), chunkPositions: stepRows };
  }
  const batchMax = batchSize ?? sequencesMax;
  const rowsMax = Math.max(encoderStepRows, contextMax);
  return { batchMax, rowsMax, logitsRowsMax: batchMax, chunkPositions: encoderStepRows };
}

/** What a plan takes beside the KV cache. */
function ownBytes(plan: Plan): number {
  return plan.weightsBytes + plan.screenBytes + plan.constantsBytes + plan.arenaBytes;
}

function tooLarge(path: string, plan: Plan, needed: number, available: number): EngineError {
  const megabytes = (bytes: number) => `${Math.ceil(bytes / 1e6)} MB`;
  return new EngineError(
    `${path}: needs ${megabytes(needed)} of memory (${megabytes(plan.weightsBytes)} of weights, ${megabytes(plan.arenaBytes)} of activations, ` +
      `${megabytes(plan.kvBytesPerSequence)} of KV cache for ${plan.options.contextMax} positions), but ${megabytes(available)} are available; ` +
      "use a shorter context (contextLength, --context), keys and values of 8 bits (kvCache, --kv-cache q8_0), a smaller model, or free memory",
  );
}
