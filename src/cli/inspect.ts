// `tinyai inspect`: what is in a model file, from its header alone: metadata, tensors and their sums. It loads no weights and
// needs no native library, so it also tells about models that TinyAI cannot run.

import { existsSync } from "node:fs";
import type { Command } from "commander";
import { catalogue, pulledPath } from "../model/catalogue.ts";
import {
  arrayLength,
  type DType,
  describeType,
  type MetadataEntry,
  type ModelFile,
  printable,
  StringTable,
} from "../model/file.ts";
import { openModelFile } from "../prepared.ts";
import { formatTable, grouped, megabytes } from "../text-table.ts";

/** What JSON can carry of a metadata value. Integers beyond 2^53, infinities and NaN are strings. */
export type InspectedScalar = string | number | boolean;

/** A metadata entry. An array comes with its length and its first elements; `value` is there for scalars. */
export interface InspectedMetadata {
  readonly key: string;
  /** `uint32`, `array of string`. */
  readonly type: string;
  readonly value?: InspectedScalar;
  readonly length?: number;
  readonly first?: readonly InspectedScalar[];
}

export interface InspectedTensor {
  readonly name: string;
  readonly dtype: DType;
  /** Innermost first. */
  readonly shape: readonly number[];
  readonly parameters: number;
  /** From the file's start, in bytes. */
  readonly offset: number;
  readonly bytes: number;
}

/** The tensors of one format together. */
export interface InspectedDType {
  readonly dtype: DType;
  readonly tensors: number;
  readonly parameters: number;
  readonly bytes: number;
}

/** What `tinyai inspect --json` prints. */
export interface Inspection {
  readonly path: string;
  readonly format: string;
  /** Of the format; 0 where it has none. */
  readonly version: number;
  /** Of the whole file. */
  readonly bytes: number;
  /** Null if the file names none. */
  readonly architecture: string | null;
  readonly name: string | null;
  /** The values of all tensors together. */
  readonly parameters: number;
  /** The bytes of all tensors together. */
  readonly tensor_bytes: number;
  readonly metadata: readonly InspectedMetadata[];
  /** Largest first. */
  readonly dtypes: readonly InspectedDType[];
  /** In the file's order. */
  readonly tensors: readonly InspectedTensor[];
}

/** Elements of an array that are shown. */
const firstElements = 8;
/** Characters of a string that a terminal's line shows. */
const valueCharactersMax = 80;

/**
 * Reads the header of the model file at `path`.
 * @throws {ModelFileError} if it cannot be read or is damaged.
 */
export function inspect(path: string): Inspection {
  const file = openModelFile(path);
  const tensors = inspectTensors(file);
  const text = (key: string): string | null => {
    const value = file.metadata.entry(key)?.value;
    return typeof value === "string" ? value : null;
  };
  return {
    path,
    format: file.format,
    version: file.version,
    bytes: file.byteLength,
    architecture: text("general.architecture"),
    name: text("general.name"),
    parameters: sum(tensors.map(({ parameters }) => parameters)),
    tensor_bytes: sum(tensors.map(({ bytes }) => bytes)),
    metadata: inspectMetadata(file),
    dtypes: sumByDType(tensors),
    tensors,
  };
}

function inspectMetadata({ metadata }: ModelFile): InspectedMetadata[] {
  const entries: InspectedMetadata[] = [];
  for (const key of metadata.keys()) {
    const entry = metadata.entry(key);
    if (entry === undefined) continue;
    const length = arrayLength(entry);
    const first = elementsOf(entry);
    const value = length === undefined && first[0] !== undefined ? { value: first[0] } : { length: length ?? 0, first };
    entries.push({ key, type: describeType(entry), ...value });
  }
  return entries;
}

/** A scalar as the only element, or an array's first ones. */
function elementsOf({ type, value }: MetadataEntry): InspectedScalar[] {
  if (value instanceof StringTable) return value.strings(firstElements);
  const plain = type === "float32" ? shortestFloat32 : plainScalar;
  if (ArrayBuffer.isView(value)) return Array.from<number | bigint>(value.subarray(0, firstElements)).map(plain);
  if (typeof value === "object") return value.slice(0, firstElements);
  return [plain(value)];
}

/** A float32 with as few digits as tell it from its neighbours: 1e-6, not 9.999999974752427e-7. */
function shortestFloat32(value: string | number | bigint | boolean): InspectedScalar {
  if (typeof value !== "number" || !Number.isFinite(value)) return plainScalar(value);
  for (let digits = 1; digits < 9; digits++) {
    const rounded = Number(value.toPrecision(digits));
    if (Math.fround(rounded) === value) return rounded;
  }
  return plainScalar(value);
}

function plainScalar(value: string | number | bigint | boolean): InspectedScalar {
  if (typeof value === "bigint") return Number.isSafeInteger(Number(value)) ? Number(value) : String(value);
  return typeof value === "number" && !Number.isFinite(value) ? String(value) : value;
}

