// `quantizeModel`: a GGUF file in other formats. TypeScript chooses each tensor's format and writes the header; the library's
// threads convert the tensors, a piece at a time. The new file appears under its name only when it is whole and on the disk.

import { closeSync, existsSync, openSync, readSync, realpathSync, rmSync, statfsSync, statSync } from "node:fs";
import { open, rename } from "node:fs/promises";
import { dirname } from "node:path";
import { checkBoolean, checkInteger, checkKeys, describe } from "../check.ts";
import { type Conversion, type ConversionFailure, convertTensors } from "../engine/converter.ts";
import { chooseLevel, cpu } from "../engine/cpu.ts";
import { openLibrary } from "../engine/library.ts";
import { EngineError, ModelFileError, OptionError, TinyAIError } from "../errors.ts";
import { syncFolder, writeAll } from "../files.ts";
import { architectureNames } from "../model/architectures/index.ts";
import { type DType, dtypeBlocks, type ModelFile, printable } from "../model/file.ts";
import { type GgufFile, openGguf } from "../model/gguf.ts";
import { type GgufHeader, writeGgufHeader } from "../model/gguf-writer.ts";
import { resolveModel } from "../model/resolve.ts";
import { chooseTypes, fileTypeNumber, type QuantizationType, quantizationTypes } from "./types.ts";

/** Options of `quantizeModel`. */
export interface QuantizeOptions {
  /** The type of the file, by llama.cpp's names, such as `Q4_K_M`: it decides each tensor's format. */
  readonly type: QuantizationType;
  /** Threads that convert, at most the CPUs this process may use, which is the default. They do not change the file. */
  readonly threads?: number | undefined;
  /** Takes a source that is quantized already, whose errors add up. Default false. */
  readonly allowRequantize?: boolean | undefined;
  /** Replaces an output that is there. Default false. */
  readonly overwrite?: boolean | undefined;
  /** Called about every 50 ms with the source's bytes done and in all. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
  /** Ends it; nothing is left of the output then. */
  readonly signal?: AbortSignal | undefined;
}

/** A tensor's format before and after. */
export interface QuantizedTensor {
  readonly name: string;
  readonly from: DType;
  readonly to: DType;
  /** Values. */
  readonly parameters: number;
  /** In the new file. */
  readonly bytes: number;
}

/** The new file, and what became of each tensor. */
export interface QuantizeResult {
  readonly path: string;
  readonly type: QuantizationType;
  /** The whole file's size, before and after. */
  readonly bytesBefore: number;
  readonly bytes: number;
  /** In the file's order. */
  readonly tensors: readonly QuantizedTensor[];
}

/** ggml's version of the quantized formats, which has been 2 since May 2023. */
const quantizationVersion = 2;
const splitKeys = ["split.no", "split.count", "split.tensors.count"];
const threadsMax = 64;

/**
 * Writes the model `model` (a path to a GGUF file, or the name of a pulled model) to the file `output`, its matrices in the
 * formats of `options.type`, as llama.cpp's llama-quantize chooses them. Metadata and the order of tensors stay.
 * @throws {OptionError} if an option is out of its bounds, there is no model of that name, or the output is there already or
 * is the input itself.
 * @throws {ModelFileError} if the input is damaged, of a family that is not supported, quantized already, or holds values
 * that the formats cannot.
 * @throws {DownloadError} if the model of that name was not pulled.
 * @throws {TinyAIError} with the code `file` if the output cannot be written, as where the disk has too little room.
 * @example
 * await quantizeModel("model-f16.gguf", "model-q4_k_m.gguf", { type: "Q4_K_M" });
 */
