//! The extern structs that cross the border: a Program as TypeScript encodes it, requests, records and events. No pointers:
//! a place is a region and an offset. TypeScript mirrors this file in src/plan/layout.ts; `layout_hash`, computed from every
//! field's name, offset and size, is compared when the library is opened, so the two cannot drift apart unnoticed.

const std = @import("std");
const table = @import("kernels/table.zig");

pub const magic: u32 = 0x49414e54; // "TNAI"
pub const version: u32 = 1;

/// No tensor.
pub const none: u32 = 0xffff_ffff;

/// Rows, sequences and requests have these upper bounds whatever the program says; the engine's fixed arrays have these sizes.
pub const step_rows_max = 8192;
pub const sequences_max = 64;
/// Requests that the engine holds at once, running or waiting.
pub const slots_max = 64;
pub const kv_groups_max = 8;
pub const stop_tokens_max = 16;
pub const op_tensors = 8;
pub const top_max = 256;

pub const Header = extern struct {
    magic: u32,
    version: u32,
    layout_hash: u64,
    op_count: u32,
    tensor_count: u32,
    kv_layer_count: u32,
    kv_group_count: u32,
    /// Byte offsets from the program's start.
    ops_offset: u64,
    tensors_offset: u64,
    kv_layers_offset: u64,
    kv_groups_offset: u64,
    constants_offset: u64,
    constants_bytes: u64,
    /// Bytes of the weights region, which the engine allocates and fills from the source file, unless it is given a mapping.
    weights_bytes: u64,
    arena_bytes: u64,
    /// Bytes of the copies region, which the engine makes from the weights.
    copies_bytes: u64,
    /// Rows a step may have, and how many of them may ask for logits.
    rows_max: u32,
    logits_rows_max: u32,
    /// Sequences that run in one step at most.
    batch_max: u32,
    /// Positions a sequence may have at most.
    context_max: u32,
    vocabulary: u32,
    /// Prompt chunks end at multiples of this many positions.
    chunk_positions: u32,
    /// Largest inputs of any kernel, for the threads' scratch memory.
    columns_max: u32,
    head_width_max: u32,
    heads_per_kv_head_max: u32,
    /// Tensor index of the logits: logits_rows_max rows of float32. `none`: no token is drawn or scored.
    logits_tensor: u32,
    /// 1: a text is computed whole in one step, of which it may take all rows; the program has no KV layers. Steps are filled
    /// up to `chunk_positions` rows, but for longer texts, which have one to themselves.
    whole_prompts: u32,
    /// Tensor index of the texts' vectors: a row of float32 for each slot. `none`: texts have none.
    embeddings_tensor: u32,
};

pub const Region = enum(u32) { weights = 0, constants = 1, arena = 2, copies = 3 };

/// How a tensor's bytes are to be read: the kernels' weight formats, rows of activations as products with quantized weights take
/// them, or those with float16 and bfloat16 weights (in the form of the level that multiplies), or a screen's copy.
pub const int8_rows: u32 = 100;
pub const wide_rows: u32 = 101;
pub const screen_copy: u32 = 102;

pub const Tensor = extern struct {
    region: Region,
    /// A `table.Format`, `int8_rows`, `wide_rows` or `screen_copy`.
    format: u32,
    rows: u32,
    columns: u32,
    /// Byte offset in its region, a multiple of 64.
    offset: u64,
    bytes: u64,
    /// Bytes between two rows (activations; 0 for packed weights).
    stride: u64,
    /// Packed weights: the scales' place in the weights region.
    scales_offset: u64,
    scales_bytes: u64,
    /// Packed weights: the row-major tensor's place in the source file; 0 bytes: the mapping holds it packed.
    source_offset: u64,
    source_bytes: u64,
    /// The `table.Format` that it has there; values of another one are converted before they are packed.
    source_format: u32,
    reserved: u32 = 0,
};

