// `tinyai search`: the pieces of a folder's texts, or of an index, whose meaning is nearest to a query's.

import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import type { Command } from "commander";
import { checkInteger } from "../check.ts";
import { similarity } from "../embed/similarity.ts";
import { createIndex, openIndex, type SearchHit, type VectorIndex } from "../embed/vector-index.ts";
import { OptionError } from "../errors.ts";
import type { Model } from "../loaded-model.ts";
import { printable } from "../model/file.ts";
import { checkFilePath } from "../profiling/file.ts";
import { interruption } from "./interrupt.ts";
import { addOptionalModelFlags, loadFromFlags, type ModelFlags, numberFlag, printJson } from "./model.ts";
import { piecesOf } from "./pieces.ts";
import { startProgress } from "./progress.ts";

interface Flags extends Partial<Pick<ModelFlags, "model">>, Omit<ModelFlags, "model"> {
  readonly folder?: string;
  readonly index?: string;
  readonly count?: string;
  readonly json?: boolean;
}

/** A piece of a file, as an index that this verb made calls it: `notes/a.md:12:1k3f…`. */
interface Piece {
  readonly path: string;
  readonly line: number;
  /** Stands for the text: the same text has the same vector. */
  readonly hash: string;
  readonly text: string;
}

/** Larger files are hardly texts to read. */
const fileBytesMax = 4 << 20;
/** The same text's vectors by the same model are at least so near, at whatever level of instructions and in whatever batch. */
const leastSimilarity = 0.9999;
/** Characters of a piece that are shown. */
const shownCharacters = 160;
const placeCharacters = 1000;

export function registerSearch(program: Command): void {
  const command = program
    .command("search")
    .description("find what is nearest to a query in meaning")
    .argument("<query>", "what to look for, in words");
  addOptionalModelFlags(command, "the one that made the index")
    .option("--folder <path>", "look through the text files of a folder, and of those in it")
    .option(
      "--index <file>",
      "look through an index; with --folder: keep the folder's there, and compute only what is new",
    )
    .option("--count <hits>", "hits at most (default: 10)")
    .option("--json", "print the hits as one JSON document")
    .addHelpText(
      "after",
      `
Examples:
  tinyai search "how to cancel an order" --folder docs --model all-minilm-l6-v2
  tinyai search "how to cancel an order" --folder docs --model all-minilm-l6-v2 --index docs.index
  tinyai search "how to cancel an order" --index docs.index`,
    )
    .action(run);
}

async function run(query: string, flags: Flags): Promise<void> {
  const count = checkInteger("--count", numberFlag("count", flags.count) ?? 10, 1, 1024);
  if (query.trim() === "") throw new OptionError("query", "is empty; say in words what to look for");
  const { folder, index: path } = flags;
  if (folder === undefined && path === undefined) {
    throw new OptionError("--folder", "is missing, and so is --index: name what to look through");
  }
  const kept = path !== undefined && (folder === undefined || existsSync(path)) ? await openIndex(path) : undefined;
  using _kept = kept;
  const name = modelName(flags.model, kept, path);
  await using model = await loadFromFlags({ ...flags, model: name });
  const made = folder === undefined ? undefined : await indexFolder(folder, model, name, kept, path);
  using _made = made;
  const index = made?.index ?? kept;
  if (!index) return;
  try {
    if (made?.changed && path !== undefined) await made.index.save(path);
  } finally {
    // Found all the same where they cannot be kept.
    const signal = interruption();
    const hits = await index.search(await model.embed(query, { signal }), { count, signal });
    show(query, hits, made?.pieces, flags.json === true);
  }
}

/** The model to load, as an index names it: that of the flags, else the one that made the index. */
function modelName(given: string | undefined, kept: VectorIndex | undefined, path: string | undefined): string {
  const name = given !== undefined && existsSync(given) ? resolve(given) : given;
  const known = kept?.model;
  if (name === undefined && known === undefined) {
    throw new OptionError("--model", "is missing; name the model that makes the vectors");
  }
  if (name !== undefined && known !== undefined && name !== known) {
    throw new OptionError("--model", `is ${name}, but ${path} was made with ${known}; use that, or another file`);
  }
  return name ?? known ?? "";
}

/** A folder's index, and whether it differs from the kept one. */
interface FolderIndex extends Disposable {
  readonly index: VectorIndex;
  readonly pieces: readonly Piece[];
  readonly changed: boolean;
}

/**
 * Indexes a folder's pieces. Vectors of texts that the kept index has are taken from there.
 * @param path of the file that is to keep it, if one is.
 */
