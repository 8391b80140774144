// Whether a model is ready to be measured: its hash, its layout, its weights, the memory it takes, and whether it computes. It changes
// nothing: a prepared copy is used where it is the file's as it stands, and none is made.

import { statSync } from "node:fs";
import { join } from "node:path";
import { ModelFileError, TinyAIError } from "../errors.ts";
import { estimateMemory } from "../estimate.ts";
import { loadModel } from "../load.ts";
import { type CatalogueEntry, catalogue, pulledPath } from "../model/catalogue.ts";
import type { ModelFile } from "../model/file.ts";
import { isPrepared, type PreparedFile, type PreparedSource } from "../model/prepared.ts";
import { resolveModel } from "../model/resolve.ts";
import { hashModel, openModelFile, preparedPath, stampOf } from "../prepared.ts";
import { grouped, megabytes } from "../text-table.ts";
import { findNotFinite } from "./finite.ts";
import { availableMemory } from "./machine/memory.ts";
import { promptOf } from "./work.ts";

/** One thing that was looked at. `unknown`: there is nothing to compare it with, or it could not be tried. */
export interface ModelCheck {
  readonly name: "layout" | "hash" | "tensors" | "memory" | "forward pass";
  readonly verdict: "ok" | "failed" | "unknown";
  /** What was found. */
  readonly evidence: string;
}

export interface ModelVerification {
  readonly model: string;
  /** The file or folder. */
  readonly path: string;
  readonly sha256: string;
  /** Whether no check failed. */
  readonly ok: boolean;
  readonly checks: readonly ModelCheck[];
}

export interface VerifyOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called with what is done of it, 0 to 1. */
  readonly onProgress?: ((share: number) => void) | undefined;
}

/** Tokens of the forward pass. */
const passTokens = 16;
/** Parts of the time, roughly, that are over when a check is done. */
const shares = { layout: 0.02, hash: 0.4, tensors: 0.7, memory: 0.75 } as const;

/**
 * Looks at a model that is given as for `loadModel`.
 * @throws {ModelFileError} if the file is damaged, or of a kind that is not supported. @throws {OptionError} if there is no model of
 * that name. @throws the signal's reason if it is aborted.
 */
export async function verifyModel(model: string, options: VerifyOptions = {}): Promise<ModelVerification> {
  const { signal, onProgress } = options;
  const path = resolveModel(model, "--model");
  const file = openModelFile(path);
  const checks: ModelCheck[] = [checkLayout(file)];
  onProgress?.(shares.layout);
  const sha256 = await hashModel(path, signal);
  checks.push(await checkHash(path, file, sha256, signal));
  onProgress?.(shares.hash);
  const tensors = (bytes: number): void =>
    onProgress?.(shares.hash + (shares.tensors - shares.hash) * (bytes / file.byteLength));
  checks.push(await checkTensors(file, signal, tensors));
  const fits = await attempt("memory", () => checkMemory(path));
  checks.push(fits);
  onProgress?.(shares.memory);
  checks.push(
    fits.verdict === "failed"
      ? { name: "forward pass", verdict: "unknown", evidence: "not tried, since it could not be loaded" }
      : await attempt("forward pass", () => checkPass(path, signal)),
  );
  onProgress?.(1);
  return { model, path, sha256, ok: checks.every(({ verdict }) => verdict !== "failed"), checks };
}

/** What a check finds; an error of TinyAI's is that it failed. */
async function attempt(name: ModelCheck["name"], check: () => Promise<Omit<ModelCheck, "name">>): Promise<ModelCheck> {
  try {
    return { name, ...(await check()) };
  } catch (error) {
    if (!(error instanceof TinyAIError)) throw error;
    return { name, verdict: "failed", evidence: error.message };
  }
}

/** What readers check is that all lies inside the file and nothing overlaps; what they read is told here. */
function checkLayout(file: ModelFile): ModelCheck {
  const places = [...file.tensors.values()].sort((a, b) => a.byteOffset - b.byteOffset);
  const overlap = places.find(({ byteOffset }, index) => {
    const before = places[index - 1];
    return before !== undefined && before.byteOffset + before.byteLength > byteOffset;
  });
  const last = places.at(-1);
  const end = last ? last.byteOffset + last.byteLength : 0;
  const aligned = alignmentOf(places.map(({ byteOffset }) => byteOffset));
  const version = file.version > 0 ? ` version ${file.version}` : "";
  const where = `${grouped(places.length)} tensors at multiples of ${aligned} bytes, the last one ends at byte ${grouped(end)} of ${grouped(file.byteLength)}`;
  const sound = places.length > 0 && !overlap && end <= file.byteLength;
  const problem = overlap ? `; tensor ${overlap.name} overlaps the one before it` : "";
  return { name: "layout", verdict: sound ? "ok" : "failed", evidence: `${file.format}${version}, ${where}${problem}` };
}

/** The largest power of two, up to 4,096, that divides all of them. */
function alignmentOf(offsets: readonly number[]): number {
  let alignment = 4096;
  for (const offset of offsets) while (offset % alignment !== 0) alignment /= 2;
  return alignment;
}

