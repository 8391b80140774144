// What an index's vectors are called, as bytes: a million ids as JavaScript strings would take more memory than they are worth
// to a search that shows ten.

import { describe } from "../check.ts";
import { OptionError } from "../errors.ts";

/** All ids of an index in UTF-8. */
const bytesMax = 2 ** 30;

/** Texts one after the other in UTF-8: number `i` is `bytes.subarray(offsets[i], offsets[i + 1])`. */
export class IdTable {
  /** One more than there are ids, ascending from 0 to the number of bytes. */
  readonly offsets: Uint32Array;
  readonly bytes: Uint8Array;

  constructor(offsets: Uint32Array, bytes: Uint8Array) {
    this.offsets = offsets;
    this.bytes = bytes;
  }

  /** @throws {OptionError} if there are not `count`, one is no well-formed text, or they have more than 1 GiB together. */
  static of(ids: unknown, count: number): IdTable {
    if (!Array.isArray(ids)) throw new OptionError("ids", `is ${describe(ids)}; a list of texts is expected`);
    if (ids.length !== count) {
      throw new OptionError("ids", `has ${ids.length} texts for ${count} vectors; one for each is expected`);
    }
    const offsets = new Uint32Array(count + 1);
    let length = 0;
    for (const [index, id] of ids.entries()) {
      if (typeof id !== "string" || !id.isWellFormed()) {
        throw new OptionError(`ids[${index}]`, `is ${describe(id)}; a text without half characters is expected`);
      }
      length += Buffer.byteLength(id);
      if (length > bytesMax) throw new OptionError("ids", "have more than 1 GiB together; keep shorter ones");
      offsets[index + 1] = length;
    }
    const bytes = Buffer.alloc(length);
    for (const [index, id] of ids.entries()) bytes.write(id, offsets[index] ?? 0);
    return new IdTable(offsets, bytes);
  }

  /** Id number `index`, which must be there. */
  get(index: number): string {
    return decoder.decode(this.bytes.subarray(this.offsets[index], this.offsets[index + 1]));
  }
}

const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
