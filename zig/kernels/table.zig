//! The face of the kernels: the arguments each kernel takes and the table of function pointers that every instruction-set
//! level exports. The executor knows only this file; it never sees a level's code.
//!
//! Every kernel splits its work into units; the pool's threads claim ranges [begin, end) of units. Units write disjoint
//! memory, and the arithmetic of an output does not depend on how units are split or on how many tokens run together.

const std = @import("std");
const assert = std.debug.assert;

/// Positions a KV page holds.
pub const page_positions = 64;
/// Positions whose attention is reduced together before the fixed-order merge: the unit of splitting a long context.
pub const attention_chunk_positions = 256;
/// Rows of one weight group: the 16 output rows that 64 bytes of four int8 columns interleave.
pub const group_rows = 16;
/// Tokens of one product, at most.
pub const matmul_tokens_max = 1024;
/// Columns that share one int8 activation scale.
pub const block_columns = 32;

/// How a weight is stored. Values are part of the Program's layout.
pub const Format = enum(u32) {
    f32 = 0,
    f16 = 1,
    bf16 = 2,
    q4_0 = 3,
    q4_1 = 4,
    q5_0 = 5,
    q5_1 = 6,
    q8_0 = 7,
    q2_k = 8,
    q3_k = 9,
    q4_k = 10,
    q5_k = 11,
    q6_k = 12,
    iq4_nl = 13,
    iq4_xs = 14,

    /// Whether products with this weight use int8 activations.
    pub fn quantized(format: Format) bool {
        return @intFromEnum(format) >= @intFromEnum(Format.q4_0);
    }
};

/// The forms in which products take rows of activations that others make for them. Every level makes all of them, because the
/// product may be another level's.
pub const Form = enum(u32) {
    /// Products with quantized weights: `quantizedRowBytes`.
    int8 = 0,
    /// Products with float16 and bfloat16 weights at levels whose `Table.wide_form` it is: float32 values, `wideRowBytes`.
    floats = 1,
    /// The same at levels that multiply 16-bit integers: int16 quants of the columns, zeros up to a multiple of 32, then a float32
    /// scale for every 32; `wideRowBytes`.
    words = 2,
};

/// Bytes of one row of int8 activations: `columns` int8 quants, then columns/32 float32 scales, then columns/16 int32
/// sums of quants (one a 16 columns), rounded up to 64 bytes.
pub fn quantizedRowBytes(columns: u32) u32 {
    assert(columns % block_columns == 0);
    return std.mem.alignForward(u32, columns + columns / 32 * 4 + columns / 16 * 4, 64);
}

/// Bytes of one row of activations for products with float16 and bfloat16 weights: room for either form.
pub fn wideRowBytes(columns: u32) u32 {
    return std.mem.alignForward(u32, columns, block_columns) * 4;
}

/// Rearranges a row-major GGUF tensor into the packed layout. Units: groups of 16 rows.
pub const Pack = extern struct {
    format: Format,
    rows: u32,
    columns: u32,
    source: [*]const u8,
    /// Quants (or float values), 64-byte aligned.
    weight: [*]u8,
    /// Scales and minimums, 64-byte aligned; unused by float formats.
    scales: [*]u8,
};

/// Cache lines that are asked for with each block of weights that is multiplied.
pub const Ahead = enum(u32) {
    none = 0,
    /// One: it keeps the processor's own prefetching on its way.
    first = 1,
    all = 2,
};

