//! Rotary position embedding (Su et al. 2021, "RoFormer") and the store of keys and values into the KV pages.
//!
//! A pair (a, b) of a head at position p with frequency f becomes (a cos pf - b sin pf, b cos pf + a sin pf).

const std = @import("std");
const assert = std.debug.assert;
const table = @import("table.zig");
const vec = @import("vec.zig");
const norm = @import("norm.zig");

const F = vec.F;
const U = vec.U;
const lanes = vec.lanes;
const D = @Vector(lanes, f64);

const CosSin = struct { cos: F, sin: F };

/// cos and sin of position * frequency, absolute error at most 1.2e-7, for |position * frequency| up to 2^20 * pi / 2.
///
/// The angle is formed and reduced in float64: the product of a 20-bit position and a float32 frequency is exact there,
/// while in float32 it would be rounded to 0.06 radians at position 2^20, and a float32 reduction would lose as much
/// again. What is left, at most pi / 4, goes to float32 polynomials.
inline fn cosSin(position: f64, frequencies: F) CosSin {
    const angle = @as(D, @splat(position)) * @as(D, @floatCast(frequencies));
    // n = round(angle * 2 / pi) by pushing the fraction out of the float64 significand.
    const magic: D = @splat(0x1.8p52);
    const shifted = angle * @as(D, @splat(2.0 / std.math.pi)) + magic;
    const n = shifted - magic;
    const quadrant: @Vector(lanes, u64) = @bitCast(shifted);
    // pi / 2 in two parts; the first has 33 bits, so that n times it is exact for n up to 2^20.
    const near = angle - n * @as(D, @splat(0x1.921fb544p0));
    const r: F = @floatCast(near - n * @as(D, @splat(6.077100506506192e-11)));
    const z = r * r;
    // sin r = r + r^3 s(r^2), relative error 3.6e-9; cos r = 1 - r^2 / 2 + r^4 c(r^2), absolute error 1e-10.
    var s: F = @splat(-1.95172339e-4);
    s = vec.mulAdd(s, z, @as(F, @splat(8.332178e-3)));
    s = vec.mulAdd(s, z, @as(F, @splat(-1.66666552e-1)));
    const sin = vec.mulAdd(s * z, r, r);
    var c: F = @splat(2.44383791e-5);
    c = vec.mulAdd(c, z, @as(F, @splat(-1.38873665e-3)));
    c = vec.mulAdd(c, z, @as(F, @splat(4.16666456e-2)));
    const cos = vec.mulAdd(c * z, z, vec.mulAdd(z, @as(F, @splat(-0.5)), @as(F, @splat(1))));
    // Quadrants 1 and 3 swap the two; 1 and 2 negate the cosine, 2 and 3 the sine.
    const q: U = @truncate(quadrant);
    const one: U = @splat(1);
    const two: U = @splat(2);
    const odd = (q & one) != @as(U, @splat(0));
    const cos_sign = ((q +% one) & two) << @splat(30);
    const sin_sign = (q & two) << @splat(30);
    return .{
        .cos = @bitCast(@as(U, @bitCast(@select(f32, odd, sin, cos))) ^ cos_sign),
        .sin = @bitCast(@as(U, @bitCast(@select(f32, odd, cos, sin))) ^ sin_sign),
    };
}

/// See `table.RopeTable`. Positions up to 2^20 at frequencies up to pi / 2.
pub fn ropeTable(args: *const table.RopeTable, begin: u32, end: u32) callconv(.c) void {
    assert(begin <= end and end <= args.row_count);
    const scale: F = @splat(args.scale);
    for (begin..end) |row| {
        const position: f64 = @floatFromInt(vec.read(&args.rows[row].position));
        const cos = args.out + row * args.out_stride;
        const sin = cos + args.pair_count;
        var pair: usize = 0;
        while (pair + lanes <= args.pair_count) : (pair += lanes) {
            const both = cosSin(position, vec.load(F, args.frequencies + pair));
            vec.store(cos + pair, both.cos * scale);
            vec.store(sin + pair, both.sin * scale);
        }
        if (pair < args.pair_count) {
            const rest = args.pair_count - pair;
            const both = cosSin(position, vec.loadPartial(F, args.frequencies + pair, rest));
            vec.storePartial(cos + pair, both.cos * scale, rest);
            vec.storePartial(sin + pair, both.sin * scale, rest);
        }
    }
}