pub const OpKind = enum(u16) {
    /// out = scale · table[token] (+ positions[position], or their one row). tensors: out, table, positions?. f: scale.
    embed = 0,
    /// tensors: out?, out_quantized?, x, weight, residual?, bias?. u: centred. f: epsilon.
    norm = 1,
    /// x += y. tensors: x, y.
    add = 2,
    /// tensors: out_quantized, x.
    quantize = 3,
    /// tensors: y, x, weight, bias?. u: accumulate. f: soft_cap.
    matmul = 4,
    /// tensors: out?, out_quantized?, gate, up. u: activation.
    glu = 5,
    /// tensors: out, frequencies. f: scale.
    rope_table = 6,
    /// tensors: q, k, v, table, q_norm?, k_norm?. u: heads, kv_heads, head_width, style, pairs, kv_layer. f: epsilon.
    rope_store = 7,
    /// tensors: out?, out_quantized?, q, partial. u: heads, kv_heads, head_width, window, kv_layer. f: scale, soft_cap.
    attention = 8,
    /// The same operands as the attention before it.
    attention_merge = 9,
    /// Copies the rows that ask for logits. tensors: out, x.
    gather = 10,
    /// A screened step's estimates, by groups of the head's rows. tensors: logits, x, weight, copy, groups.
    screen = 11,
    /// Chooses groups to compute. tensors: logits, groups, list. u: stage.
    screen_pick = 12,
    /// The head's product in the chosen groups. tensors: logits, x, weight, list. u: stage.
    screen_product = 13,
    /// tensors: out?, out_quantized?, x. u: activation.
    activation = 14,
    /// tensors: out?, out_quantized?, q, k, v. u: heads, head_width. f: scale.
    encode = 15,
    /// tensors: q, k, table. u: heads, kv_heads, head_width, style, pairs.
    rope = 16,
    /// Rows of texts whose vector is wanted to one row of their slot. tensors: embeddings, x.
    pool = 17,
    /// tensors: y, x, weight, bias?. u: as `table.Convolution.of` takes them.
    conv = 18,

    /// Whose level the op's kernel is of. TypeScript mirrors it in src/plan/layout.ts.
    pub fn family(kind: OpKind) Family {
        return switch (kind) {
            .matmul, .screen, .screen_product => .matmul,
            .norm, .add, .glu, .activation => .activation,
            .rope, .rope_store, .attention, .attention_merge, .encode => .attention,
            .conv => .conv,
            .embed, .quantize, .rope_table, .gather, .screen_pick, .pool => .other,
        };
    }
};

/// The next op does not read what this one writes, nor the other way round: no waiting between them.
pub const flag_joins_next: u16 = 1;
/// The op works on the rows that ask for logits, not on all rows of the step.
pub const flag_logits_rows: u16 = 2;
/// The op does not run in screened steps, where others do in its place.
pub const flag_unscreened: u16 = 4;
/// The op only runs in steps that have rows of texts whose vector is wanted.
pub const flag_embeds: u16 = 8;

pub const Op = extern struct {
    kind: OpKind,
    flags: u16,
    layer: i32,
    tensors: [op_tensors]u32,
    u: [8]u32,
    f: [4]f32,
};

/// Where one layer's keys and values lie in the pages of its group.
pub const KvLayer = extern struct {
    group: u32,
    /// `table.Format.f16` or `q8_0`.
    key_format: u32,
    value_format: u32,
    reserved: u32,
    key_offset: u64,
    value_offset: u64,
};

/// Layers whose pages live and die together, because they look back equally far.
pub const KvGroup = extern struct {
    /// Positions looked back to, 0 for all.
    window: u32,
    /// Pages in the pool.
    page_count: u32,
    page_bytes: u64,
    /// Pages that nobody holds keep what they hold, up to this many, for prompts that begin alike.
    kept_max: u32,
    reserved: u32 = 0,
};

