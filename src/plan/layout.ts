// The structs that cross into Zig, field by field: the mirror of zig/program.zig. Offsets follow C's rules; a hash over every
// field's name, offset and size is compared with the library's when it is opened.

/** Sizes in bytes; every field is aligned to its own size. */
const sizes = { u8: 1, u16: 2, u32: 4, i32: 4, f32: 4, u64: 8 } as const;

export type FieldType = keyof typeof sizes;

interface Field {
  readonly name: string;
  readonly type: FieldType;
  readonly count: number;
  readonly offset: number;
}

/** A struct's fields and how to read and write them in a DataView. Numbers are doubles: u64 values stay below 2^53. */
export class Struct<Name extends string> {
  readonly name: string;
  readonly fields: ReadonlyMap<Name, Field>;
  /** Bytes of one struct, padded to its alignment. */
  readonly size: number;

  constructor(name: string, fields: readonly (readonly [Name, FieldType, number?])[]) {
    this.name = name;
    const placed = new Map<Name, Field>();
    let end = 0;
    let alignment = 1;
    for (const [field, type, count = 1] of fields) {
      const size = sizes[type];
      alignment = Math.max(alignment, size);
      const offset = alignUp(end, size);
      placed.set(field, { name: field, type, count, offset });
      end = offset + size * count;
    }
    this.fields = placed;
    this.size = alignUp(end, alignment);
  }

  /** Writes the given fields at byte `base`; the others stay as they are (zero in a new buffer). */
  write(view: DataView, base: number, values: Partial<Record<Name, number | bigint | readonly number[]>>): void {
    // Written for a cold start: thousands of fields are written once, before anything is compiled.
    for (const name in values) {
      const value = values[name];
      if (value === undefined) continue;
      const { type, offset, count } = this.field(name);
      const at = base + offset;
      if (typeof value !== "object") writeScalar(view, at, type, value);
      else if (value.length > count) {
        throw new RangeError(`${this.name}.${name} holds ${count} values, not ${value.length}`);
      } else {
        const size = sizes[type];
        for (let index = 0; index < value.length; index++)
          writeScalar(view, at + index * size, type, value[index] ?? 0);
      }
    }
  }

  field(name: Name): Field {
    const field = this.fields.get(name);
    if (!field) throw new RangeError(`${this.name} has no field ${name}`);
    return field;
  }

  /** The byte offset of a field in the struct. */
  offset(name: Name): number {
    return this.field(name).offset;
  }
}

function writeScalar(view: DataView, at: number, type: FieldType, value: number | bigint): void {
  if (typeof value === "bigint" && type === "u64") {
    view.setBigUint64(at, value, true);
    return;
  }
  const number = Number(value);
  switch (type) {
    case "u8":
      view.setUint8(at, number);
      break;
    case "u16":
      view.setUint16(at, number, true);
      break;
    case "u32":
      view.setUint32(at, number, true);
      break;
    case "i32":
      view.setInt32(at, number, true);
      break;
    case "f32":
      view.setFloat32(at, number, true);
      break;
    case "u64":
      view.setUint32(at, number, true);
      view.setUint32(at + 4, number / 2 ** 32, true);
      break;
  }
}

export function alignUp(value: number, alignment: number): number {
  return Math.ceil(value / alignment) * alignment;
}

export const programMagic = 0x49414e54;
export const programVersion = 1;
/** No tensor, no token. */
export const none = 0xffffffff;
export const stepRowsMax = 8192;
export const sequencesMax = 64;
export const slotsMax = 64;
export const threadsMax = 64;
export const kvGroupsMax = 8;
export const stopTokensMax = 16;
export const topMax = 256;
export const pagePositions = 64;
export const attentionChunkPositions = 256;
/** Rows up to which attention keeps partial results for each chunk (executor.zig). */
export const attentionSplitRows = 16;
/** Rows of a text that attend to all of it together (kernels/table.zig). */
export const encodeRowBlock = 32;
/** Rows of logits that a step screens at most, and recent tokens that a screened draw may have (kernels/table.zig). */
export const screenRowsMax = 3;
export const screenRecentMax = 256;

export const Header = new Struct("Header", [
  ["magic", "u32"],
  ["version", "u32"],
  ["layout_hash", "u64"],
  ["op_count", "u32"],
  ["tensor_count", "u32"],
  ["kv_layer_count", "u32"],
  ["kv_group_count", "u32"],
  ["ops_offset", "u64"],
  ["tensors_offset", "u64"],
  ["kv_layers_offset", "u64"],
  ["kv_groups_offset", "u64"],
  ["constants_offset", "u64"],
  ["constants_bytes", "u64"],
  ["weights_bytes", "u64"],
  ["arena_bytes", "u64"],
  ["copies_bytes", "u64"],
  ["rows_max", "u32"],
  ["logits_rows_max", "u32"],
  ["batch_max", "u32"],
  ["context_max", "u32"],
  ["vocabulary", "u32"],
  ["chunk_positions", "u32"],
  ["columns_max", "u32"],
  ["head_width_max", "u32"],
  ["heads_per_kv_head_max", "u32"],
  ["logits_tensor", "u32"],
  ["whole_prompts", "u32"],
  ["embeddings_tensor", "u32"],
]);