inline fn rotateHalves(comptime T: type, x: [*]f32, cos: [*]const f32, sin: [*]const f32, pair: usize, pair_count: usize) void {
    const a = vec.load(T, x + pair);
    const b = vec.load(T, x + pair_count + pair);
    const c = vec.load(T, cos + pair);
    const s = vec.load(T, sin + pair);
    vec.store(x + pair, vec.mulAdd(a, c, -(b * s)));
    vec.store(x + pair_count + pair, vec.mulAdd(b, c, a * s));
}

inline fn rotate(style: table.RopeStyle, x: [*]f32, cos: [*]const f32, pair_count: usize) void {
    const sin = cos + pair_count;
    switch (style) {
        .none => {},
        .halves => {
            var pair: usize = 0;
            while (pair + lanes <= pair_count) : (pair += lanes) rotateHalves(F, x, cos, sin, pair, pair_count);
            while (pair < pair_count) : (pair += 1) rotateHalves(@Vector(1, f32), x, cos, sin, pair, pair_count);
        },
        .neighbours => {
            var pair: usize = 0;
            while (pair < pair_count) : (pair += 1) {
                const a = vec.read(&x[2 * pair]);
                const b = vec.read(&x[2 * pair + 1]);
                const c = vec.read(&cos[pair]);
                const s = vec.read(&sin[pair]);
                vec.write(&x[2 * pair], vec.mulAdd(a, c, -(b * s)));
                vec.write(&x[2 * pair + 1], vec.mulAdd(b, c, a * s));
            }
        },
    }
}

/// See `table.Rope`.
pub fn rope(args: *const table.Rope, begin: u32, end: u32) callconv(.c) void {
    assert(begin <= end and end <= args.row_count);
    assert(args.style == .none or 2 * args.pair_count <= args.head_width);
    const width: usize = args.head_width;
    for (begin..end) |row| {
        const cos = args.table + row * args.table_stride;
        for (0..args.head_count) |head| rotate(args.style, args.q + row * args.q_stride + head * width, cos, args.pair_count);
        for (0..args.kv_head_count) |head| rotate(args.style, args.k + row * args.k_stride + head * width, cos, args.pair_count);
    }
}

/// See `table.RopeStore`. k is normalised and rotated in place on the way (the table's "k" buffer is scratch afterwards).
/// `head_width` is a multiple of 16. Values too large for float16 become infinite.
pub fn ropeStore(args: *const table.RopeStore, begin: u32, end: u32) callconv(.c) void {
    assert(begin <= end and end <= args.row_count);
    assert(args.head_width % 16 == 0);
    assert(args.style == .none or 2 * args.pair_count <= args.head_width);
    const width: usize = args.head_width;
    for (begin..end) |row| {
        const cos = args.table + row * args.table_stride;
        for (0..args.head_count) |head| {
            const q = args.q + row * args.q_stride + head * width;
            if (args.q_norm) |weight| norm.normInPlace(q, weight, width, args.epsilon);
            rotate(args.style, q, cos, args.pair_count);
        }
        const place = vec.read(&args.rows[row]);
        const page = pageOf(&args.kv, place.sequence, place.position / table.page_positions);
        const slot = place.position % table.page_positions;
        for (0..args.kv_head_count) |head| {
            const k = args.k + row * args.k_stride + head * width;
            if (args.k_norm) |weight| norm.normInPlace(k, weight, width, args.epsilon);
            rotate(args.style, k, cos, args.pair_count);
            const keys = page + args.kv.key_offset + head * table.kvHeadBytes(args.kv.key_format, width);
            switch (args.kv.key_format) {
                .f16 => storeColumn(keys + slot * 2, k, width),
                .q8_0 => storeQuantizedColumn(keys, slot, k, width),
                else => unreachable,
            }
            const v = args.v + row * args.v_stride + head * width;
            const values = page + args.kv.value_offset + head * table.kvHeadBytes(args.kv.value_format, width);
            switch (args.kv.value_format) {
                .f16 => storeRow(values + slot * width * 2, v, width),
                .q8_0 => storeQuantizedRow(values, slot, v, width),
                else => unreachable,
            }
        }
    }
}