/// What the engine is made with, beside the program and its first settings.
pub const Config = extern struct {
    /// Spinning before sleeping, in µs.
    spin_us: u32,
    /// Slots of each thread's ring, which an event takes one or three of (events.zig); a power of two.
    event_capacity: u32,
    /// 1: events are written.
    events_enabled: u32,
    /// A pipe's writing end: a byte in it means that there are records, or that the engine has ended.
    notify_fd: i32,
};

/// Kernels whose instruction-set level is chosen together.
pub const Family = enum(u32) { matmul = 0, conv = 1, activation = 2, attention = 3, other = 4 };
pub const families = @typeInfo(Family).@"enum".fields.len;
/// The kernels of each family; each may be of another level.
pub const Kernels = std.EnumArray(Family, *const table.Table);

/// What may change between the steps of a loaded engine.
pub const Settings = extern struct {
    /// Which of the engine's settings these are; told back in a `configured` record once they hold.
    version: u32,
    thread_count: u32,
    /// Index into the levels of cpu.zig, by family.
    levels: [families]u32,
    /// Percent of one CPU's time that all threads together may use; 0: all that they can.
    cpu_percent: u32,
    /// CPU of each thread; `none`: where the system puts it.
    affinity: [64]u32,
    tuning: table.Tuning,
};

/// What an engine uses.
pub const Usage = extern struct {
    /// CPU time of its threads, also of those that have ended.
    cpu_ns: u64,
    /// What is in memory of all that was set aside, beside keys and values, and how much that is.
    resident_bytes: u64,
    planned_bytes: u64,
    /// What keys and values take in memory.
    kv_bytes: u64,
    /// What each thread has to itself.
    thread_bytes: u64,
};

pub const RequestKind = enum(u32) {
    /// Draw tokens after the prompt.
    generate = 0,
    /// Log-probabilities of the prompt's own tokens.
    score = 1,
    /// Computes the prompt and holds its pages for reading until it is cancelled. Nothing but the prompt is in them.
    hold = 2,
    /// Holds pages for writing; once it is committed, they count as what was computed of the prompt, and are kept.
    restore = 3,
    /// A vector of the prompt.
    embed = 4,
};

pub const Request = extern struct {
    id: u32,
    kind: RequestKind,
    token_count: u32,
    /// Tokens generated at most; 0 for score.
    generate_max: u32,
    seed: u64,
    temperature: f32,
    top_p: f32,
    min_p: f32,
    repeat_penalty: f32,
    top_k: u32,
    /// The repeat penalty looks at this many last tokens.
    repeat_last: u32,
    /// Candidates reported with every token, best first.
    top_count: u32,
    /// Rows a step may take of this request's prompt; 0: as many as fit. 1 feeds it token by token.
    chunk_rows: u32,
    stop_token_count: u32,
    /// 1: logits rows are kept for reading (`score`): the request pauses after each step until TypeScript has read them.
    dump_logits: u32,
    stop_tokens: [stop_tokens_max]u32,
    /// Tokens guessed by lookup in a step at most; 0: none. They change no token and no log-probability.
    draft_max: u32,
    /// Tokens that must agree for a guess.
    match_min: u32,
    /// 1: it may begin with keys and values that others computed, and others with those that it computes.
    shares_prefix: u32,
    /// Of an `embed`: a `table.Pooling`, and 1: the vector is divided by its length.
    pooling: u32,
    normalise: u32,
};

pub const RecordKind = enum(u32) {
    /// The weights are in place. value: 0.
    loaded = 0,
    /// Loading failed. value: a `Failure`; token: the number of the tensor that was being packed.
    load_failed = 1,
    /// A token was drawn (generate) or scored (score: `token` is the prompt's next token; the last position has none).
    /// value: tokens that the step guessed behind it, told with its first token alone. A step whose guesses came true has
    /// several token records.
    token = 2,
    /// A candidate of the token record that follows. `token`, `logprob`.
    candidate = 3,
    /// The request's slot is free again. value: a `Finish`.
    finished = 4,
    /// A step of a prompt is done, unless it is that of an `embed`. value: positions computed.
    progress = 5,
    /// Rows of logits can be read. value: row count; token: the first one's place among the step's rows of logits.
    logits = 6,
    /// The prompt's first positions need not be computed: keys and values of them were there. value: how many.
    reused = 7,
    /// The pages of a `hold` or `restore` can be read or written.
    held = 8,
    /// Settings hold from now on. value: their version; token: a `Failure`, with which the threads and where they run stay as they were.
    configured = 9,
};

