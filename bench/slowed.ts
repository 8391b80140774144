// Makes one op of a model slower, as a real regression would: its kernel works on a tenth more rows of its matrix, which are those
// that lie behind it in the weights. What it computes of them lands behind its result, where a step of a single row has nothing: only
// such steps may be run, and their results are the same. For benchmarks of what notices slow ops.

import { Engine } from "../src/engine/engine.ts";
import * as layout from "../src/plan/layout.ts";
import type { Plan } from "../src/plan/plan.ts";

/** Kernels work on so many rows at a time (kernels/table.zig). */
const groupRows = 16;

/** Models that are loaded from now on have the matrix product of this name slower, in all layers but
 * perhaps the last, by at least `part` of its rows. */
export function slowDown(op: string, part: number): void {
  const create = Engine.create;
  Engine.create = (library, plan, options) => create.call(Engine, library, slowed(plan, op, part), options);
}

function slowed(plan: Plan, name: string, part: number): Plan {
  const program = plan.program.slice();
  const view = new DataView(program.buffer);
  const opsOffset = Number(view.getBigUint64(layout.Header.offset("ops_offset"), true));
  const tensorsOffset = Number(view.getBigUint64(layout.Header.offset("tensors_offset"), true));
  const ops = plan.ops.filter((op) => op.kind === "matmul" && (op.name === name || op.name.endsWith(`.${name}`)));
  if (ops.length === 0) throw new RangeError(`no matrix product is named ${name}`);
  let slower = 0;
  for (const { index } of ops) {
    const tensors = opsOffset + index * layout.Op.size + layout.Op.offset("tensors");
    const weight = tensorsOffset + view.getUint32(tensors + 2 * 4, true) * layout.Tensor.size;
    const field = (name: "offset" | "bytes" | "scales_offset" | "scales_bytes"): number =>
      Number(view.getBigUint64(weight + layout.Tensor.offset(name), true));
    const rows = view.getUint32(weight + layout.Tensor.offset("rows"), true);
    const more = Math.ceil((rows * part) / groupRows) * groupRows;
    const factor = 1 + more / rows;
    const codesEnd = field("offset") + field("bytes") * factor;
    const scalesEnd = field("scales_offset") + field("scales_bytes") * factor;
    // The last matrices of the file have too little behind them.
    if (Math.max(codesEnd, scalesEnd) > plan.weightsBytes) continue;
    view.setUint32(weight + layout.Tensor.offset("rows"), rows + more, true);
    slower++;
  }
  if (slower < ops.length - 1) throw new RangeError(`${name}: too few weights lie behind it`);
  return { ...plan, program };
}