/// The page that holds positions `64 * index` to `64 * index + 63` of a sequence.
pub inline fn pageOf(kv: *const table.KvView, sequence: u32, index: u32) [*]u8 {
    return kv.base + vec.read(&kv.page_table[sequence * kv.table_stride + index]) * kv.page_bytes;
}

/// Writes `width` values as float16, one to each row of 64 positions.
inline fn storeColumn(column: [*]u8, values: [*]const f32, width: usize) void {
    var at: usize = 0;
    while (at < width) : (at += lanes) {
        const half: [lanes]f16 = vec.toF16(vec.load(F, values + at));
        inline for (0..lanes) |lane| {
            const target: *f16 = @ptrCast(@alignCast(column + (at + lane) * table.page_positions * 2));
            vec.write(target, half[lane]);
        }
    }
}

/// Writes `width` values as float16, one behind the other.
inline fn storeRow(row: [*]u8, values: [*]const f32, width: usize) void {
    var column: usize = 0;
    while (column < width) : (column += 16) {
        inline for (0..16 / lanes) |index| {
            const at = column + index * lanes;
            vec.storeF16(row + at * 2, vec.load(F, values + at));
        }
    }
}

/// Writes a position's keys of one KV head as Q8_0, where `table.KvView` has them.
inline fn storeQuantizedColumn(keys: [*]u8, slot: usize, values: [*]const f32, width: usize) void {
    const quants = keys + table.kvScales(width) * table.page_positions * 2;
    for (0..table.kvScales(width)) |index| {
        const block = quantizeBlock(values + index * table.kv_block);
        vec.store(keys + (index * table.page_positions + slot) * 2, block.scale);
        for (0..table.kv_block) |at| {
            vec.write(&quants[(index * table.kv_block + at) * table.page_positions + slot], @bitCast(block.quants[at]));
        }
    }
}

/// The same with values.
inline fn storeQuantizedRow(rows: [*]u8, slot: usize, values: [*]const f32, width: usize) void {
    const quants = rows + table.kvScales(width) * table.page_positions * 2 + slot * width;
    for (0..table.kvScales(width)) |index| {
        const block = quantizeBlock(values + index * table.kv_block);
        vec.store(rows + (slot * table.kvScales(width) + index) * 2, block.scale);
        vec.store(quants + index * table.kv_block, block.quants);
    }
}

const QuantizedBlock = struct { scale: f16, quants: [table.kv_block]i8 };

/// 32 values as int8 multiples of a float16 scale. A value that is not finite, or too large for the scale, makes the scale
/// not a number: what reads it is to see that it is damaged.
fn quantizeBlock(source: [*]const f32) QuantizedBlock {
    const Values = @Vector(table.kv_block, f32);
    const values = vec.load(Values, source);
    const magnitudes = @abs(values);
    if (!@reduce(.And, magnitudes <= @as(Values, @splat(127 * 65504)))) {
        return .{ .scale = std.math.nan(f16), .quants = @splat(1) };
    }
    const wanted: @Vector(1, f32) = @splat(vec.max(magnitudes) / 127);
    const scale: @Vector(1, u16) = @bitCast(vec.toF16(wanted));
    const stored = vec.fromF16(scale)[0];
    const inverse: Values = @splat(if (stored > 0) 1 / stored else 0);
    // The stored scale may be smaller than wanted, by much where it is denormal.
    const limit: Values = @splat(127);
    const quants = vec.roundToInt(@max(-limit, @min(limit, values * inverse)));
    return .{ .scale = @bitCast(scale[0]), .quants = @as(@Vector(table.kv_block, i8), @truncate(quants)) };
}

