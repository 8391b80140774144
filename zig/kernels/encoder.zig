//! Attention of a whole text at once, each row to every row of its text, as encoders have it: no cache, no mask, float32 in and
//! out. Keys are gone through in blocks with an online softmax (Milakov and Gimelshein 2018; Dao et al. 2022, "FlashAttention").
//!
//! Queries fill the lanes: a vector holds one dimension, score or value of neighbouring rows, keys and values are loaded into all
//! lanes, and nothing is ever reduced across lanes. So a lane's bits depend on its row and text alone: a score is one chain of
//! multiply-adds over the dimensions, a value one over the keys of a block, and blocks go in ascending order.

const std = @import("std");
const assert = std.debug.assert;
const table = @import("table.zig");
const vec = @import("vec.zig");
const quant = @import("quant.zig");
const activation = @import("activation.zig");

const F = vec.F;
const lanes = vec.lanes;
const block_rows = table.encode_row_block;
const block_keys = table.encode_key_block;
const block_vectors = block_rows / lanes;

/// Vectors of queries and keys (or dimensions of values) of a tile: 16 sums, 2 vectors and a key of 32 registers, or 8 sums of 16.
const tile_vectors = 2;
const tile_keys = if (vec.register_count >= 32) 8 else 4;
const tile_dimensions = tile_keys;

const piece_dimensions = table.encode_key_dimensions;
const key_stride = table.encode_key_stride;

comptime {
    assert(block_rows % lanes == 0 and block_keys % tile_keys == 0);
}

/// Where the parts of a unit's scratch lie.
const Scratch = struct {
    /// [dimension][32 rows], times the scale.
    queries: [*]f32,
    /// [key][32 rows].
    scores: [*]f32,
    /// [dimension][32 rows], not yet divided by the sums.
    values: [*]f32,
    /// [key][key_stride]; and at the end the rows of the result, where they are only written in another form.
    copied: [*]f32,
    maxima: [*]f32,
    sums: [*]f32,

    fn of(scratch: [*]align(64) u8, head_width: usize) Scratch {
        const floats: [*]f32 = @ptrCast(scratch);
        const part = head_width * block_rows;
        const copied = floats + 2 * part + block_keys * block_rows;
        const statistics = copied + @max(part, block_keys * key_stride);
        assert((2 * part + block_keys * block_rows + @max(part, block_keys * key_stride) + 2 * block_rows) * @sizeOf(f32) <= table.scratchBytes(0, @intCast(head_width), 0));
        return .{
            .queries = floats,
            .values = floats + part,
            .scores = floats + 2 * part,
            .copied = copied,
            .maxima = statistics,
            .sums = statistics + block_rows,
        };
    }
};

/// See `table.Encode`. `scratch` has `table.scratchBytes` bytes.
pub fn encode(args: *const table.Encode, begin: u32, end: u32, scratch: [*]align(64) u8) callconv(.c) void {
    assert(args.head_count > 0 and args.head_width > 0);
    assert(begin <= end and end <= args.block_count * args.head_count);
    assert(args.out != null or args.out_quantized != null);
    const parts: Scratch = .of(scratch, args.head_width);
    for (begin..end) |unit| {
        const block = vec.read(&args.blocks[unit / args.head_count]);
        assert(block.count > 0 and block.count <= block_rows and block.text.count > 0);
        assert(block.first >= block.text.first and block.first + block.count <= block.text.first + block.text.count);
        encodeBlock(args, block, unit % args.head_count, parts);
    }
}

fn encodeBlock(args: *const table.Encode, block: table.EncodeBlock, head: usize, parts: Scratch) void {
    const vectors = std.math.divCeil(usize, block.count, lanes) catch unreachable;
    loadQueries(args, block, head, vectors, parts.queries);
    var key: u32 = 0;
    while (key < block.text.count) : (key += block_keys) {
        const count = @min(block_keys, block.text.count - key);
        score(args, block.text.first + key, count, head, vectors, parts);
        const values = args.v + (block.text.first + key) * args.v_stride + head * args.head_width;
        var vector: usize = 0;
        inline for (.{ tile_vectors, 1 }) |n| {
            while (vectors - vector >= n) : (vector += n) {
                const corrections = softmax(n, parts, vector, count, key == 0);
                addValues(n, args, values, count, vector, key == 0, corrections, parts);
            }
        }
    }
    storeValues(args, block, head, vectors, parts);
}