export async function quantizeModel(model: string, output: string, options: QuantizeOptions): Promise<QuantizeResult> {
  const checked = checkOptions(model, output, options);
  const { type, signal } = checked;
  signal?.throwIfAborted();
  const input = resolveModel(model, "input");
  const file = openGguf(input);
  checkOutput(input, output, checked.overwrite);
  checkFamily(file);
  const dtypes = chooseTypes(file, type);
  if (!checked.allowRequantize) refuseRequantizing(file, dtypes, type);
  const header = writeHeader(file, dtypes, type);
  requireSpace(output, header.byteLength);
  const library = await openLibrary();
  const level = chooseLevel(library, undefined);

  const temporary = `${output}.${crypto.randomUUID().slice(0, 8)}.part`;
  const remove = () => rmSync(temporary, { force: true });
  process.once("exit", remove);
  try {
    const handle = await writing(output, () => open(temporary, "wx"));
    try {
      await writing(output, async () => {
        await handle.truncate(header.byteLength);
        await writeAll(handle, header.bytes);
      });
      const conversions = conversionsOf(file, header);
      const total = sum(file.tensors.values(), ({ byteLength }) => byteLength);
      const values = sum(conversions, ({ valueCount }) => valueCount);
      const failure = await convertTensors(library, conversions, {
        sourcePath: input,
        targetPath: temporary,
        threadCount: checked.threads,
        level: level.index,
        onProgress: options.onProgress && ((done) => options.onProgress?.(Math.round((total * done) / values), total)),
        signal,
      });
      if (failure) throw failed(failure, file, output, dtypes);
      await writing(output, () => handle.sync());
    } finally {
      await handle.close();
    }
    signal?.throwIfAborted();
    await writing(output, () => rename(temporary, output));
    syncFolder(dirname(output));
  } finally {
    remove();
    process.off("exit", remove);
  }
  return {
    path: output,
    type,
    bytesBefore: file.byteLength,
    bytes: header.byteLength,
    tensors: header.tensors.map(({ name, dtype, shape, byteLength }) => ({
      name,
      from: file.tensors.get(name)?.dtype ?? dtype,
      to: dtype,
      parameters: shape.reduce((product, size) => product * size, 1),
      bytes: byteLength,
    })),
  };
}

const optionKeys = ["type", "threads", "allowRequantize", "overwrite", "onProgress", "signal"] as const;

function checkOptions(input: unknown, output: unknown, options: QuantizeOptions) {
  for (const [name, path] of [
    ["input", input],
    ["output", output],
  ] as const) {
    if (typeof path !== "string" || path.length === 0 || path.includes("\0")) {
      throw new OptionError(name, `is ${describe(path)}; a path is expected`);
    }
  }
  checkKeys("options", options, optionKeys);
  const { type, threads, allowRequantize = false, overwrite = false, onProgress, signal } = options;
  if (!quantizationTypes.includes(type)) {
    throw new OptionError("type", `is ${describe(type)}; it is one of ${quantizationTypes.join(", ")}`);
  }
  if (onProgress !== undefined && typeof onProgress !== "function") {
    throw new OptionError("onProgress", `is ${describe(onProgress)}; a function is expected`);
  }
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw new OptionError("signal", `is ${describe(signal)}; an AbortSignal is expected`);
  }
  const threadsAllowed = Math.min(cpu.cores, threadsMax);
  return {
    type,
    threads: threads === undefined ? threadsAllowed : checkInteger("threads", threads, 1, threadsAllowed),
    allowRequantize: checkBoolean("allowRequantize", allowRequantize),
    overwrite: checkBoolean("overwrite", overwrite),
    signal,
  };
}

function checkOutput(input: string, output: string, overwrite: boolean): void {
  if (!existsSync(output)) return;
  if (realpathSync(output) === realpathSync(input) || sameFile(input, output)) {
    throw new OptionError("output", `${output} is the input itself; give the new file another name`);
  }
  if (!statSync(output).isFile())
    throw new OptionError("output", `${output} is not a file; give a path for the new file`);
  if (!overwrite) {
    throw new OptionError(
      "output",
      `${output} is there already; give another name, or allow it to be replaced (overwrite)`,
    );
  }
}

/** Two names of one file, as hard links are. */
function sameFile(a: string, b: string): boolean {
  const [first, second] = [statSync(a, { bigint: true }), statSync(b, { bigint: true })];
  return first.ino !== 0n && first.ino === second.ino && first.dev === second.dev;
}

/** A disk that fills up is found out before the work, not in the middle of it. A file that is replaced stays until the end. */
function requireSpace(output: string, neededBytes: number): void {
  let freeBytes: number;
  try {
    const { bavail, bsize } = statfsSync(dirname(output));
    freeBytes = bavail * bsize;
  } catch {
    return; // Some file systems do not tell, and a folder that is not there is refused when the file is made.
  }
  if (freeBytes >= neededBytes) return;
  const [needed, free] = [neededBytes, freeBytes].map((bytes) => Math.ceil(bytes / 1e6).toLocaleString("en-US"));
  throw unwritable(output, `${needed} MB are needed, and its disk has ${free} MB free`);
}