// ---------------------------------------------------------------------------------------------------------------------

test "the table holds cos and sin of the exact angle up to position 2^20" {
    var prng = std.Random.DefaultPrng.init(5);
    const random = prng.random();
    for ([_]u32{ 1, 5, 16, 32, 37, 128 }) |pair_count| {
        const row_count = 14;
        const positions = [row_count]u32{ 0, 1, 2, 63, 64, 511, 512, 2000, 32767, 131071, 1 << 20, (1 << 20) - 1, 777_777, 99_999 };
        var rows: [row_count]table.Row = undefined;
        for (&rows, positions) |*row, position| row.* = .{ .sequence = 0, .position = position };
        var frequencies: [128]f32 = undefined;
        for (&frequencies, 0..) |*frequency, pair| {
            frequency.* = @floatCast(std.math.pow(f64, 10_000, -@as(f64, @floatFromInt(pair)) / 128.0));
            if (pair % 5 == 4) frequency.* = random.float(f32);
        }
        const stride = 260;
        var out: [row_count * stride]f32 = @splat(5);
        const args: table.RopeTable = .{
            .pair_count = pair_count,
            .row_count = row_count,
            .scale = 1.25,
            .rows = &rows,
            .frequencies = &frequencies,
            .out = &out,
            .out_stride = stride,
        };
        ropeTable(&args, 0, 3);
        ropeTable(&args, 3, row_count);
        for (positions, 0..) |position, row| {
            for (0..pair_count) |pair| {
                const angle = @as(f64, @floatFromInt(position)) * frequencies[pair];
                try std.testing.expectApproxEqAbs(1.25 * @cos(angle), out[row * stride + pair], 3e-7);
                try std.testing.expectApproxEqAbs(1.25 * @sin(angle), out[row * stride + pair_count + pair], 3e-7);
            }
            try std.testing.expectEqual(@as(f32, 5), out[row * stride + 2 * pair_count]);
        }
    }
}

