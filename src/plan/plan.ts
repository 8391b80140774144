// From a graph to a Program: lowers it, lays weights, constants, activations and KV pages out, and encodes everything as the
// flat buffer that the engine runs. What it decides can be read from the Plan it returns.

import type { DType } from "../graph/dtype.ts";
import type { Graph, Vector, Weight } from "../graph/graph.ts";
import { planArena } from "./arena.ts";
import type { CheckpointPlan } from "./checkpoints.ts";
import {
  type ActivationForm,
  formatNumber,
  type KvDType,
  kvBlock,
  kvHeadBytes,
  packedBytes,
  rowBytes,
} from "./formats.ts";
import * as layout from "./layout.ts";
import { type Buffer, type LoweredOp, lower, type Operand } from "./lower.ts";
import type * as printModule from "./print.ts";
import { groupsOf, screenBytes } from "./screen.ts";

/** Limits a program is planned for. */
export interface PlanOptions {
  /** Positions a sequence may have. */
  readonly contextMax: number;
  /** Sequences that run in one step at most; 1 to 64. */
  readonly batchMax: number;
  /** Rows (tokens) of a step at most. */
  readonly rowsMax: number;
  /** Rows of a step whose logits may be wanted. */
  readonly logitsRowsMax: number;
  /** Prompts are cut at multiples of this many positions. */
  readonly chunkPositions: number;
  /** Bytes that KV pages may take when all are written; at least one sequence of `contextMax` is always planned. */
  readonly kvBytesMax: number;
  /** Bytes of pages that keep what finished sequences left in them, for prompts that begin alike; 0: none are kept. */
  readonly keptBytesMax: number;
  /** Format of keys and values. Default F16; Q8_0 needs heads whose width is a multiple of 32. */
  readonly kvDtype?: KvDType | undefined;
  /** The part of the model file that holds all matrices packed, to be mapped; undefined: they are packed when loaded. */
  readonly packedWeights?: { readonly offset: number; readonly bytes: number } | undefined;
  /** Whether steps may screen the output head; `screenProblem` has nothing against it. */
  readonly screening?: boolean | undefined;
  /**
   * Whether one op does what several would do after one another: additions in products and norms, and activations in the form that
   * products take written where they are made. Default true.
   */
  readonly fusion?: boolean | undefined;
}

/** One op as the profiler and a reader of the plan see it. */
export interface PlannedOp {
  readonly index: number;
  readonly name: string;
  readonly kind: layout.OpKind;
  readonly layer: number;
  /** Format of the weight it reads, or of the keys and values, in lower case, if it reads any. */
  readonly format: string | undefined;
  /** Bytes read once a step, whatever its rows: weights. */
  readonly bytesPerStep: number;
  /** Bytes read and written for each row. */
  readonly bytesPerRow: number;
  /** Multiplications and additions for each row. */
  readonly operationsPerRow: number;
  /** The same for each position that a row attends to. */
  readonly bytesPerPosition: number;
  readonly operationsPerPosition: number;
}

/** A packed matrix's place in the weights region. */
export interface PackedMatrix {
  readonly name: string;
  /** Its number among the program's tensors. */
  readonly tensor: number;
  readonly dtype: DType;
  readonly rows: number;
  readonly columns: number;
  /** Where it begins in the model file, and how long it is there. */
  readonly sourceOffset: number;
  readonly sourceBytes: number;
  /** Whether the file has it in another format. */
  readonly converted: boolean;
  readonly offset: number;
  readonly bytes: number;
}

/** Layers whose pages live and die together. */
export interface KvGroupPlan {
  readonly window: number;
  readonly layers: readonly number[];
  /** Format of its layers' keys and values. */
  readonly dtype: KvDType;
  readonly pageBytes: number;
  readonly pageCount: number;
  /** Pages that nobody holds keep what they hold, up to this many. */
  readonly keptMax: number;
}

/** A stretch of the arena, and how long it is needed. */
export interface PlannedBuffer {
  readonly name: string;
  /** What its values are: float32, or a form that products take. */
  readonly form: ActivationForm;
  /** Values of a row. */
  readonly columns: number;
  /** Rows it has room for: those of the largest step, or as many as it always has. */
  readonly rows: number;
  /** What it has a row for: each row of a step, each whose logits are wanted, or neither. */
  readonly rowsOf: "step" | "logits" | "fixed";
  readonly bytes: number;
  /** Where it begins in the arena, in bytes. */
  readonly offset: number;
  /**
   * The first and the last op while which it is needed. Ops that run without a barrier between them count as one. `ops.length`: it
   * is read after the last op.
   */
  readonly firstOp: number;
  readonly lastOp: number;
}