/// `not_finite`: the logits held a value that is not a number, or none that is finite, or the text's vector held one that is not:
/// the weights are damaged. `embedded`: the text's vector stands in its slot's row until the slot has another request. `no_memory`:
/// the limit of memory leaves no room for its keys and values; it has not begun.
pub const Finish = enum(u32) { stop_token = 0, length = 1, cancelled = 2, scored = 3, not_finite = 4, restored = 5, embedded = 6, no_memory = 7 };

pub const Failure = enum(u32) {
    none = 0,
    out_of_memory = 1,
    open = 2,
    read = 3,
    cut_short = 4,
    threads = 5,
    program = 6,
    /// A converter's alone.
    write = 7,
    /// Where values are converted.
    not_finite = 8,
    out_of_range = 9,
    /// Settings' alone: a thread could not have its CPU.
    pin = 10,
};

pub const Record = extern struct {
    kind: RecordKind,
    request: u32,
    token: u32,
    /// NaN: not known, since the logits of its step were screened, or could have been.
    logprob: f32,
    /// Position of the token in its sequence.
    position: u32,
    step: u32,
    value: u32,
    sequences: u32,
    /// Monotonic clock.
    time_ns: u64,
};

pub const EventKind = enum(u8) {
    work = 0,
    barrier = 1,
    idle = 2,
    sampling = 3,
    copy = 4,
    step = 5,
    /// What a sequence had of a step, in order of their rows, right before the step's own event. `start` and `end` are no times:
    /// `Share` packs them.
    share = 6,
    /// The engine thread formed a step and woke the others, or took in what it gave.
    engine = 7,
};
pub const event_no_op: u16 = 0xffff;

/// What a sequence's rows of a step are to its vector.
pub const Embeds = packed struct(u16) {
    /// Whether one is wanted.
    wanted: bool,
    /// A `table.Pooling`.
    pooling: u2 = 0,
    normalise: bool = false,
    /// Whether it is complete with these rows.
    complete: bool = false,
    reserved: u11 = 0,

    pub const none: Embeds = .{ .wanted = false };
};

/// What a sequence had of a step.
pub const Share = struct {
    request: u32,
    sequence: u32,
    rows: u32,
    /// Of the first row.
    position: u32,
    logits_rows: u32,
    /// Guessed tokens that came true.
    accepted: u32 = 0,
    embeds: Embeds = .none,

    pub fn event(share: Share, step: u32) Event {
        return .{
            .start = share.position | @as(u64, share.sequence) << 32,
            .end = share.logits_rows | @as(u64, share.accepted) << 32 | @as(u64, @as(u16, @bitCast(share.embeds))) << 48,
            .step = step,
            .rows = share.rows,
            .op = event_no_op,
            .kind = .share,
            .thread = 0,
            .aux = share.request,
        };
    }
};

pub const Event = extern struct {
    /// Ticks of clock.zig as it is written; nanoseconds of the monotonic clock once drained.
    start: u64,
    end: u64,
    step: u32,
    /// What the op's cost is counted by: rows of the step; for attention, positions that all rows look at together. A step's
    /// own event leaves out guessed tokens that did not come true.
    rows: u32,
    op: u16,
    kind: EventKind,
    thread: u8,
    aux: u32,
};

comptime {
    std.debug.assert(@sizeOf(Event) == 32);
    std.debug.assert(@sizeOf(Record) == 40);
    std.debug.assert(@sizeOf(Op) == 88);
    std.debug.assert(@sizeOf(Tensor) == 80);
}