export const Tensor = new Struct("Tensor", [
  ["region", "u32"],
  ["format", "u32"],
  ["rows", "u32"],
  ["columns", "u32"],
  ["offset", "u64"],
  ["bytes", "u64"],
  ["stride", "u64"],
  ["scales_offset", "u64"],
  ["scales_bytes", "u64"],
  ["source_offset", "u64"],
  ["source_bytes", "u64"],
  ["source_format", "u32"],
  ["reserved", "u32"],
]);

export const Op = new Struct("Op", [
  ["kind", "u16"],
  ["flags", "u16"],
  ["layer", "i32"],
  ["tensors", "u32", 8],
  ["u", "u32", 8],
  ["f", "f32", 4],
]);

export const KvLayer = new Struct("KvLayer", [
  ["group", "u32"],
  ["key_format", "u32"],
  ["value_format", "u32"],
  ["reserved", "u32"],
  ["key_offset", "u64"],
  ["value_offset", "u64"],
]);

export const KvGroup = new Struct("KvGroup", [
  ["window", "u32"],
  ["page_count", "u32"],
  ["page_bytes", "u64"],
  ["kept_max", "u32"],
  ["reserved", "u32"],
]);

export const Config = new Struct("Config", [
  ["spin_us", "u32"],
  ["event_capacity", "u32"],
  ["events_enabled", "u32"],
  ["notify_fd", "i32"],
]);

/** Kernels whose instruction-set level is chosen together, in zig/program.zig's order. */
export const families = ["matmul", "conv", "activation", "attention", "other"] as const;
export type Family = (typeof families)[number];

export const Settings = new Struct("Settings", [
  ["version", "u32"],
  ["thread_count", "u32"],
  ["levels", "u32", families.length],
  ["cpu_percent", "u32"],
  ["affinity", "u32", threadsMax],
  // A Tuning's fields.
  ["tuning", "u32", 10],
]);

export const Usage = new Struct("Usage", [
  ["cpu_ns", "u64"],
  ["resident_bytes", "u64"],
  ["planned_bytes", "u64"],
  ["kv_bytes", "u64"],
  ["thread_bytes", "u64"],
]);

export const Request = new Struct("Request", [
  ["id", "u32"],
  ["kind", "u32"],
  ["token_count", "u32"],
  ["generate_max", "u32"],
  ["seed", "u64"],
  ["temperature", "f32"],
  ["top_p", "f32"],
  ["min_p", "f32"],
  ["repeat_penalty", "f32"],
  ["top_k", "u32"],
  ["repeat_last", "u32"],
  ["top_count", "u32"],
  ["chunk_rows", "u32"],
  ["stop_token_count", "u32"],
  ["dump_logits", "u32"],
  ["stop_tokens", "u32", 16],
  ["draft_max", "u32"],
  ["match_min", "u32"],
  ["shares_prefix", "u32"],
  ["pooling", "u32"],
  ["normalise", "u32"],
]);

export const Record = new Struct("Record", [
  ["kind", "u32"],
  ["request", "u32"],
  ["token", "u32"],
  ["logprob", "f32"],
  ["position", "u32"],
  ["step", "u32"],
  ["value", "u32"],
  ["sequences", "u32"],
  ["time_ns", "u64"],
]);

export const Event = new Struct("Event", [
  ["start", "u64"],
  ["end", "u64"],
  ["step", "u32"],
  ["rows", "u32"],
  ["op", "u16"],
  ["kind", "u8"],
  ["thread", "u8"],
  ["aux", "u32"],
]);

export const Conversion = new Struct("Conversion", [
  ["source_offset", "u64"],
  ["target_offset", "u64"],
  ["value_count", "u64"],
  ["source_format", "u32"],
  ["target_format", "u32"],
]);

export const Measurement = new Struct("Measurement", [
  ["kernel", "u32"],
  ["format", "u32"],
  ["target_format", "u32"],
  ["rows", "u32"],
  ["columns", "u32"],
  ["tokens", "u32"],
  ["head_count", "u32"],
  ["kv_head_count", "u32"],
  ["head_width", "u32"],
  ["position", "u32"],
  ["convolution", "u32", 8],
  ["working_bytes", "u64"],
]);

export const Tuning = new Struct("Tuning", [
  ["byte_distance", "u32"],
  ["byte_lines", "u32"],
  ["packed_distance", "u32"],
  ["packed_lines", "u32"],
  ["float_distance", "u32"],
  ["float_lines", "u32"],
  ["few_tokens", "u32"],
  ["ahead", "u32"],
  ["line_bytes", "u32"],
  ["block_bytes", "u32"],
]);

export const TracerConfig = new Struct("TracerConfig", [
  ["thread_count", "u32"],
  ["cache_count", "u32"],
  ["prefetcher", "u32"],
  ["reserved", "u32"],
  ["cache_bytes", "u64", 3],
  ["cache_ways", "u32", 3],
  ["cache_line_bytes", "u32", 3],
  ["cache_shared_by", "u32", 3],
  ["levels", "u32", families.length],
  // A Tuning's fields.
  ["tuning", "u32", 10],
]);