/** A knob that changes nothing in this program or on this CPU. */
export interface WithoutEffect {
  /** The option as it is called in `loadModel`, or the method. */
  readonly knob: string;
  readonly reason: string;
}

/** What runs, in order, and where everything lies. Bytes. As text (`String(plan)`) it is a table, as JSON all but the program. */
export interface Plan {
  readonly options: PlanOptions;
  readonly ops: readonly PlannedOp[];
  /** All that is in the arena. */
  readonly buffers: readonly PlannedBuffer[];
  /** What training would keep of a step, and compute once more; undefined: nobody asked for it. */
  readonly checkpoints: CheckpointPlan | undefined;
  /** Knobs that change nothing here, and why. */
  readonly withoutEffect: readonly WithoutEffect[];
  readonly vocabulary: number;
  /** Values of a text's vector; undefined: the model gives none. */
  readonly embeddingWidth: number | undefined;
  /** Whether a text is computed whole in one step, and no token is drawn after it. */
  readonly wholePrompts: boolean;
  readonly weightsBytes: number;
  readonly matrices: readonly PackedMatrix[];
  /** Bytes of the model file that are packed into the weights region, or mapped as it. */
  readonly sourceBytes: number;
  readonly constantsBytes: number;
  readonly arenaBytes: number;
  /** Bytes of the copy that screens the output head; 0: there is none. */
  readonly screenBytes: number;
  readonly kvGroups: readonly KvGroupPlan[];
  /** KV bytes of one sequence that fills the context. */
  readonly kvBytesPerSequence: number;
  /** The encoded program. */
  readonly program: Uint8Array;
  /** A table of ops, buffers and memory, as text. */
  toString(): string;
  /** Everything but the program. */
  toJSON(): Omit<Plan, "program" | "toString" | "toJSON">;
}

const alignment = 64;
/** More than this many whole contexts are not kept, however small their pages are. */
const keptContexts = 64;
const regions = { weights: 0, constants: 1, arena: 2, copies: 3 } as const;

interface PlacedTensor {
  readonly fields: Partial<Record<string, number>>;
}

/** An op's fields as `layout.Op` writes them. */
interface EncodedOp {
  readonly kind: number;
  readonly flags: number;
  readonly layer: number;
  readonly tensors: readonly number[];
  readonly u: readonly number[];
  readonly f: readonly number[];
}

interface KvPlan {
  readonly bytesPerSequence: number;
  readonly places: readonly KvPlace[];
  readonly groups: readonly KvGroupPlan[];
}

/** A layer's fields as `layout.KvLayer` writes them. */
interface KvPlace {
  readonly group: number;
  readonly key_format: number;
  readonly value_format: number;
  readonly key_offset: number;
  readonly value_offset: number;
}

export function planProgram(graph: Graph, options: PlanOptions): Plan {
  return new Planner(graph, options).run();
}

/** Bytes of the arena of the same plan. */
export function planArenaBytes(graph: Graph, options: PlanOptions): number {
  return new Planner(graph, options).arenaBytes();
}

/** The plan with what else is known of it. */
export function explainPlan(
  plan: Plan,
  { withoutEffect, checkpoints = plan.checkpoints }: Pick<Plan, "withoutEffect"> & Partial<Pick<Plan, "checkpoints">>,
): Plan {
  return makePlan({ ...plan, checkpoints, withoutEffect: [...plan.withoutEffect, ...withoutEffect] });
}

/** How a plan reads. */
class ExecutionPlan {
  toString(this: Plan): string {
    const { printPlan }: typeof printModule = require("./print.ts");
    return printPlan(this);
  }

  toJSON(this: Plan) {
    const { program: _, ...others } = this;
    return others;
  }
}

function makePlan(fields: Omit<Plan, "toString" | "toJSON">): Plan {
  return Object.assign(new ExecutionPlan(), fields);
}

/** Pages one sequence of `positions` holds at most; the same sum as `KvGroup.pagesNeeded` in zig/memory.zig. */
export function pagesNeeded(window: number, positions: number, rowsMax: number): number {
  const all = Math.ceil(positions / layout.pagePositions);
  if (window === 0) return all;
  return Math.min(all, Math.floor((window + rowsMax) / layout.pagePositions) + 2);
}