/// FNV-1a over "Struct.field:offset:size;" of every struct that crosses the border, in this order.
/// A tensor's values in the source file and their place in the target file. The same format twice is a copy.
pub const Conversion = extern struct {
    /// Byte offsets in the files.
    source_offset: u64,
    target_offset: u64,
    /// A multiple of both formats' blocks, above 0.
    value_count: u64,
    /// `table.Format`s.
    source_format: u32,
    target_format: u32,
};

/// Kernels that a stand (stand.zig) measures, and the level's peaks.
pub const MeasuredKernel = enum(u32) {
    matmul = 0,
    /// With its merge where it is split.
    attention = 1,
    norm = 2,
    glu = 3,
    rope_store = 4,
    quantize = 5,
    embed = 6,
    sample = 7,
    pack = 8,
    convert = 9,
    peak_float = 10,
    peak_int8 = 11,
    peak_int16 = 12,
    peak_bf16 = 13,
    activation = 14,
    /// Of one text.
    encode = 15,
    conv = 16,
};

/// One kernel over operands that are made up; none looks at every field.
pub const Measurement = extern struct {
    kernel: MeasuredKernel,
    /// Of weights; of what is converted.
    format: u32,
    /// What is converted to.
    target_format: u32,
    /// Of weights.
    rows: u32,
    /// Of weights, or the width of rows; a vocabulary; values of a piece that is converted.
    columns: u32,
    /// Rows of activations; draws; pieces.
    tokens: u32,
    head_count: u32,
    kv_head_count: u32,
    head_width: u32,
    /// Of the first row.
    position: u32,
    /// Of a convolution, as an op has it.
    convolution: [8]u32,
    /// Weights, or keys and values, are there so many times that together they have this many bytes; each run takes the next.
    working_bytes: u64,
};

/// What a tracer is made with: threads that it plays, and the caches that it simulates, nearest first; `cache_count` 0: none.
pub const TracerConfig = extern struct {
    thread_count: u32,
    cache_count: u32,
    /// 1: a hardware prefetcher for each thread.
    prefetcher: u32,
    reserved: u32 = 0,
    cache_bytes: [3]u64,
    cache_ways: [3]u32,
    cache_line_bytes: [3]u32,
    /// Threads that share one.
    cache_shared_by: [3]u32,
    /// As in `Settings`.
    levels: [families]u32,
    /// What kernels read depends on it a little: it decides from how many tokens on codes are unpacked first.
    tuning: table.Tuning,
};

/// A sequence's part of a step to be traced.
pub const TracedShare = extern struct {
    sequence: u32,
    /// Of its first row.
    position: u32,
    rows: u32,
    /// The last of its rows; each draws a token.
    logits_rows: u32,
    /// An `Embeds`.
    embeds: u32 = 0,
};

/// How the tokens of a traced step are drawn.
pub const TracedDraw = extern struct {
    temperature: f32,
    top_p: f32,
    min_p: f32,
    repeat_penalty: f32,
    top_k: u32,
    /// Candidates that are told of with each token; with any, or 1, nothing is screened.
    top_count: u32,
    /// 1: a score of the prompt's own tokens; nothing is drawn.
    scores: u32,
};

/// What a traced op did, by region (tracer.zig's order) and by cache level. All threads together.
pub const Traced = extern struct {
    loads: [7]u64 = @splat(0),
    stores: [7]u64 = @splat(0),
    bytes_read: [7]u64 = @splat(0),
    bytes_written: [7]u64 = @splat(0),
    accesses: [3]u64 = @splat(0),
    misses: [3]u64 = @splat(0),
    prefetched: [3]u64 = @splat(0),
    /// Lines of the last level that came from memory, and that went back.
    memory_lines: u64 = 0,
    write_backs: u64 = 0,
};