async function checkHash(
  path: string,
  file: ModelFile,
  sha256: string,
  signal: AbortSignal | undefined,
): Promise<ModelCheck> {
  const name = "hash";
  const short = `SHA-256 ${sha256.slice(0, 12)}…`;
  if (file.format === "tinyai") {
    const { source } = file as PreparedFile;
    const known = catalogue.find((entry) => entry.sha256 === source.sha256);
    const origin = known ? `made from ${known.name} as it is published` : "made from a file that nothing is known of";
    const evidence = `${short}; ${origin}, and its own bytes have nothing to be compared with`;
    return { name, verdict: "unknown", evidence };
  }
  const pulled = catalogue.find((entry) => pulledPath(entry) === path);
  if (pulled) {
    const actual = pulled.folder ? await hashFiles(path, pulled, signal) : sha256;
    return actual === pulled.sha256
      ? { name, verdict: "ok", evidence: `${short}, as ${pulled.name} is published` }
      : { name, verdict: "failed", evidence: `${short} is not ${pulled.name} as it is published: pull it again` };
  }
  const published = catalogue.find((entry) => entry.sha256 === sha256);
  if (published) return { name, verdict: "ok", evidence: `${short}, as ${published.name} is published` };
  const made = copySource(path);
  if (made?.sha256 === sha256) return { name, verdict: "ok", evidence: `${short}, as when it was prepared` };
  if (isCurrent(made, path)) {
    const evidence = `${short} is not what it was when it was prepared, but its times are: the file is damaged; get it again`;
    return { name, verdict: "failed", evidence };
  }
  const since = made ? "changed since it was prepared" : "nothing to compare it with";
  return { name, verdict: "unknown", evidence: `${short}; ${since}` };
}

/** What a model's prepared copy in the cache was made from; undefined if there is none, or it is damaged. */
function copySource(path: string): PreparedSource | undefined {
  const copy = preparedPath(path);
  try {
    return isPrepared(copy) ? (openModelFile(copy) as PreparedFile).source : undefined;
  } catch (error) {
    if (error instanceof ModelFileError) return undefined;
    throw error;
  }
}

/** Whether a copy is of the model with its size and times: it is used as it is then, and any other is written to. */
function isCurrent(made: PreparedSource | undefined, path: string): boolean {
  const stamp = stampOf(path);
  return (
    made !== undefined &&
    stamp?.bytes === made.bytes &&
    stamp.modifiedNs === made.modifiedNs &&
    stamp.changedNs === made.changedNs
  );
}

/** Of the files of a folder as its entry in the catalogue counts through them. */
async function hashFiles(
  path: string,
  { folder = [] }: CatalogueEntry,
  signal: AbortSignal | undefined,
): Promise<string> {
  const hasher = new Bun.CryptoHasher("sha256");
  for (const { path: name } of folder) {
    const place = join(path, name);
    if (!statSync(place, { throwIfNoEntry: false })?.isFile()) return "";
    for await (const piece of Bun.file(place).stream()) {
      signal?.throwIfAborted();
      hasher.update(piece);
    }
  }
  return hasher.digest("hex");
}

async function checkTensors(
  file: ModelFile,
  signal: AbortSignal | undefined,
  onProgress: (bytes: number) => void,
): Promise<ModelCheck> {
  const counts = new Map<string, number>();
  let values = 0;
  for (const { dtype, shape } of file.tensors.values()) {
    counts.set(dtype, (counts.get(dtype) ?? 0) + 1);
    values += shape.reduce((product, size) => product * size, 1);
  }
  const formats = [...counts].map(([dtype, count]) => `${grouped(count)} ${dtype}`).join(", ");
  const broken = await findNotFinite(file, signal, onProgress);
  const finite = broken === undefined ? "all finite" : `tensor ${broken} holds a value that is not finite`;
  const evidence = `${grouped(values)} values in ${grouped(file.tensors.size)} tensors (${formats}), ${finite}`;
  return { name: "tensors", verdict: broken === undefined ? "ok" : "failed", evidence };
}

async function checkMemory(path: string): Promise<Omit<ModelCheck, "name">> {
  const { minMemory, maxMemory } = await estimateMemory(path, { prepared: isCurrent(copySource(path), path) });
  const memory = availableMemory();
  const takes = `it takes ${megabytes(minMemory, 0)} to ${megabytes(maxMemory, 0)} MB`;
  if (memory === null) return { verdict: "unknown", evidence: `${takes}; the system does not tell what is available` };
  const { available } = memory;
  const evidence = `${takes} of ${megabytes(available, 0)} MB available`;
  if (minMemory > available) return { verdict: "failed", evidence: `${evidence}: end what takes memory` };
  const short = maxMemory > available ? "; a full batch of its whole context does not fit" : "";
  return { verdict: "ok", evidence: `${evidence}${short}` };
}

/** The vector of a text, or the logits of some tokens. */
async function checkPass(path: string, signal: AbortSignal | undefined): Promise<Omit<ModelCheck, "name">> {
  await using model = await loadModel(path, { prepared: isCurrent(copySource(path), path), tuning: "fixed", signal });
  const tokens = promptOf(model, Math.min(passTokens, model.contextLength));
  let [count, lowest, highest, broken] = [0, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 0];
  const look = (values: Float32Array): void => {
    count += values.length;
    for (const value of values) {
      if (!Number.isFinite(value)) broken++;
      else if (value < lowest) lowest = value;
      if (value > highest && Number.isFinite(value)) highest = value;
    }
  };
  const { wholePrompts } = model.plan();
  if (wholePrompts) look((await model.embed(tokens, { signal })) as Float32Array);
  else await model.score(tokens, { signal, onLogits: look });
  const what = wholePrompts ? "values of a vector" : "logits";
  // What is no number can vanish on the way, and leave nothing of the text.
  if (lowest === highest) return { verdict: "failed", evidence: `all ${grouped(count)} ${what} are ${lowest}` };
  const range = `${lowest.toPrecision(3)} to ${highest.toPrecision(3)}`;
  if (broken > 0)
    return { verdict: "failed", evidence: `${grouped(broken)} of ${grouped(count)} ${what} are not finite` };
  return { verdict: "ok", evidence: `${grouped(count)} ${what} of ${tokens.length} tokens, all finite, from ${range}` };
}
