// Encoders and decoders of every tensor format that TinyAI reads, for tests: values in, a tensor's bytes out, and back in
// double precision. They are written from ggml's block layouts, share nothing with the product, and search for no best
// scale: they are right, not good.

import type { DType } from "../../src/model/file.ts";

/** How one block is written and read. `columns` values take `bytes` bytes. */
interface Codec {
  readonly columns: number;
  readonly bytes: number;
  encode(view: DataView, values: Float64Array): void;
  decode(view: DataView, values: Float64Array): void;
}

/** The bytes of `values` as `dtype`. Their number must be a multiple of the format's block. */
export function encodeTensor(dtype: DType, values: ArrayLike<number>): Uint8Array {
  const codec = codecs[dtype];
  if (values.length % codec.columns !== 0) {
    throw new RangeError(`${values.length} values are no whole number of ${dtype} blocks of ${codec.columns}`);
  }
  const blocks = values.length / codec.columns;
  const bytes = new Uint8Array(blocks * codec.bytes);
  const block = new Float64Array(codec.columns);
  for (let index = 0; index < blocks; index++) {
    for (let column = 0; column < codec.columns; column++) block[column] = values[index * codec.columns + column] ?? 0;
    codec.encode(new DataView(bytes.buffer, index * codec.bytes, codec.bytes), block);
  }
  return bytes;
}

/** The values that `bytes` hold as `dtype`, exact in double precision. */
export function decodeTensor(dtype: DType, bytes: Uint8Array): Float64Array {
  const codec = codecs[dtype];
  const blocks = bytes.length / codec.bytes;
  if (!Number.isInteger(blocks)) throw new RangeError(`${bytes.length} bytes are no whole number of ${dtype} blocks`);
  const values = new Float64Array(blocks * codec.columns);
  for (let index = 0; index < blocks; index++) {
    const view = new DataView(bytes.buffer, bytes.byteOffset + index * codec.bytes, codec.bytes);
    codec.decode(view, values.subarray(index * codec.columns, (index + 1) * codec.columns));
  }
  return values;
}

/** A block's size as tests state it, independent of the product's table. */
export function blockSize(dtype: DType): { columns: number; bytes: number } {
  const { columns, bytes } = codecs[dtype];
  return { columns, bytes };
}

const clamp = (value: number, low: number, high: number): number => Math.max(low, Math.min(high, Math.round(value)));
const at = (values: ArrayLike<number>, index: number): number => values[index] ?? 0;

/** The value of greatest magnitude, with its sign. */
function extreme(values: Float64Array): number {
  return values.reduce((best, value) => (Math.abs(value) > Math.abs(best) ? value : best), 0);
}

/** Rounds a scale to float16, at which the quants are then chosen. */
function putScale(view: DataView, offset: number, scale: number): number {
  view.setFloat16(offset, scale, true);
  return view.getFloat16(offset, true);
}

function plain(bytes: number, put: (view: DataView, value: number) => void, get: (view: DataView) => number): Codec {
  return {
    columns: 1,
    bytes,
    encode: (view, values) => put(view, at(values, 0)),
    decode: (view, values) => {
      values[0] = get(view);
    },
  };
}

function putBfloat16(view: DataView, value: number): void {
  const bits = new DataView(new ArrayBuffer(4));
  bits.setFloat32(0, value);
  const upper = bits.getUint16(0);
  const lower = bits.getUint16(2);
  // To nearest, ties to even; infinities and NaN keep their upper half, a NaN made quiet.
  if (Number.isNaN(value)) view.setUint16(0, upper | 0x40, true);
  else view.setUint16(0, upper + (lower > 0x8000 || (lower === 0x8000 && (upper & 1) === 1) ? 1 : 0), true);
}

function getBfloat16(view: DataView): number {
  const bits = new DataView(new ArrayBuffer(4));
  bits.setUint16(0, view.getUint16(0, true));
  return bits.getFloat32(0);
}

/**
 * Q4_0, Q4_1, Q5_0, Q5_1: 32 columns; a float16 scale, with `hasMinimum` a float16 minimum, with five bits 32 high bits,
 * then 16 bytes whose low nibbles are columns 0 to 15 and high nibbles columns 16 to 31.
 */