/// What differs by machine and changes no bit of any result: how memory is asked for ahead, into the second-level cache, how many
/// tokens are few, and how much of the weights stays in the first-level cache while tokens go by. src/engine/tuning.ts chooses.
pub const Tuning = extern struct {
    // The weights of a few tokens' product.
    /// Bytes between what is multiplied and what is asked for; codes of eight bits.
    byte_distance: u32,
    /// An `Ahead`.
    byte_lines: u32,
    /// The same of narrower codes, which are decoded first, and of float16 and bfloat16 where they are aligned first.
    packed_distance: u32,
    packed_lines: u32,
    /// The same of other float weights.
    float_distance: u32,
    float_lines: u32,
    /// Up to this many tokens decode packed codes in registers; more unpack a group once and reuse it.
    few_tokens: u32,
    /// 1: all else is asked for as well, as fast as what is before it goes by: weights while several tokens are multiplied, keys and
    /// values, and what a waiting thread will begin with.
    ahead: u32,
    /// Bytes of a cache line: one is asked for in so many.
    line_bytes: u32,
    /// Bytes of a group's weights, as they are multiplied, and of a head's keys or values, as they are stored, that all tokens or
    /// queries go through before the next ones: they are found in the first-level cache meanwhile. Kernels take what they can have
    /// of it, a whole number of their own blocks and at least one.
    block_bytes: u32,

    pub const distance_max = 1 << 20;
    pub const few_tokens_max = 16;
    pub const line_bytes_min = 32;
    pub const line_bytes_max = 256;
    pub const block_bytes_min = 256;
    pub const block_bytes_max = 32 * 1024;

    /// Where nothing was measured.
    pub const fixed: Tuning = .{
        .byte_distance = 20 * 1024,
        .byte_lines = @intFromEnum(Ahead.first),
        .packed_distance = 10 * 1024,
        .packed_lines = @intFromEnum(Ahead.all),
        .float_distance = 0,
        .float_lines = @intFromEnum(Ahead.none),
        .few_tokens = 8,
        .ahead = 1,
        .line_bytes = 64,
        .block_bytes = 10 * 1024,
    };

    pub fn valid(tuning: Tuning) bool {
        for ([_]u32{ tuning.byte_distance, tuning.packed_distance, tuning.float_distance }) |distance| {
            if (distance > distance_max or distance % line_bytes_min != 0) return false;
        }
        for ([_]u32{ tuning.byte_lines, tuning.packed_lines, tuning.float_lines }) |lines| {
            if (lines > @intFromEnum(Ahead.all)) return false;
        }
        if (tuning.line_bytes < line_bytes_min or tuning.line_bytes > line_bytes_max or !std.math.isPowerOfTwo(tuning.line_bytes)) return false;
        if (tuning.block_bytes < block_bytes_min or tuning.block_bytes > block_bytes_max) return false;
        return tuning.few_tokens >= 1 and tuning.few_tokens <= few_tokens_max and tuning.ahead <= 1;
    }
};

/// y[token][row] = Σ_column weight[row][column] · x[token][column] (+ bias[row]) (+ y[token][row] if `accumulate`).
/// Units: groups of 16 rows. `y_stride` ≥ rows rounded up to 16; the pad of y may be written with anything.
pub const MatMul = extern struct {
    format: Format,
    rows: u32,
    columns: u32,
    tokens: u32,
    weight: [*]const u8,
    scales: [*]const u8,
    /// Quantized formats: rows of int8 activations. Float16 and bfloat16: rows in the level's `wide_form`. Float32: float32 rows.
    x: [*]const u8,
    /// Bytes between two tokens' activations.
    x_stride: u64,
    y: [*]f32,
    /// Floats between two tokens' outputs.
    y_stride: u64,
    bias: ?[*]const f32,
    accumulate: u32,
    /// After the product and the bias: y = soft_cap · tanh(y / soft_cap) when above 0.
    soft_cap: f32,
    tuning: *const Tuning = &.fixed,
};

/// out[token] = scale · weight[tokens[token]] as float32, plus the row of `positions` of the token's position where positions are
/// learned. Units: tokens.
pub const Embed = extern struct {
    format: Format,
    rows: u32,
    columns: u32,
    token_count: u32,
    weight: [*]const u8,
    scales: [*]const u8,
    tokens: [*]const u32,
    out: [*]f32,
    out_stride: u64,
    scale: f32,
    reserved: u32 = 0,
    /// `columns` values a position, and where each token stands; both or neither.
    positions: ?[*]const f32 = null,
    positions_stride: u64 = 0,
    rows_at: ?[*]const Row = null,
};

/// Rows of float32 to rows of another form. Units: rows.
pub const Quantize = extern struct {
    form: Form = .int8,
    columns: u32,
    row_count: u32,
    reserved: u32 = 0,
    x: [*]const f32,
    x_stride: u64,
    out: [*]u8,
    out_stride: u64,
};

