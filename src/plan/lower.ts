// From a graph to the ops of a program: fuses what one kernel can do, decides in which forms each value is kept (float32,
// and those that products take), and finds neighbouring ops that need no barrier between them. It places nothing in memory.

import type { Graph, PlacedNode, Rope, Value, Vector, Weight } from "../graph/graph.ts";
import { convolutionNumbers } from "./convolution.ts";
import { type ActivationForm, activationBlock, activationForm } from "./formats.ts";
import {
  attentionChunkPositions,
  attentionSplitRows,
  type OpKind,
  screenRecentMax,
  screenRowsMax,
  slotsMax,
} from "./layout.ts";
import { groupsOf, headOf } from "./screen.ts";

/** A stretch of the arena: `columns` values for each row of a step. */
export interface Buffer {
  readonly id: number;
  readonly name: string;
  readonly form: ActivationForm;
  readonly columns: number;
  readonly rows: "all" | "logits" | number;
}

/** `screenOf`: the copy that screens a weight. */
export type Operand = { buffer: Buffer } | { weight: Weight } | { vector: Vector } | { screenOf: Weight } | undefined;

/** An op with symbolic operands, in the slots that zig/program.zig gives its kind. */
export interface LoweredOp {
  readonly kind: OpKind;
  readonly name: string;
  readonly layer: number;
  readonly operands: readonly Operand[];
  readonly u: readonly number[];
  readonly f: readonly number[];
  readonly rows: "all" | "logits";
  /** Not run in screened steps, where the ops before it run in its place. */
  readonly unscreened?: boolean;
  /** Only run in steps that have a row of a text whose vector is wanted. */
  readonly embeds?: boolean;
  /** What is read and written, for finding dependencies: buffer ids, and `kv3` for layer 3's cache. */
  readonly reads: readonly (number | string)[];
  readonly writes: readonly (number | string)[];
}

/** A layer's cache, as attention wants it. */
export interface KvLayerShape {
  readonly window: number;
  readonly kvHeads: number;
  readonly headWidth: number;
}

export interface Lowered {
  readonly ops: readonly LoweredOp[];
  /** For each op, the number of the barrier-free group it belongs to, ascending. */
  readonly groups: readonly number[];
  readonly buffers: readonly Buffer[];
  readonly kvLayers: readonly KvLayerShape[];
  readonly logits: Buffer | undefined;
  /** A row for each slot. */
  readonly embeddings: Buffer | undefined;
}

/** The forms that are made of float32. */
type MadeForm = Exclude<ActivationForm, "float">;
const madeForms: readonly MadeForm[] = ["int8", "wide"];

const ropeStyles = { halves: 1, neighbours: 2 } as const;
const activations = { silu: 0, gelu_tanh: 1, gelu: 2, relu: 3 } as const;

/** What lowering looks at of a plan's options. */
export interface LowerOptions {
  readonly contextMax: number;
  readonly rowsMax: number;
  /** Steps may screen the output head, which must be one that can be screened. */
  readonly screening?: boolean | undefined;
  readonly fusion?: boolean | undefined;
}

export function lower(graph: Graph, options: LowerOptions): Lowered {
  return new Lowering(graph, options).run();
}

class Lowering {
  readonly #graph: Graph;
  readonly #contextMax: number;
  /** Rows of a step that attention is split for. */
  readonly #splitRows: number;
  readonly #fusion: boolean;
  /** The product that is screened. */
  readonly #head: PlacedNode | undefined;
  readonly #ops: LoweredOp[] = [];
  readonly #buffers: Buffer[] = [];
  readonly #kvLayers: KvLayerShape[] = [];
  readonly #producers = new Map<number, PlacedNode>();
  readonly #consumers = new Map<number, PlacedNode[]>();
  readonly #order = new Map<PlacedNode, number>();
  readonly #floats = new Map<number, Buffer>();
  readonly #made = { int8: new Map<number, Buffer>(), wide: new Map<number, Buffer>() };
  readonly #ropes = new Map<Rope, Buffer>();
  readonly #fused = new Set<PlacedNode>();
  /** What the logits are computed from; a model without logits needs everything. */
  readonly #drawn = new Set<PlacedNode>();
  #embeddings: Buffer | undefined;