pub const layout_hash: u64 = hash: {
    @setEvalBranchQuota(200_000);
    var state: u64 = 0xcbf29ce484222325;
    for (.{ Header, Tensor, Op, KvLayer, KvGroup, Config, Settings, Usage, Request, Record, Event, Conversion, Measurement, table.Tuning, TracerConfig, TracedShare, TracedDraw, Traced }) |T| {
        const name = shortName(@typeName(T));
        for (@typeInfo(T).@"struct".fields) |field| {
            const text = std.fmt.comptimePrint("{s}.{s}:{d}:{d};", .{ name, field.name, @offsetOf(T, field.name), @sizeOf(field.type) });
            for (text) |byte| state = (state ^ byte) *% 0x100000001b3;
        }
    }
    break :hash state;
};

fn shortName(comptime name: []const u8) []const u8 {
    const dot = std.mem.lastIndexOfScalar(u8, name, '.') orelse return name;
    return name[dot + 1 ..];
}

/// A program whose counts, offsets and indices are all in bounds. TypeScript has checked all of this already with better
/// words; it is checked again here because what follows trusts it with raw memory.
pub const View = struct {
    header: *const Header,
    ops: []const Op,
    tensors: []const Tensor,
    kv_layers: []const KvLayer,
    kv_groups: []const KvGroup,
    constants: []const u8,

    pub fn init(bytes: []align(8) const u8) error{Program}!View {
        if (bytes.len < @sizeOf(Header)) return error.Program;
        const header: *const Header = @ptrCast(bytes.ptr);
        if (header.magic != magic or header.version != version or header.layout_hash != layout_hash) return error.Program;
        const view: View = .{
            .header = header,
            .ops = try slice(Op, bytes, header.ops_offset, header.op_count),
            .tensors = try slice(Tensor, bytes, header.tensors_offset, header.tensor_count),
            .kv_layers = try slice(KvLayer, bytes, header.kv_layers_offset, header.kv_layer_count),
            .kv_groups = try slice(KvGroup, bytes, header.kv_groups_offset, header.kv_group_count),
            .constants = try slice(u8, bytes, header.constants_offset, header.constants_bytes),
        };
        try view.check();
        return view;
    }

    fn slice(comptime T: type, bytes: []align(8) const u8, offset: u64, count: u64) error{Program}![]const T {
        if (offset % @alignOf(T) != 0 or offset > bytes.len) return error.Program;
        if (count > (bytes.len - offset) / @sizeOf(T)) return error.Program;
        const start: [*]const T = @ptrCast(@alignCast(bytes.ptr + @as(usize, @intCast(offset))));
        return start[0..@intCast(count)];
    }

    /// Whether the tensors of a screen's op are as large as its kernel takes them to be.
    fn holdsScreen(view: View, op: *const Op) bool {
        const group_count = std.math.divCeil(u64, view.header.vocabulary, table.group_rows) catch unreachable;
        const slots: struct { weight: ?usize = null, copy: ?usize = null, groups: ?usize = null, list: ?usize = null } = switch (op.kind) {
            .screen => .{ .weight = 2, .copy = 3, .groups = 4 },
            .screen_pick => .{ .groups = 1, .list = 2 },
            .screen_product => .{ .weight = 2, .list = 3 },
            else => return true,
        };
        const wanted = [_]struct { slot: ?usize, bytes: u64 }{
            .{ .slot = slots.groups, .bytes = 2 * group_count * @sizeOf(f32) },
            .{ .slot = slots.list, .bytes = (table.screen_list_head + group_count + table.screen_recent_max) * @sizeOf(u32) },
        };
        for (wanted) |buffer| {
            const slot = buffer.slot orelse continue;
            if (op.tensors[slot] == none) return false;
            const tensor = view.tensors[op.tensors[slot]];
            if (tensor.region != .arena or tensor.stride < buffer.bytes or tensor.bytes < table.screen_tokens_max * tensor.stride) return false;
        }
        for ([_]u32{ op.tensors[0], op.tensors[1], op.tensors[2] }) |index| if (index == none) return false;
        const slot = slots.weight orelse return true;
        const weight = view.tensors[op.tensors[slot]];
        if (weight.rows != view.header.vocabulary or weight.format > @intFromEnum(table.Format.iq4_xs)) return false;
        const copy = slots.copy orelse return true;
        if (op.tensors[copy] == none or weight.columns % table.block_columns != 0) return false;
        return view.tensors[op.tensors[copy]].bytes == table.screen_head_bytes + group_count * table.screenGroupBytes(weight.columns);
    }

    /// Whether an op over whole texts has all that its kernel takes for granted.
    fn holdsText(view: View, op: *const Op) bool {
        const header = view.header;
        switch (op.kind) {
            .embed => {
                if (op.tensors[2] == none) return true;
                if (op.tensors[1] == none) return false;
                const width: u64 = view.tensors[op.tensors[1]].columns;
                const values = view.tensors[op.tensors[2]].columns;
                return values == width or values >= width * header.context_max;
            },
            .encode => {
                for (op.tensors[2..5]) |index| if (index == none) return false;
                const width = @as(u64, op.u[0]) * op.u[1];
                for (op.tensors[2..5]) |index| if (view.tensors[index].columns != width) return false;
                const multiple: u32 = if (op.tensors[1] == none) 16 else table.block_columns;
                return header.whole_prompts != 0 and op.u[1] > 0 and op.u[1] % multiple == 0 and op.u[1] <= header.head_width_max;
            },
            .pool => return op.tensors[0] == header.embeddings_tensor and header.embeddings_tensor != none and op.tensors[1] != none,
            else => return true,
        }
    }

    /// Whether a convolution's tensors are as large as its kernel takes them to be, and its units can be counted.
    fn holdsConvolution(view: View, op: *const Op) bool {
        if (op.kind != .conv) return true;
        const header = view.header;
        const shape: table.Convolution = .of(op.u);
        if (!shape.valid()) return false;
        const rows: u64 = if (op.flags & flag_logits_rows != 0) header.logits_rows_max else header.rows_max;
        if (rows * shape.units() > std.math.maxInt(i32)) return false;
        for (op.tensors[0..3]) |index| if (index == none) return false;
        const sizes = [_]u64{
            @as(u64, shape.out_size[0]) * shape.out_size[1] * shape.outputs,
            @as(u64, shape.size[0]) * shape.size[1] * shape.channels,
        };
        for (op.tensors[0..2], sizes) |index, size| {
            const tensor = view.tensors[index];
            if (tensor.region != .arena or tensor.format != @intFromEnum(table.Format.f32)) return false;
            if (tensor.columns != size or tensor.stride < size * @sizeOf(f32) or tensor.stride > tensor.bytes / rows) return false;
        }
        const weight = view.tensors[op.tensors[2]];
        if (weight.format != @intFromEnum(table.Format.f32)) return false;
        if (weight.rows != shape.outputs or weight.columns != shape.weightColumns()) return false;
        const padded_outputs = std.mem.alignForward(u64, shape.outputs, table.group_rows);
        if (weight.bytes / @sizeOf(f32) / weight.columns < padded_outputs) return false;
        return op.tensors[3] == none or view.tensors[op.tensors[3]].bytes >= padded_outputs * @sizeOf(f32);
    }

    fn check(view: View) error{Program}!void {
        const header = view.header;
        const in_bounds = header.rows_max >= 1 and header.rows_max <= step_rows_max and
            header.logits_rows_max >= 1 and header.logits_rows_max <= header.rows_max and
            header.batch_max >= 1 and header.batch_max <= sequences_max and
            header.batch_max <= header.logits_rows_max and header.whole_prompts <= 1 and
            header.context_max >= 1 and header.context_max <= 1 << 24 and
            header.vocabulary >= 1 and header.vocabulary <= 1 << 24 and
            header.chunk_positions >= 1 and header.kv_group_count <= kv_groups_max and
            header.op_count >= 1 and header.op_count < event_no_op and
            header.weights_bytes <= 1 << 44 and header.arena_bytes <= 1 << 44 and header.copies_bytes <= 1 << 44 and
            (header.logits_tensor < header.tensor_count or (header.logits_tensor == none and header.embeddings_tensor != none));
        if (!in_bounds) return error.Program;
        if (header.whole_prompts != 0 and (header.kv_layer_count > 0 or header.rows_max < @max(header.context_max, header.chunk_positions) or header.logits_tensor != none)) return error.Program;
        if (header.embeddings_tensor != none) {
            if (header.embeddings_tensor >= header.tensor_count) return error.Program;
            const tensor = view.tensors[header.embeddings_tensor];
            const bytes = slots_max * @as(u64, tensor.columns) * @sizeOf(f32);
            if (tensor.region != .arena or tensor.columns == 0 or tensor.stride < tensor.columns * @sizeOf(f32) or tensor.bytes < @max(bytes, slots_max * tensor.stride)) return error.Program;
        }
        for (view.tensors) |tensor| {
            const region_bytes = switch (@intFromEnum(tensor.region)) {
                0 => header.weights_bytes,
                1 => header.constants_bytes,
                2 => header.arena_bytes,
                3 => header.copies_bytes,
                else => return error.Program,
            };
            if (tensor.offset % 64 != 0 or tensor.offset > region_bytes or tensor.bytes > region_bytes - tensor.offset) return error.Program;
            if (tensor.scales_offset % 64 != 0 or tensor.scales_offset > region_bytes or tensor.scales_bytes > region_bytes - tensor.scales_offset) return error.Program;
            const rows = tensor.format == int8_rows or tensor.format == wide_rows;
            if (tensor.format > @intFromEnum(table.Format.iq4_xs) and !rows and tensor.format != screen_copy) return error.Program;
            if (tensor.source_format > @intFromEnum(table.Format.iq4_xs)) return error.Program;
        }
        for (view.ops) |op| {
            if (@intFromEnum(op.kind) > @intFromEnum(OpKind.conv)) return error.Program;
            for (op.tensors) |index| if (index != none and index >= header.tensor_count) return error.Program;
            const kv_layer: ?u32 = switch (op.kind) {
                .rope_store => op.u[5],
                .attention, .attention_merge => op.u[4],
                else => null,
            };
            if (kv_layer) |layer| {
                if (layer >= header.kv_layer_count) return error.Program;
                try view.checkKvLayer(view.kv_layers[layer], op.u[1], op.u[2]);
            }
            if (!view.holdsScreen(&op)) return error.Program;
            if (!view.holdsText(&op)) return error.Program;
            if (!view.holdsConvolution(&op)) return error.Program;
        }
        for (view.kv_groups) |group| if (group.page_count == 0 or group.page_count > 1 << 31 or group.page_bytes % 64 != 0 or group.page_bytes == 0) return error.Program;
    }

    /// The keys and values of a layer's heads lie within its group's pages.
    fn checkKvLayer(view: View, layer: KvLayer, kv_heads: u64, head_width: u32) error{Program}!void {
        if (layer.group >= view.kv_groups.len or kv_heads > 1 << 16 or head_width > 1 << 16) return error.Program;
        const page_bytes = view.kv_groups[layer.group].page_bytes;
        for ([_]u32{ layer.key_format, layer.value_format }, [_]u64{ layer.key_offset, layer.value_offset }) |format, offset| {
            const known: table.Format = switch (format) {
                @intFromEnum(table.Format.f16) => .f16,
                @intFromEnum(table.Format.q8_0) => if (head_width % table.kv_block == 0) .q8_0 else return error.Program,
                else => return error.Program,
            };
            const bytes = kv_heads * table.kvHeadBytes(known, head_width);
            if (offset % 64 != 0 or offset > page_bytes or bytes > page_bytes - offset) return error.Program;
        }
    }
};