/// n = x / sqrt(mean(x²) + epsilon) · weight (+ bias) (+ residual). Where `centred`, x is first x - mean(x), which is LayerNorm.
/// Written as float32 where `out` is given, in `out_form` where `out_quantized` is given; at least one is. `out` may be `x` or
/// `residual`. Units: rows. Any `width`, but a multiple of 32 where int8 is written.
pub const Norm = extern struct {
    width: u32,
    row_count: u32,
    epsilon: f32,
    out_form: Form = .int8,
    centred: u32 = 0,
    reserved: u32 = 0,
    x: [*]const f32,
    x_stride: u64,
    weight: [*]const f32,
    /// Only where `centred`.
    bias: ?[*]const f32 = null,
    residual: ?[*]const f32,
    residual_stride: u64,
    out: ?[*]f32 = null,
    out_stride: u64 = 0,
    out_quantized: ?[*]u8 = null,
    out_quantized_stride: u64 = 0,
};

/// x[row] += y[row]; units: rows.
pub const Add = extern struct {
    width: u32,
    row_count: u32,
    x: [*]f32,
    x_stride: u64,
    y: [*]const f32,
    y_stride: u64,
};

/// `gelu` is x · Φ(x) itself, `gelu_tanh` its approximation by tanh.
pub const Activation = enum(u32) { silu = 0, gelu_tanh = 1, gelu = 2, relu = 3 };

/// act(gate) · up, or act(gate) where there is no `up`. Outputs as in Norm; `out` may be `gate`. Units: row_count ×
/// ceil(width / glu_unit_columns), row-major.
pub const Glu = extern struct {
    activation: Activation,
    width: u32,
    row_count: u32,
    out_form: Form = .int8,
    gate: [*]const f32,
    gate_stride: u64,
    up: ?[*]const f32,
    up_stride: u64,
    out: ?[*]f32 = null,
    out_stride: u64 = 0,
    out_quantized: ?[*]u8 = null,
    out_quantized_stride: u64 = 0,
};
pub const glu_unit_columns = 512;

/// Where a step's row stands: which sequence slot it belongs to and its position in it. Rows of one sequence are
/// neighbours in a step, in ascending position.
pub const Row = extern struct {
    sequence: u32,
    position: u32,
};

/// cos and sin of position · frequency: out[row][pair] = cos, out[row][pair_count + pair] = sin. Units: rows.
pub const RopeTable = extern struct {
    pair_count: u32,
    row_count: u32,
    /// Multiplies both (YaRN's magnitude; 1 otherwise).
    scale: f32,
    reserved: u32 = 0,
    rows: [*]const Row,
    frequencies: [*]const f32,
    out: [*]f32,
    out_stride: u64,
};

/// The KV cache of one layer. A page of a sequence starts at base + page_table[sequence · table_stride + position / 64] ·
/// page_bytes. In it, at `key_offset`, keys as [kv_head][head_width][64 positions] (transposed, so that scores of
/// neighbouring positions fill a vector), and at `value_offset`, values as [kv_head][64 positions][head_width].
///
/// Their formats are f16 or q8_0. Of the latter, 32 neighbouring dimensions of a position share a float16 scale, so that what
/// is stored of a position depends on it alone. Before each KV head's int8 quants lie its scales, in the same order:
/// [head_width / 32][64 positions] of keys, [64 positions][head_width / 32] of values.
///
/// Sessions' files hold pages as they are: whoever changes this order raises `version` in src/generate/session-file.ts.
pub const KvView = extern struct {
    base: [*]u8,
    page_bytes: u64,
    page_table: [*]const u32,
    table_stride: u64,
    key_offset: u64,
    value_offset: u64,
    key_format: Format,
    value_format: Format,
};

/// Dimensions of a position that share a scale in the KV cache.
pub const kv_block = 32;

/// Bytes of one KV head's keys, or of its values, in a page. The same sum as `kvHeadBytes` in src/plan/formats.ts.
pub fn kvHeadBytes(format: Format, head_width: usize) usize {
    return page_positions * switch (format) {
        .f16 => head_width * 2,
        .q8_0 => head_width + kvScales(head_width) * 2,
        else => unreachable,
    };
}

/// Scales of a position's keys, or of its values, in one KV head.
pub fn kvScales(head_width: usize) usize {
    assert(head_width % kv_block == 0);
    return head_width / kv_block;
}

pub const RopeStyle = enum(u32) {
    /// No rotation.
    none = 0,
    /// Pairs (i, i + pairs), as GPT-NeoX, Gemma and Qwen.
    halves = 1,
    /// Pairs (2i, 2i + 1), as Llama's GGUF files.
    neighbours = 2,
};

