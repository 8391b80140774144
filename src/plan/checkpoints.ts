// What training would keep of a forward pass for its backward pass, and what it would compute once more. Layers form segments: at
// each segment's border the values that later layers read are kept, those inside are computed again when the backward pass comes
// there (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"). Values that cost little, norms and activation
// functions, may be computed again in any case (Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer
// Models"). Nothing here runs.

import type { Graph, PlacedNode, Value } from "../graph/graph.ts";
import { inputs } from "./lower.ts";
import type { Plan, PlannedOp } from "./plan.ts";

/** Neighbouring layers between two kept borders. Bytes and operations for a step of `rows` rows. */
export interface CheckpointSegment {
  readonly firstLayer: number;
  readonly lastLayer: number;
  /** What is kept from the forward pass on. */
  readonly keptBytes: number;
  /** What is computed again, and there at once while the backward pass is in the segment. */
  readonly recomputedBytes: number;
  /** Multiplications and additions of computing it again. */
  readonly extraOperations: number;
}

/** A plan for a backward pass. */
export interface CheckpointPlan {
  /** Rows of the step that it is for: the plan's largest. */
  readonly rows: number;
  readonly segments: readonly CheckpointSegment[];
  /** Bytes of all activations, which are kept if nothing is computed again. */
  readonly allBytes: number;
  /** Bytes kept from the forward to the backward pass. */
  readonly keptBytes: number;
  /** Most bytes that are there at one time. */
  readonly peakBytes: number;
  /** Multiplications and additions of the forward pass. */
  readonly operations: number;
  /** Those on top of it. */
  readonly extraOperations: number;
}

/** What is asked of a plan for a backward pass. */
export interface CheckpointOptions {
  readonly enableCheckpointing: boolean;
  readonly recomputeActivations: boolean;
  /** Bytes; with it, the fewest segments that stay within it, else those that need the least memory. */
  readonly maxActivationMemory: number | undefined;
}

/** Kinds that are computed row by row or value by value, and cost little beside products. */
const cheap: readonly string[] = ["norm", "add", "glu", "activation", "quantize"];

interface Layer {
  /** Bytes of what its nodes compute. */
  readonly bytes: number;
  readonly cheapBytes: number;
  /** Bytes of what this layer or a later one reads, and an earlier one computed. */
  readonly borderBytes: number;
  readonly operations: number;
  readonly cheapOperations: number;
}

export function planCheckpoints(graph: Graph, plan: Plan, options: CheckpointOptions): CheckpointPlan {
  const layers = layersOf(graph, plan);
  const outside = valuesOf(graph).filter(({ layer }) => layer < 0);
  const outsideBytes = outside.reduce((sum, { value }) => sum + valueBytes(value, plan), 0);
  const counts = options.enableCheckpointing ? layers.map((_, index) => index + 1) : [1];
  const candidates = counts.map((count) => segmentsOf(layers, count, options.recomputeActivations));
  const peaks = candidates.map((segments) => outsideBytes + peakOf(segments));
  const { maxActivationMemory: limit } = options;
  const within = limit === undefined ? -1 : peaks.findIndex((peak) => peak <= limit);
  const chosen = within >= 0 ? within : peaks.indexOf(Math.min(...peaks));
  const segments = candidates[chosen] ?? [];
  const sum = (of: (segment: CheckpointSegment) => number) => segments.reduce((total, each) => total + of(each), 0);
  return {
    rows: plan.options.rowsMax,
    segments,
    allBytes: outsideBytes + layers.reduce((total, { bytes }) => total + bytes, 0),
    keptBytes: outsideBytes + sum(({ keptBytes }) => keptBytes),
    peakBytes: peaks[chosen] ?? outsideBytes,
    operations: plan.ops.reduce((total, op) => total + operationsOf(op, plan), 0),
    extraOperations: sum(({ extraOperations }) => extraOperations),
  };
}