  constructor(graph: Graph, { contextMax, rowsMax, screening = false, fusion = true }: LowerOptions) {
    this.#graph = graph;
    this.#contextMax = contextMax;
    this.#splitRows = Math.min(attentionSplitRows, rowsMax);
    this.#fusion = fusion;
    this.#head = screening ? headOf(graph) : undefined;
    graph.nodes.forEach((node, index) => {
      this.#order.set(node, index);
      this.#producers.set(node.out.id, node);
      for (const input of inputs(node)) {
        const list = this.#consumers.get(input.id) ?? [];
        list.push(node);
        this.#consumers.set(input.id, list);
      }
    });
    for (const node of graph.logits ? graph.nodes.toReversed() : []) {
      const drawn = (other: PlacedNode) => this.#drawn.has(other);
      if (node.out.id === graph.logits?.id || this.#consumers.get(node.out.id)?.some(drawn)) this.#drawn.add(node);
    }
  }

  run(): Lowered {
    for (const node of this.#graph.nodes) {
      if ((node.kind === "attention" || node.kind === "encode") && node.shape.rope) this.#ropeTable(node.shape.rope);
    }
    for (const node of this.#graph.nodes) {
      if (this.#fusion && node.kind === "add") this.#markFused(node);
    }
    for (const node of this.#graph.nodes) {
      if (!this.#fused.has(node)) this.#node(node);
    }
    const { logits } = this.#graph;
    return {
      ops: this.#ops,
      groups: groupOps(this.#ops),
      buffers: this.#buffers,
      kvLayers: this.#kvLayers,
      logits: logits && this.#float(logits),
      embeddings: this.#embeddings,
    };
  }

  /** An addition takes its second operand's node in, if that is a norm or a product that nobody else reads. */
  #markFused(node: PlacedNode & { kind: "add" }): void {
    const producer = this.#producers.get(node.y.id);
    const alone = this.#consumers.get(node.y.id)?.length === 1 && node.y.id !== this.#graph.embedding?.id;
    if (!producer || !alone) return;
    if (producer.kind === "norm" || (producer.kind === "matmul" && producer.softCap === 0)) this.#fused.add(producer);
  }

  #node(node: PlacedNode): void {
    switch (node.kind) {
      case "embed":
        this.#emit(
          node,
          "embed",
          [this.#out(node.out), { weight: node.table }, node.positions && { vector: node.positions }],
          { f: [node.scale] },
        );
        break;
      case "norm":
        this.#norm(node, node, undefined);
        break;
      case "matmul":
        this.#matmul(node, node, this.#newFloat(node.out), false);
        break;
      case "add":
        this.#addition(node);
        break;
      case "glu":
        this.#emit(
          node,
          "glu",
          [...this.#outForms(node.out), { buffer: this.#float(node.gate) }, { buffer: this.#float(node.up) }],
          { u: [activations[node.activation]] },
        );
        break;
      case "activation":
        this.#emit(node, "activation", [...this.#outForms(node.out), { buffer: this.#float(node.x) }], {
          u: [activations[node.activation]],
        });
        break;
      case "conv":
        this.#emit(
          node,
          "conv",
          [
            this.#out(node.out),
            { buffer: this.#float(node.x) },
            { weight: node.weight },
            node.bias && { vector: node.bias },
          ],
          { u: convolutionNumbers(node.shape) },
        );
        break;
      case "encode":
        this.#encode(node);
        break;
      case "attention":
        this.#attention(node);
        break;
      case "select":
        this.#emit(node, "gather", [this.#out(node.out), { buffer: this.#float(node.x) }]);
        break;
    }
    for (const form of this.#madeForms(node.out)) {
      if (this.#made[form].has(node.out.id)) continue;
      const out = this.#newMade(node.out, form);
      this.#emit(node, "quantize", [{ buffer: out }, { buffer: this.#float(node.out) }], {
        name: `${node.name}.quantize`,
      });
    }
    if (node.out.id === this.#graph.embedding?.id) this.#pool(node);
  }