/// Normalises each head of q and k where a weight is given (RMSNorm over head_width), rotates the first 2 · pair_count
/// elements, writes q back in place and stores k and v in the KV pages. Units: rows.
pub const RopeStore = extern struct {
    head_count: u32,
    kv_head_count: u32,
    head_width: u32,
    row_count: u32,
    style: RopeStyle,
    pair_count: u32,
    epsilon: f32,
    reserved: u32 = 0,
    q: [*]f32,
    q_stride: u64,
    k: [*]f32,
    k_stride: u64,
    v: [*]const f32,
    v_stride: u64,
    q_norm: ?[*]const f32,
    k_norm: ?[*]const f32,
    /// RopeTable's output.
    table: [*]const f32,
    table_stride: u64,
    rows: [*]const Row,
    kv: KvView,
};

/// Rotates the first 2 · pair_count elements of each head of q and k in place: RopeStore without norms and without a cache.
/// Units: rows.
pub const Rope = extern struct {
    head_count: u32,
    kv_head_count: u32,
    head_width: u32,
    row_count: u32,
    style: RopeStyle,
    pair_count: u32,
    q: [*]f32,
    q_stride: u64,
    k: [*]f32,
    k_stride: u64,
    /// RopeTable's output.
    table: [*]const f32,
    table_stride: u64,
};

/// softmax(soft_cap(q·K · scale)) V over positions max(0, position - window + 1) to position (window 0: all), flash
/// style: chunks of `attention_chunk_positions` positions (aligned to multiples of it) are reduced by themselves, page by
/// page, and merged in ascending order, so that a row's result does not depend on the split.
///
/// split = 0: units are blocks of `attention_row_block` rows × kv heads (kv head innermost); every chunk is merged in the
/// unit, which writes the result. split = 1: units are rows × kv heads × chunk_count (chunk innermost) and write partial
/// results; `attention_merge` (units: rows) then merges them. Both write the same bits.
/// Outputs as in Norm (width = head_count · head_width).
pub const Attention = extern struct {
    head_count: u32,
    kv_head_count: u32,
    head_width: u32,
    row_count: u32,
    window: u32,
    scale: f32,
    soft_cap: f32,
    split: u32,
    /// Chunks that the longest sequence of this step reaches: highest position / attention_chunk_positions + 1.
    chunk_count: u32,
    out_form: Form = .int8,
    q: [*]const f32,
    q_stride: u64,
    rows: [*]const Row,
    kv: KvView,
    /// split = 1: [row][head][chunk][head_width + 2] floats (the unnormalised values, the maximum, the sum).
    partial: ?[*]f32,
    out: ?[*]f32 = null,
    out_stride: u64 = 0,
    out_quantized: ?[*]u8 = null,
    out_quantized_stride: u64 = 0,
    tuning: *const Tuning = &.fixed,
};
/// Rows of a block share what is read; with 6, its queries are whole tiles of 6 whatever the number of heads.
pub const attention_row_block = 6;
/// Floats of a page's keys or values that attention keeps as float32 at a time.
pub const attention_expanded = 4096;

/// Rows of a text that stand together in a step.
pub const Span = extern struct {
    first: u32,
    count: u32,
};

/// Rows of a text that are computed together, at most `encode_row_block`, and all rows of the text.
pub const EncodeBlock = extern struct {
    first: u32,
    count: u32,
    text: Span,
};
/// Queries fill the lanes of two of the widest vectors.
pub const encode_row_block = 32;
/// Keys that a block is multiplied with before the next ones; counted from the text's first row, so that a row's result does not
/// depend on the blocks.
pub const encode_key_block = 64;
/// Dimensions of those keys that are copied together, and floats from key to key in the copy: a constant, so that one register finds
/// the keys of a tile, and an odd number of cache lines, so that they do not share the same places of the cache.
pub const encode_key_dimensions = 128;
pub const encode_key_stride = encode_key_dimensions + 16;