class Planner {
  readonly #options: PlanOptions;
  readonly #graph: Graph;
  readonly #kvDtype: KvDType;
  readonly #lowered;
  readonly #tensors: PlacedTensor[] = [];
  readonly #weights = new Map<string, number>();
  readonly #vectors = new Map<Vector["values"], number>();
  readonly #buffers = new Map<number, number>();
  readonly #constants: { offset: number; values: Float32Array }[] = [];
  readonly #matrices: PackedMatrix[] = [];
  #weightsBytes: number;
  #sourceBytes: number;
  #constantsBytes = 0;
  #screenBytes = 0;
  #columnsMax = 64;

  constructor(graph: Graph, options: PlanOptions) {
    this.#graph = graph;
    this.#options = options;
    this.#kvDtype = options.kvDtype ?? "F16";
    this.#lowered = lower(graph, options);
    this.#weightsBytes = options.packedWeights?.bytes ?? 0;
    this.#sourceBytes = this.#weightsBytes;
  }

  run(): Plan {
    const { ops, groups, logits, embeddings } = this.#lowered;
    const { arenaBytes, buffers } = this.#placeBuffers();
    const encoded = ops.map((op, index) => this.#encodeOp(op, groups[index] === groups[index + 1]));
    const kv = this.#planKv();
    const outputs = { logits_tensor: this.#bufferTensor(logits), embeddings_tensor: this.#bufferTensor(embeddings) };
    const program = this.#encode(encoded, kv, arenaBytes, outputs);
    return makePlan({
      options: this.#options,
      ops: ops.map((op, index) => describe(op, index, this.#kvDtype)),
      buffers,
      checkpoints: undefined,
      withoutEffect: [],
      vocabulary: this.#graph.vocabulary,
      embeddingWidth: embeddings?.columns,
      wholePrompts: !this.#graph.causal,
      weightsBytes: this.#weightsBytes,
      matrices: this.#matrices,
      sourceBytes: this.#sourceBytes,
      constantsBytes: this.#constantsBytes,
      arenaBytes,
      screenBytes: this.#screenBytes,
      kvGroups: kv.groups,
      kvBytesPerSequence: kv.bytesPerSequence,
      program,
    });
  }

  arenaBytes(): number {
    return this.#placeBuffers().arenaBytes;
  }

  #rows(buffer: Buffer): number {
    if (typeof buffer.rows === "number") return buffer.rows;
    return buffer.rows === "logits" ? this.#options.logitsRowsMax : this.#options.rowsMax;
  }

  /** Every buffer lives from the barrier-free group that first touches it to the one that last does. */
  #placeBuffers(): { readonly arenaBytes: number; readonly buffers: readonly PlannedBuffer[] } {
    const { ops, groups, buffers, logits, embeddings } = this.#lowered;
    const first = new Map<number, number>();
    const last = new Map<number, number>();
    ops.forEach((op, index) => {
      const group = groups[index] ?? 0;
      for (const id of [...op.reads, ...op.writes]) {
        if (typeof id !== "number") continue;
        if (!first.has(id)) first.set(id, group);
        last.set(id, group);
      }
    });
    // The logits are read after the last op, vectors after any number of further steps.
    if (logits) last.set(logits.id, ops.length);
    if (embeddings) {
      first.set(embeddings.id, 0);
      last.set(embeddings.id, ops.length);
    }
    const used = buffers.filter((buffer) => first.has(buffer.id));
    const strides = used.map(({ form, columns }) => rowBytes(form, columns));
    const { offsets, bytes } = planArena(
      used.map((buffer, index) => ({
        bytes: (strides[index] ?? 0) * this.#rows(buffer),
        first: first.get(buffer.id) ?? 0,
        last: last.get(buffer.id) ?? 0,
      })),
      alignment,
    );
    const lastOp = (group: number) => (group === ops.length ? group : groups.lastIndexOf(group));
    const planned = used.map((buffer, index): PlannedBuffer => {
      const { id, name, form, columns } = buffer;
      const rows = this.#rows(buffer);
      const stride = strides[index] ?? 0;
      const place = { offset: offsets[index] ?? 0, bytes: stride * rows };
      const format = form === "float" ? 0 : layout.formRows[form];
      this.#buffers.set(id, this.#add({ region: regions.arena, format, rows, columns, ...place, stride }));
      const rowsOf = typeof buffer.rows === "number" ? "fixed" : buffer.rows === "logits" ? "logits" : "step";
      const firstOp = groups.indexOf(first.get(id) ?? 0);
      return { name, form, columns, rows, rowsOf, ...place, firstOp, lastOp: lastOp(last.get(id) ?? 0) };
    });
    return { arenaBytes: bytes, buffers: planned };
  }

  #add(fields: PlacedTensor["fields"]): number {
    this.#tensors.push({ fields });
    return this.#tensors.length - 1;
  }

  #operand(operand: Operand): number {
    if (operand === undefined) return layout.none;
    if ("buffer" in operand) return this.#bufferTensor(operand.buffer);
    if ("screenOf" in operand) return this.#screenCopy(operand.screenOf);
    return "weight" in operand ? this.#weight(operand.weight) : this.#vector(operand.vector);
  }

