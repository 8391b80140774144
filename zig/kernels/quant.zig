//! Float32 activations to the forms that products take. Int8: per 32 columns, scale = max |x| / 127 and q = x / scale rounded
//! to nearest, ties to even. A row is its quants, its scales, and the sums of its quants over every 16 columns, which products
//! with offset or minimum-carrying weights need (the layout is `table.quantizedRowBytes`). For float16 and bfloat16 weights
//! (`table.wideRowBytes`), words: the same with scale = max |x| / 8191 and int16 quants, without sums, for products of levels that
//! multiply those; and floats, the values themselves, for those of the others. The bits are the same at every level.

const std = @import("std");
const assert = std.debug.assert;
const table = @import("table.zig");
const vec = @import("vec.zig");

const block = table.block_columns;

/// What this level's products with float16 and bfloat16 weights take.
pub const wide_form: table.Form = if (vec.has_words) .words else .floats;

/// Blocks whose largest magnitude is below this become zeros: 127 / max would not be finite much further down.
const magnitude_min: f32 = 0x1p-100;

/// Where the parts of a row of int8 activations lie.
pub const Row = struct {
    quants: [*]const u8,
    scales: [*]const u8,
    sums: [*]const u8,

    pub inline fn of(row: [*]const u8, columns: u32) Row {
        return .{ .quants = row, .scales = row + columns, .sums = row + columns + columns / block * 4 };
    }

    /// The row from `column` on, a multiple of 32.
    pub inline fn from(row: Row, column: u32) Row {
        return .{ .quants = row.quants + column, .scales = row.scales + column / block * 4, .sums = row.sums + column / block * 8 };
    }
};

/// Quantizes columns [begin, end), multiples of 32, of the row `x` of `columns` values into the row `out` of
/// `quantizedRowBytes(columns)` bytes. Disjoint ranges may be done by different threads.
pub fn quantizeColumns(columns: u32, begin: u32, end: u32, x: [*]const f32, out: [*]u8) void {
    assert(columns % block == 0);
    assert(begin % block == 0 and end % block == 0 and begin <= end and end <= columns);
    const scales = out + columns;
    const sums = scales + columns / block * 4;
    var column: usize = begin;
    while (column < end) : (column += block) {
        const Values = @Vector(block, f32);
        const values = vec.load(Values, x + column);
        const magnitude = vec.max(@abs(values));
        const nonzero = magnitude >= magnitude_min;
        const inverse: f32 = if (nonzero) 127.0 / magnitude else 0;
        const quants = vec.roundToInt(values * @as(Values, @splat(inverse)));
        vec.store(out + column, @as(@Vector(block, i8), @truncate(quants)));
        vec.store(scales + column / block * 4, @as(f32, if (nonzero) magnitude / 127.0 else 0));
        vec.store(sums + column / 16 * 4, @as(i32, @reduce(.Add, vec.lowHalf(quants))));
        vec.store(sums + column / 16 * 4 + 4, @as(i32, @reduce(.Add, vec.highHalf(quants))));
    }
}

/// Quantizes a whole row.
pub inline fn quantizeRow(columns: u32, x: [*]const f32, out: [*]u8) void {
    quantizeColumns(columns, 0, columns, x, out);
}

/// The largest int16 quant: 32 products of two of them fit 32 bits.
pub const wide_max = 8191;

comptime {
    assert(block * wide_max * wide_max <= std.math.maxInt(i32));
}

/// Where the parts of a wide row of int16 activations lie.
pub const WideRow = struct {
    quants: [*]const u8,
    scales: [*]const u8,

    pub inline fn of(row: [*]const u8, columns: u32) WideRow {
        return .{ .quants = row, .scales = row + std.mem.alignForward(usize, columns, block) * 2 };
    }
};