/// softmax(q·K · scale) V over all rows of the row's own text, before and after it. Heads stand side by side in the rows of q,
/// k, v and the output. Every row is in one block. Outputs as in Norm (width = head_count · head_width), where `out` may be `q`.
/// Units: block_count × head_count (head innermost).
pub const Encode = extern struct {
    head_count: u32,
    /// A multiple of 32 where `out_quantized` is given.
    head_width: u32,
    block_count: u32,
    scale: f32,
    out_form: Form = .int8,
    reserved: u32 = 0,
    blocks: [*]const EncodeBlock,
    q: [*]const f32,
    q_stride: u64,
    k: [*]const f32,
    k_stride: u64,
    v: [*]const f32,
    v_stride: u64,
    out: ?[*]f32 = null,
    out_stride: u64 = 0,
    out_quantized: ?[*]u8 = null,
    out_quantized_stride: u64 = 0,
};

/// Sizes of a convolution of images, or of sequences as images of height 1. Pairs are of height and width.
pub const Convolution = extern struct {
    size: [2]u32,
    out_size: [2]u32,
    kernel: [2]u32,
    stride: [2]u32,
    dilation: [2]u32,
    /// Rows above the image and columns before it that count as zeros; as many behind as the outputs reach.
    padding: [2]u32,
    channels: u32,
    outputs: u32,
    /// Equal parts of the channels and of the outputs that belong together.
    groups: u32,

    /// From an op's numbers, each of which holds two of 16 bits: height and width of the image, channels and outputs, the kernel,
    /// strides, dilation, padding above and before, the output's height and width, groups. Where positions are multiplied one by
    /// one, rows mean nothing, and the image is one long row.
    pub fn of(numbers: [8]u32) Convolution {
        var both: [8][2]u32 = undefined;
        for (numbers, &both) |number, *pair| pair.* = .{ number & 0xffff, number >> 16 };
        var shape: Convolution = .{
            .size = both[0],
            .channels = both[1][0],
            .outputs = both[1][1],
            .kernel = both[2],
            .stride = both[3],
            .dilation = both[4],
            .padding = both[5],
            .out_size = both[6],
            .groups = both[7][0],
        };
        const ones: [2]u32 = .{ 1, 1 };
        const alone = std.mem.eql(u32, &shape.kernel, &ones) and std.mem.eql(u32, &shape.stride, &ones);
        if (alone and std.mem.eql(u32, &shape.out_size, &shape.size) and shape.padding[0] + shape.padding[1] == 0) {
            const positions = shape.size[0] * shape.size[1];
            shape.size = .{ 1, positions };
            shape.out_size = .{ 1, positions };
        }
        return shape;
    }

    pub fn valid(shape: *const Convolution) bool {
        for ([_][2]u32{ shape.size, shape.out_size, shape.kernel, shape.stride, shape.dilation }) |pair| {
            if (pair[0] == 0 or pair[1] == 0) return false;
        }
        if (shape.channels == 0 or shape.outputs == 0 or shape.groups == 0) return false;
        if (shape.channels % shape.groups != 0 or shape.outputs % shape.groups != 0) return false;
        return shape.unitCount() <= units_max;
    }

    const units_max = 1 << 24;

    /// Columns of the weight, which has a row for each output.
    pub fn weightColumns(shape: *const Convolution) u64 {
        return @as(u64, shape.groupChannels()) * shape.kernel[0] * shape.kernel[1];
    }

    pub fn groupChannels(shape: *const Convolution) u32 {
        return shape.channels / shape.groups;
    }

    /// Whether every channel is an output by itself.
    pub fn depthwise(shape: *const Convolution) bool {
        return shape.groups == shape.channels and shape.groups == shape.outputs;
    }

    /// Whether an output looks beyond its image.
    pub fn padded(shape: *const Convolution) bool {
        for (shape.size, shape.out_size, shape.kernel, shape.stride, shape.dilation, shape.padding) |size, out_size, kernel, stride, dilation, padding| {
            const reach = @as(u64, out_size - 1) * stride + @as(u64, kernel - 1) * dilation + 1;
            if (padding > 0 or reach > size) return true;
        }
        return false;
    }

    /// Parts of a row of outputs, and of the outputs at a position, that are units.
    pub fn stretches(shape: *const Convolution) u32 {
        return std.math.divCeil(u32, shape.out_size[1], conv_positions) catch unreachable;
    }

    pub fn blocks(shape: *const Convolution) u32 {
        return std.math.divCeil(u32, shape.outputs, conv_outputs) catch unreachable;
    }

    fn unitCount(shape: *const Convolution) u64 {
        return @as(u64, shape.out_size[0]) * shape.stretches() * shape.blocks();
    }

    /// Units of an image.
    pub fn units(shape: *const Convolution) u32 {
        return @intCast(shape.unitCount());
    }
};