  #bufferTensor(buffer: Buffer | undefined): number {
    return (buffer && this.#buffers.get(buffer.id)) ?? layout.none;
  }

  /** Made by the engine from the weight; there is one. */
  #screenCopy({ rows, columns }: Weight): number {
    this.#screenBytes = screenBytes(rows, columns);
    const bytes = this.#screenBytes;
    return this.#add({ region: regions.copies, format: layout.screenCopy, rows, columns, bytes });
  }

  #weight(weight: Weight): number {
    const known = this.#weights.get(weight.name);
    if (known !== undefined) return known;
    const packed = packedBytes(weight.dtype, weight.rows, weight.columns);
    const { packedWeights } = this.#options;
    const offset = packedWeights ? weight.byteOffset - packedWeights.offset : this.#weightsBytes;
    const scalesOffset = offset + packed.weight;
    if (!packedWeights) {
      this.#weightsBytes = scalesOffset + packed.scales;
      this.#sourceBytes += weight.byteLength;
    }
    this.#columnsMax = Math.max(this.#columnsMax, weight.columns);
    const index = this.#add({
      region: regions.weights,
      format: formatNumber(weight.dtype),
      rows: weight.rows,
      columns: weight.columns,
      offset,
      bytes: packed.weight,
      scales_offset: scalesOffset,
      scales_bytes: packed.scales,
      ...(packedWeights
        ? {}
        : {
            source_offset: weight.byteOffset,
            source_bytes: weight.byteLength,
            source_format: formatNumber(weight.sourceDtype ?? weight.dtype),
          }),
    });
    const {
      name,
      dtype,
      sourceDtype = dtype,
      rows,
      columns,
      byteOffset: sourceOffset,
      byteLength: sourceBytes,
    } = weight;
    const source = { sourceOffset, sourceBytes, converted: sourceDtype !== dtype };
    const bytes = packed.weight + packed.scales;
    this.#matrices.push({ name, tensor: index, dtype, rows, columns, ...source, offset, bytes });
    this.#weights.set(name, index);
    return index;
  }

  #vector({ values }: Vector): number {
    const known = this.#vectors.get(values);
    if (known !== undefined) return known;
    const offset = this.#constantsBytes;
    // Padded with zeros to whole vectors, which kernels may read.
    this.#constantsBytes = layout.alignUp(offset + values.byteLength, alignment);
    this.#constants.push({ offset, values });
    const index = this.#add({
      region: regions.constants,
      format: 0,
      rows: 1,
      columns: values.length,
      offset,
      bytes: this.#constantsBytes - offset,
      stride: this.#constantsBytes - offset,
    });
    this.#vectors.set(values, index);
    return index;
  }

  #encodeOp(op: LoweredOp, joinsNext: boolean): EncodedOp {
    const tensors = new Array<number>(8).fill(layout.none);
    op.operands.forEach((operand, slot) => {
      tensors[slot] = this.#operand(operand);
    });
    return {
      kind: layout.opKinds.indexOf(op.kind),
      flags:
        (joinsNext ? layout.flagJoinsNext : 0) |
        (op.rows === "logits" ? layout.flagLogitsRows : 0) |
        (op.unscreened ? layout.flagUnscreened : 0) |
        (op.embeds ? layout.flagEmbeds : 0),
      layer: op.layer,
      tensors,
      u: op.u,
      f: op.f,
    };
  }

  #planKv(): KvPlan {
    const { kvLayers } = this.#lowered;
    const { contextMax, batchMax, rowsMax, kvBytesMax, keptBytesMax } = this.#options;
    const dtype = this.#kvDtype;
    const format = formatNumber(dtype);
    // A window as long as the context is no window.
    const windows = [...new Set(kvLayers.map((layer) => (layer.window >= contextMax ? 0 : layer.window)))];
    if (windows.length > layout.kvGroupsMax) throw new RangeError(`${windows.length} different attention windows`);
    const places: KvPlace[] = [];
    const groups = windows.map((window, group) => {
      let pageBytes = 0;
      const layers: number[] = [];
      kvLayers.forEach((layer, index) => {
        if ((layer.window >= contextMax ? 0 : layer.window) !== window) return;
        if (layer.headWidth % kvBlock(dtype) !== 0) throw new RangeError(`heads of ${layer.headWidth} in ${dtype}`);
        // Keys, then values: layout in zig/kernels/table.zig.
        const half = layout.alignUp(layer.kvHeads * kvHeadBytes(dtype, layer.headWidth), alignment);
        const formats = { key_format: format, value_format: format };
        places[index] = { group, ...formats, key_offset: pageBytes, value_offset: pageBytes + half };
        pageBytes += 2 * half;
        layers.push(index);
      });
      return { window, layers, pageBytes, pagesPerSequence: pagesNeeded(window, contextMax, rowsMax) };
    });
    const bytesPerSequence = groups.reduce((sum, group) => sum + group.pagesPerSequence * group.pageBytes, 0);
    const sequences = Math.max(1, Math.min(batchMax, kvBytesMax / Math.max(1, bytesPerSequence)));
    // Kept pages are those that running sequences leave, and some of their own where memory allows. Groups share the bytes
    // alike: windows want few pages of a long text, but large ones.
    const ownBytes = Math.max(0, Math.min(keptBytesMax, kvBytesMax - sequences * bytesPerSequence));
    const pagesIn = (bytes: number, pageBytes: number) => Math.floor(bytes / groups.length / pageBytes);
    const keptLimit = keptContexts * Math.ceil(contextMax / layout.pagePositions);
    return {
      bytesPerSequence,
      places,
      groups: groups.map(({ window, layers, pageBytes, pagesPerSequence }) => {
        const running = Math.max(pagesPerSequence, Math.floor(pagesPerSequence * sequences));
        const pageCount = running + Math.min(keptLimit, pagesIn(ownBytes, pageBytes));
        const keptMax = Math.min(keptLimit, pageCount, pagesIn(keptBytesMax, pageBytes));
        return { window, layers, dtype, pageBytes, pageCount, keptMax };
      }),
    };
  }

  #encode(
    ops: readonly EncodedOp[],
    kv: KvPlan,
    arenaBytes: number,
    outputs: { readonly logits_tensor: number; readonly embeddings_tensor: number },
  ): Uint8Array {
    const { Header, Op, Tensor, KvLayer, KvGroup } = layout;
    const opsOffset = layout.alignUp(Header.size, 8);
    const tensorsOffset = layout.alignUp(opsOffset + ops.length * Op.size, 8);
    const kvLayersOffset = layout.alignUp(tensorsOffset + this.#tensors.length * Tensor.size, 8);
    const kvGroupsOffset = layout.alignUp(kvLayersOffset + kv.places.length * KvLayer.size, 8);
    const constantsOffset = layout.alignUp(kvGroupsOffset + kv.groups.length * KvGroup.size, alignment);
    const bytes = new Uint8Array(constantsOffset + this.#constantsBytes);
    const view = new DataView(bytes.buffer);

    const options = this.#options;
    const attentions = this.#lowered.ops.filter((op) => op.kind === "attention");
    const headWidths = this.#lowered.ops.map(({ kind, u }) =>
      kind === "attention" ? u[2] : kind === "encode" ? u[1] : undefined,
    );
    Header.write(view, 0, {
      magic: layout.programMagic,
      version: layout.programVersion,
      layout_hash: layout.layoutHash(),
      op_count: ops.length,
      tensor_count: this.#tensors.length,
      kv_layer_count: kv.places.length,
      kv_group_count: kv.groups.length,
      ops_offset: opsOffset,
      tensors_offset: tensorsOffset,
      kv_layers_offset: kvLayersOffset,
      kv_groups_offset: kvGroupsOffset,
      constants_offset: constantsOffset,
      constants_bytes: this.#constantsBytes,
      weights_bytes: this.#weightsBytes,
      arena_bytes: arenaBytes,
      copies_bytes: this.#screenBytes,
      rows_max: options.rowsMax,
      logits_rows_max: options.logitsRowsMax,
      batch_max: options.batchMax,
      context_max: options.contextMax,
      vocabulary: this.#graph.vocabulary,
      chunk_positions: options.chunkPositions,
      columns_max: this.#columnsMax,
      head_width_max: Math.max(16, ...headWidths.map((width) => width ?? 0)),
      heads_per_kv_head_max: Math.max(1, ...attentions.map(({ u }) => Math.ceil((u[0] ?? 1) / (u[1] ?? 1)))),
      ...outputs,
      whole_prompts: this.#graph.causal ? 0 : 1,
    });
    ops.forEach((op, index) => {
      Op.write(view, opsOffset + index * Op.size, { ...op });
    });
    this.#tensors.forEach(({ fields }, index) => {
      Tensor.write(view, tensorsOffset + index * Tensor.size, fields as Record<string, number>);
    });
    kv.places.forEach((place, index) => {
      KvLayer.write(view, kvLayersOffset + index * KvLayer.size, { ...place });
    });
    kv.groups.forEach((group, index) => {
      KvGroup.write(view, kvGroupsOffset + index * KvGroup.size, {
        window: group.window,
        page_count: group.pageCount,
        page_bytes: group.pageBytes,
        kept_max: group.keptMax,
      });
    });
    for (const { offset, values } of this.#constants) {
      bytes.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), constantsOffset + offset);
    }
    return bytes;
  }
}

