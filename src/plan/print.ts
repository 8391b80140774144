// A plan as text: what it is for, memory by region, ops in order with what they cost, buffers with how long they live.

import { formatTable, grouped, megabytes } from "../text-table.ts";
import type { Plan, PlannedBuffer, PlannedOp } from "./plan.ts";

/** The plan as text for a terminal, with a table each of memory, ops and buffers. Bytes are in MB (10⁶) and KB (10³). */
export function printPlan(plan: Plan): string {
  const paragraphs = [heading(plan), memory(plan), formatTable([opTitles, ...plan.ops.map(opCells)], 4)];
  paragraphs.push(formatTable([bufferTitles, ...plan.buffers.map(bufferCells)], 2));
  if (plan.checkpoints) paragraphs.push(checkpoints(plan.checkpoints));
  if (plan.withoutEffect.length > 0) {
    const rows = plan.withoutEffect.map(({ knob, reason }) => [knob, reason]);
    paragraphs.push(formatTable([["without effect", "because"], ...rows]));
  }
  return paragraphs.join("\n");
}

function heading({ ops, options, wholePrompts }: Plan): string {
  const { contextMax, batchMax, rowsMax, logitsRowsMax } = options;
  const rows = wholePrompts ? `${grouped(rowsMax)} rows` : `${rowsMax} rows, ${logitsRowsMax} of them with logits`;
  const fused = options.fusion === false ? ", nothing fused" : "";
  return `${ops.length} ops${fused}; ${grouped(contextMax)} positions, a batch of ${batchMax}, steps of ${rows}\n`;
}

function memory(plan: Plan): string {
  const mapped = plan.options.packedWeights ? "mapped from the prepared file" : "packed when the model is loaded";
  const rows = [
    ["weights", megabytes(plan.weightsBytes), mapped],
    ["constants", megabytes(plan.constantsBytes), "norms, biases, rotations"],
    ["activations", megabytes(plan.arenaBytes), `${plan.buffers.length} buffers in one arena`],
    ["screen", megabytes(plan.screenBytes), plan.screenBytes > 0 ? "the output head in fewer bits" : "none"],
    ...plan.kvGroups.map(({ window, layers, dtype, pageBytes, pageCount, keptMax }) => {
      const reach = window > 0 ? `of the last ${grouped(window)} positions` : "of all positions";
      const pages = `${grouped(pageCount)} pages of ${megabytes(pageBytes, 3)} MB, up to ${grouped(keptMax)} kept`;
      return [
        "keys and values",
        megabytes(pageBytes * pageCount),
        `${dtype}, ${layers.length} layers, ${reach}: ${pages}`,
      ];
    }),
    ["a whole sequence", megabytes(plan.kvBytesPerSequence), "keys and values of one that fills the context"],
  ];
  return formatTable([["memory", "MB", ""], ...rows]);
}

const opTitles = ["op", "name", "kind", "format", "KB a step", "KB a row", "operations a row", "a position"];

function opCells(op: PlannedOp): string[] {
  const costs = [op.bytesPerStep / 1e3, op.bytesPerRow / 1e3].map((kilobytes) => kilobytes.toFixed(1));
  const operations = [op.operationsPerRow, op.operationsPerPosition].map(grouped);
  return [`${op.index}`, op.name, op.kind, op.format ?? "", ...costs, ...operations];
}

const bufferTitles = ["buffer", "form", "columns", "rows", "KB", "offset", "from op", "to op"];

function bufferCells({ name, form, columns, rows, bytes, offset, firstOp, lastOp }: PlannedBuffer): string[] {
  return [
    name,
    form,
    ...[columns, rows].map(grouped),
    (bytes / 1e3).toFixed(1),
    grouped(offset),
    `${firstOp}`,
    `${lastOp}`,
  ];
}

function checkpoints({
  rows,
  segments,
  allBytes,
  keptBytes,
  peakBytes,
  operations,
  extraOperations,
}: NonNullable<Plan["checkpoints"]>): string {
  const extra = ((100 * extraOperations) / operations).toFixed(1);
  const sums =
    `for training on ${grouped(rows)} rows: ${megabytes(keptBytes)} of ${megabytes(allBytes)} MB kept, ` +
    `${megabytes(peakBytes)} MB at most, ${extra} % more operations than the forward pass\n`;
  const cells = segments.map((segment) => [
    `${segment.firstLayer} to ${segment.lastLayer}`,
    megabytes(segment.keptBytes),
    megabytes(segment.recomputedBytes),
    grouped(segment.extraOperations),
  ]);
  return sums + formatTable([["layers", "MB kept", "MB computed again", "operations"], ...cells], 1);
}
