//! Products of packed weights with activations, and rows of packed weights as float32 (embedding). One implementation for
//! all formats, driven by format.zig's descriptors.
//!
//! The arithmetic of an output, whatever the number of tokens, the tile or the split. Quantized weights: for each sub-block
//! (16 or 32 columns, ascending), with exact integers, isum = Σ (code − offset) · q, then
//!   y = fma(float(isum), ws · xs, y)   and, with minimums,   y = fma(minimum, xs · float(Σ q), y)
//! where ws = d · sub-scale and minimum are rounded once (`combine`). Float weights: y = fma(w, x, y) over ascending columns.
//! Float16 and bfloat16 weights where the level multiplies 16-bit integers: for each block of 32 columns, ascending, with exact
//! integers, isum = Σ v · q, then y = fma(float(isum), unit · xs, y), where v = w / unit is rounded (`alignBlock`).
//! Then the bias, the previous y, the soft cap (`finish`).

const std = @import("std");
const assert = std.debug.assert;
const table = @import("table.zig");
const vec = @import("vec.zig");
const quant = @import("quant.zig");
const layout = @import("format.zig");
const activation = @import("activation.zig");
const norm = @import("norm.zig");
const prefetch_ = @import("prefetch.zig");

const Prefetch = prefetch_.Prefetch;
const Format = layout.Format;
const group_rows = layout.group_rows;
const block_columns = layout.block_columns;

/// One value for each row of a group.
const Rows = @Vector(group_rows, f32);
const Ints = vec.Lanes16;

/// Tokens of the tiles that decode codes in registers, largest first. The sums' registers are those of `many_tokens`.
const few_tiles = switch (vec.level) {
    .scalar => [_]u32{1},
    .x86_64_v2 => [_]u32{ 2, 1 },
    else => [_]u32{ 4, 2, 1 },
};

/// Up to this many tokens go one or a few at a time where codes need no decoding; of others, up to `Tuning.few_tokens`.
const byte_few_tokens = 4;

/// Tokens and groups of one tile over unpacked codes. Registers: a token takes 16 integer sums and, best, 16 float sums a group;
/// a quad of codes, a scale and a minimum a group and two temporaries come on top.
const many_tokens = switch (vec.level) {
    // 16 of 16 lanes a register: 2 · (4 + 4 + 3) + 2 = 24 of 32. An activation that is loaded into all lanes serves two groups:
    // with 8 tokens and one group, as many registers, loads and products share the machine's attention (Zen 5, one core, from the
    // first-level cache: 838 GOP/s instead of 757).
    .avx512, .avx512_vnni, .amx => 4,
    // Two registers a token: 8 integer sums, 2 of codes, 4 temporaries, 14 of 16; float sums wait on the stack.
    .avx2 => 4,
    // Four registers a token: 16 + 4 + 4 of 32; float sums wait on the stack.
    .neon, .neon_dotprod, .neon_i8mm => 4,
    // Four registers a token: 8 + 4 of 16.
    .x86_64_v2 => 2,
    .scalar => 1,
};
const many_groups = switch (vec.level) {
    .avx512, .avx512_vnni, .amx => 2,
    else => 1,
};

/// Columns of a tile's groups that are gone through for all tokens before the next ones are, at most: what scratch has room for.
const many_columns = 1280;

/// The weights of a product of few tokens with codes like these.
inline fn prefetchOf(comptime d: layout.Descriptor, tuning: *const table.Tuning) Prefetch {
    if (d.codeBits() == 8) return .of(tuning.byte_distance, tuning.byte_lines, tuning.line_bytes);
    return .of(tuning.packed_distance, tuning.packed_lines, tuning.line_bytes);
}

/// Weights that are asked for while those before them are multiplied with several tokens: without it, 16 tokens waited for memory
/// half of their time. Tiles take turns: with each of its blocks, a tile asks for as many bytes as a block has.
const Ahead = struct {
    next: [*]const u8,
    end: [*]const u8,
    line_bytes: u32,

    fn of(weight: [*]const u8, bytes: usize, tuning: *const table.Tuning) Ahead {
        const line_bytes = prefetch_.aheadLine(tuning);
        return .{ .next = weight, .end = weight + if (line_bytes == 0) 0 else bytes, .line_bytes = line_bytes };
    }

    /// Where the next tile of `columns` columns begins to ask; null: all is asked for. What is not in usual lines is at once.
    fn take(ahead: *Ahead, comptime lines: comptime_int, columns: u32) ?[*]const u8 {
        if (@intFromPtr(ahead.next) >= @intFromPtr(ahead.end)) return null;
        const bytes = columns / block_columns * lines * 64;
        defer ahead.next += bytes;
        if (ahead.line_bytes == prefetch_.usual_line) return ahead.next;
        prefetch_.askAll(ahead.next, bytes, ahead.line_bytes);
        return null;
    }

    inline fn ask(from: [*]const u8, comptime lines: comptime_int, index: usize) void {
        inline for (0..lines) |line| vec.prefetchFar(from + index * lines * 64, line * 64);
    }
};

/// `table.MatMul`. Units: groups of 16 rows.
pub fn matmul(args: *const table.MatMul, begin: u32, end: u32, scratch: [*]align(64) u8) callconv(.c) void {
    assert(end <= layout.groupCount(args.rows));
    assert(args.tokens > 0);
    switch (args.format) {
        inline else => |format| @call(.never_inline, kernel(format), .{ args, begin, end, scratch }),
    }
}

const Kernel = fn (*const table.MatMul, u32, u32, [*]align(64) u8) callconv(.c) void;

/// The product of one format, at the start of a cache line: where the linker put it elsewhere, float16 weights times 16 tokens
/// took up to twice as long (Zen 5). A function of its own, so that a profile or a disassembly can name it. What it consists of is
/// inline for the same reason, but for the unpacking and the tiles over unpacked codes, which formats of one shape share.
fn kernel(comptime format: Format) Kernel {
    return struct {
        fn run(args: *const table.MatMul, begin: u32, end: u32, scratch: [*]align(64) u8) align(64) callconv(.c) void {
            @setEvalBranchQuota(1_000_000); // Unrolled quads, tokens and quarters of vectors.
            if (comptime format.quantized()) {
                quantized(format, args, begin, end, scratch);
            } else if (comptime vec.has_words and format != .f32) {
                aligned(format, args, begin, end, scratch);
            } else {
                float(format, args, begin, end);
            }
        }
    }.run;
}

