// Screening of an output head, as the planner sees it: which heads have a screen, and what their copy takes. The mirror of
// `screenGroupBytes` in zig/kernels/table.zig; what a screen does is described in zig/kernels/screen.zig.

import type { Graph, PlacedNode } from "../graph/graph.ts";
import { alignUp } from "./layout.ts";

type Product = PlacedNode & { kind: "matmul" };

const groupRows = 16;
const blockColumns = 32;
/** Columns that have a second code, and the bytes that name them. */
const fineColumns = 32;
const headBytes = fineColumns * 4;
/** Formats whose products a copy of 4 bits bounds well and takes much less than. */
const formats: readonly string[] = ["Q8_0", "Q6_K"];

/** The product that gives a graph's logits, if it is one. */
export function headOf(graph: Graph): Product | undefined {
  const node = graph.nodes.find(({ out }) => out.id === graph.logits?.id);
  return node?.kind === "matmul" ? node : undefined;
}

/** Why a graph's output head cannot be screened; undefined: it can. */
export function screenProblem(graph: Graph): string | undefined {
  const head = headOf(graph);
  if (!head) return "the model's output is not a product";
  const { dtype } = head.weight;
  if (!formats.includes(dtype)) return `the output head is in ${dtype}; only ${formats.join(" and ")} can be screened`;
  if (head.softCap > 0) return "the model caps its logits";
  if (head.bias) return "the output head has a bias";
  return undefined;
}

/** Bytes of the copy of a head of `rows` and `columns`: 4 bits a weight, and some for scales and bounds. */
export function screenBytes(rows: number, columns: number): number {
  const blocks = columns / blockColumns;
  const group = alignUp(groupRows * ((columns + fineColumns) / 2 + blocks + Math.ceil(blocks / 2) + 3 * 2), 64);
  return headBytes + groupsOf(rows) * group;
}

/** Groups of a head's rows: what is estimated, bounded and computed together. */
export function groupsOf(rows: number): number {
  return Math.ceil(rows / groupRows);
}