/// Positions and outputs of a unit at most. The widths of many images divide the positions or are multiples of them.
pub const conv_positions = 56;
pub const conv_outputs = 64;

/// Convolution (conv.zig) of a row's image. Units: row_count × `Convolution.units`, the image outermost.
pub const Conv = extern struct {
    shape: Convolution,
    row_count: u32,
    /// Packed, float32: a row an output; columns by channel of the group, kernel row and kernel column.
    weight: [*]const f32,
    /// Position by position, the channels of one together.
    x: [*]const f32,
    x_stride: u64,
    /// A float an output, and zeros up to a multiple of 16.
    bias: ?[*]const f32 = null,
    /// As `x`; not in its memory.
    out: [*]f32,
    out_stride: u64,
};

/// What a text's vector is made of.
pub const Pooling = enum(u32) { mean = 0, first = 1, last = 2 };

/// Rows of a text that are in this step.
pub const PooledText = extern struct {
    first: u32,
    count: u32,
    /// The row of `out` that is the text's.
    slot: u32,
    /// Of the first row in the text, and rows of the whole text.
    position: u32,
    total: u32,
    pooling: Pooling,
    /// 1: the vector is divided by its length.
    normalise: u32,
};

/// out[slot]: the mean, the first or the last of a text's rows. It grows with each step that has rows of the text, in their
/// order, and is complete with the last of them. A vector of zeros stays one. Units: texts.
pub const Pool = extern struct {
    width: u32,
    text_count: u32,
    texts: [*]const PooledText,
    x: [*]const f32,
    x_stride: u64,
    out: [*]f32,
    out_stride: u64,
};

/// A row of a matrix and its product with a query.
pub const Found = extern struct { row: u32, score: f32 };

/// For each query the `keep` rows with the largest products, of equal ones those with the lowest numbers; a product that is not a
/// number is -inf. Each thread has a `found` of its own, which it goes on with from call to call, in any order of ranges;
/// `search_merge` makes one of all. Which rows are found, and their scores, do not depend on that, nor on the number of queries.
/// Units: blocks of `search_row_block` rows.
pub const Search = extern struct {
    columns: u32,
    row_count: u32,
    query_count: u32,
    keep: u32,
    /// The number of the first row.
    row_first: u32 = 0,
    reserved: u32 = 0,
    rows: [*]const f32,
    /// Floats between two rows.
    row_stride: u64,
    queries: [*]const f32,
    query_stride: u64,
    /// [query][keep], of which the first `found_counts[query]` are there, in no particular order.
    found: [*]Found,
    /// [query]: 0 before the first call.
    found_counts: [*]u32,
};
pub const search_row_block = 64;

/// Adds what another thread has found to `found`, or, where there is no other, sorts it: the best first. Runs on one thread.
pub const SearchMerge = extern struct {
    query_count: u32,
    keep: u32,
    found: [*]Found,
    found_counts: [*]u32,
    other: ?[*]const Found,
    other_counts: ?[*]const u32,
};

/// How a token is drawn from a row of logits, applied in this order: repeat penalty (Keskar et al. 2019: a positive logit
/// of a recent token is divided, a negative one multiplied), temperature, top-k, top-p, min-p, one draw.
pub const Sampling = extern struct {
    /// 0: the largest logit, the lowest id among equals.
    temperature: f32,
    top_p: f32,
    min_p: f32,
    repeat_penalty: f32,
    /// 0: no limit.
    top_k: u32,
    /// A uniform number in [0, 1) already drawn by the caller.
    uniform: f32,
};

pub const Candidate = extern struct { token: u32, logprob: f32 };

/// Draws a token. `logits` (length `count`) may be changed. `recent` are the tokens the repeat penalty looks at, each
/// counted once. `scratch` has at least `count` elements. Runs on one thread.
pub const Sample = extern struct {
    params: Sampling,
    count: u32,
    recent_count: u32,
    /// 1: only logits that can be drawn are known, all others are -inf. The result's log-probability is then the token's logit.
    screened: u32 = 0,
    logits: [*]f32,
    recent: [*]const u32,
    scratch: [*]Candidate,
    /// Set: the token drawn, and its log-probability under softmax(logits) before any of the above.
    result: Candidate,
};