export const TracedShare = new Struct("TracedShare", [
  ["sequence", "u32"],
  ["position", "u32"],
  ["rows", "u32"],
  ["logits_rows", "u32"],
  ["embeds", "u32"],
]);

export const TracedDraw = new Struct("TracedDraw", [
  ["temperature", "f32"],
  ["top_p", "f32"],
  ["min_p", "f32"],
  ["repeat_penalty", "f32"],
  ["top_k", "u32"],
  ["top_count", "u32"],
  ["scores", "u32"],
]);

export const Traced = new Struct("Traced", [
  ["loads", "u64", 7],
  ["stores", "u64", 7],
  ["bytes_read", "u64", 7],
  ["bytes_written", "u64", 7],
  ["accesses", "u64", 3],
  ["misses", "u64", 3],
  ["prefetched", "u64", 3],
  ["memory_lines", "u64"],
  ["write_backs", "u64"],
]);

/** Values of `Measurement.kernel`, in zig/program.zig's order. */
export const measuredKernels = [
  "matmul",
  "attention",
  "norm",
  "glu",
  "rope_store",
  "quantize",
  "embed",
  "sample",
  "pack",
  "convert",
  "peak_float",
  "peak_int8",
  "peak_int16",
  "peak_bf16",
  "activation",
  "encode",
  "conv",
] as const;

/** Values of `Op.kind`, in zig/program.zig's order. */
export const opKinds = [
  "embed",
  "norm",
  "add",
  "quantize",
  "matmul",
  "glu",
  "rope_table",
  "rope_store",
  "attention",
  "attention_merge",
  "gather",
  "screen",
  "screen_pick",
  "screen_product",
  "activation",
  "encode",
  "rope",
  "pool",
  "conv",
] as const;
export type OpKind = (typeof opKinds)[number];

/** Whose level an op's kernel is of: `OpKind.family` in zig/program.zig. */
export const familyOf: Readonly<Record<OpKind, Family>> = {
  embed: "other",
  norm: "activation",
  add: "activation",
  quantize: "other",
  matmul: "matmul",
  glu: "activation",
  rope_table: "other",
  rope_store: "attention",
  attention: "attention",
  attention_merge: "attention",
  gather: "other",
  screen: "matmul",
  screen_pick: "other",
  screen_product: "matmul",
  activation: "activation",
  encode: "attention",
  rope: "attention",
  pool: "other",
  conv: "conv",
};

export const flagJoinsNext = 1;
export const flagLogitsRows = 2;
export const flagUnscreened = 4;
export const flagEmbeds = 8;
/** Formats of rows of activations, by form: `int8_rows` and `wide_rows` in zig/program.zig. */
export const formRows = { int8: 100, wide: 101 } as const;
export const screenCopy = 102;

export const recordKinds = {
  loaded: 0,
  loadFailed: 1,
  token: 2,
  candidate: 3,
  finished: 4,
  progress: 5,
  logits: 6,
  reused: 7,
  held: 8,
  configured: 9,
} as const;
export const requestKinds = { generate: 0, score: 1, hold: 2, restore: 3, embed: 4 } as const;
/** Values of `Request.pooling`. */
export const poolings = { mean: 0, first: 1, last: 2 } as const;
export const finishes = [
  "stop_token",
  "length",
  "cancelled",
  "scored",
  "not_finite",
  "restored",
  "embedded",
  "no_memory",
] as const;
export const failures = [
  "none",
  "out_of_memory",
  "open",
  "read",
  "cut_short",
  "threads",
  "program",
  "write",
  "not_finite",
  "out_of_range",
  "pin",
] as const;

/** FNV-1a, 64 bits, over `Struct.field:offset:size;` of every struct that crosses the border, in order. */
export function layoutHash(): bigint {
  hash ??= hashStructs();
  return hash;
}

let hash: bigint | undefined;

function hashStructs(): bigint {
  const structs = [
    Header,
    Tensor,
    Op,
    KvLayer,
    KvGroup,
    Config,
    Settings,
    Usage,
    Request,
    Record,
    Event,
    Conversion,
    Measurement,
    Tuning,
    TracerConfig,
    TracedShare,
    TracedDraw,
    Traced,
  ];
  // The 64 bits in two halves: the prime is 2^40 + 0x1b3, and a half's product with 0x1b3 is exact in a double.
  let high = 0xcbf29ce4;
  let low = 0x84222325;
  for (const struct of structs) {
    for (const { name, type, count, offset } of struct.fields.values()) {
      const text = `${struct.name}.${name}:${offset}:${sizes[type] * count};`;
      for (let index = 0; index < text.length; index++) {
        low = (low ^ text.charCodeAt(index)) >>> 0;
        const product = low * 0x1b3;
        high = (Math.imul(high, 0x1b3) + Math.floor(product / 2 ** 32) + (low << 8)) >>> 0;
        low = product >>> 0;
      }
    }
  }
  return (BigInt(high) << 32n) | BigInt(low);
}