  /** Rows of texts whose vector is wanted into one row for each. */
  #pool(node: PlacedNode): void {
    const out = this.#buffer("embedding", "float", node.out.width, slotsMax);
    this.#embeddings = out;
    this.#emit(node, "pool", [{ buffer: out }, { buffer: this.#float(node.out) }], { name: "embedding", embeds: true });
  }

  #addition(node: PlacedNode & { kind: "add" }): void {
    const producer = this.#producers.get(node.y.id);
    if (producer && this.#fused.has(producer) && producer.kind === "norm") {
      this.#norm(producer, node, node.x);
      return;
    }
    // The sum takes the first operand's place, which must therefore not be needed any more.
    const x = this.#float(node.x);
    const last = (this.#consumers.get(node.x.id) ?? []).every((other) => this.#position(other) <= this.#position(node));
    if (!last) throw new RangeError(`${node.name}: the first operand of an addition is used again after it`);
    this.#floats.set(node.out.id, x);
    if (producer && this.#fused.has(producer) && producer.kind === "matmul") {
      this.#matmul(producer, node, x, true);
    } else {
      const y = this.#float(node.y);
      this.#emit(node, "add", [{ buffer: x }, { buffer: y }], { reads: [x.id, y.id], writes: [x.id] });
    }
  }

  #norm(node: PlacedNode & { kind: "norm" }, at: PlacedNode, residual: Value | undefined): void {
    const out = at.out;
    let buffer: Buffer | undefined;
    if (residual) {
      buffer = this.#float(residual);
      const last = (this.#consumers.get(residual.id) ?? []).every(
        (other) => this.#position(other) <= this.#position(at),
      );
      if (last) this.#floats.set(out.id, buffer);
    }
    const operands = [
      ...this.#outForms(out),
      { buffer: this.#float(node.x) },
      { vector: node.weight },
      buffer && { buffer },
      node.bias && { vector: node.bias },
    ];
    this.#emit(node, "norm", operands, { u: [node.centred ? 1 : 0], f: [node.epsilon] });
  }

  #matmul(node: PlacedNode & { kind: "matmul" }, at: PlacedNode, y: Buffer, accumulate: boolean): void {
    const form = activationForm(node.weight.dtype);
    const x = known((form === "float" ? this.#floats : this.#made[form]).get(node.x.id), node.x);
    const operands: Operand[] = [{ buffer: y }, { buffer: x }, { weight: node.weight }];
    if (node.bias) operands.push({ vector: node.bias });
    if (node === this.#head) this.#screen(node, x, y);
    this.#emit(node, "matmul", operands, {
      unscreened: node === this.#head,
      u: [accumulate ? 1 : 0],
      f: [node.softCap],
      rows: at.out.rows,
      ...(accumulate ? { reads: [x.id, y.id], writes: [y.id] } : {}),
    });
  }

  /** Estimates all logits, computes the best, then those that may still matter. */
  #screen(node: PlacedNode & { kind: "matmul" }, x: Buffer, logits: Buffer): void {
    const { weight } = node;
    const count = groupsOf(weight.rows);
    const groups = this.#buffer(`${node.name}.groups`, "float", 2 * count, screenRowsMax);
    const list = this.#buffer(`${node.name}.list`, "float", 2 + count + screenRecentMax, screenRowsMax);
    this.#emit(
      node,
      "screen",
      [{ buffer: logits }, { buffer: x }, { weight }, { screenOf: weight }, { buffer: groups }],
      { name: `${node.name}.screen`, reads: [x.id], writes: [logits.id, groups.id] },
    );
    for (const [stage, name] of ["likely", "possible"].entries()) {
      this.#emit(node, "screen_pick", [{ buffer: logits }, { buffer: groups }, { buffer: list }], {
        name: `${node.name}.pick_${name}`,
        u: [stage],
        reads: stage === 0 ? [groups.id] : [logits.id, groups.id, list.id],
        writes: stage === 0 ? [list.id] : [groups.id, list.id],
      });
      this.#emit(node, "screen_product", [{ buffer: logits }, { buffer: x }, { weight }, { buffer: list }], {
        name: `${node.name}.${name}`,
        u: [stage],
        reads: [x.id, list.id, logits.id],
        writes: [logits.id],
      });
    }
  }

  #encode(node: PlacedNode & { kind: "encode" }): void {
    const { heads, headWidth, scale, rope } = node.shape;
    const q = this.#float(node.q);
    const k = this.#float(node.k);
    const v = this.#float(node.v);
    if (rope) {
      const table = this.#ropeTable(rope);
      this.#emit(node, "rope", [{ buffer: q }, { buffer: k }, { buffer: table }], {
        name: `${node.name}_rope`,
        u: [heads, heads, headWidth, ropeStyles[rope.style], rope.frequencies.length],
        reads: [q.id, k.id, table.id],
        writes: [q.id, k.id],
      });
    }
    // Heads are written one by one, and blocks of other forms must not reach from one into the next.
    const forms = headWidth % activationBlock === 0 ? this.#outForms(node.out) : [this.#out(node.out), undefined];
    this.#emit(node, "encode", [...forms, { buffer: q }, { buffer: k }, { buffer: v }], {
      u: [heads, headWidth],
      f: [scale],
    });
  }

  #attention(node: PlacedNode & { kind: "attention" }): void {
    const { shape } = node;
    const layer = this.#kvLayers.length;
    const cache = `kv${layer}`;
    this.#kvLayers.push({ window: shape.window, kvHeads: shape.kvHeads, headWidth: shape.headWidth });
    const q = this.#float(node.q);
    const k = this.#float(node.k);
    const v = this.#float(node.v);
    const table = this.#ropeTable(shape.rope);
    const pairs = shape.rope.frequencies.length;
    this.#emit(
      node,
      "rope_store",
      [
        { buffer: q },
        { buffer: k },
        { buffer: v },
        { buffer: table },
        shape.qNorm && { vector: shape.qNorm },
        shape.kNorm && { vector: shape.kNorm },
      ],
      {
        name: `${node.name}_rope`,
        u: [shape.heads, shape.kvHeads, shape.headWidth, ropeStyles[shape.rope.style], pairs, layer],
        f: [shape.normEpsilon],
        reads: [q.id, k.id, v.id, table.id],
        writes: [q.id, k.id, cache],
      },
    );
    const chunks = Math.ceil(this.#contextMax / attentionChunkPositions);
    const partial = this.#buffer(
      `${node.name}.partial`,
      "float",
      shape.heads * chunks * (shape.headWidth + 2),
      this.#splitRows,
    );
    const forms = this.#outForms(node.out);
    const outIds = forms.flatMap((operand) => (operand && "buffer" in operand ? [operand.buffer.id] : []));
    const operands: Operand[] = [...forms, { buffer: q }, { buffer: partial }];
    const numbers = {
      u: [shape.heads, shape.kvHeads, shape.headWidth, shape.window, layer],
      f: [shape.scale, shape.softCap],
    };
    this.#emit(node, "attention", operands, { ...numbers, reads: [q.id, cache], writes: [partial.id, ...outIds] });
    this.#emit(node, "attention_merge", operands, {
      ...numbers,
      name: `${node.name}_merge`,
      reads: [q.id, partial.id],
      writes: outIds,
    });
  }

  #ropeTable(rope: Rope): Buffer {
    const known = this.#ropes.get(rope);
    if (known) return known;
    const pairs = rope.frequencies.length;
    const name = `rope_table.${this.#ropes.size}`;
    const out = this.#buffer(name, "float", pairs * 2, "all");
    this.#ropes.set(rope, out);
    this.#ops.push({
      kind: "rope_table",
      name,
      layer: -1,
      operands: [{ buffer: out }, { vector: { name: `${name}.frequencies`, values: rope.frequencies } }],
      u: [],
      f: [rope.scale],
      rows: "all",
      reads: [],
      writes: [out.id],
    });
    return out;
  }

  #emit(
    node: PlacedNode,
    kind: OpKind,
    operands: readonly Operand[],
    options: {
      name?: string;
      u?: readonly number[];
      f?: readonly number[];
      rows?: "all" | "logits";
      unscreened?: boolean;
      embeds?: boolean;
      reads?: readonly (number | string)[];
      writes?: readonly (number | string)[];
    } = {},
  ): void {
    const ids = operands.map((operand) => (operand && "buffer" in operand ? operand.buffer.id : undefined));
    const outputs = outputSlots[kind];
    const of = (wanted: (slot: number) => boolean) =>
      ids.flatMap((id, slot) => (id !== undefined && wanted(slot) ? [id] : []));
    const embeds = options.embeds ?? (this.#graph.logits !== undefined && !this.#drawn.has(node));
    this.#ops.push({
      kind,
      name: options.name ?? (embeds ? `embedding.${node.name}` : node.name),
      layer: node.layer,
      operands,
      u: options.u ?? [],
      f: options.f ?? [],
      rows: options.rows ?? node.out.rows,
      ...(options.unscreened ? { unscreened: true } : {}),
      ...(embeds ? { embeds } : {}),
      reads: options.reads ?? of((slot) => slot >= outputs),
      writes: options.writes ?? of((slot) => slot < outputs),
    });
  }

  /** Both output slots of ops that can write float32, one form made of it, or both. */
  #outForms(value: Value): [Operand, Operand] {
    if (!this.#fusion) return [this.#out(value), undefined];
    const [form, ...others] = this.#madeForms(value);
    const made = form && { buffer: this.#newMade(value, form) };
    const float = this.#wantsFloat(value) || !made || others.length > 0 ? this.#out(value) : undefined;
    return [float, made];
  }

  #out(value: Value): { buffer: Buffer } {
    return { buffer: this.#floats.get(value.id) ?? this.#newFloat(value) };
  }

  #madeForms(value: Value): MadeForm[] {
    const consumers = this.#consumers.get(value.id) ?? [];
    return madeForms.filter((form) => consumers.some((node) => formTaken(node) === form));
  }

  #wantsFloat(value: Value): boolean {
    const consumers = this.#consumers.get(value.id) ?? [];
    if (value.id === this.#graph.embedding?.id) return true;
    return consumers.length === 0 || consumers.some((node) => formTaken(node) === "float");
  }

  #float(value: Value): Buffer {
    return known(this.#floats.get(value.id), value);
  }

  #newFloat(value: Value): Buffer {
    const buffer = this.#buffer(value.name, "float", value.width, value.rows);
    this.#floats.set(value.id, buffer);
    return buffer;
  }

  #newMade(value: Value, form: MadeForm): Buffer {
    const buffer = this.#buffer(`${value.name}.${form}`, form, value.width, value.rows);
    this.#made[form].set(value.id, buffer);
    return buffer;
  }

  #buffer(name: string, form: Buffer["form"], columns: number, rows: Buffer["rows"]): Buffer {
    const buffer: Buffer = { id: this.#buffers.length, name, form, columns, rows };
    this.#buffers.push(buffer);
    return buffer;
  }

  #position(node: PlacedNode): number {
    return this.#order.get(node) ?? 0;
  }
}