function simple(bits: 4 | 5, hasMinimum: boolean): Codec {
  const highOffset = hasMinimum ? 4 : 2;
  const quantOffset = highOffset + (bits === 5 ? 4 : 0);
  const top = (1 << bits) - 1;
  const middle = 1 << (bits - 1);
  return {
    columns: 32,
    bytes: quantOffset + 16,
    encode(view, values) {
      const low = hasMinimum ? Math.min(...values) : 0;
      const scale = putScale(view, 0, hasMinimum ? (Math.max(...values) - low) / top : extreme(values) / -middle);
      const minimum = hasMinimum ? putScale(view, 2, low) : 0;
      const quant = (column: number): number => {
        if (scale === 0) return hasMinimum ? 0 : middle;
        return clamp((at(values, column) - minimum) / scale + (hasMinimum ? 0 : middle), 0, top);
      };
      let high = 0;
      for (let index = 0; index < 16; index++) {
        const first = quant(index);
        const second = quant(index + 16);
        view.setUint8(quantOffset + index, (first & 15) | ((second & 15) << 4));
        high |= ((first >> 4) << index) | ((second >> 4) << (index + 16));
      }
      if (bits === 5) view.setUint32(highOffset, high >>> 0, true);
    },
    decode(view, values) {
      const scale = view.getFloat16(0, true);
      const minimum = hasMinimum ? view.getFloat16(2, true) : 0;
      const high = bits === 5 ? view.getUint32(highOffset, true) : 0;
      for (let column = 0; column < 32; column++) {
        const byte = view.getUint8(quantOffset + (column % 16));
        const quant = ((column < 16 ? byte : byte >> 4) & 15) | (((high >>> column) & 1) << 4);
        values[column] = scale * (quant - (hasMinimum ? 0 : middle)) + minimum;
      }
    },
  };
}

/** Q8_0: a float16 scale and 32 int8. */
const q8: Codec = {
  columns: 32,
  bytes: 34,
  encode(view, values) {
    const scale = putScale(view, 0, Math.abs(extreme(values)) / 127);
    for (let column = 0; column < 32; column++) {
      view.setInt8(2 + column, scale === 0 ? 0 : clamp(at(values, column) / scale, -127, 127));
    }
  },
  decode(view, values) {
    const scale = view.getFloat16(0, true);
    for (let column = 0; column < 32; column++) values[column] = scale * view.getInt8(2 + column);
  },
};

/**
 * The K formats with minima: value = d · scale · quant − dmin · minimum, a scale and a minimum for each group of `group`
 * columns. Chooses them, each from 0 to `scaleTop`; then the quants from 0 to `top` at the scales as they round.
 */
function chooseWithMinima(
  values: Float64Array,
  group: number,
  top: number,
  scaleTop: number,
  put: (d: number, dmin: number) => readonly [d: number, dmin: number],
): { scales: number[]; minima: number[]; quants: number[] } {
  const groups = Array.from({ length: 256 / group }, (_, index) => values.subarray(index * group, (index + 1) * group));
  const lows = groups.map((columns) => Math.max(0, -Math.min(...columns)));
  const steps = groups.map((columns, index) => Math.max(0, (Math.max(...columns) + at(lows, index)) / top));
  const [d, dmin] = put(Math.max(...steps) / scaleTop, Math.max(...lows) / scaleTop);
  const scales = steps.map((step) => (d === 0 ? 0 : clamp(step / d, 0, scaleTop)));
  const minima = lows.map((low) => (dmin === 0 ? 0 : clamp(low / dmin, 0, scaleTop)));
  const quants = Array.from(values, (value, column) => {
    const index = Math.floor(column / group);
    const step = d * at(scales, index);
    return step === 0 ? 0 : clamp((value + dmin * at(minima, index)) / step, 0, top);
  });
  return { scales, minima, quants };
}

/** Where Q2_K and Q3_K keep a column's two bits: the byte of 64 and the shift in it. */
function twoBitPlace(column: number): { byte: number; shift: number } {
  const half = Math.floor(column / 128);
  return { byte: half * 32 + (column % 32), shift: 2 * Math.floor((column % 128) / 32) };
}