function inspectTensors(file: ModelFile): InspectedTensor[] {
  return Array.from(file.tensors.values(), ({ name, dtype, shape, byteOffset, byteLength }) => ({
    name,
    dtype,
    shape,
    parameters: shape.reduce((product, size) => product * size, 1),
    offset: byteOffset,
    bytes: byteLength,
  }));
}

function sumByDType(tensors: readonly InspectedTensor[]): InspectedDType[] {
  const sums = new Map<DType, InspectedDType>();
  for (const { dtype, parameters, bytes } of tensors) {
    const before = sums.get(dtype) ?? { dtype, tensors: 0, parameters: 0, bytes: 0 };
    sums.set(dtype, {
      dtype,
      tensors: before.tensors + 1,
      parameters: before.parameters + parameters,
      bytes: before.bytes + bytes,
    });
  }
  return [...sums.values()].sort((a, b) => b.bytes - a.bytes);
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

/** The inspection as text for a terminal: sums and metadata, with `tensors` the table of all tensors too. */
export function formatInspection(inspection: Inspection, options: { readonly tensors?: boolean } = {}): string {
  const { tensors, dtypes } = inspection;
  const paragraphs = [
    formatTable([
      ["file", printable(inspection.path)],
      ["format", inspection.version > 0 ? `${inspection.format} version ${inspection.version}` : inspection.format],
      ["architecture", printable(inspection.architecture ?? "not named")],
      ["name", printable(inspection.name ?? "not named")],
      ["parameters", `${grouped(inspection.parameters)} in ${grouped(tensors.length)} tensors`],
      ["size", `${megabytes(inspection.bytes)} MB, of which tensors ${megabytes(inspection.tensor_bytes)} MB`],
    ]),
    formatTable([
      ["metadata", "type", "value"],
      ...inspection.metadata.map((entry) => [printable(entry.key), entry.type, formatValue(entry)]),
    ]),
    formatTable(
      [
        ["dtype", "tensors", "parameters", "MB", "share", "bits each"],
        ...dtypes.map(({ dtype, tensors: count, parameters, bytes }) => [
          dtype,
          grouped(count),
          grouped(parameters),
          megabytes(bytes),
          `${((100 * bytes) / inspection.tensor_bytes).toFixed(1)} %`,
          ((8 * bytes) / parameters).toFixed(2),
        ]),
      ],
      1,
    ),
  ];
  if (options.tensors) {
    const rows = tensors.map((tensor) => [
      printable(tensor.name),
      tensor.dtype,
      tensor.shape.join(" × "),
      megabytes(tensor.bytes, 3),
    ]);
    paragraphs.push(formatTable([["tensor", "dtype", "shape, innermost first", "MB"], ...rows], 3));
  }
  return paragraphs.join("\n");
}

function formatValue({ value, length, first }: InspectedMetadata): string {
  const show = (element: InspectedScalar): string =>
    typeof element === "string" ? printable(JSON.stringify(element), valueCharactersMax) : String(element);
  if (value !== undefined) return show(value);
  const shown = (first ?? []).map(show).join(", ");
  return `${grouped(length ?? 0)}: ${shown}${(length ?? 0) > firstElements ? ", …" : ""}`;
}

/** A path as it is, or the file or folder of a model that `tinyai pull` has brought. */
function resolveFile(file: string): string {
  const entry = existsSync(file) ? undefined : catalogue.find(({ name }) => name === file);
  return entry ? pulledPath(entry) : file;
}

/** Adds `tinyai inspect`. */
export function registerInspect(program: Command): void {
  program
    .command("inspect")
    .description("tell what is in a model file: metadata, tensors, sizes")
    .argument("<file>", "a GGUF file or a sentence-transformers folder, or the name of a model that was pulled")
    .option("--tensors", "list every tensor too")
    .option("--plan", "tell instead how the model would be executed: ops, buffers and memory")
    .option("--json", "print everything as JSON; arrays with their length and first elements")
    .addHelpText(
      "after",
      `
Examples:
  tinyai inspect model.gguf
  tinyai inspect gemma3-270m --tensors
  tinyai inspect gemma3-270m --plan
  tinyai inspect model.gguf --json`,
    )
    .action(async (file: string, options: { json?: boolean; tensors?: boolean; plan?: boolean }) => {
      if (options.plan) {
        const { planBefore } = await import("../estimate.ts");
        const plan = await planBefore(file);
        process.stdout.write(options.json ? `${JSON.stringify(plan)}\n` : String(plan));
        return;
      }
      const inspection = inspect(resolveFile(file));
      const text = options.json ? `${JSON.stringify(inspection)}\n` : formatInspection(inspection, options);
      process.stdout.write(text);
    });
}
