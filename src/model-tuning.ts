// What was measured of one model on this machine, and is used when it is loaded there: kept in a file for each machine, number of
// usable CPUs, instruction-set level and model. Models of the same shapes and formats are the same here: they take the same time.
// What is damaged or of another is as if it were not there. Nothing is measured here; benchmark/tune.ts does.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { isRecord } from "./check.ts";
import { cpu } from "./engine/cpu.ts";
import type { Library } from "./engine/library.ts";
import { isTuning, type Tuning } from "./engine/tuning.ts";
import { type KeptKind, keptPath, type MachineKey, machineKey, readKept, storeKept } from "./kept.ts";
import type { ModelFile } from "./model/file.ts";
import { homeFolder } from "./model/folders.ts";
import { sequencesMax } from "./plan/layout.ts";
import { type FoundTuning, findTuning, type TuningChoice } from "./tuning.ts";

/** What no result depends on, as it was best. */
export interface ModelTuning {
  /** Threads that compute. */
  readonly threadCount: number;
  readonly tuning: Tuning;
  /** The smallest number of sequences in a step with which it gave almost as many tokens/s as it does at most. */
  readonly batchSize: number;
}

/** Where settings come from. */
export interface TuningSource {
  /** `option`: `loadModel` was told; `model`: `tinyai tune --model` found it; `default`: as many as the process may use. */
  readonly threads: "option" | "model" | "default";
  /** How kernels work: as was best for this model, as was best for some products on this machine, or as a table says. */
  readonly kernels: "model" | "machine" | "table";
  /** The file that `tinyai tune --model` kept; undefined: there is none, or it was not asked for. */
  readonly path: string | undefined;
}

/** What a model's tuning was measured on, and for. */
export interface ModelTuningKey extends MachineKey {
  /** Of the model's shapes and formats. */
  readonly model: string;
}

/** The version changes as that of a machine's tuning, or with what is measured. */
const kept: KeptKind<ModelTuning> = { folder: "model-tuning", field: "tuning", version: 1, check: isModelTuning };

export function modelTuningKey(library: Library, level: number, file: ModelFile): ModelTuningKey {
  const shapes = Array.from(file.tensors.values(), ({ name, dtype, shape }) => `${name} ${dtype} ${shape.join(" ")}`);
  const model = Bun.hash.wyhash(shapes.sort().join("\n")).toString(16).padStart(16, "0");
  return { ...machineKey(kept, library, level, cpu.cores), model };
}

/** The file of a key, whether it is there or not. */
export function modelTuningPath(key: ModelTuningKey): string {
  return keptPath(kept, key);
}

/** What a model is loaded with, and where it comes from. */
export interface ModelSettings {
  readonly threadCount: number;
  readonly found: FoundTuning;
  /** The recommended one, where it was measured. */
  readonly batchSize: number | undefined;
  readonly source: TuningSource;
}

/** What was asked for, else what was measured of the model at this level, else of the machine, else what a table says. */
export function findSettings(
  library: Library,
  level: number,
  file: ModelFile,
  asked: { readonly threadCount: number; readonly threadsGiven: boolean; readonly tuning: TuningChoice },
): ModelSettings {
  const found = asked.tuning === "measured" ? readModelTuning(library, level, file) : undefined;
  const threadCount = asked.threadsGiven ? asked.threadCount : (found?.tuning.threadCount ?? asked.threadCount);
  const machine = findTuning(library, level, threadCount, asked.tuning);
  return {
    threadCount,
    found: found ? { tuning: found.tuning.tuning, source: "measured", path: found.path } : machine,
    batchSize: found?.tuning.batchSize,
    source: {
      threads: asked.threadsGiven ? "option" : found ? "model" : "default",
      kernels: found ? "model" : machine.source === "measured" ? "machine" : "table",
      path: found?.path,
    },
  };
}

/** What was measured of a model, and where it is kept; undefined if nothing was. */
function readModelTuning(library: Library, level: number, file: ModelFile) {
  // Most machines keep none, and opening a model should not wait for the key.
  if (!existsSync(join(homeFolder(), kept.folder))) return undefined;
  const key = modelTuningKey(library, level, file);
  const path = modelTuningPath(key);
  const tuning = readKept(kept, path, key);
  return tuning && { tuning, path };
}

/**
 * Keeps what was measured.
 * @throws {EngineError} if it cannot be written.
 */
export async function storeModelTuning(key: ModelTuningKey, tuning: ModelTuning): Promise<void> {
  await storeKept(kept, modelTuningPath(key), key, tuning);
}

function isModelTuning(value: unknown): value is ModelTuning {
  if (!isRecord(value) || !isTuning(value["tuning"])) return false;
  const { threadCount, batchSize } = value;
  return isWhole(threadCount, Math.min(cpu.cores, 64)) && isWhole(batchSize, sequencesMax);
}

function isWhole(value: unknown, maximum: number): boolean {
  return Number.isInteger(value) && Number(value) >= 1 && Number(value) <= maximum;
}