/// Writes columns [begin, end) of the row `x` of `columns` values into the row `out` of int16 quants. `begin` is a multiple of 32,
/// `end` too unless it is the last. Disjoint ranges may be done by different threads.
fn wordColumns(columns: u32, begin: u32, end: u32, x: [*]const f32, out: [*]u8) void {
    assert(begin % block == 0 and begin <= end and end <= columns);
    assert(end % block == 0 or end == columns);
    const scales = out + std.mem.alignForward(usize, columns, block) * 2;
    var column: usize = begin;
    while (column < end) : (column += block) {
        const Values = @Vector(block, f32);
        const values = if (end - column >= block) vec.load(Values, x + column) else vec.loadPartial(Values, x + column, end - column);
        // Of the patterns, not of the values: that of a NaN is above all others, and its scale then a NaN.
        const patterns = @as(@Vector(block, u32), @bitCast(values)) & @as(@Vector(block, u32), @splat(0x7fffffff));
        const magnitude: f32 = @bitCast(@reduce(.Max, patterns));
        const zero = magnitude < magnitude_min;
        const inverse: f32 = if (zero) 0 else wide_max / magnitude;
        const quants = vec.roundToInt(values * @as(Values, @splat(inverse)));
        vec.store(out + column * 2, @as(@Vector(block, i16), @truncate(quants)));
        vec.store(scales + column / block * 4, if (zero) @as(f32, 0) else magnitude / wide_max);
    }
}

/// Writes columns [begin, end) of a row in a form; see the form's own function.
pub fn writeColumns(form: table.Form, columns: u32, begin: u32, end: u32, x: [*]const f32, out: [*]u8) void {
    switch (form) {
        .int8 => quantizeColumns(columns, begin, end, x, out),
        .floats => vec.copy(u8, out[begin * 4 .. end * 4], @ptrCast(x + begin)),
        .words => wordColumns(columns, begin, end, x, out),
    }
}

/// `table.Quantize`. Units: rows.
pub fn quantize(args: *const table.Quantize, begin: u32, end: u32) callconv(.c) void {
    assert(end <= args.row_count);
    for (begin..end) |row| writeColumns(args.form, args.columns, 0, args.columns, args.x + row * args.x_stride, args.out + row * args.out_stride);
}

test "a quantized row reproduces its values within half a step, and its sums are exact" {
    const columns = 96;
    var prng: std.Random.DefaultPrng = .init(1);
    var x: [columns]f32 = undefined;
    for (&x) |*value| value.* = prng.random().floatNorm(f32);
    @memset(x[32..64], 0);
    x[70] = -1000;
    var row: [table.quantizedRowBytes(columns)]u8 align(64) = undefined;
    quantizeRow(columns, &x, &row);
    const parts: Row = .of(&row, columns);
    for (0..columns / 32) |index| {
        var largest: f64 = 0;
        for (x[32 * index ..][0..32]) |value| largest = @max(largest, @abs(@as(f64, value)));
        const scale = vec.load(f32, parts.scales + 4 * index);
        try std.testing.expectApproxEqRel(largest / 127, @as(f64, scale), 1e-6);
        for (0..2) |half| {
            var sum: i32 = 0;
            for (0..16) |offset| {
                const column = 32 * index + 16 * half + offset;
                const quantized: i8 = @bitCast(row[column]);
                sum += quantized;
                try std.testing.expect(quantized >= -127);
                try std.testing.expect(@abs(x[column] - @as(f64, scale) * quantized) <= @as(f64, scale) * 0.5001);
            }
            try std.testing.expectEqual(sum, vec.load(i32, parts.sums + 4 * (2 * index + half)));
        }
    }
    try std.testing.expectEqual(@as(f32, 0), vec.load(f32, parts.scales + 4));
    try std.testing.expectEqual(@as(u8, @bitCast(@as(i8, -127))), row[70]);
}