comptime {
    for (std.enums.values(Format)) |format| {
        @export(&kernel(format), .{ .name = "tinyai_matmul_" ++ @tagName(format) ++ "_" ++ vec.suffix, .visibility = .hidden });
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Quantized weights.

/// One sub-block's contribution. The only place where integer sums meet floats.
inline fn combine(y: Rows, isum: Ints, weight_scale: Rows, x_scale: f32) Rows {
    return vec.mulAdd(@as(Rows, @floatFromInt(isum)), weight_scale * @as(Rows, @splat(x_scale)), y);
}

inline fn combineMinimum(y: Rows, minimum: Rows, x_scale: f32, x_sum: i32) Rows {
    return vec.mulAdd(minimum, @as(Rows, @splat(x_scale * @as(f32, @floatFromInt(x_sum)))), y);
}

/// The part of a descriptor that the inner loop depends on; formats with equal shapes share the loop over unpacked codes.
const Shape = struct {
    sub_columns: comptime_int,
    minimum: bool,
    /// Codes above 127.
    full: bool,
    /// What integer sums are corrected by: the offset, less what `vec.dot` itself subtracts.
    offset: comptime_int,
    /// Quads that `vec.dotPairs` may sum up in 16 bits, where the level has it; 1: not worth it.
    pair_quads: comptime_int,
    /// Cache lines of a packed block.
    lines: comptime_int,

    fn of(comptime d: layout.Descriptor) Shape {
        const full = d.weightMax() > 127;
        return .{
            .sub_columns = d.sub_columns,
            .minimum = d.minimum != .none,
            .full = full,
            .offset = d.offset - if (full and vec.dot_subtracts_128) 128 else 0,
            .pair_quads = pairQuads(d.weightMax()),
            .lines = d.blockBytes() / 64,
        };
    }

    /// A pair's sum is at most 2 · code · 127: of 4-bit codes, eight of them fit 16 bits (30,480), of 5 bits four (31,496).
    fn pairQuads(comptime code_max: comptime_int) comptime_int {
        if (!vec.has_pairs) return 1;
        var fitting = 8;
        while (fitting > 1 and fitting * 2 * code_max * 127 > std.math.maxInt(i16)) fitting /= 2;
        return fitting;
    }

    inline fn dot(comptime shape: Shape, sum: Ints, codes: vec.Bytes, x: i32) Ints {
        return vec.dot(sum, codes, x, if (shape.full) 255 else 127);
    }
};

/// The integer sum that a sub-block starts from: minus offset times the activations' sum.
inline fn startSum(comptime shape: Shape, x_sum: i32) Ints {
    return @splat(if (shape.offset == 0) 0 else -shape.offset * x_sum);
}

/// The sum of a sub-block's activations; `sub` counts sub-blocks of the row.
inline fn activationSum(comptime shape: Shape, x: quant.Row, sub: usize) i32 {
    if (shape.sub_columns == 16) return vec.load(i32, x.sums + sub * 4);
    return vec.load(i32, x.sums + sub * 8) + vec.load(i32, x.sums + sub * 8 + 4);
}

/// The codes of a packed block, quad by quad in ascending order. A vector of the first plane is read with its first quad, those of the
/// others, which lie behind, before all: with one order of reading for both, one token of Q6_K took a tenth longer (Zen 5).
fn Packed(comptime d: layout.Descriptor) type {
    return struct {
        block: [*]const u8,
        planes: [d.planes.len][layout.quads]vec.Bytes = undefined,

        inline fn quad(codes: *@This(), comptime index: comptime_int) vec.Bytes {
            var result: vec.Bytes = undefined;
            comptime var shift = 0;
            comptime var place = 0;
            inline for (d.planes, &codes.planes) |bits, *vectors| {
                const per_vector = 8 / bits;
                if (shift == 0) {
                    if (index % per_vector == 0) vectors[index / per_vector] = vec.load(vec.Bytes, codes.block + place + index / per_vector * layout.quad_bytes);
                } else if (index == 0) {
                    inline for (0..layout.quads / per_vector) |v| vectors[v] = vec.load(vec.Bytes, codes.block + place + v * layout.quad_bytes);
                }
                const bytes = vectors[index / per_vector];
                const field = if (bits == 8) bytes else vec.bitField(bytes, index % per_vector * bits, shift, ((1 << bits) - 1) << shift);
                result = if (shift == 0) field else result | field;
                shift += bits;
                place += layout.quads / per_vector * layout.quad_bytes;
            }
            return if (d.lookup) |values| vec.lookup(values, result) else result;
        }
    };
}

/// The same of a block that is unpacked.
const UnpackedCodes = struct {
    block: [*]const u8,

    inline fn quad(codes: *UnpackedCodes, comptime index: comptime_int) vec.Bytes {
        return vec.load(vec.Bytes, codes.block + index * layout.quad_bytes);
    }
};

const SubScales = struct { scale: Rows, minimum: Rows };

/// A super-block's float16 scales as float32.
const Head = struct {
    d: Rows,
    m: Rows,

    inline fn load(comptime d: layout.Descriptor, super: [*]const u8) Head {
        return .{
            .d = vec.loadF16(group_rows, super),
            .m = if (d.minimum == .none) undefined else vec.loadF16(group_rows, super + group_rows * 2),
        };
    }

    /// The scales and minimums of the sub-block `sub` of the super-block at `super`.
    inline fn sub(head: Head, comptime d: layout.Descriptor, super: [*]const u8, index: usize) SubScales {
        const place = super + d.headBytes() + index * d.subBytes();
        const Words = @Vector(group_rows, i32);
        switch (d.sub_scale) {
            .none => return .{ .scale = head.d, .minimum = head.m },
            .scale => return .{ .scale = head.d * @as(Rows, @floatFromInt(@as(Words, vec.load(@Vector(group_rows, i8), place)))), .minimum = undefined },
            .scale_minimum => {
                const scale: Words = vec.load(@Vector(group_rows, u8), place);
                const minimum: Words = vec.load(@Vector(group_rows, u8), place + group_rows);
                return .{ .scale = head.d * @as(Rows, @floatFromInt(scale)), .minimum = -(head.m * @as(Rows, @floatFromInt(minimum))) };
            },
            .nibbles => {
                const both: Words = vec.load(@Vector(group_rows, u8), place);
                const scale = both & @as(Words, @splat(15));
                const minimum = both >> @splat(4);
                return .{ .scale = head.d * @as(Rows, @floatFromInt(scale)), .minimum = -(head.m * @as(Rows, @floatFromInt(minimum))) };
            },
        }
    }
};

inline fn quantized(comptime format: Format, args: *const table.MatMul, begin: u32, end: u32, scratch: [*]align(64) u8) void {
    const d = comptime layout.descriptor(format);
    const with_tiles = vec.has_tiles and args.tokens >= vec.tile_tokens;
    const few_tokens = if (d.codeBits() == 8) byte_few_tokens else args.tuning.few_tokens;
    if (args.tokens > few_tokens and !with_tiles) {
        var group = begin;
        inline for (if (many_groups == 1) .{1} else .{ many_groups, 1 }) |count| {
            while (end - group >= count) : (group += count) manyGroups(format, count, args, group, scratch);
        }
        return;
    }
    const group_bytes = layout.groupBytes(format, args.columns);
    const scale_bytes = layout.groupScaleBytes(format, args.columns);
    for (begin..end) |group| {
        const weight = args.weight + group * group_bytes;
        const scales = args.scales + group * scale_bytes;
        var ahead: Ahead = .of(weight + group_bytes, group_bytes, args.tuning);
        var token: u32 = 0;
        if (with_tiles) token = tiles(.of(d), args, group, unpackGroup(d, true, args.columns, weight, scales, scratch), &ahead);
        inline for (few_tiles) |count| {
            while (args.tokens - token >= count) : (token += count) {
                var y: [count]Rows = undefined;
                packedTile(d, count, args.columns, weight, scales, activations(count, args, token, count), prefetchOf(d, args.tuning), &y);
                finish(count, args, group, token, count, &y);
            }
        }
    }
}

/// `groups` groups times all tokens: part by part of the columns, so that codes are decoded into the first-level cache and found
/// there by every tile of tokens. Sums wait in `scratch` from part to part.
inline fn manyGroups(comptime format: Format, comptime groups: u32, args: *const table.MatMul, group: usize, scratch: [*]align(64) u8) void {
    const d = comptime layout.descriptor(format);
    const group_bytes = layout.groupBytes(format, args.columns);
    const scale_bytes = layout.groupScaleBytes(format, args.columns);
    const parts = std.math.divCeil(u32, args.columns, std.math.clamp(args.tuning.block_bytes / group_rows, d.super_columns, many_columns)) catch unreachable;
    const part_columns = std.mem.alignForward(u32, std.math.divCeil(u32, args.columns, parts) catch unreachable, d.super_columns);
    const part_scratch = unpackedBytes(part_columns);
    var ahead: Ahead = .of(args.weight + (group + groups) * group_bytes, groups * group_bytes, args.tuning);
    var first: u32 = 0;
    while (first < args.columns) : (first += part_columns) {
        const count = @min(part_columns, args.columns - first);
        const weight = args.weight + group * group_bytes + first / block_columns * d.blockBytes();
        const scales = args.scales + group * scale_bytes + first / d.super_columns * d.superBytes();
        var unpacked: [groups]Unpacked = undefined;
        inline for (0..groups) |index| {
            unpacked[index] = unpackGroup(d, false, count, weight + index * group_bytes, scales + index * scale_bytes, @alignCast(scratch + index * part_scratch));
        }
        // Scales are few.
        if (ahead.line_bytes > 0) {
            for (groups..2 * groups) |index| prefetch_.askAll(scales + index * scale_bytes, count / d.super_columns * d.superBytes(), ahead.line_bytes);
        }
        const sums: [*]f32 = @ptrCast(@alignCast(scratch + groups * part_scratch));
        manyTokens(.of(d), groups, args, group, .{ .first = first, .count = count }, &unpacked, &ahead, sums);
    }
}

const Columns = struct { first: u32, count: u32 };

comptime {
    // The largest part is one that a super-block of 256 columns has lengthened.
    assert(many_groups * unpackedBytes(many_columns + 255) + table.matmul_tokens_max * many_groups * @sizeOf(Rows) <= table.scratchBytes(0, 0, 0));
}

/// The activation rows of `count` tokens from `first`; places past the last token repeat it.
inline fn activations(comptime count: u32, args: *const table.MatMul, first: u32, valid: u32) [count]quant.Row {
    var rows: [count]quant.Row = undefined;
    inline for (0..count) |index| {
        const token = first + @min(index, valid - 1);
        rows[index] = .of(args.x + token * args.x_stride, args.columns);
    }
    return rows;
}

/// A group times `count` tokens, codes decoded in registers.
inline fn packedTile(comptime d: layout.Descriptor, comptime count: u32, columns: u32, weight: [*]const u8, scales: [*]const u8, x: [count]quant.Row, prefetch: Prefetch, y: *[count]Rows) void {
    const shape: Shape = comptime .of(d);
    const subs_per_block = block_columns / shape.sub_columns;
    const blocks_per_super = d.super_columns / block_columns;
    var sums: [1][count]Rows = @splat(@splat(@splat(0)));
    for (0..columns / d.super_columns) |super| {
        const super_scales = scales + super * d.superBytes();
        const head: Head = .load(d, super_scales);
        for (0..blocks_per_super) |block_in_super| {
            const index = super * blocks_per_super + block_in_super;
            const block = weight + index * d.blockBytes();
            prefetch.ask(block, shape.lines);
            var codes: [1]Packed(d) = .{.{ .block = block }};
            const x_scales = activationScales(count, x, index);
            inline for (0..subs_per_block) |sub| {
                const factors = head.sub(d, super_scales, block_in_super * subs_per_block + sub);
                subBlock(shape, count, 1, index, sub, &codes, .{factors}, x, x_scales, &sums);
            }
        }
    }
    y.* = sums[0];
}

/// The activations' scales of block `index`.
inline fn activationScales(comptime count: u32, x: [count]quant.Row, index: usize) [count]f32 {
    var scales: [count]f32 = undefined;
    inline for (0..count) |token| scales[token] = vec.load(f32, x[token].scales + index * 4);
    return scales;
}

/// Adds sub-block `sub` of block `index` to the sums of `count` tokens and `groups` groups. `codes` are the groups' blocks,
/// `Packed` or `UnpackedCodes`.
inline fn subBlock(
    comptime shape: Shape,
    comptime count: u32,
    comptime groups: u32,
    index: usize,
    comptime sub: comptime_int,
    codes: anytype,
    factors: [groups]SubScales,
    x: [count]quant.Row,
    x_scales: [count]f32,
    sums: *[groups][count]Rows,
) void {
    const sub_index = index * (block_columns / shape.sub_columns) + sub;
    const quads = shape.sub_columns / 4;
    var x_sums: [count]i32 = undefined;
    var isums: [groups][count]Ints = undefined;
    inline for (0..count) |token| {
        x_sums[token] = if (shape.minimum or shape.offset != 0) activationSum(shape, x[token], sub_index) else 0;
        inline for (0..groups) |group| isums[group][token] = startSum(shape, x_sums[token]);
    }
    const pair_quads = @min(quads, shape.pair_quads);
    inline for (0..quads / pair_quads) |part| {
        var pairs: [groups][count]vec.Pairs = @splat(@splat(@splat(0)));
        inline for (0..pair_quads) |quad_in_part| {
            const quad = sub * quads + part * pair_quads + quad_in_part;
            var bytes: [groups]vec.Bytes = undefined;
            inline for (0..groups) |group| bytes[group] = codes[group].quad(quad);
            inline for (0..count) |token| {
                const four = vec.load(i32, x[token].quants + index * block_columns + quad * 4);
                inline for (0..groups) |group| {
                    if (pair_quads > 1) {
                        pairs[group][token] = vec.dotPairs(pairs[group][token], bytes[group], four);
                    } else isums[group][token] = shape.dot(isums[group][token], bytes[group], four);
                }
            }
        }
        if (pair_quads > 1) {
            inline for (0..groups) |group| {
                inline for (0..count) |token| isums[group][token] = vec.addPairs(isums[group][token], pairs[group][token]);
            }
        }
    }
    inline for (0..count) |token| {
        const x_scale = x_scales[token];
        inline for (0..groups) |group| {
            const sum = &sums[group][token];
            sum.* = combine(sum.*, isums[group][token], factors[group].scale, x_scale);
            if (shape.minimum) sum.* = combineMinimum(sum.*, factors[group].minimum, x_scale, x_sums[token]);
        }
    }
}

/// A group with a byte a code and float32 scales: what many tokens share.
const Unpacked = struct {
    /// [block][quad][64].
    codes: [*]const u8,
    /// [sub-block][16 rows] scales, each followed by 16 minimums where the format has them.
    factors: [*]const f32,
};

/// Scratch of `unpackGroup`: a byte a code, and two float32 a row and 16 columns.
fn unpackedBytes(columns: u32) u32 {
    return columns * group_rows + columns / 16 * group_rows * 2 * @sizeOf(f32);
}

/// Decodes `columns` columns of a group into `scratch`: codes as they are, or `signed`, their offset subtracted, as tiles take them.
fn unpackGroup(comptime d: layout.Descriptor, comptime signed: bool, columns: u32, weight: [*]const u8, scales: [*]const u8, scratch: [*]align(64) u8) Unpacked {
    @setEvalBranchQuota(1_000_000); // Unrolled quads, tokens and quarters of vectors.
    // Codes that need no decoding are used where they are.
    const plain = d.planes.len == 1 and d.planes[0] == 8 and d.lookup == null and !signed;
    const stride = group_rows * (if (d.minimum == .none) 1 else 2);
    const factors: [*]f32 = @ptrCast(@alignCast(scratch + if (plain) 0 else group_rows * @as(usize, columns)));
    for (0..columns / d.super_columns) |super| {
        const super_scales = scales + super * d.superBytes();
        const head: Head = .load(d, super_scales);
        for (0..d.subBlocks()) |sub| {
            const values = head.sub(d, super_scales, sub);
            const place = factors + (super * d.subBlocks() + sub) * stride;
            vec.store(place, values.scale);
            if (d.minimum != .none) vec.store(place + group_rows, values.minimum);
        }
    }
    if (!plain) {
        for (0..columns / block_columns) |block| {
            var codes: Packed(d) = .{ .block = weight + block * d.blockBytes() };
            inline for (0..layout.quads) |quad| {
                const offset: vec.Bytes = @splat(if (signed) d.offset else 0);
                vec.store(scratch + (block * layout.quads + quad) * layout.quad_bytes, codes.quad(quad) -% offset);
            }
        }
    }
    return .{ .codes = if (plain) weight else scratch, .factors = factors };
}

/// A part of `groups` groups times all tokens.
fn manyTokens(comptime shape: Shape, comptime groups: u32, args: *const table.MatMul, group: usize, columns: Columns, unpacked: *const [groups]Unpacked, ahead: *Ahead, sums: [*]f32) void {
    @setEvalBranchQuota(1_000_000); // Unrolled quads, tokens and quarters of vectors.
    assert(args.tokens <= table.matmul_tokens_max);
    const last = columns.first + columns.count == args.columns;
    var token: u32 = 0;
    while (token < args.tokens) : (token += many_tokens) {
        const valid = @min(args.tokens - token, many_tokens);
        const kept = sums + token * groups * group_rows;
        var y: [groups][many_tokens]Rows = @splat(@splat(@splat(0)));
        if (columns.first > 0) y = vec.load(@TypeOf(y), kept);
        var x = activations(many_tokens, args, token, valid);
        inline for (&x) |*row| row.* = row.from(columns.first);
        if (ahead.take(shape.lines, columns.count)) |from| {
            unpackedTile(shape, many_tokens, groups, columns.count, unpacked, x, true, from, &y);
        } else unpackedTile(shape, many_tokens, groups, columns.count, unpacked, x, false, undefined, &y);
        if (last) {
            inline for (0..groups) |index| finish(many_tokens, args, group + index, token, valid, &y[index]);
        } else vec.store(kept, y);
    }
}

/// A group of signed codes times as many whole tiles of tokens as there are; the number of tokens done. Inline, so that
/// the tile instructions stand in the function that bears the format's name.
inline fn tiles(comptime shape: Shape, args: *const table.MatMul, group: usize, unpacked: Unpacked, ahead: *Ahead) u32 {
    var token: u32 = 0;
    while (args.tokens - token >= vec.tile_tokens) : (token += vec.tile_tokens) {
        var y: [vec.tile_tokens]Rows = undefined;
        const x = args.x + token * args.x_stride;
        if (ahead.take(shape.lines, args.columns)) |from| {
            tokenTile(shape, args.columns, unpacked, x, args.x_stride, true, from, &y);
        } else tokenTile(shape, args.columns, unpacked, x, args.x_stride, false, undefined, &y);
        finish(vec.tile_tokens, args, group, token, vec.tile_tokens, &y);
    }
    return token;
}

/// A group of signed codes times 16 tokens. The 16 sums stay in registers: 16 + a scale, a minimum and temporaries of 32.
inline fn tokenTile(comptime shape: Shape, columns: u32, unpacked: Unpacked, x: [*]const u8, stride: u64, comptime asks: bool, ahead: [*]const u8, y: *[vec.tile_tokens]Rows) void {
    const subs_per_block = block_columns / shape.sub_columns;
    const factor_stride = group_rows * (if (shape.minimum) 2 else 1);
    const parts: quant.Row = .of(x, columns);
    var sums: [vec.tile_tokens]Rows = @splat(@splat(0));
    var isums: [2]vec.TileSums align(64) = undefined;
    for (0..columns / block_columns) |index| {
        if (asks) Ahead.ask(ahead, shape.lines, index);
        inline for (0..subs_per_block) |sub| {
            const sub_index = index * subs_per_block + sub;
            const column = sub_index * shape.sub_columns;
            const parity = if (subs_per_block == 2) sub else 0;
            vec.tileProduct(shape.sub_columns, parity, &isums[parity], parts.quants + column, stride, unpacked.codes + column * group_rows);
            const place = unpacked.factors + sub_index * factor_stride;
            const scale = vec.load(Rows, place);
            inline for (0..vec.tile_tokens) |token| {
                const x_scale = vec.load(f32, parts.scales + token * stride + index * 4);
                sums[token] = combine(sums[token], isums[parity][token], scale, x_scale);
                if (shape.minimum) {
                    const row: quant.Row = .of(x + token * stride, columns);
                    sums[token] = combineMinimum(sums[token], vec.load(Rows, place + group_rows), x_scale, activationSum(shape, row, sub_index));
                }
            }
        }
    }
    y.* = sums;
}

/// Adds `columns` columns of `groups` groups of unpacked codes times `count` tokens to `y`.
inline fn unpackedTile(comptime shape: Shape, comptime count: u32, comptime groups: u32, columns: u32, unpacked: *const [groups]Unpacked, x: [count]quant.Row, comptime asks: bool, ahead: [*]const u8, y: *[groups][count]Rows) void {
    const subs_per_block = block_columns / shape.sub_columns;
    const stride = group_rows * (if (shape.minimum) 2 else 1);
    var sums = y.*;
    for (0..columns / block_columns) |index| {
        if (asks) Ahead.ask(ahead, shape.lines, index);
        var codes: [groups]UnpackedCodes = undefined;
        inline for (0..groups) |group| codes[group] = .{ .block = unpacked[group].codes + index * layout.quads * layout.quad_bytes };
        const x_scales = activationScales(count, x, index);
        inline for (0..subs_per_block) |sub| {
            var factors: [groups]SubScales = undefined;
            inline for (0..groups) |group| {
                const place = unpacked[group].factors + (index * subs_per_block + sub) * stride;
                factors[group] = .{
                    .scale = vec.load(Rows, place),
                    .minimum = if (shape.minimum) vec.load(Rows, place + group_rows) else undefined,
                };
            }
            subBlock(shape, count, groups, index, sub, &codes, factors, x, x_scales, &sums);
        }
    }
    y.* = sums;
}

/// Bias, accumulation and soft cap of one tile of outputs, and their stores; the first `valid` tokens count.
fn finish(comptime count: u32, args: *const table.MatMul, group: usize, first: u32, valid: u32, y: *const [count]Rows) void {
    const row = group * group_rows;
    const bias: ?Rows = if (args.bias) |bias| biasOf(bias + row, args.rows - row) else null;
    inline for (0..count) |index| {
        if (index < valid) {
            const place = args.y + (first + index) * args.y_stride + row;
            var value = vec.read(&y[index]);
            if (bias) |values| value += values;
            if (args.accumulate != 0) value += vec.load(Rows, place);
            if (args.soft_cap > 0) value = softCap(value, args.soft_cap);
            vec.store(place, value);
        }
    }
}

/// The bias of a group, of which `rows` rows or all are there. Out of line: few weights have one, and products are small without.
noinline fn biasOf(bias: [*]const f32, rows: usize) Rows {
    return vec.loadPartial(Rows, bias, @min(group_rows, rows));
}

fn softCap(value: Rows, cap: f32) Rows {
    var elements: [group_rows]f32 = value;
    var index: usize = 0;
    while (index < group_rows) : (index += vec.lanes) {
        const part = vec.load(vec.F, elements[index..].ptr);
        const caps: vec.F = @splat(cap);
        vec.store(elements[index..].ptr, caps * activation.tanh(part / caps));
    }
    return elements;
}

// ---------------------------------------------------------------------------------------------------------------------
// Float weights.

inline fn float(comptime format: Format, args: *const table.MatMul, begin: u32, end: u32) void {
    // Tokens × row groups of a tile, for enough independent sums to hide the latency of one (about 4 cycles at two a
    // cycle). With several tokens, one group at a time: sums, weights and an activation take 8 + 1 + 1 registers of 32
    // (AVX-512), 8 + 2 + 1 of 16 (AVX2), 16 + 4 + 1 of 32 (NEON), 8 + 4 + 1 of 16 (128-bit x86).
    const tokens_max = switch (vec.level) {
        .avx512, .avx512_vnni, .amx => 8,
        .avx2, .neon, .neon_dotprod, .neon_i8mm => 4,
        .x86_64_v2, .scalar => 2,
    };
    const groups_max = switch (vec.lanes) {
        16 => 4,
        8 => 2,
        else => 1,
    };
    var group: usize = begin;
    while (group < end) {
        const groups_left = end - group;
        if (groups_left >= groups_max) {
            floatGroups(format, tokens_max, groups_max, args, group);
            group += groups_max;
        } else {
            floatGroups(format, tokens_max, 1, args, group);
            group += 1;
        }
    }
}

inline fn floatGroups(comptime format: Format, comptime tokens_max: u32, comptime groups: u32, args: *const table.MatMul, group: usize) void {
    const group_bytes = layout.groupBytes(format, args.columns);
    const prefetch: Prefetch = .of(args.tuning.float_distance, args.tuning.float_lines, args.tuning.line_bytes);
    var token: u32 = 0;
    inline for (.{ tokens_max, 1 }) |count| {
        // A tile of many tokens and groups would not fit the registers: one group at a time there.
        const width = if (count == 1) groups else 1;
        while (args.tokens - token >= count) : (token += count) {
            var x: [count][*]const u8 = undefined;
            inline for (0..count) |index| x[index] = args.x + (token + index) * args.x_stride;
            inline for (0..groups / width) |part| {
                var y: [width][count]Rows = @splat(@splat(@splat(0)));
                floatTile(format, count, width, args.columns, args.weight + (group + part) * group_bytes, group_bytes, x, prefetch, &y);
                inline for (0..width) |index| finish(count, args, group + part + index, token, count, &y[index]);
            }
        }
    }
}

/// One column of a group: 16 weights as float32. bfloat16 stores columns in pairs.
inline fn floatColumn(comptime format: Format, weight: [*]const u8, column: usize) Rows {
    return switch (format) {
        .f32 => vec.load(Rows, weight + column * group_rows * 4),
        .f16 => vec.loadF16(group_rows, weight + column * group_rows * 2),
        else => unreachable,
    };
}

inline fn floatTile(comptime format: Format, comptime count: u32, comptime groups: u32, columns: u32, weight: [*]const u8, group_bytes: usize, x: [count][*]const u8, prefetch: Prefetch, y: *[groups][count]Rows) void {
    var sums = y.*;
    if (format == .bf16) {
        for (0..columns / 2) |pair| {
            const first = floatColumnInputs(count, x, pair * 2);
            const second = floatColumnInputs(count, x, pair * 2 + 1);
            inline for (0..groups) |group| {
                if (count == 1) prefetch.ask(weight + group * group_bytes + pair * group_rows * 4, 1);
                const both = vec.load(@Vector(group_rows, u32), weight + group * group_bytes + pair * group_rows * 4);
                floatColumnStep(count, @bitCast(both << @splat(16)), first, &sums[group]);
                floatColumnStep(count, @bitCast(both & @as(@Vector(group_rows, u32), @splat(0xffff0000))), second, &sums[group]);
            }
        }
        if (columns % 2 != 0) {
            const last = floatColumnInputs(count, x, columns - 1);
            inline for (0..groups) |group| {
                const both = vec.load(@Vector(group_rows, u32), weight + group * group_bytes + columns / 2 * group_rows * 4);
                floatColumnStep(count, @bitCast(both << @splat(16)), last, &sums[group]);
            }
        }
    } else {
        const column_bytes = group_rows * @as(usize, if (format == .f32) 4 else 2);
        for (0..columns) |column| {
            // A line holds two columns of float16.
            if (count == 1 and (format == .f32 or column % 2 == 0)) {
                inline for (0..groups) |group| prefetch.ask(weight + group * group_bytes + column * column_bytes, 1);
            }
            const inputs = floatColumnInputs(count, x, column);
            inline for (0..groups) |group| floatColumnStep(count, floatColumn(format, weight + group * group_bytes, column), inputs, &sums[group]);
        }
    }
    y.* = sums;
}

/// A column of the activations.
inline fn floatColumnInputs(comptime count: u32, x: [count][*]const u8, column: usize) [count]f32 {
    var inputs: [count]f32 = undefined;
    inline for (0..count) |token| inputs[token] = vec.load(f32, x[token] + column * 4);
    return inputs;
}

inline fn floatColumnStep(comptime count: u32, w: Rows, inputs: [count]f32, sums: *[count]Rows) void {
    inline for (0..count) |token| sums[token] = vec.mulAdd(w, @as(Rows, @splat(inputs[token])), sums[token]);
}

// ---------------------------------------------------------------------------------------------------------------------
// Float16 and bfloat16 weights in blocks of aligned integers: a product of 16-bit integers takes half the time of one of
// float32. Of a block's 32 weights in a row, those above a quarter of the largest keep all bits that float16 has, those above
// a 64th all that bfloat16 has; what others lose is at most 2^-13 of the largest. With the activations' 13 bits that is less
// than rounding activations to float16 loses (test/conformance holds it against llama.cpp, which does that).

/// Pairs of columns of a block, 64 bytes each.
const block_pairs = block_columns / 2;

/// Bytes of a block's weights in a group, of either format.
const float_block_bytes = block_columns * group_rows * 2;

/// A block of a group: integers, in pairs of columns, and what they are multiples of, by row.
const Aligned = extern struct {
    values: [block_pairs]vec.WordPairs align(64),
    unit: Rows,
};

/// Tokens of the tiles over blocks that are aligned for it alone, smallest first; more tokens share them. 16 tokens
/// take 16 registers of integer sums; the float sums wait on the stack.
const alone_tiles = [_]u32{ 1, 2, 4, 8, 16 };

/// Bytes of such a tile's activations, at most: every group goes through them, and they must still be in the first-level cache. With
/// 64 KB, 16 tokens of 2,048 columns took 2.6 times as long as blocks that are shared.
const alone_bytes = 32 * 1024;

/// Tokens and row groups of a tile of more tokens: 16 integer sums, 2 weights and an activation of 32 registers, and 10
/// loads for 16 products where one group would take 9 for 8.
const aligned_tokens = 8;
const aligned_groups = 2;
/// Tokens of the last tile where no more are left.
const aligned_tokens_rest = 4;

/// Blocks that many tokens are multiplied with before the next ones, at most: `table.Tuning.block_bytes` says how many. With 10 KiB,
/// those of two groups take 22 KB of the first-level cache, a tile's activations 5 KB.
const stretch_blocks_max = table.Tuning.block_bytes_max / float_block_bytes;

/// Tokens whose sums wait meanwhile.
const panel_tokens = 256;

/// What a thread works on: the blocks of a stretch, and the sums, by tile.
const Panel = extern struct {
    blocks: [aligned_groups][stretch_blocks_max]Aligned,
    sums: [panel_tokens / aligned_tokens][aligned_groups][aligned_tokens]Rows,
};

comptime {
    assert(@sizeOf(Panel) <= table.scratchBytes(0, 0, 0));
}

/// Where the exponent lies in a weight's pattern, and what it means.
const Pattern = struct {
    /// Bits below the exponent.
    fraction_bits: comptime_int,
    /// The exponent of infinities and NaNs.
    not_finite: comptime_int,
    /// Weights with the exponent e are below 2^(e − bias).
    bias: comptime_int,
    /// Blocks of smaller weights, below 2^-87, are aligned as if they had this exponent: their units, times the activations'
    /// scales, would be denormal.
    exponent_min: comptime_int,

    fn of(comptime format: Format) Pattern {
        return switch (format) {
            .f16 => .{ .fraction_bits = 10, .not_finite = 31, .bias = 14, .exponent_min = 0 },
            .bf16 => .{ .fraction_bits = 7, .not_finite = 255, .bias = 126, .exponent_min = 39 },
            else => comptime unreachable,
        };
    }
};

/// Aligns the first `columns` (1 to 32) columns of the block at `weight`; the others become zeros. The unit is the largest
/// weight's power of two, times 2^-13: a block with an infinity or a NaN has a NaN for it.
inline fn alignBlock(comptime format: Format, weight: [*]const u8, columns: usize, out: *Aligned) void {
    if (columns < block_columns) {
        const whole align(64) = padded(weight, std.mem.alignForward(usize, columns, if (format == .bf16) 2 else 1) * group_rows * 2);
        alignWholeBlock(format, &whole, out);
    } else alignWholeBlock(format, weight, out);
}

/// A block of which the first `bytes` are there. Out of line: only a row's last block is cut short.
noinline fn padded(weight: [*]const u8, bytes: usize) [float_block_bytes]u8 {
    var whole: [float_block_bytes]u8 = @splat(0);
    vec.copy(u8, whole[0..bytes], weight);
    return whole;
}

inline fn alignWholeBlock(comptime format: Format, weight: [*]const u8, out: *Aligned) void {
    @setEvalBranchQuota(10_000); // Unrolled pairs.
    const Bits = @Vector(group_rows, u32);
    const Patterns = @Vector(2 * group_rows, u16);
    const pattern: Pattern = comptime .of(format);
    var largest: Patterns = @splat(0);
    inline for (0..block_pairs) |pair| {
        largest = @max(largest, vec.load(Patterns, weight + pair * 64) & @as(Patterns, @splat(0x7fff)));
    }
    const by_row: Bits = if (format == .bf16) rows: {
        const both: Bits = @bitCast(largest);
        break :rows @max(both & @as(Bits, @splat(0xffff)), both >> @splat(16));
    } else @max(vec.lowHalf(largest), vec.highHalf(largest));
    const exponent = by_row >> @splat(pattern.fraction_bits);
    const used = @max(exponent, @as(Bits, @splat(pattern.exponent_min)));
    // 2^(used − bias − 13) and its inverse, by their exponents.
    const power = used + @as(Bits, @splat(127)) - @as(Bits, @splat(pattern.bias + 13));
    const unit: Rows = @bitCast(power << @splat(23));
    const inverse: Rows = @bitCast((@as(Bits, @splat(254)) - power) << @splat(23));
    vec.write(&out.unit, @select(f32, exponent == @as(Bits, @splat(pattern.not_finite)), @as(Rows, @splat(std.math.nan(f32))), unit));
    inline for (0..block_pairs) |pair| {
        const place = weight + pair * 64;
        const both = vec.load(Bits, place);
        const first: Rows = if (format == .bf16) @bitCast(both << @splat(16)) else vec.loadF16(group_rows, place);
        const second: Rows = if (format == .bf16) @bitCast(both & @as(Bits, @splat(0xffff0000))) else vec.loadF16(group_rows, place + 32);
        // As in `vec.roundToInt`; the low 16 bits are the integer.
        const magic: Rows = @splat(12582912.0);
        const low: Ints = @bitCast(vec.mulAdd(first, inverse, magic));
        const high: Ints = @bitCast(vec.mulAdd(second, inverse, magic));
        vec.write(&out.values[pair], vec.pairWords(low, high));
    }
}

inline fn aligned(comptime format: Format, args: *const table.MatMul, begin: u32, end: u32, scratch: [*]align(64) u8) void {
    inline for (alone_tiles) |count| {
        if (args.tokens <= count and (count == 1 or args.tokens * args.columns * 2 <= alone_bytes)) {
            for (begin..end) |group| alignedAlone(format, count, args, group);
            return;
        }
    }
    const panel: *Panel = @ptrCast(@alignCast(scratch));
    var group: usize = begin;
    while (group < end) {
        const groups = @min(end - group, aligned_groups);
        var first: u32 = 0;
        while (first < args.tokens) : (first += panel_tokens) {
            const count = @min(args.tokens - first, panel_tokens);
            if (groups == aligned_groups) alignedPanel(format, aligned_groups, args, group, first, count, panel) else alignedPanel(format, 1, args, group, first, count, panel);
        }
        group += groups;
    }
}

/// A group times all tokens, at most `count`, each block aligned in passing.
inline fn alignedAlone(comptime format: Format, comptime count: u32, args: *const table.MatMul, group: usize) void {
    const weight = args.weight + group * layout.groupBytes(format, args.columns);
    const x = wideRows(count, args, 0, args.tokens);
    // Aligned first, as narrow codes are decoded first.
    const prefetch: Prefetch = .of(args.tuning.packed_distance, args.tuning.packed_lines, args.tuning.line_bytes);
    var sums: [1][count]Rows = .{@splat(@splat(0))};
    var column: usize = 0;
    while (column < args.columns) : (column += block_columns) {
        const place = weight + column * group_rows * 2;
        prefetch.ask(place, float_block_bytes / 64);
        var block: Aligned = undefined;
        alignBlock(format, place, @min(args.columns - column, block_columns), &block);
        alignedBlock(count, 1, .{&block}, x, column / block_columns, &sums);
    }
    finish(count, args, group, 0, args.tokens, &sums[0]);
}

/// `groups` groups times `count` tokens from `first`, a stretch of columns after the other.
inline fn alignedPanel(comptime format: Format, comptime groups: u32, args: *const table.MatMul, group: usize, first: u32, count: u32, panel: *Panel) void {
    const block_count = std.math.divCeil(usize, args.columns, block_columns) catch unreachable;
    const group_bytes = layout.groupBytes(format, args.columns);
    const tile_count = std.math.divCeil(u32, count, aligned_tokens) catch unreachable;
    const stretch_blocks = @max(1, args.tuning.block_bytes / float_block_bytes);
    const line_bytes = prefetch_.aheadLine(args.tuning);
    // Tiles ask for usual lines with each of their blocks.
    const in_step = line_bytes == prefetch_.usual_line;
    var stretch: usize = 0;
    while (stretch < block_count) : (stretch += stretch_blocks) {
        const blocks = @min(block_count - stretch, stretch_blocks);
        for (0..groups) |index| {
            const weight = args.weight + (group + index) * group_bytes;
            for (stretch..stretch + blocks) |block| {
                const columns = @min(args.columns - block * block_columns, block_columns);
                alignBlock(format, weight + block * float_block_bytes, columns, &panel.blocks[index][block - stretch]);
            }
        }
        // The next stretch is asked for meanwhile: of this group or, at its end, of one of the next groups.
        const next = if (stretch + blocks < block_count) group * group_bytes + (stretch + blocks) * float_block_bytes else (group + groups) * group_bytes;
        var ahead: [groups][*]const u8 = undefined;
        for (0..groups) |index| ahead[index] = args.weight + next + index * group_bytes;
        if (line_bytes > 0 and !in_step and first == 0) {
            for (ahead) |place| prefetch_.askAll(place, blocks * float_block_bytes, line_bytes);
        }
        for (0..tile_count) |tile| {
            const token: u32 = @intCast(tile * aligned_tokens);
            const sums = panel.sums[tile][0..groups];
            const shared = panel.blocks[0..groups];
            const valid = @min(count - token, aligned_tokens);
            if (stretch == 0) vec.write(sums, @splat(@splat(@splat(0))));
            const x = wideRows(aligned_tokens, args, first + token, valid);
            if (tile_count == 1 and in_step) {
                alignedStretch(aligned_tokens, groups, groups, shared, blocks, &x, stretch, ahead, sums);
            } else if (tile < groups and first == 0 and in_step) {
                alignedStretch(aligned_tokens, groups, 1, shared, blocks, &x, stretch, .{ahead[tile]}, sums);
            } else if (valid <= aligned_tokens_rest) {
                alignedStretch(aligned_tokens_rest, groups, 0, shared, blocks, x[0..aligned_tokens_rest], stretch, .{}, sums);
            } else alignedStretch(aligned_tokens, groups, 0, shared, blocks, &x, stretch, .{}, sums);
            if (stretch + blocks < block_count) continue;
            inline for (0..groups) |index| finish(aligned_tokens, args, group + index, first + token, valid, &sums[index]);
        }
    }
}

/// Adds a stretch of `count` blocks, the first of them number `first`, to the sums of a tile, and asks for as many blocks at each
/// place in `ahead`. The formats share it.
fn alignedStretch(comptime tokens: u32, comptime groups: u32, comptime asks: u32, blocks: *const [groups][stretch_blocks_max]Aligned, count: usize, x: *const [tokens]quant.WideRow, first: usize, ahead: [asks][*]const u8, sums: *[groups][aligned_tokens]Rows) void {
    @setEvalBranchQuota(1_000_000); // Unrolled pairs, tokens and groups.
    for (0..count) |block| {
        inline for (ahead) |place| Ahead.ask(place, float_block_bytes / 64, block);
        var of_groups: [groups]*const Aligned = undefined;
        inline for (0..groups) |index| of_groups[index] = &blocks[index][block];
        alignedBlock(tokens, groups, of_groups, x.*, first + block, sums);
    }
}

/// The activation rows of `count` tokens from `first`; places past the last token repeat it.
inline fn wideRows(comptime count: u32, args: *const table.MatMul, first: u32, valid: u32) [count]quant.WideRow {
    var rows: [count]quant.WideRow = undefined;
    inline for (0..count) |index| rows[index] = .of(args.x + (first + @min(index, valid - 1)) * args.x_stride, args.columns);
    return rows;
}

/// Adds block number `index` of some groups to the sums of `count` tokens, the first of those that a group has in `sums`.
inline fn alignedBlock(comptime count: u32, comptime groups: u32, blocks: [groups]*const Aligned, x: [count]quant.WideRow, index: usize, sums: anytype) void {
    var isums: [groups][count]Ints = @splat(@splat(@splat(0)));
    inline for (0..block_pairs) |pair| {
        var values: [groups]vec.WordPairs = undefined;
        inline for (0..groups) |group| values[group] = vec.read(&blocks[group].values[pair]);
        inline for (0..count) |token| {
            const two = vec.load(i32, x[token].quants + index * block_columns * 2 + pair * 4);
            inline for (0..groups) |group| isums[group][token] = vec.dotWords(isums[group][token], values[group], two);
        }
    }
    var units: [groups]Rows = undefined;
    inline for (0..groups) |group| units[group] = vec.read(&blocks[group].unit);
    inline for (0..count) |token| {
        const scale: Rows = @splat(vec.load(f32, x[token].scales + index * 4));
        inline for (0..groups) |group| {
            const sum = &sums[group][token];
            vec.write(sum, vec.mulAdd(@as(Rows, @floatFromInt(isums[group][token])), units[group] * scale, vec.read(sum)));
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Embedding.

/// `table.Embed`. Units: tokens.
pub fn embed(args: *const table.Embed, begin: u32, end: u32) callconv(.c) void {
    assert(end <= args.token_count);
    for (begin..end) |index| {
        const row = vec.read(&args.tokens[index]);
        assert(row < args.rows);
        const out = args.out + index * args.out_stride;
        switch (args.format) {
            inline else => |format| @call(.never_inline, dequantizeRow, .{ format, args, row, out }),
        }
        if (args.positions) |positions| {
            const position = vec.read(&args.rows_at.?[index].position);
            norm.addRow(out, positions + position * args.positions_stride, args.columns);
        }
    }
}

fn dequantizeRow(comptime format: Format, args: *const table.Embed, row: u32, out: [*]f32) void {
    const group = row / group_rows;
    const lane = row % group_rows;
    const weight = args.weight + group * layout.groupBytes(format, args.columns);
    if (comptime !format.quantized()) {
        for (0..args.columns) |column| {
            const value: f32 = switch (format) {
                .f32 => vec.load(f32, weight + (column * group_rows + lane) * 4),
                .f16 => vec.loadF16(1, weight + (column * group_rows + lane) * 2)[0],
                else => vec.loadBf16(1, weight + ((column / 2 * group_rows + lane) * 2 + column % 2) * 2)[0],
            };
            vec.store(out + column, value * args.scale);
        }
        return;
    }
    const d = comptime layout.descriptor(format);
    const scales = args.scales + group * layout.groupScaleBytes(format, args.columns);
    const Quad = @Vector(4, f32);
    for (0..args.columns / d.super_columns) |super| {
        const super_scales = scales + super * d.superBytes();
        const head: Head = .load(d, super_scales);
        for (0..d.subBlocks()) |sub| {
            const factors = head.sub(d, super_scales, sub);
            const scale_lanes: [group_rows]f32 = factors.scale;
            const scale: Quad = @splat(scale_lanes[lane]);
            const first_quad = (super * d.super_columns + sub * d.sub_columns) / 4;
            for (0..d.sub_columns / 4) |quad| {
                const codes = decodeLane(d, weight, first_quad + quad, lane);
                const quants: @Vector(4, i32) = @as(@Vector(4, i32), codes) - @as(@Vector(4, i32), @splat(d.offset));
                var values = @as(Quad, @floatFromInt(quants)) * scale;
                if (d.minimum != .none) {
                    const minimum_lanes: [group_rows]f32 = factors.minimum;
                    values += @as(Quad, @splat(minimum_lanes[lane]));
                }
                vec.store(out + (first_quad + quad) * 4, values * @as(Quad, @splat(args.scale)));
            }
        }
    }
}

/// Four codes of one row: `quad` counts from the row's start.
inline fn decodeLane(comptime d: layout.Descriptor, weight: [*]const u8, quad: usize, lane: usize) @Vector(4, u8) {
    const block = weight + quad / layout.quads * d.blockBytes();
    const quad_in_block = quad % layout.quads;
    var codes: @Vector(4, u8) = @splat(0);
    comptime var shift = 0;
    comptime var place = 0;
    inline for (d.planes) |bits| {
        const per_vector = 8 / bits;
        const bytes = vec.load(@Vector(4, u8), block + place + quad_in_block / per_vector * layout.quad_bytes + lane * 4);
        const from: u3 = @intCast(quad_in_block % per_vector * bits);
        codes |= (bytes >> @splat(from) & @as(@Vector(4, u8), @splat((1 << bits) - 1))) << @splat(shift);
        shift += bits;
        place += layout.quads / per_vector * layout.quad_bytes;
    }
    if (d.lookup) |values| {
        var elements: [4]u8 = codes;
        for (&elements) |*element| element.* = values[element.*];
        return elements;
    }
    return codes;
}

// ---------------------------------------------------------------------------------------------------------------------

const testing = std.testing;
const reference = @import("reference.zig");
const pack = @import("pack.zig");
const emulator = if (vec.has_tiles) @import("amx_emulator.zig") else struct {
    fn prepare() void {}
};

/// The weight as a level with 16-bit products takes it, from its block's largest in double precision.
fn takenWeight(format: Format, row: []const u8, column: usize, columns: usize) f64 {
    const weight = reference.exact(format, row, column);
    if (format != .f16 and format != .bf16) return weight;
    const block = column / 32 * 32;
    var largest: f64 = 0;
    for (block..@min(block + 32, columns)) |other| largest = @max(largest, @abs(reference.exact(format, row, other)));
    if (largest == 0) return 0;
    const power: i32 = @max(std.math.ilogb(largest), @as(i32, if (format == .f16) -15 else -88));
    const scaled = std.math.ldexp(weight, 12 - power);
    const below = @floor(scaled);
    const up = scaled - below > 0.5 or (scaled - below == 0.5 and @mod(below, 2) != 0);
    return std.math.ldexp(if (up) below + 1 else below, power - 12);
}

/// A weight, activations and room for outputs.
const Case = struct {
    sample: pack.Sample,
    tokens: u32,
    /// Float32 activations, [token][columns].
    x: []f32,
    /// The same as the kernel takes them.
    input: []align(64) u8,
    input_stride: u64,
    y: []f32,
    y_stride: u64,
    scratch: []align(4096) u8,

    fn make(format: Format, rows: u32, columns: u32, tokens: u32, kind: reference.Fill, random: std.Random) !Case {
        const stride: u64 = if (format.quantized())
            table.quantizedRowBytes(columns)
        else if (format == .f32) std.mem.alignForward(u64, columns * 4, 64) else table.wideRowBytes(columns);
        const y_stride = layout.groupCount(rows) * group_rows + 16;
        const case: Case = .{
            .sample = try .make(format, rows, columns, kind, random),
            .tokens = tokens,
            .x = try testing.allocator.alloc(f32, tokens * columns),
            .input = try testing.allocator.alignedAlloc(u8, .@"64", tokens * stride),
            .input_stride = stride,
            .y = try testing.allocator.alloc(f32, tokens * y_stride),
            .y_stride = y_stride,
            .scratch = try testing.allocator.alignedAlloc(u8, .fromByteUnits(4096), table.scratchBytes(columns, 0, 0)),
        };
        for (case.x) |*value| value.* = if (kind == .largest) (if (random.boolean()) 1 else -1) else random.floatNorm(f32);
        for (0..tokens) |token| {
            const row = case.x[token * columns ..][0..columns];
            const out = case.input[token * stride ..].ptr;
            if (format.quantized()) {
                quant.quantizeRow(columns, row.ptr, out);
                // The product is of what the kernel is given.
                const parts: quant.Row = .of(out, columns);
                for (row, 0..) |*value, column| {
                    value.* = @as(f32, @floatFromInt(@as(i8, @bitCast(parts.quants[column])))) * vec.load(f32, parts.scales + column / 32 * 4);
                }
            } else if (format == .f32) {
                @memcpy(out[0 .. columns * 4], std.mem.sliceAsBytes(row));
            } else quant.writeColumns(quant.wide_form, columns, 0, columns, row.ptr, out);
        }
        return case;
    }

    fn free(case: Case) void {
        case.sample.free();
        testing.allocator.free(case.x);
        testing.allocator.free(case.input);
        testing.allocator.free(case.y);
        testing.allocator.free(case.scratch);
    }

    fn arguments(case: Case, first: u32, count: u32) table.MatMul {
        return .{
            .format = case.sample.format,
            .rows = case.sample.rows,
            .columns = case.sample.columns,
            .tokens = count,
            .weight = case.sample.weight.ptr,
            .scales = case.sample.scales.ptr,
            .x = case.input[first * case.input_stride ..].ptr,
            .x_stride = case.input_stride,
            .y = case.y[first * case.y_stride ..].ptr,
            .y_stride = case.y_stride,
            .bias = null,
            .accumulate = 0,
            .soft_cap = 0,
        };
    }

    fn run(case: Case, args: table.MatMul, begin: u32, end: u32) void {
        emulator.prepare();
        vec.threadBegin();
        defer vec.threadEnd();
        matmul(&args, begin, end, case.scratch.ptr);
    }

    /// The exact products of one row with every token, and the sums of their terms' magnitudes, which bound what rounding
    /// may do.
    fn exact(case: Case, row: usize, inputs: []const f64, values: []f64, magnitudes: []f64) void {
        const columns = case.sample.columns;
        const bytes = case.sample.row(row);
        @memset(values, 0);
        @memset(magnitudes, 0);
        for (0..columns) |column| {
            const weight = if (vec.has_words) takenWeight(case.sample.format, bytes, column, columns) else reference.exact(case.sample.format, bytes, column);
            // Where a minimum is subtracted, the terms that cancel are larger than their difference.
            const size = @abs(weight) + reference.cancelled(case.sample.format, bytes, column);
            for (values, magnitudes, 0..) |*value, *magnitude, token| {
                const x = inputs[token * columns + column];
                value.* += weight * x;
                magnitude.* += size * @abs(x);
            }
        }
    }

    /// What the activations stand for, [token][column].
    fn exactInputs(case: Case) ![]f64 {
        const columns = case.sample.columns;
        const inputs = try testing.allocator.alloc(f64, case.tokens * columns);
        for (inputs, 0..) |*input, index| {
            if (case.sample.format.quantized()) {
                const parts: quant.Row = .of(case.input[index / columns * case.input_stride ..].ptr, columns);
                const column = index % columns;
                const q: i8 = @bitCast(parts.quants[column]);
                input.* = @as(f64, vec.load(f32, parts.scales + column / 32 * 4)) * @as(f64, @floatFromInt(q));
            } else if (vec.has_words and case.sample.format != .f32) {
                const parts: quant.WideRow = .of(case.input[index / columns * case.input_stride ..].ptr, columns);
                const column = index % columns;
                input.* = @as(f64, vec.load(f32, parts.scales + column / 32 * 4)) * @as(f64, @floatFromInt(vec.load(i16, parts.quants + column * 2)));
            } else input.* = case.x[index];
        }
        return inputs;
    }
};

test "products agree with double precision for every format, on random and extreme weights, at every tile size" {
    var prng: std.Random.DefaultPrng = .init(21);
    for (std.enums.values(Format)) |format| {
        for (std.enums.values(reference.Fill)) |kind| {
            for (pack.testColumns(format)) |columns| {
                // One group, several, an odd end; one token, small tiles, a large tile and its remainder.
                for ([_][2]u32{ .{ 1, 1 }, .{ 37, 3 }, .{ 80, 1 }, .{ 21, 11 }, .{ 20, 19 } }) |shape| {
                    const case: Case = try .make(format, shape[0], columns, shape[1], kind, prng.random());
                    defer case.free();
                    @memset(case.y, std.math.nan(f32));
                    case.run(case.arguments(0, case.tokens), 0, layout.groupCount(case.sample.rows));
                    const inputs = try case.exactInputs();
                    defer testing.allocator.free(inputs);
                    const values = try testing.allocator.alloc(f64, case.tokens);
                    defer testing.allocator.free(values);
                    const magnitudes = try testing.allocator.alloc(f64, case.tokens);
                    defer testing.allocator.free(magnitudes);
                    for (0..case.sample.rows) |row| {
                        case.exact(row, inputs, values, magnitudes);
                        for (values, magnitudes, 0..) |expected, magnitude, token| {
                            const found: f64 = case.y[token * case.y_stride + row];
                            // Roundings one after the other, each of at most 2^-24 of the partial sum, and denormals.
                            const steps: f64 = @floatFromInt(columns / 8 + 8);
                            const tolerance = magnitude * steps * 0x1p-24 + steps * 0x1p-149;
                            if (!(@abs(found - expected) <= tolerance)) {
                                std.debug.print("{t} {t} {d}x{d} token {d} row {d}: expected {d}, found {d}, tolerance {d}\n", .{ format, kind, shape[0], columns, token, row, expected, found, tolerance });
                                return error.TestUnexpectedResult;
                            }
                        }
                    }
                }
            }
        }
    }
}

test "an output has the same bits whatever the number of tokens and however the groups are split" {
    var prng: std.Random.DefaultPrng = .init(22);
    for (std.enums.values(Format)) |format| {
        const rows = 70;
        const columns: u32 = if (format.quantized()) 512 else 75;
        const tokens_max = 40;
        const case: Case = try .make(format, rows, columns, tokens_max, .random, prng.random());
        defer case.free();
        const groups = layout.groupCount(rows);
        const alone = try testing.allocator.alloc(f32, case.y.len);
        defer testing.allocator.free(alone);
        for (0..tokens_max) |token| case.run(case.arguments(@intCast(token), 1), 0, groups);
        @memcpy(alone, case.y);
        for ([_]u32{ 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 33, 40 }) |tokens| {
            for ([_]u32{ 0, 1, 3, groups }) |split| {
                @memset(case.y, std.math.nan(f32));
                const first = tokens_max - tokens;
                case.run(case.arguments(first, tokens), 0, split);
                case.run(case.arguments(first, tokens), split, groups);
                for (first..tokens_max) |token| {
                    const start = token * case.y_stride;
                    try testing.expectEqualSlices(u32, @ptrCast(alone[start..][0..rows]), @ptrCast(case.y[start..][0..rows]));
                }
            }
        }
    }
}

test "an output has the same bits under every tuning" {
    var prng: std.Random.DefaultPrng = .init(25);
    for (std.enums.values(Format)) |format| {
        for ([_]u32{ 1, 3, 5, 17 }) |tokens| {
            const case: Case = try .make(format, 70, if (format.quantized()) 512 else 75, tokens, .random, prng.random());
            defer case.free();
            const groups = layout.groupCount(case.sample.rows);
            case.run(case.arguments(0, tokens), 0, groups);
            const fixed = try testing.allocator.dupe(f32, case.y);
            defer testing.allocator.free(fixed);
            const blocks = [_]u32{ table.Tuning.block_bytes_min, 8192, table.Tuning.block_bytes_max };
            for (std.enums.values(table.Ahead), [_]u32{ 1, 4, table.Tuning.few_tokens_max }, [_]u32{ 32, 64, 256 }, blocks, 0..) |lines, few_tokens, line_bytes, block_bytes, index| {
                for ([_]u32{ 0, 64, 4096, table.Tuning.distance_max }) |distance| {
                    const tuning: table.Tuning = .{
                        .byte_distance = distance,
                        .byte_lines = @intFromEnum(lines),
                        .packed_distance = distance,
                        .packed_lines = @intFromEnum(lines),
                        .float_distance = distance,
                        .float_lines = @intFromEnum(lines),
                        .few_tokens = few_tokens,
                        .ahead = @intCast((index + distance / 64) % 2),
                        .line_bytes = line_bytes,
                        .block_bytes = block_bytes,
                    };
                    try testing.expect(tuning.valid());
                    @memset(case.y, std.math.nan(f32));
                    var args = case.arguments(0, tokens);
                    args.tuning = &tuning;
                    case.run(args, 0, groups);
                    for (0..tokens) |token| {
                        const start = token * case.y_stride;
                        try testing.expectEqualSlices(u32, @ptrCast(fixed[start..][0..case.sample.rows]), @ptrCast(case.y[start..][0..case.sample.rows]));
                    }
                }
            }
        }
    }
}

test "a tuning has bounds" {
    try testing.expect(table.Tuning.fixed.valid());
    var tuning: table.Tuning = .fixed;
    tuning.packed_distance = table.Tuning.distance_max + 64;
    try testing.expect(!tuning.valid());
    tuning.packed_distance = 100;
    try testing.expect(!tuning.valid());
    tuning = .fixed;
    tuning.float_lines = 3;
    try testing.expect(!tuning.valid());
    tuning = .fixed;
    for ([_]u32{ 0, table.Tuning.few_tokens_max + 1 }) |few_tokens| {
        tuning.few_tokens = few_tokens;
        try testing.expect(!tuning.valid());
    }
    tuning = .fixed;
    for ([_]u32{ 0, 16, 48, 512 }) |line_bytes| {
        tuning.line_bytes = line_bytes;
        try testing.expect(!tuning.valid());
    }
    tuning = .fixed;
    for ([_]u32{ 0, table.Tuning.block_bytes_min - 1, table.Tuning.block_bytes_max + 1 }) |block_bytes| {
        tuning.block_bytes = block_bytes;
        try testing.expect(!tuning.valid());
    }
    tuning = .fixed;
    tuning.ahead = 2;
    try testing.expect(!tuning.valid());
}

test "a block's weights keep their bits where they are not small beside the largest, and lose little where they are" {
    if (!vec.has_words) return error.SkipZigTest;
    var prng: std.Random.DefaultPrng = .init(25);
    for ([_]Format{ .f16, .bf16 }) |format| {
        for ([_]u32{ 32, 7 }) |columns| {
            const sample: pack.Sample = try .make(format, group_rows, columns, .random, prng.random());
            defer sample.free();
            var block: Aligned = undefined;
            switch (format) {
                inline .f16, .bf16 => |known| alignBlock(known, sample.weight.ptr, columns, &block),
                else => unreachable,
            }
            const units: [group_rows]f32 = block.unit;
            for (0..group_rows) |row| {
                var largest: f64 = 0;
                for (0..columns) |column| largest = @max(largest, @abs(reference.exact(format, sample.row(row), column)));
                const exact_above = largest / (if (format == .f16) @as(f64, 4) else 64);
                for (0..block_columns) |column| {
                    const words: [2 * group_rows]i16 = @bitCast(block.values[column / 2]);
                    const value = @as(f64, units[row]) * @as(f64, @floatFromInt(words[2 * row + column % 2]));
                    const weight = if (column < columns) reference.exact(format, sample.row(row), column) else 0;
                    const loss = @abs(value - weight);
                    try testing.expect(loss <= if (@abs(weight) >= exact_above) 0 else largest * 0x1p-13);
                }
            }
        }
    }
}

test "an infinite or undefined weight or activation leaves no finite product in its row or token" {
    var prng: std.Random.DefaultPrng = .init(26);
    for ([_]Format{ .f16, .bf16 }) |format| {
        for ([_]u32{ 1, 5, 17 }) |tokens| {
            for ([_]f32{ std.math.inf(f32), -std.math.inf(f32), std.math.nan(f32) }) |bad| {
                const columns = 45;
                const case: Case = try .make(format, 16, columns, tokens, .random, prng.random());
                defer case.free();
                const clean = try testing.allocator.dupe(u8, case.input);
                defer testing.allocator.free(clean);
                const token = tokens / 2;
                case.x[token * columns + 37] = bad;
                quant.writeColumns(quant.wide_form, columns, 0, columns, case.x[token * columns ..].ptr, case.input[token * case.input_stride ..].ptr);
                case.run(case.arguments(0, tokens), 0, 1);
                for (0..tokens) |other| {
                    for (case.y[other * case.y_stride ..][0..16]) |y| try testing.expectEqual(other != token, std.math.isFinite(y));
                }
                @memcpy(case.input, clean);
                const pattern: u16 = if (format == .f16) @bitCast(@as(f16, @floatCast(bad))) else @truncate(@as(u32, @bitCast(bad)) >> 16);
                // Row 3, column 37.
                const place: usize = if (format == .f16) (37 * group_rows + 3) * 2 else ((37 / 2 * group_rows + 3) * 2 + 37 % 2) * 2;
                vec.store(case.sample.weight[place..].ptr, pattern);
                case.run(case.arguments(0, tokens), 0, 1);
                for (0..tokens) |other| {
                    for (case.y[other * case.y_stride ..][0..16], 0..) |y, row| try testing.expectEqual(row != 3, std.math.isFinite(y));
                }
            }
        }
    }
}

test "bias, accumulation and soft cap follow the product in that order" {
    var prng: std.Random.DefaultPrng = .init(23);
    for ([_]Format{ .f32, .f16, .q8_0, .q5_k }) |format| {
        for ([_]u32{ 1, 2, 6, 19 }) |tokens| {
            const rows = 21;
            const case: Case = try .make(format, rows, 256, tokens, .random, prng.random());
            defer case.free();
            const groups = layout.groupCount(rows);
            case.run(case.arguments(0, tokens), 0, groups);
            const plain = try testing.allocator.dupe(f32, case.y);
            defer testing.allocator.free(plain);
            // Exactly `rows` long, so that reading past its end would be caught.
            const bias = try testing.allocator.alloc(f32, rows);
            defer testing.allocator.free(bias);
            for (bias) |*value| value.* = prng.random().floatNorm(f32);
            for (case.y) |*value| value.* = 0.25;

            var args = case.arguments(0, tokens);
            args.bias = bias.ptr;
            args.accumulate = 1;
            case.run(args, 0, groups);
            for (0..tokens) |token| {
                for (0..rows) |row| {
                    const place = token * case.y_stride + row;
                    try testing.expectEqual(plain[place] + bias[row] + 0.25, case.y[place]);
                }
            }
            args.accumulate = 0;
            args.soft_cap = 3;
            case.run(args, 0, groups);
            for (0..tokens) |token| {
                for (0..rows) |row| {
                    const place = token * case.y_stride + row;
                    const expected = 3 * std.math.tanh((@as(f64, plain[place]) + bias[row]) / 3);
                    try testing.expectApproxEqAbs(expected, case.y[place], 1e-6);
                }
            }
        }
    }
}

test "embedding multiplies by the scale after the weight is whole" {
    var prng: std.Random.DefaultPrng = .init(24);
    const sample: pack.Sample = try .make(.q4_1, 5, 64, .random, prng.random());
    defer sample.free();
    var out: [64]f32 = undefined;
    const args: table.Embed = .{
        .format = .q4_1,
        .rows = 5,
        .columns = 64,
        .token_count = 1,
        .weight = sample.weight.ptr,
        .scales = sample.scales.ptr,
        .tokens = &.{3},
        .out = &out,
        .out_stride = 64,
        .scale = 25.25,
    };
    embed(&args, 0, 1);
    for (out, 0..) |value, column| try testing.expectEqual(reference.dequantized(.q4_1, sample.row(3), column) * 25.25, value);
}
