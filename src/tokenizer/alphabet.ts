// The alphabet of byte-level byte-pair encoding: GPT-2 writes each of the 256 bytes as one printable character, so that
// a vocabulary is readable text. Here it is undone once, when the vocabulary is read; texts are then cut as plain bytes.

/** A byte's character (a code point below 0x144): itself where it is printable Latin-1, else the next free one from 0x100. */
export const byteToCodePoint: Uint16Array = (() => {
  const map = new Uint16Array(256);
  let next = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    map[byte] = printable ? byte : next++;
  }
  return map;
})();

const codePointToByte: Int16Array = (() => {
  const map = new Int16Array(0x144).fill(-1);
  for (let byte = 0; byte < 256; byte++) map[byteToCodePoint[byte] ?? 0] = byte;
  return map;
})();

/**
 * Turns `source[start, end)`, UTF-8 of the alphabet's characters, into the bytes they stand for, written to `target` from
 * `at` on (never more than the source has). Gives how many were written, or -1 if a character is not of the alphabet.
 */
export function decodeAlphabet(source: Uint8Array, start: number, end: number, target: Uint8Array, at: number): number {
  let written = at;
  for (let index = start; index < end; index++) {
    const lead = source[index] ?? 0;
    let codePoint = lead;
    if (lead >= 0x80) {
      // All characters of the alphabet have at most two bytes in UTF-8.
      const trail = source[++index] ?? 0;
      if (lead < 0xc2 || lead > 0xc5 || index >= end || (trail & 0xc0) !== 0x80) return -1;
      codePoint = ((lead & 0x1f) << 6) | (trail & 0x3f);
    }
    const byte = codePointToByte[codePoint] ?? -1;
    if (byte < 0) return -1;
    target[written++] = byte;
  }
  return written - at;
}
