// The file format of NumPy's arrays (.npy, version 1.0): a head that says shape and type, then the values. Only float32
// matrices, row by row.

import { alignUp } from "../plan/layout.ts";

/** Values begin at a multiple of it. */
const alignment = 64;

/** The bytes before `rows` · `columns` float32 values, little-endian. */
export function npyHead(rows: number, columns: number): Uint8Array {
  const description = `{'descr': '<f4', 'fortran_order': False, 'shape': (${rows}, ${columns}), }`;
  const prologueBytes = 10;
  const length = alignUp(prologueBytes + description.length + 1, alignment) - prologueBytes;
  const head = Buffer.alloc(prologueBytes + length, " ");
  head.write("\x93NUMPY\x01\x00", "latin1");
  head.writeUInt16LE(length, 8);
  head.write(description, prologueBytes, "latin1");
  head.write("\n", head.length - 1, "latin1");
  return head;
}
