// The alphabet of byte-level byte-pair encoding: GPT-2 writes each of the 256 bytes as one printable character, so that
// vocabularies and merges are readable text. This turns bytes into that alphabet and back.

/** By byte: its character (a code point below 0x144): itself where it is printable Latin-1, else the next free one from 0x100. */
const byteToCodePoint: Uint16Array = (() => {
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
 * Writes `source[start, end)` in the alphabet, as UTF-8, to `target` (which must have twice the room). Gives how many bytes
 * were written.
 */
export function encodeAlphabet(source: Uint8Array, start: number, end: number, target: Uint8Array): number {
  let written = 0;
  for (let index = start; index < end; index++) {
    const codePoint = byteToCodePoint[source[index] ?? 0] ?? 0;
    if (codePoint < 0x80) {
      target[written++] = codePoint;
    } else {
      target[written++] = 0xc0 | (codePoint >> 6);
      target[written++] = 0x80 | (codePoint & 0x3f);
    }
  }
  return written;
}

/** The bytes that `text`, UTF-8 of the alphabet's characters, stands for; undefined if a character is not of the alphabet. */
export function decodeAlphabet(text: Uint8Array): Uint8Array | undefined {
  const bytes = new Uint8Array(text.length);
  let written = 0;
  for (let index = 0; index < text.length; index++) {
    const lead = text[index] ?? 0;
    let codePoint = lead;
    if (lead >= 0x80) {
      // All characters of the alphabet have at most two bytes in UTF-8.
      const trail = text[++index] ?? 0;
      if (lead < 0xc2 || lead > 0xc5 || (trail & 0xc0) !== 0x80) return undefined;
      codePoint = ((lead & 0x1f) << 6) | (trail & 0x3f);
    }
    const byte = codePointToByte[codePoint] ?? -1;
    if (byte < 0) return undefined;
    bytes[written++] = byte;
  }
  return bytes.subarray(0, written);
}