/** `count` segments of as equal numbers of layers as can be. The last one's values are still there when the backward pass begins. */
function segmentsOf(layers: readonly Layer[], count: number, recomputesCheap: boolean): CheckpointSegment[] {
  return Array.from({ length: Math.min(count, layers.length) }, (_, index): CheckpointSegment => {
    const firstLayer = Math.floor((index * layers.length) / count);
    const lastLayer = Math.floor(((index + 1) * layers.length) / count) - 1;
    const members = layers.slice(firstLayer, lastLayer + 1);
    const sum = (of: (layer: Layer) => number) => members.reduce((total, layer) => total + of(layer), 0);
    const border = index > 0 ? (members[0]?.borderBytes ?? 0) : 0;
    const place = { firstLayer, lastLayer };
    // What is cheap is computed again a layer at a time.
    const cheapBytes = recomputesCheap ? Math.max(...members.map((layer) => layer.cheapBytes)) : 0;
    const lasting = sum(({ bytes }) => bytes) - (recomputesCheap ? sum((layer) => layer.cheapBytes) : 0);
    const cheapOperations = recomputesCheap ? sum((layer) => layer.cheapOperations) : 0;
    if (index === count - 1) {
      return { ...place, keptBytes: border + lasting, recomputedBytes: cheapBytes, extraOperations: cheapOperations };
    }
    const extraOperations = sum(({ operations }) => operations) + cheapOperations;
    return { ...place, keptBytes: border, recomputedBytes: lasting + cheapBytes, extraOperations };
  });
}

/** The most bytes at one time, going back from the last segment: what earlier ones keep, and what the one it is in has. */
function peakOf(segments: readonly CheckpointSegment[]): number {
  let kept = 0;
  let peak = 0;
  for (const { keptBytes, recomputedBytes } of segments) {
    kept += keptBytes;
    peak = Math.max(peak, kept + recomputedBytes);
  }
  return peak;
}

function layersOf(graph: Graph, plan: Plan): Layer[] {
  const values = valuesOf(graph);
  const count = Math.max(-1, ...graph.nodes.map(({ layer }) => layer)) + 1;
  return Array.from({ length: count }, (_, layer): Layer => {
    const bytesWhere = (wanted: (placed: PlacedValue) => boolean) =>
      values.filter(wanted).reduce((sum, { value }) => sum + valueBytes(value, plan), 0);
    const ops = plan.ops.filter((op) => op.layer === layer);
    const operations = (list: readonly PlannedOp[]) => list.reduce((sum, op) => sum + operationsOf(op, plan), 0);
    return {
      bytes: bytesWhere((placed) => placed.layer === layer),
      cheapBytes: bytesWhere((placed) => placed.layer === layer && cheap.includes(placed.kind)),
      borderBytes: bytesWhere((placed) => placed.layer >= 0 && placed.layer < layer && placed.lastReader >= layer),
      operations: operations(ops),
      cheapOperations: operations(ops.filter(({ kind }) => cheap.includes(kind))),
    };
  });
}

interface PlacedValue {
  readonly value: Value;
  readonly kind: PlacedNode["kind"];
  /** Of the node that computes it; −1: of none. */
  readonly layer: number;
  /** The last layer that reads it; those behind all layers count as one. */
  readonly lastReader: number;
}

function valuesOf({ nodes }: Graph): PlacedValue[] {
  const readers = new Map<number, number>();
  let entered = false;
  for (const node of nodes) {
    entered ||= node.layer >= 0;
    const layer = node.layer >= 0 ? node.layer : entered ? Number.POSITIVE_INFINITY : -1;
    for (const { id } of inputs(node)) readers.set(id, Math.max(layer, readers.get(id) ?? -1));
  }
  return nodes.map(({ out, kind, layer }) => ({ value: out, kind, layer, lastReader: readers.get(out.id) ?? layer }));
}

/** All are float32. */
function valueBytes({ width, rows }: Value, { options }: Plan): number {
  return 4 * width * (rows === "logits" ? options.logitsRowsMax : options.rowsMax);
}

/** Of one text of as many rows as a step has. */
function operationsOf(op: PlannedOp, { options, kvGroups }: Plan): number {
  const rows = options.rowsMax;
  if (op.operationsPerPosition === 0) return op.operationsPerRow * rows;
  if (op.kind === "encode") return op.operationsPerPosition * rows * rows;
  const window = kvGroups.find(({ layers }) => layers.includes(op.layer))?.window || rows;
  const looking = Math.min(window, rows);
  // Rows before the window is full look at as many positions as there are, the others at all of it.
  return op.operationsPerPosition * ((looking * (looking + 1)) / 2 + (rows - looking) * looking);
}