/** Q2_K: 16 bytes of scale (low nibble) and minimum (high nibble) for each 16 columns, 64 of quants, d, dmin. */
const q2k: Codec = {
  columns: 256,
  bytes: 84,
  encode(view, values) {
    const { scales, minima, quants } = chooseWithMinima(values, 16, 3, 15, (d, dmin) => [
      putScale(view, 80, d),
      putScale(view, 82, dmin),
    ]);
    for (let index = 0; index < 16; index++) view.setUint8(index, at(scales, index) | (at(minima, index) << 4));
    quants.forEach((quant, column) => {
      const { byte, shift } = twoBitPlace(column);
      view.setUint8(16 + byte, view.getUint8(16 + byte) | (quant << shift));
    });
  },
  decode(view, values) {
    const d = view.getFloat16(80, true);
    const dmin = view.getFloat16(82, true);
    for (let column = 0; column < 256; column++) {
      const pair = view.getUint8(Math.floor(column / 16));
      const { byte, shift } = twoBitPlace(column);
      values[column] = d * (pair & 15) * ((view.getUint8(16 + byte) >> shift) & 3) - dmin * (pair >> 4);
    }
  },
};

/** Where Q3_K keeps the upper two bits of a 6-bit scale: the byte of 12 and the shift in it. The lower four are nibbles of bytes 0 to 7. */
function q3kScale(index: number): { lowByte: number; lowShift: number; highByte: number; highShift: number } {
  return {
    lowByte: index % 8,
    lowShift: index < 8 ? 0 : 4,
    highByte: 8 + (index % 4),
    highShift: 2 * Math.floor(index / 4),
  };
}

/** Q3_K: 32 bytes of high bits, 64 of low two bits, 12 of 6-bit scales for each 16 columns (less 32), d. */
const q3k: Codec = {
  columns: 256,
  bytes: 110,
  encode(view, values) {
    const steps = Array.from({ length: 16 }, (_, index) => extreme(values.subarray(index * 16, index * 16 + 16)) / -4);
    const d = putScale(view, 108, extreme(Float64Array.from(steps)) / -32);
    const scales = steps.map((step) => (d === 0 ? 32 : clamp(step / d, -32, 31) + 32));
    scales.forEach((scale, index) => {
      const { lowByte, lowShift, highByte, highShift } = q3kScale(index);
      view.setUint8(96 + lowByte, view.getUint8(96 + lowByte) | ((scale & 15) << lowShift));
      view.setUint8(96 + highByte, view.getUint8(96 + highByte) | ((scale >> 4) << highShift));
    });
    values.forEach((value, column) => {
      const step = d * (at(scales, Math.floor(column / 16)) - 32);
      const quant = step === 0 ? 4 : clamp(value / step, -4, 3) + 4;
      const { byte, shift } = twoBitPlace(column);
      view.setUint8(32 + byte, view.getUint8(32 + byte) | ((quant & 3) << shift));
      const high = column % 32;
      view.setUint8(high, view.getUint8(high) | ((quant >> 2) << Math.floor(column / 32)));
    });
  },
  decode(view, values) {
    const d = view.getFloat16(108, true);
    for (let column = 0; column < 256; column++) {
      const { lowByte, lowShift, highByte, highShift } = q3kScale(Math.floor(column / 16));
      const low = (view.getUint8(96 + lowByte) >> lowShift) & 15;
      const scale = low | (((view.getUint8(96 + highByte) >> highShift) & 3) << 4);
      const { byte, shift } = twoBitPlace(column);
      const high = (view.getUint8(column % 32) >> Math.floor(column / 32)) & 1;
      values[column] = d * (scale - 32) * ((((view.getUint8(32 + byte) >> shift) & 3) | (high << 2)) - 4);
    }
  },
};

/** Packs eight 6-bit scales and eight 6-bit minima into Q4_K's and Q5_K's 12 bytes. */
function putScales6(view: DataView, offset: number, scales: readonly number[], minima: readonly number[]): void {
  for (let index = 0; index < 4; index++) {
    const laterScale = at(scales, index + 4);
    const laterMinimum = at(minima, index + 4);
    view.setUint8(offset + index, at(scales, index) | ((laterScale >> 4) << 6));
    view.setUint8(offset + index + 4, at(minima, index) | ((laterMinimum >> 4) << 6));
    view.setUint8(offset + index + 8, (laterScale & 15) | ((laterMinimum & 15) << 4));
  }
}