/** Kinds of op whose operations are their weight's. */
const products: ReadonlySet<layout.OpKind> = new Set(["matmul", "embed", "screen", "conv"]);

/** What an op costs, from its operands alone. */
function describe(op: LoweredOp, index: number, kvDtype: KvDType): PlannedOp {
  let bytesPerStep = 0;
  let bytesPerRow = 0;
  let operationsPerRow = 0;
  let bytesPerPosition = 0;
  let operationsPerPosition = 0;
  let format: string | undefined;
  for (const operand of op.operands) {
    if (operand === undefined) continue;
    if ("weight" in operand) {
      const { dtype, rows, columns } = operand.weight;
      format = dtype.toLowerCase();
      const packed = packedBytes(dtype, rows, columns);
      if (op.kind === "embed") {
        bytesPerRow += Math.ceil((packed.weight + packed.scales) / rows);
        operationsPerRow += columns;
      } else if (op.kind === "screen_product") {
        // Its rows are the groups that were chosen.
        bytesPerRow += Math.ceil((packed.weight + packed.scales) / groupsOf(rows));
        operationsPerRow += Math.ceil((2 * rows * columns) / groupsOf(rows));
      } else if (op.kind === "screen") {
        operationsPerRow += 2 * rows * columns;
      } else if (op.kind === "conv") {
        // A row of the weight at every value that comes of it.
        bytesPerStep += packed.weight;
        const [out] = op.operands;
        operationsPerRow += 2 * columns * (out && "buffer" in out ? out.buffer.columns : 0);
      } else {
        bytesPerStep += packed.weight + packed.scales;
        operationsPerRow += 2 * rows * columns;
      }
    } else if ("screenOf" in operand) {
      bytesPerStep += screenBytes(operand.screenOf.rows, operand.screenOf.columns);
    } else if ("vector" in operand) {
      bytesPerStep += operand.vector.values.byteLength;
    } else if (typeof operand.buffer.rows !== "number" && op.kind !== "screen_product") {
      bytesPerRow += rowBytes(operand.buffer.form, operand.buffer.columns);
      if (!products.has(op.kind)) operationsPerRow += 2 * operand.buffer.columns;
    }
  }
  if (op.kind === "attention") {
    const [heads = 0, kvHeads = 0, headWidth = 0] = op.u;
    format = kvDtype.toLowerCase();
    bytesPerPosition = (kvHeads * kvHeadBytes(kvDtype, headWidth) * 2) / layout.pagePositions;
    operationsPerPosition = heads * headWidth * 2 * 2;
    operationsPerRow = 0;
  } else if (op.kind === "encode") {
    // A text's keys and values, float32, are read for each block of its rows.
    const [heads = 0, headWidth = 0] = op.u;
    bytesPerPosition = (heads * headWidth * 2 * 4) / layout.encodeRowBlock;
    operationsPerPosition = heads * headWidth * 2 * 2;
    operationsPerRow = 0;
  }
  return {
    index,
    name: op.name,
    kind: op.kind,
    layer: op.layer,
    format,
    bytesPerStep,
    bytesPerRow,
    operationsPerRow,
    bytesPerPosition,
    operationsPerPosition,
  };
}