async function indexFolder(
  folder: string,
  model: Model,
  name: string,
  kept: VectorIndex | undefined,
  path: string | undefined,
): Promise<FolderIndex> {
  const pieces = Array.from(readFolder(folder));
  if (pieces.length === 0) throw new OptionError("--folder", `${folder} holds no text file; name another folder`);
  const ids = pieces.map(({ path, line, hash }) => `${path}:${line}:${hash}`);
  const known = new Map<string, number>();
  for (let index = 0; kept && index < kept.count; index++) known.set(hashOf(kept.id(index)), index);
  const isOurs = kept !== undefined && (await isOf(model, kept, known, pieces));
  if (!isOurs) known.clear();
  const isSame = kept?.count === ids.length && ids.every((id, index) => kept.id(index) === id);
  if (isOurs && isSame) return { index: kept, pieces, changed: false, [Symbol.dispose]() {} };
  // Before all is computed, and not where nothing is to be written.
  if (path !== undefined) checkFilePath("--index", path);
  const unknown = [
    ...new Map(pieces.filter(({ hash }) => !known.has(hash)).map((piece) => [piece.hash, piece])).values(),
  ];
  const progress = startProgress({ label: `embedding ${unknown.length} pieces of ${folder}`, unit: "seconds" });
  const vectors = new Map<string, Float32Array>();
  try {
    const texts = unknown.map(({ text }) => text);
    const computed = await model.embed(texts, { signal: interruption() });
    for (const [place, { hash }] of unknown.entries()) vectors.set(hash, computed[place] ?? new Float32Array());
  } catch (error) {
    progress.failed();
    throw error;
  }
  progress.done();
  const all = pieces.map(({ hash }) => vectors.get(hash) ?? kept?.vector(known.get(hash) ?? 0) ?? new Float32Array());
  const index = await createIndex(all, { ids, model: name });
  return { index, pieces, changed: true, [Symbol.dispose]: () => index.close() };
}

/** Whether the kept vectors are what the model gives by now: under the same name there may be another. One that both have tells. */
async function isOf(
  model: Model,
  kept: VectorIndex,
  known: ReadonlyMap<string, number>,
  pieces: readonly Piece[],
): Promise<boolean> {
  const piece = pieces.find(({ hash }) => known.has(hash));
  if (!piece) return false;
  const vector = await model.embed(piece.text, { signal: interruption() });
  return (
    vector.length === kept.dimensions && similarity(vector, kept.vector(known.get(piece.hash) ?? 0)) >= leastSimilarity
  );
}

/** The pieces of all text files below a folder, in the order of their paths. */
function* readFolder(folder: string): Generator<Piece, void, undefined> {
  let entries: ReturnType<typeof entriesOf>;
  try {
    entries = entriesOf(folder);
  } catch (cause) {
    throw new OptionError("--folder", `${folder} cannot be read: ${(cause as Error).message}`, { cause });
  }
  for (const entry of entries) {
    const path = join(folder, entry.name);
    // What is hidden, and what others wrote.
    if (entry.name.startsWith(".") || entry.name === "node_modules") continue;
    if (entry.isDirectory()) yield* readFolder(path);
    else if (entry.isFile()) yield* readPieces(path);
  }
}

function entriesOf(folder: string) {
  const entries = readdirSync(folder, { withFileTypes: true });
  return entries.sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** The pieces of a file; none if it is no text, cannot be read, or is too large. */
function readPieces(path: string): Piece[] {
  let text: string;
  try {
    const stats = statSync(path);
    // Opening a FIFO waits, and reading a device may never end.
    if (!stats.isFile() || stats.size > fileBytesMax) return [];
    text = new TextDecoder("utf-8", { fatal: true }).decode(readFileSync(path));
  } catch {
    return [];
  }
  if (text.includes("\0")) return [];
  return Array.from(piecesOf(text), (piece) => ({ path, ...piece, hash: Bun.hash.wyhash(piece.text).toString(36) }));
}

function hashOf(id: string | undefined): string {
  return id?.slice(id.lastIndexOf(":") + 1) ?? "";
}

function show(query: string, hits: readonly SearchHit[], pieces: readonly Piece[] | undefined, asJson: boolean): void {
  const found = hits.map((hit) => ({ ...hit, piece: pieces?.[hit.index] ?? pieceOf(hit.id) }));
  if (asJson) {
    const told = found.map(({ score, index, id, piece }) =>
      piece
        ? { score, path: piece.path, line: piece.line, text: piece.text ?? null, id: id ?? null }
        : { score, index, id: id ?? null },
    );
    printJson({ query, hits: told });
    return;
  }
  for (const { score, index, id, piece } of found) {
    const place = printable(piece ? `${piece.path}:${piece.line}` : (id ?? String(index)), placeCharacters);
    const shown = printable(piece?.text?.replace(/\s+/g, " ") ?? "", shownCharacters);
    process.stdout.write(`${score.toFixed(4)}  ${place}${shown === "" ? "" : `\n        ${shown}`}\n`);
  }
}

/**
 * The piece that an id of this verb's names; without a text where the file has changed or is not there. Hashes of 64 bits have so many
 * digits but for one of 200,000; what ends in fewer is called something else, such as a time of day.
 */
function pieceOf(id: string | undefined): (Omit<Piece, "text"> & { readonly text?: string | undefined }) | undefined {
  const [, path, line, hash] = /^(.+):(\d+):([0-9a-z]{10,13})$/s.exec(id ?? "") ?? [];
  if (path === undefined || line === undefined || hash === undefined) return undefined;
  const text = readPieces(path).find((piece) => piece.hash === hash)?.text;
  return { path, line: Number(line), hash, text };
}