function getScale6(view: DataView, offset: number, index: number): readonly [scale: number, minimum: number] {
  const first = view.getUint8(offset + (index % 4));
  const second = view.getUint8(offset + (index % 4) + 4);
  if (index < 4) return [first & 63, second & 63];
  const third = view.getUint8(offset + index + 4);
  return [(third & 15) | ((first >> 6) << 4), (third >> 4) | ((second >> 6) << 4)];
}

/** Q4_K and Q5_K: d, dmin, 12 bytes of scales and minima for each 32 columns, in Q5_K 32 bytes of high bits, 128 bytes of nibbles. */
function q45k(bits: 4 | 5): Codec {
  const quantOffset = bits === 5 ? 48 : 16;
  // 64 columns share 32 bytes: the first 32 the low nibbles, the next the high ones.
  const place = (column: number): { byte: number; shift: number } => ({
    byte: quantOffset + Math.floor(column / 64) * 32 + (column % 32),
    shift: column % 64 < 32 ? 0 : 4,
  });
  return {
    columns: 256,
    bytes: quantOffset + 128,
    encode(view, values) {
      const { scales, minima, quants } = chooseWithMinima(values, 32, (1 << bits) - 1, 63, (d, dmin) => [
        putScale(view, 0, d),
        putScale(view, 2, dmin),
      ]);
      putScales6(view, 4, scales, minima);
      quants.forEach((quant, column) => {
        const { byte, shift } = place(column);
        view.setUint8(byte, view.getUint8(byte) | ((quant & 15) << shift));
        if (bits === 4) return;
        const high = 16 + (column % 32);
        view.setUint8(high, view.getUint8(high) | ((quant >> 4) << Math.floor(column / 32)));
      });
    },
    decode(view, values) {
      const d = view.getFloat16(0, true);
      const dmin = view.getFloat16(2, true);
      for (let column = 0; column < 256; column++) {
        const group = Math.floor(column / 32);
        const [scale, minimum] = getScale6(view, 4, group);
        const { byte, shift } = place(column);
        const high = bits === 5 ? (view.getUint8(16 + (column % 32)) >> group) & 1 : 0;
        values[column] = d * scale * (((view.getUint8(byte) >> shift) & 15) | (high << 4)) - dmin * minimum;
      }
    },
  };
}

/** Q6_K: 128 bytes of low nibbles, 64 of upper two bits, 16 int8 scales for each 16 columns, d. */
const q6k: Codec = (() => {
  const place = (column: number): { low: number; lowShift: number; high: number; highShift: number } => {
    const half = Math.floor(column / 128);
    const quarter = Math.floor((column % 128) / 32);
    return {
      low: half * 64 + (quarter % 2) * 32 + (column % 32),
      lowShift: quarter < 2 ? 0 : 4,
      high: 128 + half * 32 + (column % 32),
      highShift: 2 * quarter,
    };
  };
  return {
    columns: 256,
    bytes: 210,
    encode(view, values) {
      const steps = Array.from(
        { length: 16 },
        (_, index) => extreme(values.subarray(index * 16, index * 16 + 16)) / -32,
      );
      const d = putScale(view, 208, extreme(Float64Array.from(steps)) / -128);
      const scales = steps.map((step) => (d === 0 ? 0 : clamp(step / d, -128, 127)));
      scales.forEach((scale, index) => {
        view.setInt8(192 + index, scale);
      });
      values.forEach((value, column) => {
        const step = d * at(scales, Math.floor(column / 16));
        const quant = step === 0 ? 32 : clamp(value / step, -32, 31) + 32;
        const { low, lowShift, high, highShift } = place(column);
        view.setUint8(low, view.getUint8(low) | ((quant & 15) << lowShift));
        view.setUint8(high, view.getUint8(high) | ((quant >> 4) << highShift));
      });
    },
    decode(view, values) {
      const d = view.getFloat16(208, true);
      for (let column = 0; column < 256; column++) {
        const { low, lowShift, high, highShift } = place(column);
        const quant = ((view.getUint8(low) >> lowShift) & 15) | (((view.getUint8(high) >> highShift) & 3) << 4);
        values[column] = d * view.getInt8(192 + Math.floor(column / 16)) * (quant - 32);
      }
    },
  };
})();