/// Log-probabilities under softmax(logits): of `target`, and the `top_count` best in descending order (ties: lower id
/// first) into `top`. Runs on one thread.
pub const Score = extern struct {
    count: u32,
    target: u32,
    top_count: u32,
    reserved: u32 = 0,
    logits: [*]const f32,
    top: [*]Candidate,
    scratch: [*]Candidate,
    /// Set by the kernel.
    target_logprob: f32,
};

/// Columns of a screen's copy that have a second code.
pub const screen_fine_columns = block_columns;
/// The numbers of the fine columns, before the copy's groups.
pub const screen_head_bytes = screen_fine_columns * @sizeOf(u32);
/// Rows of logits that a step screens at most.
pub const screen_tokens_max = 3;
/// Recent tokens that a screened draw may have, and candidates that it may keep.
pub const screen_recent_max = 256;
pub const screen_keep_max = 256;
/// What a list of groups begins with: how many the first stage chose, and both.
pub const screen_list_head = 2;

/// Bytes of a group's copy (screen.zig): 4 bits for every column and the fine ones again, a byte a block and half of one, three
/// float16.
/// src/plan/screen.ts mirrors it.
pub fn screenGroupBytes(columns: u32) u64 {
    const blocks = columns / block_columns;
    return std.mem.alignForward(u64, group_rows * (@as(u64, columns + screen_fine_columns) / 2 + blocks + (blocks + 1) / 2 + 3 * 2), 64);
}

/// Makes the copy that screens a packed weight. Units: groups of 16 rows. Its first bytes name the fine columns already.
pub const ScreenBuild = extern struct {
    format: Format,
    rows: u32,
    columns: u32,
    weight: [*]const u8,
    scales: [*]const u8,
    copy: [*]u8,
};

/// Best estimate and largest upper bound of each group's products with each token, and -inf as their logits. Units: groups of
/// 16 rows.
pub const Screen = extern struct {
    rows: u32,
    columns: u32,
    tokens: u32,
    reserved: u32 = 0,
    copy: [*]const u8,
    x: [*]const u8,
    x_stride: u64,
    y: [*]f32,
    y_stride: u64,
    /// Per token: the estimates of all groups, then their bounds.
    groups: [*]f32,
    groups_stride: u64,
    tuning: *const Tuning = &.fixed,
};

/// Chooses the groups of one token whose logits are to be computed: stage 0 those with the best estimates and those of the
/// tokens the penalty looks at; stage 1, when these are known, all others that may hold one of the `keep` largest. Together
/// they are at most as many as there are groups and recent tokens. Runs on one thread.
pub const ScreenPick = extern struct {
    stage: u32,
    rows: u32,
    keep: u32,
    recent_count: u32,
    recent: [*]const u32,
    groups: [*]f32,
    logits: [*]const f32,
    /// `screen_list_head` numbers, then groups, with room for a group a recent token more than there are.
    list: [*]u32,
    /// At least `rows` elements, rounded up to 16.
    scratch: [*]Candidate,
};

pub const Converted = enum(u32) {
    done = 0,
    /// A value is infinite or not a number.
    not_finite = 1,
    /// A value is beyond what the target's float16 scales or values hold.
    out_of_range = 2,
};

/// Values of a tensor from one GGUF format to another. Runs on one thread; the result depends on nothing but the values.
pub const Convert = extern struct {
    source_format: Format,
    target_format: Format,
    /// Values, a multiple of both formats' blocks.
    count: u32,
    reserved: u32 = 0,
    source: [*]const u8,
    target: [*]u8,
    /// Scratch of `count` values.
    values: [*]f32,
};

/// What a level does at most, of what kernels consist of.
pub const Peak = enum(u32) {
    /// Multiply-adds of float32.
    float = 0,
    /// Products of int8 with their sums.
    int8 = 1,
    /// The same of bfloat16, where the level has instructions for it.
    bf16 = 2,
    /// Products of int16 with their sums, where products of float16 and bfloat16 weights are of those.
    int16 = 3,
};

/// Bytes moved with the level's vectors, by ordinary loads and stores.
pub const Traffic = enum(u32) { read = 0, write = 1, copy = 2 };
/// What they are a multiple of.
pub const traffic_bytes = 8 * 64;