/// Transposes the block's queries of a head; lanes past the last row are zero.
fn loadQueries(args: *const table.Encode, block: table.EncodeBlock, head: usize, vectors: usize, queries: [*]f32) void {
    const width: usize = args.head_width;
    const scale: F = @splat(args.scale);
    const source = args.q + block.first * args.q_stride + head * width;
    for (0..vectors) |vector| {
        const rows = @min(lanes, block.count - vector * lanes);
        var dimension: usize = 0;
        while (dimension < width) : (dimension += lanes) {
            const count = @min(lanes, width - dimension);
            var tile: [lanes]F = @splat(@splat(0));
            for (tile[0..rows], 0..) |*values, row| {
                vec.write(values, vec.loadPartial(F, source + (vector * lanes + row) * args.q_stride + dimension, count) * scale);
            }
            tile = vec.transpose(tile);
            for (tile[0..count], 0..) |*values, index| vec.store(queries + (dimension + index) * block_rows + vector * lanes, vec.read(values));
        }
    }
}

/// Scores of `count` keys from row `first`.
fn score(args: *const table.Encode, first: usize, count: usize, head: usize, vectors: usize, parts: Scratch) void {
    const width: usize = args.head_width;
    var dimension: usize = 0;
    while (dimension < width) : (dimension += piece_dimensions) {
        const dimensions = @min(piece_dimensions, width - dimension);
        const source = args.k + first * args.k_stride + head * width + dimension;
        for (0..count) |key| vec.copy(f32, (parts.copied + key * key_stride)[0..dimensions], source + key * args.k_stride);
        var vector: usize = 0;
        inline for (.{ tile_vectors, 1 }) |n| {
            while (vectors - vector >= n) : (vector += n) {
                // Keys past the last one are what was there before: their scores are not looked at.
                var key: usize = 0;
                while (key < count) : (key += tile_keys) scoreTile(n, parts, dimension, dimensions, key, vector);
            }
        }
    }
}

inline fn scoreTile(comptime n: comptime_int, parts: Scratch, dimension: usize, dimensions: usize, key: usize, vector: usize) void {
    const target = parts.scores + key * block_rows + vector * lanes;
    var sums: [tile_keys][n]F = @splat(@splat(@splat(0)));
    if (dimension > 0) {
        inline for (&sums, 0..) |*of_key, index| {
            inline for (of_key, 0..) |*sum, v| sum.* = vec.load(F, target + index * block_rows + v * lanes);
        }
    }
    var query = parts.queries + dimension * block_rows + vector * lanes;
    var keys = parts.copied + key * key_stride;
    for (0..dimensions) |_| {
        var q: [n]F = undefined;
        inline for (&q, 0..) |*values, v| values.* = vec.load(F, query + v * lanes);
        inline for (&sums, 0..) |*of_key, index| {
            const k: F = @splat(vec.read(&keys[index * key_stride]));
            inline for (of_key, q) |*sum, values| sum.* = vec.mulAdd(values, k, sum.*);
        }
        query += block_rows;
        keys += 1;
    }
    inline for (sums, 0..) |of_key, index| {
        inline for (of_key, 0..) |sum, v| vec.store(target + index * block_rows + v * lanes, sum);
    }
}

/// Turns `n` vectors of queries' scores with `count` keys into weights e^(score - maximum), moves their maxima and sums, and
/// returns what values so far are to be multiplied by.
inline fn softmax(comptime n: comptime_int, parts: Scratch, vector: usize, count: usize, first: bool) [n]F {
    const scores = parts.scores + vector * lanes;
    const maxima = parts.maxima + vector * lanes;
    const sums = parts.sums + vector * lanes;
    var corrections: [n]F = undefined;
    inline for (&corrections, 0..) |*correction, v| {
        const old = if (first) @as(F, @splat(-std.math.inf(f32))) else vec.load(F, maxima + v * lanes);
        var largest = old;
        for (0..count) |key| {
            const values = vec.load(F, scores + key * block_rows + v * lanes);
            largest = @select(f32, values > largest, values, largest);
        }
        vec.store(maxima + v * lanes, largest);
        correction.* = activation.expNonPositive(old - largest);
        var sum: F = if (first) @splat(0) else vec.load(F, sums + v * lanes) * correction.*;
        for (0..count) |key| {
            const place = scores + key * block_rows + v * lanes;
            const weight = activation.expNonPositive(vec.load(F, place) - largest);
            vec.store(place, weight);
            sum += weight;
        }
        vec.store(sums + v * lanes, sum);
    }
    return corrections;
}