/** The sixteen values that a nibble of IQ4_NL and IQ4_XS means, before its scale. */
const nonlinear = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

function nearestNonlinear(value: number): number {
  let best = 0;
  for (let index = 1; index < nonlinear.length; index++) {
    if (Math.abs(at(nonlinear, index) - value) < Math.abs(at(nonlinear, best) - value)) best = index;
  }
  return best;
}

function putNonlinear(view: DataView, offset: number, values: Float64Array, scale: number): void {
  const quant = (column: number): number => (scale === 0 ? 8 : nearestNonlinear(at(values, column) / scale));
  for (let index = 0; index < 16; index++) view.setUint8(offset + index, quant(index) | (quant(index + 16) << 4));
}

function getNonlinear(view: DataView, offset: number, values: Float64Array, scale: number): void {
  for (let column = 0; column < 32; column++) {
    const byte = view.getUint8(offset + (column % 16));
    values[column] = scale * at(nonlinear, (column < 16 ? byte : byte >> 4) & 15);
  }
}

/** IQ4_NL: a float16 scale and 16 bytes of nibbles. */
const iq4nl: Codec = {
  columns: 32,
  bytes: 18,
  encode: (view, values) => putNonlinear(view, 2, values, putScale(view, 0, extreme(values) / -127)),
  decode: (view, values) => getNonlinear(view, 2, values, view.getFloat16(0, true)),
};

/** IQ4_XS: d, 16 bits with the upper two bits of eight 6-bit scales (less 32), four bytes with their nibbles, 128 bytes of nibbles. */
const iq4xs: Codec = {
  columns: 256,
  bytes: 136,
  encode(view, values) {
    const groups = Array.from({ length: 8 }, (_, index) => values.subarray(index * 32, index * 32 + 32));
    const steps = groups.map((columns) => extreme(columns) / -127);
    const d = putScale(view, 0, extreme(Float64Array.from(steps)) / -32);
    let high = 0;
    groups.forEach((columns, index) => {
      const scale = d === 0 ? 32 : clamp(at(steps, index) / d, -32, 31) + 32;
      high |= (scale >> 4) << (2 * index);
      const byte = 4 + Math.floor(index / 2);
      view.setUint8(byte, view.getUint8(byte) | ((scale & 15) << (4 * (index % 2))));
      putNonlinear(view, 8 + index * 16, columns, d * (scale - 32));
    });
    view.setUint16(2, high, true);
  },
  decode(view, values) {
    const d = view.getFloat16(0, true);
    const high = view.getUint16(2, true);
    for (let index = 0; index < 8; index++) {
      const low = (view.getUint8(4 + Math.floor(index / 2)) >> (4 * (index % 2))) & 15;
      const scale = low | (((high >> (2 * index)) & 3) << 4);
      getNonlinear(view, 8 + index * 16, values.subarray(index * 32, index * 32 + 32), d * (scale - 32));
    }
  },
};

const codecs: Readonly<Record<DType, Codec>> = {
  F32: plain(
    4,
    (view, value) => view.setFloat32(0, value, true),
    (view) => view.getFloat32(0, true),
  ),
  F16: plain(
    2,
    (view, value) => view.setFloat16(0, value, true),
    (view) => view.getFloat16(0, true),
  ),
  BF16: plain(2, putBfloat16, getBfloat16),
  Q4_0: simple(4, false),
  Q4_1: simple(4, true),
  Q5_0: simple(5, false),
  Q5_1: simple(5, true),
  Q8_0: q8,
  Q2_K: q2k,
  Q3_K: q3k,
  Q4_K: q45k(4),
  Q5_K: q45k(5),
  Q6_K: q6k,
  IQ4_NL: iq4nl,
  IQ4_XS: iq4xs,
};