test "halves round to even, denormals and zeros become zeros, the largest floats survive" {
    const columns = 128;
    var x: [columns]f32 = @splat(0);
    x[0] = 127;
    x[1] = 0.5;
    x[2] = 1.5;
    x[3] = -2.5;
    x[32] = std.math.floatTrueMin(f32);
    x[64] = std.math.floatMax(f32);
    x[65] = -std.math.floatMax(f32);
    x[96] = 0x1p-100;
    var row: [table.quantizedRowBytes(columns)]u8 align(64) = undefined;
    quantizeRow(columns, &x, &row);
    const quants: *const [columns]i8 = @ptrCast(&row);
    try std.testing.expectEqualSlices(i8, &.{ 127, 0, 2, -2 }, quants[0..4]);
    try std.testing.expectEqual(@as(i8, 0), quants[32]);
    try std.testing.expectEqual(@as(f32, 0), vec.load(f32, Row.of(&row, columns).scales + 4));
    try std.testing.expectEqualSlices(i8, &.{ 127, -127 }, quants[64..66]);
    try std.testing.expectEqual(@as(i8, 127), quants[96]);
}

test "a row for 16-bit weights reproduces its values within half a step as words, and exactly as floats" {
    const columns = 75;
    var prng: std.Random.DefaultPrng = .init(3);
    var x: [columns]f32 = undefined;
    for (&x) |*value| value.* = prng.random().floatNorm(f32);
    @memset(x[32..64], 0);
    x[33] = 0x1p-110;
    x[70] = -1000;
    var row: [table.wideRowBytes(columns)]u8 align(64) = undefined;
    writeColumns(.floats, columns, 0, columns, &x, &row);
    try std.testing.expectEqualSlices(u8, std.mem.sliceAsBytes(&x), row[0 .. columns * 4]);
    writeColumns(.words, columns, 0, columns, &x, &row);
    const parts: WideRow = .of(&row, columns);
    for (0..96) |column| {
        const block_values = x[column / 32 * 32 .. @min(columns, column / 32 * 32 + 32)];
        var largest: f64 = 0;
        for (block_values) |value| largest = @max(largest, @abs(@as(f64, value)));
        if (largest < 0x1p-100) largest = 0;
        const scale = vec.load(f32, parts.scales + column / 32 * 4);
        try std.testing.expectApproxEqRel(largest / 8191, @as(f64, scale), 1e-6);
        const found = @as(f64, scale) * @as(f64, @floatFromInt(vec.load(i16, parts.quants + column * 2)));
        const wanted: f64 = if (column < columns) x[column] else 0;
        try std.testing.expect(@abs(wanted - found) <= @as(f64, scale) * 0.5001 + 0x1p-100);
    }
    try std.testing.expectEqual(@as(i16, -8191), vec.load(i16, parts.quants + 70 * 2));
}

test "column ranges of a row for 16-bit weights give the bits of the whole row" {
    const columns = 139;
    var prng: std.Random.DefaultPrng = .init(4);
    var x: [columns]f32 = undefined;
    for (&x) |*value| value.* = prng.random().floatNorm(f32);
    for ([_]table.Form{ .floats, .words }) |form| {
        var whole: [table.wideRowBytes(columns)]u8 align(64) = @splat(0);
        var pieces: [table.wideRowBytes(columns)]u8 align(64) = @splat(0);
        writeColumns(form, columns, 0, columns, &x, &whole);
        writeColumns(form, columns, 64, columns, &x, &pieces);
        writeColumns(form, columns, 0, 64, &x, &pieces);
        try std.testing.expectEqualSlices(u8, &whole, &pieces);
    }
}

test "column ranges give the bits of the whole row" {
    const columns = 160;
    var prng: std.Random.DefaultPrng = .init(2);
    var x: [columns]f32 = undefined;
    for (&x) |*value| value.* = prng.random().floatNorm(f32);
    var whole: [table.quantizedRowBytes(columns)]u8 align(64) = @splat(0);
    var pieces: [table.quantizedRowBytes(columns)]u8 align(64) = @splat(0);
    quantizeRow(columns, &x, &whole);
    quantizeColumns(columns, 64, 160, &x, &pieces);
    quantizeColumns(columns, 0, 64, &x, &pieces);
    try std.testing.expectEqualSlices(u8, &whole, &pieces);
}
