// Reads an encoded program back into ops and tensors, and says which tensors an op reads and writes, from the comments of
// zig/program.zig alone: an opinion independent of the planner's own lists.

import { Header, Op, opKinds, Tensor } from "../../src/plan/layout.ts";

export interface ProgramTensor {
  readonly index: number;
  readonly region: number;
  readonly format: number;
  readonly rows: number;
  readonly columns: number;
  readonly offset: number;
  readonly bytes: number;
  readonly stride: number;
}

export interface ProgramOp {
  readonly kind: (typeof opKinds)[number];
  readonly joinsNext: boolean;
  readonly onLogitsRows: boolean;
  readonly embeds: boolean;
  readonly layer: number;
  /** By slot; undefined where there is none. */
  readonly tensors: readonly (ProgramTensor | undefined)[];
  readonly u: readonly number[];
  readonly f: readonly number[];
}

export interface DecodedProgram {
  readonly ops: readonly ProgramOp[];
  readonly tensors: readonly ProgramTensor[];
  readonly arenaBytes: number;
  readonly weightsBytes: number;
}

export const arenaRegion = 2;

export function decodeProgram(bytes: Uint8Array): DecodedProgram {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const u64 = (at: number): number => Number(view.getBigUint64(at, true));
  const u32 = (at: number): number => view.getUint32(at, true);
  const tensorsAt = u64(Header.offset("tensors_offset"));
  const tensors = Array.from({ length: u32(Header.offset("tensor_count")) }, (_, index): ProgramTensor => {
    const at = tensorsAt + index * Tensor.size;
    return {
      index,
      region: u32(at + Tensor.offset("region")),
      format: u32(at + Tensor.offset("format")),
      rows: u32(at + Tensor.offset("rows")),
      columns: u32(at + Tensor.offset("columns")),
      offset: u64(at + Tensor.offset("offset")),
      bytes: u64(at + Tensor.offset("bytes")),
      stride: u64(at + Tensor.offset("stride")),
    };
  });
  const opsAt = u64(Header.offset("ops_offset"));
  const ops = Array.from({ length: u32(Header.offset("op_count")) }, (_, index): ProgramOp => {
    const at = opsAt + index * Op.size;
    const kind = opKinds[view.getUint16(at + Op.offset("kind"), true)];
    if (kind === undefined) throw new Error(`op ${index} is of no known kind`);
    const flags = view.getUint16(at + Op.offset("flags"), true);
    return {
      kind,
      joinsNext: (flags & 1) !== 0,
      onLogitsRows: (flags & 2) !== 0,
      embeds: (flags & 8) !== 0,
      layer: view.getInt32(at + Op.offset("layer"), true),
      tensors: Array.from({ length: 8 }, (_, slot) => tensors[u32(at + Op.offset("tensors") + slot * 4)]),
      u: Array.from({ length: 8 }, (_, slot) => u32(at + Op.offset("u") + slot * 4)),
      f: Array.from({ length: 4 }, (_, slot) => view.getFloat32(at + Op.offset("f") + slot * 4, true)),
    };
  });
  return {
    ops,
    tensors,
    arenaBytes: u64(Header.offset("arena_bytes")),
    weightsBytes: u64(Header.offset("weights_bytes")),
  };
}

/** What an op touches: tensors, and `kv` followed by a layer for that layer's cache. */
export interface Touched {
  readonly reads: readonly (ProgramTensor | string)[];
  readonly writes: readonly (ProgramTensor | string)[];
}

export function touchedBy(op: ProgramOp): Touched {
  const at = (...slots: number[]) => slots.flatMap((slot) => op.tensors[slot] ?? []);
  switch (op.kind) {
    case "embed":
      return { writes: at(0), reads: at(1, 2) };
    case "rope_table":
    case "gather":
    case "quantize":
      return { writes: at(0), reads: at(1) };
    case "norm":
      return { writes: at(0, 1), reads: at(2, 3, 4, 5) };
    case "add":
      return { writes: at(0), reads: at(0, 1) };
    case "matmul":
      return { writes: at(0), reads: op.u[0] ? at(0, 1, 2, 3) : at(1, 2, 3) };
    case "glu":
      return { writes: at(0, 1), reads: at(2, 3) };
    case "rope_store":
      return { writes: [...at(0, 1), `kv${op.u[5]}`], reads: at(0, 1, 2, 3, 4, 5) };
    case "attention":
      return { writes: at(0, 1, 3), reads: [...at(2), `kv${op.u[4]}`] };
    case "attention_merge":
      return { writes: at(0, 1), reads: at(3) };
    case "screen":
      return { writes: at(0, 4), reads: at(1, 2, 3) };
    case "screen_pick":
      return op.u[0] ? { writes: at(1, 2), reads: at(0, 1, 2) } : { writes: at(2), reads: at(1) };
    case "screen_product":
      return { writes: at(0), reads: at(1, 2, 3) };
    case "activation":
      return { writes: at(0, 1), reads: at(2) };
    case "encode":
      return { writes: at(0, 1), reads: at(2, 3, 4) };
    case "rope":
      return { writes: at(0, 1), reads: at(0, 1, 2) };
    case "pool":
      return { writes: at(0), reads: at(1) };
    case "conv":
      return { writes: at(0), reads: at(1, 2, 3) };
  }
}

/** Whether the two share memory. */
export function overlap(a: ProgramTensor | string, b: ProgramTensor | string): boolean {
  if (typeof a === "string" || typeof b === "string") return a === b;
  return a.region === b.region && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
}