test "ropeStore normalises, rotates and stores transposed keys and values, every style, any split of rows" {
    var prng = std.Random.DefaultPrng.init(6);
    const random = prng.random();
    const allocator = std.testing.allocator;
    const Case = struct { heads: u32, kv_heads: u32, width: u32, pairs: u32, style: table.RopeStyle, normalised: bool };
    const cases = [_]Case{
        .{ .heads = 4, .kv_heads = 1, .width = 256, .pairs = 128, .style = .halves, .normalised = true },
        .{ .heads = 6, .kv_heads = 2, .width = 64, .pairs = 32, .style = .neighbours, .normalised = false },
        .{ .heads = 3, .kv_heads = 3, .width = 80, .pairs = 20, .style = .halves, .normalised = true },
        .{ .heads = 2, .kv_heads = 2, .width = 16, .pairs = 5, .style = .neighbours, .normalised = true },
        .{ .heads = 2, .kv_heads = 1, .width = 48, .pairs = 0, .style = .none, .normalised = false },
    };
    for (cases) |case| {
        const rows = [_]table.Row{
            .{ .sequence = 1, .position = 0 },  .{ .sequence = 1, .position = 1 },   .{ .sequence = 0, .position = 63 },
            .{ .sequence = 0, .position = 64 }, .{ .sequence = 2, .position = 100 },
        };
        const q_width = case.heads * case.width;
        const k_width = case.kv_heads * case.width;
        const page_bytes = k_width * 64 * 2 * 2;
        const pages = try allocator.alignedAlloc(u8, .@"64", page_bytes * 6);
        defer allocator.free(pages);
        @memset(pages, 0xff);
        const page_table = [_]u32{ 5, 3, 0, 0, 99, 4 }; // Two pages a sequence; sequence 2 stands in its second one.
        const q = try allocator.alloc(f32, rows.len * q_width);
        defer allocator.free(q);
        const k = try allocator.alloc(f32, rows.len * k_width);
        defer allocator.free(k);
        const v = try allocator.alloc(f32, rows.len * k_width);
        defer allocator.free(v);
        for (q) |*x| x.* = random.floatNorm(f32);
        for (k) |*x| x.* = random.floatNorm(f32);
        for (v) |*x| x.* = random.floatNorm(f32);
        v[3] = 1e9;
        v[4] = -3e-7; // A float16 denormal.
        var weight: [256]f32 = undefined;
        for (&weight) |*x| x.* = 0.5 + random.float(f32);
        const angles = try allocator.alloc(f32, rows.len * 256);
        defer allocator.free(angles);
        for (0..rows.len) |row| {
            for (0..case.pairs) |pair| {
                const angle = random.float(f64) * 6;
                angles[row * 256 + pair] = @floatCast(@cos(angle));
                angles[row * 256 + case.pairs + pair] = @floatCast(@sin(angle));
            }
        }
        const q_before = try allocator.dupe(f32, q);
        defer allocator.free(q_before);
        const k_before = try allocator.dupe(f32, k);
        defer allocator.free(k_before);
        const args: table.RopeStore = .{
            .head_count = case.heads,
            .kv_head_count = case.kv_heads,
            .head_width = case.width,
            .row_count = rows.len,
            .style = case.style,
            .pair_count = case.pairs,
            .epsilon = 1e-6,
            .q = q.ptr,
            .q_stride = q_width,
            .k = k.ptr,
            .k_stride = k_width,
            .v = v.ptr,
            .v_stride = k_width,
            .q_norm = if (case.normalised) &weight else null,
            .k_norm = if (case.normalised) &weight else null,
            .table = angles.ptr,
            .table_stride = 256,
            .rows = &rows,
            .kv = .{
                .base = pages.ptr,
                .page_bytes = page_bytes,
                .page_table = &page_table,
                .table_stride = 2,
                .key_offset = 0,
                .value_offset = page_bytes / 2,
                .key_format = .f16,
                .value_format = .f16,
            },
        };
        ropeStore(&args, 2, rows.len);
        ropeStore(&args, 0, 2);
        const written = try allocator.alloc(bool, pages.len);
        defer allocator.free(written);
        @memset(written, false);
        for (rows, 0..) |row, index| {
            const page = page_table[row.sequence * 2 + row.position / 64] * page_bytes;
            for (0..case.heads) |head| {
                const want = reference(q_before[index * q_width + head * case.width ..], &weight, angles[index * 256 ..], case);
                for (0..case.width) |at| {
                    try std.testing.expectApproxEqAbs(want[at], q[index * q_width + head * case.width + at], 3e-6);
                }
            }
            for (0..case.kv_heads) |head| {
                const want = reference(k_before[index * k_width + head * case.width ..], &weight, angles[index * 256 ..], case);
                for (0..case.width) |at| {
                    const key_at = page + ((head * case.width + at) * 64 + row.position % 64) * 2;
                    const value_at = page + page_bytes / 2 + ((head * 64 + row.position % 64) * case.width + at) * 2;
                    @memset(written[key_at..][0..2], true);
                    @memset(written[value_at..][0..2], true);
                    const key: f16 = @bitCast(std.mem.readInt(u16, pages[key_at..][0..2], .little));
                    const value: f16 = @bitCast(std.mem.readInt(u16, pages[value_at..][0..2], .little));
                    try std.testing.expectApproxEqAbs(want[at], key, 2e-3 * @max(0.1, @abs(want[at])));
                    // The stored key is the rotated float32 one, rounded to nearest.
                    try std.testing.expectEqual(@as(f16, @floatCast(k[index * k_width + head * case.width + at])), key);
                    try std.testing.expectEqual(@as(f16, @floatCast(v[index * k_width + head * case.width + at])), value);
                }
            }
        }
        for (pages, written) |byte, was| if (!was) try std.testing.expectEqual(@as(u8, 0xff), byte);
    }
}