/** How many of an op's first slots are outputs. Ops that read what they write state reads and writes themselves. */
const outputSlots: Readonly<Record<OpKind, number>> = {
  embed: 1,
  norm: 2,
  add: 1,
  quantize: 1,
  matmul: 1,
  glu: 2,
  rope_table: 1,
  rope_store: 2,
  attention: 2,
  attention_merge: 2,
  gather: 1,
  screen: 1,
  screen_pick: 1,
  screen_product: 1,
  activation: 2,
  encode: 2,
  rope: 2,
  pool: 1,
  conv: 1,
};

/** The form in which a node takes its inputs. */
function formTaken(node: PlacedNode): ActivationForm {
  return node.kind === "matmul" ? activationForm(node.weight.dtype) : "float";
}

function known(buffer: Buffer | undefined, value: Value): Buffer {
  if (!buffer) throw new RangeError(`${value.name} is used before it is computed`);
  return buffer;
}

/** The values that a node reads. */
export function inputs(node: PlacedNode): Value[] {
  switch (node.kind) {
    case "embed":
      return [];
    case "norm":
    case "matmul":
    case "activation":
    case "conv":
    case "select":
      return [node.x];
    case "add":
      return [node.x, node.y];
    case "glu":
      return [node.gate, node.up];
    case "attention":
    case "encode":
      return [node.q, node.k, node.v];
  }
}

/** Greedy: an op joins the group before it if neither touches what the other writes. */
function groupOps(ops: readonly LoweredOp[]): number[] {
  const groups: number[] = [];
  let group = 0;
  let reads = new Set<number | string>();
  let writes = new Set<number | string>();
  for (const op of ops) {
    const depends = op.reads.some((id) => writes.has(id)) || op.writes.some((id) => writes.has(id) || reads.has(id));
    if (depends) {
      group += 1;
      reads = new Set();
      writes = new Set();
    }
    for (const id of op.reads) reads.add(id);
    for (const id of op.writes) writes.add(id);
    groups.push(group);
  }
  return groups;
}