/// values = values · correction + Σ weight · value over `count` keys.
inline fn addValues(comptime n: comptime_int, args: *const table.Encode, source: [*]const f32, count: usize, vector: usize, first: bool, corrections: [n]F, parts: Scratch) void {
    var dimension: usize = 0;
    inline for (.{ tile_dimensions, 1 }) |d| {
        while (args.head_width - dimension >= d) : (dimension += d) {
            const target = parts.values + dimension * block_rows + vector * lanes;
            var sums: [d][n]F = @splat(@splat(@splat(0)));
            if (!first) {
                inline for (&sums, 0..) |*of_dimension, index| {
                    inline for (of_dimension, corrections, 0..) |*sum, correction, v| sum.* = vec.load(F, target + index * block_rows + v * lanes) * correction;
                }
            }
            var weights = parts.scores + vector * lanes;
            var values = source + dimension;
            for (0..count) |_| {
                var w: [n]F = undefined;
                inline for (&w, 0..) |*of_vector, v| of_vector.* = vec.load(F, weights + v * lanes);
                inline for (&sums, 0..) |*of_dimension, index| {
                    const value: F = @splat(vec.read(&values[index]));
                    inline for (of_dimension, w) |*sum, of_vector| sum.* = vec.mulAdd(of_vector, value, sum.*);
                }
                weights += block_rows;
                values += args.v_stride;
            }
            inline for (sums, 0..) |of_dimension, index| {
                inline for (of_dimension, 0..) |sum, v| vec.store(target + index * block_rows + v * lanes, sum);
            }
        }
    }
}