/// One instruction-set level. `scratch` is this thread's own memory of `scratchBytes` bytes, 64-byte aligned.
pub const Table = extern struct {
    /// "scalar", "x86_64_v2", "avx2", "avx512", "avx512_vnni", "amx", "neon", "neon_dotprod", "neon_i8mm".
    name: [*:0]const u8,
    /// What its products with float16 and bfloat16 weights take: `floats` or `words`.
    wide_form: Form,
    pack: *const fn (*const Pack, begin: u32, end: u32) callconv(.c) void,
    matmul: *const fn (*const MatMul, begin: u32, end: u32, scratch: [*]align(64) u8) callconv(.c) void,
    embed: *const fn (*const Embed, begin: u32, end: u32) callconv(.c) void,
    quantize: *const fn (*const Quantize, begin: u32, end: u32) callconv(.c) void,
    norm: *const fn (*const Norm, begin: u32, end: u32) callconv(.c) void,
    add: *const fn (*const Add, begin: u32, end: u32) callconv(.c) void,
    glu: *const fn (*const Glu, begin: u32, end: u32) callconv(.c) void,
    rope_table: *const fn (*const RopeTable, begin: u32, end: u32) callconv(.c) void,
    rope_store: *const fn (*const RopeStore, begin: u32, end: u32) callconv(.c) void,
    attention: *const fn (*const Attention, begin: u32, end: u32, scratch: [*]align(64) u8) callconv(.c) void,
    attention_merge: *const fn (*const Attention, begin: u32, end: u32, scratch: [*]align(64) u8) callconv(.c) void,
    rope: *const fn (*const Rope, begin: u32, end: u32) callconv(.c) void,
    encode: *const fn (*const Encode, begin: u32, end: u32, scratch: [*]align(64) u8) callconv(.c) void,
    conv: *const fn (*const Conv, begin: u32, end: u32) callconv(.c) void,
    pool: *const fn (*const Pool, begin: u32, end: u32) callconv(.c) void,
    search: *const fn (*const Search, begin: u32, end: u32) callconv(.c) void,
    search_merge: *const fn (*const SearchMerge) callconv(.c) void,
    sample: *const fn (*Sample) callconv(.c) void,
    score: *const fn (*Score) callconv(.c) void,
    screen_build: *const fn (*const ScreenBuild, begin: u32, end: u32, scratch: [*]align(64) u8) callconv(.c) void,
    screen: *const fn (*const Screen, begin: u32, end: u32, scratch: [*]align(64) u8) callconv(.c) void,
    screen_pick: *const fn (*const ScreenPick) callconv(.c) void,
    convert: *const fn (*const Convert) callconv(.c) Converted,
    /// Does as much as it can for `turns` of a loop; how many operations that was. 0: the level has no such.
    peak: *const fn (Peak, turns: u32) callconv(.c) u64,
    /// Reads the source, writes the target, or copies the one into the other, `turns` times; `bytes` of each.
    traffic: *const fn (Traffic, turns: u32, target: [*]align(64) u8, source: [*]align(64) const u8, bytes: u64) callconv(.c) void,
    /// Called on a thread before the first product of this level (AMX tile configuration is per thread) and after the last; no other
    /// kernel needs it.
    thread_begin: *const fn () callconv(.c) void,
    thread_end: *const fn () callconv(.c) void,
};

/// Scratch a thread needs for any kernel called with at most these sizes: the unpacked weights of one row group
/// (16 · columns bytes of int8 and their float32 scales and minimums for every 16 columns), parts of two of them and the sums of
/// all tokens, or one attention block of either kind.
pub fn scratchBytes(columns_max: u32, head_width_max: u32, heads_per_kv_head_max: u32) u64 {
    const group: u64 = @as(u64, columns_max) * 16 + @as(u64, columns_max) / 16 * 16 * 8;
    const heads: u64 = @as(u64, heads_per_kv_head_max) * attention_row_block;
    const attention: u64 = (heads * (@as(u64, head_width_max) * 3 + page_positions + 16) + attention_expanded) * 4;
    const encode: u64 = (@as(u64, head_width_max) * encode_row_block * 3 + encode_key_block * (encode_row_block + encode_key_stride) + 2 * encode_row_block) * 4;
    const parts: u64 = 64 * 1024 + matmul_tokens_max * 2 * group_rows * 4;
    return std.mem.alignForward(u64, @max(group, parts, attention, encode) + 16 * 1024, 4096);
}