test "rope in place rotates q and k as the store does, every style, any split of rows" {
    var prng = std.Random.DefaultPrng.init(7);
    const random = prng.random();
    const Case = struct { heads: u32, kv_heads: u32, width: u32, pairs: u32, style: table.RopeStyle, normalised: bool = false };
    for ([_]Case{
        .{ .heads = 3, .kv_heads = 3, .width = 64, .pairs = 32, .style = .halves },
        .{ .heads = 4, .kv_heads = 2, .width = 33, .pairs = 7, .style = .neighbours },
        .{ .heads = 2, .kv_heads = 1, .width = 24, .pairs = 12, .style = .halves },
        .{ .heads = 2, .kv_heads = 1, .width = 24, .pairs = 0, .style = .none },
    }) |case| {
        const row_count = 5;
        // Queries and keys side by side.
        const stride = 6 * 64 + 1;
        var x: [row_count * stride]f32 = undefined;
        for (&x) |*value| value.* = random.floatNorm(f32);
        const before = x;
        var angles: [row_count * 64]f32 = undefined;
        for (0..row_count) |row| for (0..case.pairs) |pair| {
            const angle = random.float(f64) * 6;
            angles[row * 64 + pair] = @floatCast(@cos(angle));
            angles[row * 64 + case.pairs + pair] = @floatCast(@sin(angle));
        };
        const k_first = case.heads * case.width;
        const args: table.Rope = .{
            .head_count = case.heads,
            .kv_head_count = case.kv_heads,
            .head_width = case.width,
            .row_count = row_count,
            .style = case.style,
            .pair_count = case.pairs,
            .q = &x,
            .q_stride = stride,
            .k = x[k_first..].ptr,
            .k_stride = stride,
            .table = &angles,
            .table_stride = 64,
        };
        rope(&args, 3, row_count);
        rope(&args, 0, 3);
        for (0..row_count) |row| {
            for (0..case.heads + case.kv_heads) |head| {
                const at = row * stride + head * case.width;
                const want = reference(before[at..], &.{}, angles[row * 64 ..], case);
                for (x[at..][0..case.width], want[0..case.width]) |found, w| try std.testing.expectApproxEqAbs(w, found, 1e-6);
            }
            const end = (case.heads + case.kv_heads) * case.width;
            try std.testing.expectEqualSlices(f32, before[row * stride + end .. (row + 1) * stride], x[row * stride + end .. (row + 1) * stride]);
        }
    }
}

fn reference(x: []const f32, weight: []const f32, angles: []const f32, case: anytype) [256]f64 {
    var y: [256]f64 = @splat(0);
    var total: f64 = 0;
    for (0..case.width) |at| total += @as(f64, x[at]) * x[at];
    const factor = 1 / @sqrt(total / @as(f64, @floatFromInt(case.width)) + 1e-6);
    for (0..case.width) |at| y[at] = if (case.normalised) x[at] * factor * weight[at] else x[at];
    for (0..case.pairs) |pair| {
        const i, const j = switch (case.style) {
            .none => unreachable,
            .halves => .{ pair, pair + case.pairs },
            .neighbours => .{ 2 * pair, 2 * pair + 1 },
        };
        const a = y[i];
        const b = y[j];
        y[i] = a * angles[pair] - b * angles[case.pairs + pair];
        y[j] = b * angles[pair] + a * angles[case.pairs + pair];
    }
    return y;
}