/// Divides the values by the sums and writes them row by row, as the step wants them.
fn storeValues(args: *const table.Encode, block: table.EncodeBlock, head: usize, vectors: usize, parts: Scratch) void {
    const width: usize = args.head_width;
    const first = head * width;
    // The keys' copy is not needed any more.
    const rows_out = if (args.out) |out| out + block.first * args.out_stride + first else parts.copied;
    const stride = if (args.out != null) args.out_stride else width;
    for (0..vectors) |vector| {
        const factors = @as(F, @splat(1)) / vec.load(F, parts.sums + vector * lanes);
        const rows = @min(lanes, block.count - vector * lanes);
        var dimension: usize = 0;
        while (dimension < width) : (dimension += lanes) {
            const count = @min(lanes, width - dimension);
            var tile: [lanes]F = @splat(@splat(0));
            for (tile[0..count], 0..) |*values, index| {
                vec.write(values, vec.load(F, parts.values + (dimension + index) * block_rows + vector * lanes) * factors);
            }
            tile = vec.transpose(tile);
            for (tile[0..rows], 0..) |*values, row| {
                vec.storePartial(rows_out + (vector * lanes + row) * stride + dimension, vec.read(values), count);
            }
        }
    }
    if (args.out_quantized) |quantized| {
        const columns = args.head_count * args.head_width;
        for (0..block.count) |row| {
            const target = quantized + (block.first + row) * args.out_quantized_stride;
            quant.writeColumns(args.out_form, columns, @intCast(first), @intCast(first + width), rows_out + row * stride - first, target);
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------

const Texts = struct { heads: u32, width: u32, texts: []const u32, magnitude: f32 = 1, tolerance: f64 = 3e-6 };

/// Compares with the softmax in double precision, then splits units and blocks otherwise and adds other texts.
fn expectEncode(case: Texts) !void {
    const allocator = std.testing.allocator;
    var prng: std.Random.DefaultPrng = .init(51);
    const random = prng.random();
    const columns = case.heads * case.width;
    var row_count: u32 = 0;
    for (case.texts) |count| row_count += count;
    // Queries, keys and values side by side.
    const stride = 3 * columns + 5;
    const qkv = try allocator.alloc(f32, row_count * stride);
    defer allocator.free(qkv);
    for (qkv) |*value| value.* = random.floatNorm(f32) * case.magnitude;
    var blocks: std.ArrayList(table.EncodeBlock) = .empty;
    defer blocks.deinit(allocator);
    const outs = try allocator.alloc(f32, 3 * row_count * columns);
    defer allocator.free(outs);
    @memset(outs, 0);
    const out, const other, const quantized_from = .{ outs[0 .. row_count * columns], outs[row_count * columns ..][0 .. row_count * columns], outs[2 * row_count * columns ..] };
    const scratch = try allocator.alignedAlloc(u8, .@"64", table.scratchBytes(0, case.width, 0));
    defer allocator.free(scratch);
    @memset(scratch, 0xff); // NaNs.
    var args: table.Encode = .{
        .head_count = case.heads,
        .head_width = case.width,
        .block_count = 0,
        .scale = 1 / @sqrt(@as(f32, @floatFromInt(case.width))),
        .blocks = undefined,
        .q = qkv.ptr,
        .q_stride = stride,
        .k = qkv.ptr + columns,
        .k_stride = stride,
        .v = qkv.ptr + 2 * columns,
        .v_stride = stride,
        .out = out.ptr,
        .out_stride = columns,
        .out_quantized = null,
        .out_quantized_stride = 0,
    };
    try addBlocks(allocator, &blocks, case.texts, block_rows);
    args.blocks = blocks.items.ptr;
    args.block_count = @intCast(blocks.items.len);
    const units = args.block_count * args.head_count;
    encode(&args, 0, units, scratch.ptr);

    var first: usize = 0;
    for (case.texts) |count| {
        for (first..first + count) |row| {
            if (row % 3 != 0 and row + 2 < row_count) continue; // The reference is slow.
            for (0..case.heads) |head| try expectRow(&args, out, row, head, first, count, case.tolerance);
        }
        first += count;
    }
    // Unit by unit from the last, then blocks of other sizes.
    args.out = other.ptr;
    for (0..units) |index| encode(&args, @intCast(units - 1 - index), @intCast(units - index), scratch.ptr);
    try std.testing.expectEqualSlices(u32, @ptrCast(out), @ptrCast(other));
    for ([_]u32{ 1, 7 }) |size| {
        blocks.clearRetainingCapacity();
        try addBlocks(allocator, &blocks, case.texts, size);
        args.blocks = blocks.items.ptr;
        args.block_count = @intCast(blocks.items.len);
        @memset(other, 0);
        encode(&args, 0, args.block_count * args.head_count, scratch.ptr);
        try std.testing.expectEqualSlices(u32, @ptrCast(out), @ptrCast(other));
    }
    // In other forms, without float32.
    for (std.enums.values(table.Form)) |form| {
        if (case.width % table.block_columns != 0) continue;
        const bytes = table.wideRowBytes(columns);
        const quantized = try allocator.alignedAlloc(u8, .@"64", 2 * row_count * bytes);
        defer allocator.free(quantized);
        @memset(quantized, 0);
        args.out = null;
        args.out_form = form;
        args.out_quantized = quantized.ptr;
        args.out_quantized_stride = bytes;
        encode(&args, 0, args.block_count * args.head_count, scratch.ptr);
        for (0..row_count) |row| {
            quant.writeColumns(form, columns, 0, columns, out.ptr + row * columns, quantized.ptr + (row_count + row) * bytes);
        }
        try std.testing.expectEqualSlices(u8, quantized[0 .. row_count * bytes], quantized[row_count * bytes ..]);
    }
    // In place of the queries: rows one after the other.
    for (quantized_from, 0..) |*value, index| value.* = qkv[index / columns * stride + index % columns];
    args.q = quantized_from.ptr;
    args.q_stride = columns;
    args.out = quantized_from.ptr;
    args.out_quantized = null;
    encode(&args, 0, args.block_count * args.head_count, scratch.ptr);
    try std.testing.expectEqualSlices(u32, @ptrCast(out), @ptrCast(quantized_from));
}

fn addBlocks(allocator: std.mem.Allocator, blocks: *std.ArrayList(table.EncodeBlock), texts: []const u32, size: u32) !void {
    var first: u32 = 0;
    for (texts) |count| {
        var row: u32 = 0;
        while (row < count) : (row += size) {
            try blocks.append(allocator, .{ .first = first + row, .count = @min(size, count - row), .text = .{ .first = first, .count = count } });
        }
        first += count;
    }
}

fn expectRow(args: *const table.Encode, out: []const f32, row: usize, head: usize, first: usize, count: usize, tolerance: f64) !void {
    const width: usize = args.head_width;
    var scores: [600]f64 = undefined;
    var largest = -std.math.inf(f64);
    for (scores[0..count], first..) |*value, key| {
        value.* = 0;
        for (0..width) |d| value.* += @as(f64, args.q[row * args.q_stride + head * width + d]) * args.k[key * args.k_stride + head * width + d];
        value.* *= args.scale;
        largest = @max(largest, value.*);
    }
    var sum: f64 = 0;
    for (scores[0..count]) |*value| {
        value.* = @exp(value.* - largest);
        sum += value.*;
    }
    for (0..width) |d| {
        var want: f64 = 0;
        for (scores[0..count], first..) |weight, key| want += weight / sum * args.v[key * args.v_stride + head * width + d];
        try std.testing.expectApproxEqAbs(want, out[row * args.head_count * width + head * width + d], tolerance);
    }
}

test "a text's rows attend to all of its rows and to no other text's, whatever stands beside it and however it is split" {
    try expectEncode(.{ .heads = 2, .width = 32, .texts = &.{1} });
    try expectEncode(.{ .heads = 3, .width = 32, .texts = &.{ 2, 1, 16, 17, 31, 33, 5 } });
    try expectEncode(.{ .heads = 1, .width = 64, .texts = &.{ 63, 64, 65, 130 } });
    try expectEncode(.{ .heads = 2, .width = 16, .texts = &.{ 20, 40 } });
    try expectEncode(.{ .heads = 1, .width = 128, .texts = &.{ 70, 3 } });
    try expectEncode(.{ .heads = 2, .width = 33, .texts = &.{ 9, 66 } });
    try expectEncode(.{ .heads = 1, .width = 160, .texts = &.{ 5, 67 } });
    try expectEncode(.{ .heads = 1, .width = 32, .texts = &.{512} });
}

test "large scores neither overflow nor lose the largest" {
    try expectEncode(.{ .heads = 1, .width = 32, .texts = &.{ 140, 7 }, .magnitude = 15, .tolerance = 5e-3 });
    try expectEncode(.{ .heads = 1, .width = 32, .texts = &.{ 140, 7 }, .magnitude = 0 });
}

test "a value that is no number reaches the rows of its own text and no other" {
    const width = 32;
    var qkv: [6 * 3 * width]f32 = undefined;
    var prng: std.Random.DefaultPrng = .init(52);
    for (&qkv) |*value| value.* = prng.random().floatNorm(f32);
    for ([_]usize{ 0, width, 2 * width }) |part| {
        var damaged = qkv;
        damaged[1 * 3 * width + part + 4] = std.math.nan(f32);
        var out: [6 * width]f32 = undefined;
        var scratch: [table.scratchBytes(0, width, 0)]u8 align(64) = undefined;
        const blocks = [_]table.EncodeBlock{
            .{ .first = 0, .count = 3, .text = .{ .first = 0, .count = 3 } }, .{ .first = 3, .count = 3, .text = .{ .first = 3, .count = 3 } },
        };
        const args: table.Encode = .{ .head_count = 1, .head_width = width, .block_count = 2, .scale = 0.2, .blocks = &blocks, .q = &damaged, .q_stride = 3 * width, .k = damaged[width..].ptr, .k_stride = 3 * width, .v = damaged[2 * width ..].ptr, .v_stride = 3 * width, .out = &out, .out_stride = width, .out_quantized = null, .out_quantized_stride = 0 };
        encode(&args, 0, 2, &scratch);
        for (out[3 * width ..]) |value| try std.testing.expect(std.math.isFinite(value));
        // A key alone that is no number gets no weight.
        if (part == 0) for (out[width .. 2 * width]) |value| try std.testing.expect(std.math.isNan(value));
        if (part == 2 * width) for (0..3) |row| try std.testing.expect(std.math.isNan(out[row * width + 4]));
    }
}