/** The rules of formats are those of dense models of known families. */
function checkFamily({ metadata }: ModelFile): void {
  const key = "general.architecture";
  const architecture = metadata.string(key);
  if (!architectureNames.includes(architecture)) {
    const known = architectureNames.join(", ");
    throw metadata.error(key, `is "${printable(architecture)}", which is not supported; supported are ${known}`);
  }
  const experts = `${architecture}.expert_count`;
  if (metadata.has(experts) && metadata.integer(experts) > 0) {
    throw metadata.error(experts, "is above 0: models with experts are not supported");
  }
}

function refuseRequantizing(file: ModelFile, dtypes: ReadonlyMap<string, DType>, type: QuantizationType): void {
  for (const { name, dtype } of file.tensors.values()) {
    const to = dtypes.get(name) ?? dtype;
    if (dtypeBlocks[dtype].columns === 1 || to === dtype) continue;
    throw new ModelFileError(
      file.path,
      `tensor ${printable(name)}`,
      `is quantized already, as ${dtype}, and ${type} would make it ${to}: start from an F32, F16 or BF16 file, or allow ` +
        "the errors to add up (allowRequantize, --allow-requantize)",
    );
  }
}

function writeHeader(file: GgufFile, dtypes: ReadonlyMap<string, DType>, type: QuantizationType): GgufHeader {
  const numbers = { "general.quantization_version": quantizationVersion, "general.file_type": fileTypeNumber(type) };
  const source = openSync(file.path, "r");
  try {
    return writeGgufHeader(file, { dtypes, numbers, without: splitKeys }, (byteOffset, byteLength) => {
      const bytes = new Uint8Array(byteLength);
      for (let done = 0; done < byteLength; ) {
        const count = readSync(source, bytes, done, byteLength - done, byteOffset + done);
        if (count === 0) throw new ModelFileError(file.path, "file", "was cut short while it was being read");
        done += count;
      }
      return bytes;
    });
  } finally {
    closeSync(source);
  }
}

function conversionsOf(file: ModelFile, header: GgufHeader): Conversion[] {
  const sources = [...file.tensors.values()];
  return header.tensors.map((target, index) => {
    const source = sources[index] ?? target;
    return {
      sourceOffset: source.byteOffset,
      sourceDtype: source.dtype,
      targetOffset: target.byteOffset,
      targetDtype: target.dtype,
      valueCount: (source.byteLength / dtypeBlocks[source.dtype].bytes) * dtypeBlocks[source.dtype].columns,
    };
  });
}

/** Runs what writes the output; what the system refuses becomes an error that names it. */
async function writing<Result>(output: string, action: () => Promise<Result>): Promise<Result> {
  try {
    return await action();
  } catch (cause) {
    throw unwritable(output, (cause as Error).message, cause);
  }
}

function unwritable(output: string, problem: string, cause?: unknown): TinyAIError {
  const options = cause === undefined ? undefined : { cause };
  return new TinyAIError("file", `${output}: cannot be written: ${problem}; give another place`, options);
}

/** The converter's failure in words. */
function failed(
  { reason, index }: ConversionFailure,
  file: ModelFile,
  output: string,
  dtypes: ReadonlyMap<string, DType>,
): TinyAIError {
  const name = [...file.tensors.keys()][index];
  const field = name === undefined ? "file" : `tensor ${printable(name)}`;
  switch (reason) {
    case "write":
      return unwritable(output, "the disk is full, or reported an error");
    case "read":
      return new ModelFileError(
        file.path,
        field,
        "reading failed: the disk or the network file system reported an error",
      );
    case "cut_short":
      return new ModelFileError(file.path, field, "was cut short while it was being read; get the file again");
    case "not_finite":
      return new ModelFileError(file.path, field, "holds a value that is not a finite number: the file is damaged");
    case "out_of_range": {
      const problem = `holds a value beyond 65,504, the most that ${dtypes.get(name ?? "")} can: choose BF16 or F32`;
      return new ModelFileError(file.path, field, problem);
    }
    case "open":
      return new EngineError(`${file.path}: cannot be opened: it was moved, or its permissions changed meanwhile`);
    case "out_of_memory":
      return new EngineError("the system refused memory for the conversion; free some, or use fewer threads");
    case "threads":
      return new EngineError("a thread could not be started: the system's limit is reached; use fewer threads");
    default:
      return new EngineError(
        `the library refused the conversion (${reason}): this is a bug in TinyAI; please report it`,
      );
  }
}

function sum<Item>(items: Iterable<Item>, value: (item: Item) => number): number {
  let total = 0;
  for (const item of items) total += value(item);
  return total;
}
