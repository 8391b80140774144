// Reads a PNG of eight bits a channel with alpha, or without: its size and its pixels. Only what the tests look at.

import { inflateSync } from "node:zlib";

export interface Picture {
  readonly width: number;
  readonly height: number;
  /** "#rrggbb" of a pixel. */
  colorAt(x: number, y: number): string;
  /** How many pixels have the color, and the box in which they all lie; `right` and `bottom` are the first behind it. */
  find(color: string): {
    readonly count: number;
    readonly left: number;
    readonly right: number;
    readonly top: number;
    readonly bottom: number;
  };
}

export function readPng(file: Uint8Array): Picture {
  const bytes = Buffer.from(file.buffer, file.byteOffset, file.byteLength);
  if (bytes.subarray(0, 8).toString("latin1") !== "\x89PNG\r\n\x1a\n") throw new Error("this is no PNG");
  const parts: Buffer[] = [];
  let [width, height, channels] = [0, 0, 0];
  for (let at = 8; at < bytes.length; at += 12 + bytes.readUInt32BE(at)) {
    const data = bytes.subarray(at + 8, at + 8 + bytes.readUInt32BE(at));
    const type = bytes.subarray(at + 4, at + 8);
    if (Bun.hash.crc32(bytes.subarray(at + 4, at + 8 + data.length)) !== bytes.readUInt32BE(at + 8 + data.length)) {
      throw new Error(`the check sum of ${type} is wrong`);
    }
    if (type.equals(Buffer.from("IHDR"))) {
      [width, height] = [data.readUInt32BE(0), data.readUInt32BE(4)];
      const [depth, kind, , , interlaced] = data.subarray(8);
      channels = kind === 6 ? 4 : kind === 2 ? 3 : 0;
      if (depth !== 8 || channels === 0 || interlaced !== 0) throw new Error("a PNG of another kind");
    } else if (type.equals(Buffer.from("IDAT"))) parts.push(data);
  }
  let pixels: Buffer | undefined;
  const at = (x: number, y: number): number => {
    pixels ??= unfilter(inflateSync(Buffer.concat(parts)), width, height, channels);
    return pixels.readUIntBE((y * width + x) * channels, 3);
  };
  return {
    width,
    height,
    colorAt: (x, y) => `#${at(x, y).toString(16).padStart(6, "0")}`,
    find(color) {
      const wanted = Number.parseInt(color.slice(1), 16);
      const found = { count: 0, left: width, right: 0, top: height, bottom: 0 };
      for (let y = 0; y < height; y++) {
        for (let x = 0; x < width; x++) {
          if (at(x, y) !== wanted) continue;
          found.count++;
          found.left = Math.min(found.left, x);
          found.right = Math.max(found.right, x + 1);
          found.top = Math.min(found.top, y);
          found.bottom = Math.max(found.bottom, y + 1);
        }
      }
      return found;
    },
  };
}

/** Undoes the filter of each row, which its first byte names. */
function unfilter(rows: Buffer, width: number, height: number, channels: number): Buffer {
  const stride = width * channels;
  const pixels = Buffer.alloc(stride * height);
  for (let y = 0; y < height; y++) {
    const filter = rows[y * (stride + 1)];
    for (let x = 0; x < stride; x++) {
      const left = x < channels ? 0 : (pixels[y * stride + x - channels] ?? 0);
      const above = y === 0 ? 0 : (pixels[(y - 1) * stride + x] ?? 0);
      const corner = y === 0 || x < channels ? 0 : (pixels[(y - 1) * stride + x - channels] ?? 0);
      const added = predictions[filter ?? -1]?.(left, above, corner);
      if (added === undefined) throw new Error("a row has an unknown filter");
      pixels[y * stride + x] = (rows[y * (stride + 1) + 1 + x] ?? 0) + added;
    }
  }
  return pixels;
}

/** What each filter adds to a byte, of those to its left, above it and at that corner. */
const predictions: readonly ((left: number, above: number, corner: number) => number)[] = [
  () => 0,
  (left) => left,
  (_, above) => above,
  (left, above) => (left + above) >> 1,
  paeth,
];

/** Of the three that one nearest to left + above - corner. */
function paeth(left: number, above: number, corner: number): number {
  const [a, b, c] = [Math.abs(above - corner), Math.abs(left - corner), Math.abs(left + above - 2 * corner)];
  return a <= b && a <= c ? left : b <= c ? above : corner;
}