test "what is stored in Q8_0 lies within half a step, depends on its position alone, and shows what is damaged" {
    const width = 64;
    const kv_heads = 2;
    const columns = kv_heads * width;
    const half = kv_heads * comptime table.kvHeadBytes(.q8_0, width);
    const rows = [_]table.Row{ .{ .sequence = 0, .position = 5 }, .{ .sequence = 0, .position = 6 }, .{ .sequence = 0, .position = 63 } };
    var prng = std.Random.DefaultPrng.init(12);
    var x: [2][rows.len * columns]f32 = undefined;
    for (&x) |*values| for (values) |*value| {
        value.* = prng.random().floatNorm(f32) * 3;
    };
    for (&x) |*values| {
        @memset(values[0..32], 0);
        for (values[32..64]) |*value| value.* *= 1e-7; // Float16 scales are denormal there.
        values[100] = -1000;
        values[columns + 3] = std.math.inf(f32);
        values[columns + 40] = std.math.nan(f32);
        values[columns + 70] = 1e30;
        values[2 * columns + 9] = 127 * 65504;
    }
    const q: [0]f32 = .{};
    const angles: [1]f32 = .{0};
    var pages: [2][2 * half]u8 align(64) = @splat(@splat(0xee));
    const page_table = [_]u32{0};
    for (&pages, 0..) |*page, run| {
        var k = x[0];
        const args: table.RopeStore = .{
            .head_count = 0,
            .kv_head_count = kv_heads,
            .head_width = width,
            .row_count = rows.len,
            .style = .none,
            .pair_count = 0,
            .epsilon = 1e-6,
            .q = @constCast(&q),
            .q_stride = 0,
            .k = &k,
            .k_stride = columns,
            .v = &x[1],
            .v_stride = columns,
            .q_norm = null,
            .k_norm = null,
            .table = &angles,
            .table_stride = 0,
            .rows = &rows,
            .kv = .{
                .base = page,
                .page_bytes = page.len,
                .page_table = &page_table,
                .table_stride = 1,
                .key_offset = 0,
                .value_offset = half,
                .key_format = .q8_0,
                .value_format = .q8_0,
            },
        };
        // Whole, and row by row from the last to the first.
        if (run == 0) ropeStore(&args, 0, rows.len) else for (0..rows.len) |index| {
            const row: u32 = @intCast(rows.len - 1 - index);
            ropeStore(&args, row, row + 1);
        }
    }
    try std.testing.expectEqualSlices(u8, &pages[0], &pages[1]);
    var written: usize = 0;
    for (rows, 0..) |row, index| for (0..2) |side| for (0..columns) |column| {
        const at = column % width;
        const block = at / 32;
        const head = pages[0][side * half + column / width * (half / kv_heads) ..];
        const scale_place = if (side == 0) block * 64 + row.position else row.position * 2 + block;
        const place = if (side == 0) at * 64 + row.position else row.position * width + at;
        const scale: f16 = @bitCast(std.mem.readInt(u16, head[scale_place * 2 ..][0..2], .little));
        const quant: i8 = @bitCast(head[2 * 64 * 2 + place]);
        written += 1;
        const values = x[side][index * columns ..][column / 32 * 32 ..][0..32];
        var largest: f64 = 0;
        var damaged = false;
        for (values) |value| {
            if (!(@abs(value) <= 127 * 65504)) damaged = true;
            largest = @max(largest, @abs(value));
        }
        try std.testing.expectEqual(damaged, std.math.isNan(scale));
        if (damaged) continue;
        // The nearest float16, of which denormals are 2^-24 apart; the last quant may lie beyond 127 of it.
        try std.testing.expect(@abs(@as(f64, scale) - largest / 127) <= @max(largest / 127 * 0x1p-11, 0x1p-25));
        const step = @abs(@as(f64, scale)) / 2 * 1.0001 + 127 * 0x1p-25;
        const wanted = x[side][index * columns + column];
        try std.testing.expect(@abs(@as(f64, scale) * @as(f64, @floatFromInt(quant)) - wanted) <= step);
    };
    // Nothing else is.
    var untouched: usize = 0;
    for (pages[0]) |byte| untouched += @intFromBool(byte == 0xee);
    try std.testing.expect(untouched >= pages[0].len - written - written / 32 * 2);
}
