// Which ops of a program load and store the same amounts: those of one kind with operands of the same sizes and formats and the
// same parameters, whatever layer they belong to. Read back from the encoded program, when somebody counts.

import * as layout from "./layout.ts";

/** Place of the layer's number among an op's parameters; its cache's place in memory changes no count. */
const kvLayerAt: Readonly<Partial<Record<layout.OpKind, number>>> = { attention: 4, attention_merge: 4, rope_store: 5 };

/** A text for each op, in program order; equal texts, equal counts in the same step. */
export function opSignatures(program: Uint8Array): string[] {
  const { Header, Op, Tensor } = layout;
  const view = new DataView(program.buffer, program.byteOffset, program.byteLength);
  const u32 = (at: number): number => view.getUint32(at, true);
  const u64 = (at: number): number => Number(view.getBigUint64(at, true));
  const opsAt = u64(Header.offset("ops_offset"));
  const tensorsAt = u64(Header.offset("tensors_offset"));
  const tensor = (index: number): string => {
    if (index === layout.none) return "";
    const at = tensorsAt + index * Tensor.size;
    const [region, format, rows, columns] = (["region", "format", "rows", "columns"] as const).map((field) =>
      u32(at + Tensor.offset(field)),
    );
    return `${region}:${format}:${rows}x${columns}:${u64(at + Tensor.offset("stride"))}`;
  };
  return Array.from({ length: u32(Header.offset("op_count")) }, (_, index) => {
    const at = opsAt + index * Op.size;
    const kind = layout.opKinds[view.getUint16(at + Op.offset("kind"), true)] ?? "embed";
    const flags = view.getUint16(at + Op.offset("flags"), true) & ~layout.flagJoinsNext;
    const words = (field: "tensors" | "u" | "f", count: number): number[] =>
      Array.from({ length: count }, (_, place) => u32(at + Op.offset(field) + place * 4));
    const parameters = words("u", 8);
    const layer = kvLayerAt[kind];
    if (layer !== undefined) parameters[layer] = 0;
    return [kind, flags, ...words("tensors", 8).map(tensor), ...parameters, ...words("f", 4)].join(",");
  });
}
