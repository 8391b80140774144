//! Root-mean-square normalisation, y = x / sqrt(mean(x^2) + epsilon) * weight (Zhang and Sennrich 2019, "Root Mean Square
//! Layer Normalization"), with an optional residual added; layer normalisation, the same of x - mean(x), with an optional bias
//! added (Ba et al. 2016, "Layer Normalization"); and the plain residual addition.
//!
//! Sums have one order whatever the number of rows or threads: four vector partial sums, column by column, then a fixed tree.

const std = @import("std");
const assert = std.debug.assert;
const table = @import("table.zig");
const vec = @import("vec.zig");
const quant = @import("quant.zig");

const F = vec.F;
const lanes = vec.lanes;

/// Columns normalised between two calls of the quantizer when there is no float output: 4 KB of stack.
const piece_columns = 1024;
/// Independent sums: an FMA takes four cycles, so that one or two chains would wait for themselves.
const partial_sums = 4;

/// 1 / sqrt(mean(x^2) + epsilon), both operations rounded exactly.
pub inline fn inverseRms(x: [*]const f32, width: usize, epsilon: f32) f32 {
    return 1 / @sqrt(mean(.squares, x, width, 0) + epsilon);
}

/// The square root of the sum of squares.
pub inline fn length(x: [*]const f32, width: usize) f32 {
    return @sqrt(mean(.squares, x, width, 0) * @as(f32, @floatFromInt(width)));
}

const Term = enum {
    values,
    squares,
    /// Squares of values less `centre`.
    centred_squares,

    inline fn add(comptime term: Term, sum: F, value: F, centre: F) F {
        return switch (term) {
            .values => sum + value,
            .squares => vec.mulAdd(value, value, sum),
            .centred_squares => vec.mulAdd(value - centre, value - centre, sum),
        };
    }
};

/// The mean of a row's terms.
inline fn mean(comptime term: Term, x: [*]const f32, width: usize, centre: f32) f32 {
    assert(width > 0);
    const centres: F = @splat(centre);
    var sums: [partial_sums]F = @splat(@splat(0));
    var column: usize = 0;
    while (column + partial_sums * lanes <= width) : (column += partial_sums * lanes) {
        inline for (0..partial_sums) |index| sums[index] = term.add(sums[index], vec.load(F, x + column + index * lanes), centres);
    }
    while (column + lanes <= width) : (column += lanes) sums[0] = term.add(sums[0], vec.load(F, x + column), centres);
    if (column < width) {
        const rest = term.add(sums[0], vec.loadPartial(F, x + column, width - column), centres);
        // Past the row's end lie zeros, which are not the centre.
        sums[0] = if (term == .centred_squares) firstLanes(rest, sums[0], width - column) else rest;
    }
    const total = vec.sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
    return total / @as(f32, @floatFromInt(width));
}

/// The first `count` lanes of `value`, and the others of `other`.
inline fn firstLanes(value: F, other: F, count: usize) F {
    const counts: @Vector(lanes, u32) = @splat(@intCast(count));
    return @select(f32, std.simd.iota(u32, lanes) < counts, value, other);
}

/// See `table.Norm`.
pub fn norm(args: *const table.Norm, begin: u32, end: u32) callconv(.c) void {
    assert(begin <= end and end <= args.row_count);
    assert(args.width > 0);
    assert(args.out != null or args.out_quantized != null);
    assert(args.residual == null or args.centred == 0);
    assert(args.bias == null or args.centred != 0);
    for (begin..end) |row| {
        const x = args.x + row * args.x_stride;
        const residual = if (args.residual) |residual| residual + row * args.residual_stride else null;
        const centre = if (args.centred != 0) mean(.values, x, args.width, 0) else 0;
        const factor = if (args.centred != 0)
            1 / @sqrt(mean(.centred_squares, x, args.width, centre) + args.epsilon)
        else
            inverseRms(x, args.width, args.epsilon);
        var local: [piece_columns]f32 align(64) = undefined;
        var first: u32 = 0;
        while (first < args.width) {
            const last = @min(args.width, first + piece_columns);
            const out: [*]f32 = if (args.out) |out| out + row * args.out_stride + first else &local;
            const count = last - first;
            if (args.centred != 0) {
                // What is added has the form of a residual.
                if (args.bias) |bias| {
                    scale(true, true, out, x + first, centre, args.weight + first, bias + first, count, factor);
                } else scale(true, false, out, x + first, centre, args.weight + first, x + first, count, factor);
            } else if (residual) |r| {
                scale(false, true, out, x + first, 0, args.weight + first, r + first, count, factor);
            } else scale(false, false, out, x + first, 0, args.weight + first, x + first, count, factor);
            if (args.out_quantized) |quantized| {
                quant.writeColumns(args.out_form, args.width, first, last, out - first, quantized + row * args.out_quantized_stride);
            }
            first = last;
        }
    }
}

inline fn scale(
    comptime centred: bool,
    comptime adds: bool,
    out: [*]f32,
    x: [*]const f32,
    centre: f32,
    weight: [*]const f32,
    added: [*]const f32,
    count: usize,
    factor: f32,
) void {
    const centres: F = @splat(centre);
    const factors: F = @splat(factor);
    var column: usize = 0;
    while (column + lanes <= count) : (column += lanes) {
        const value = vec.load(F, x + column);
        const n = (if (centred) value - centres else value) * factors;
        const w = vec.load(F, weight + column);
        vec.store(out + column, if (adds) vec.mulAdd(n, w, vec.load(F, added + column)) else n * w);
    }
    if (column < count) {
        const rest = count - column;
        const value = vec.loadPartial(F, x + column, rest);
        const n = (if (centred) value - centres else value) * factors;
        const w = vec.loadPartial(F, weight + column, rest);
        const y = if (adds) vec.mulAdd(n, w, vec.loadPartial(F, added + column, rest)) else n * w;
        vec.storePartial(out + column, y, rest);
    }
}

/// RMSNorm of one head in place: x = x * factor * weight with `inverseRms`, as `norm` without a residual does.
pub inline fn normInPlace(x: [*]f32, weight: [*]const f32, width: usize, epsilon: f32) void {
    scale(false, false, x, x, 0, weight, x, width, inverseRms(x, width, epsilon));
}

/// See `table.Add`.
pub fn add(args: *const table.Add, begin: u32, end: u32) callconv(.c) void {
    assert(begin <= end and end <= args.row_count);
    for (begin..end) |row| addRow(args.x + row * args.x_stride, args.y + row * args.y_stride, args.width);
}

/// x += y.
pub inline fn addRow(x: [*]f32, y: [*]const f32, width: usize) void {
    var column: usize = 0;
    while (column + lanes <= width) : (column += lanes) {
        vec.store(x + column, vec.load(F, x + column) + vec.load(F, y + column));
    }
    while (column < width) : (column += 1) vec.write(&x[column], vec.read(&x[column]) + vec.read(&y[column]));
}

// ---------------------------------------------------------------------------------------------------------------------

const test_stride = 2100;
const test_rows = 3;

fn fill(random: std.Random, values: []f32, magnitude: f32) void {
    for (values) |*value| value.* = random.floatNorm(f32) * magnitude;
}

test "norm equals the double-precision formula for odd widths, tiny and large values, with and without residual" {
    var prng = std.Random.DefaultPrng.init(2);
    const random = prng.random();
    var x: [test_rows * test_stride]f32 = undefined;
    var weight: [test_stride]f32 = undefined;
    var residual: [test_rows * test_stride]f32 = undefined;
    var out: [test_rows * test_stride]f32 = undefined;
    for ([_]u32{ 1, 5, 16, 31, 63, 64, 65, 640, 1024, 1025, 2048, 2079 }) |width| {
        for ([_]f32{ 0, 1e-41, 1e-12, 1, 1e15 }) |magnitude| {
            for ([_]bool{ false, true }) |with_residual| {
                fill(random, &x, magnitude);
                fill(random, &weight, 1);
                fill(random, &residual, 1);
                @memset(&out, 77);
                const args: table.Norm = .{
                    .width = width,
                    .row_count = test_rows,
                    .epsilon = 1e-6,
                    .x = &x,
                    .x_stride = test_stride,
                    .weight = &weight,
                    .residual = if (with_residual) &residual else null,
                    .residual_stride = test_stride,
                    .out = &out,
                    .out_stride = test_stride,
                    .out_quantized = null,
                    .out_quantized_stride = 0,
                };
                norm(&args, 1, test_rows);
                norm(&args, 0, 1);
                for (0..test_rows) |row| {
                    var total: f64 = 0;
                    for (0..width) |column| total += @as(f64, x[row * test_stride + column]) * x[row * test_stride + column];
                    const factor = 1 / @sqrt(total / @as(f64, @floatFromInt(width)) + 1e-6);
                    for (0..width) |column| {
                        const at = row * test_stride + column;
                        const scaled = x[at] * factor * weight[column];
                        const want = scaled + if (with_residual) residual[at] else 0;
                        try std.testing.expectApproxEqAbs(want, out[at], 1e-6 * @abs(scaled) + 2e-7 * @abs(want) + 1e-44);
                    }
                    try std.testing.expectEqual(@as(f32, 77), out[row * test_stride + width]);
                }
            }
        }
    }
}

test "norm in place, over its residual, and in each form without a float output give the same values" {
    var prng = std.Random.DefaultPrng.init(3);
    const random = prng.random();
    const bytes = comptime table.wideRowBytes(2080);
    for ([_]table.Form{ .int8, .floats, .words }, [_]u32{ 2080, 2079, 2079 }) |form, width| {
        var x: [test_rows * test_stride]f32 = undefined;
        var weight: [test_stride]f32 = undefined;
        var residual: [test_rows * test_stride]f32 = undefined;
        var out: [test_rows * test_stride]f32 = undefined;
        var quantized: [3][test_rows * bytes]u8 align(64) = @splat(@splat(0));
        fill(random, &x, 2);
        fill(random, &weight, 1);
        fill(random, &residual, 1);
        var args: table.Norm = .{
            .width = width,
            .row_count = test_rows,
            .epsilon = 1e-5,
            .x = &x,
            .x_stride = test_stride,
            .weight = &weight,
            .residual = &residual,
            .residual_stride = test_stride,
            .out_form = form,
            .out = &out,
            .out_stride = test_stride,
            .out_quantized = &quantized[0],
            .out_quantized_stride = bytes,
        };
        norm(&args, 0, test_rows);
        args.out = null;
        args.out_quantized = &quantized[1];
        norm(&args, 0, test_rows);
        for (0..test_rows) |row| {
            quant.writeColumns(form, width, 0, width, out[row * test_stride ..].ptr, quantized[2][row * bytes ..].ptr);
        }
        try std.testing.expectEqualSlices(u8, &quantized[0], &quantized[1]);
        try std.testing.expectEqualSlices(u8, &quantized[0], &quantized[2]);
        // Over the residual, then over x.
        args.out_quantized = null;
        var kept = residual;
        args.residual = &kept;
        args.out = &kept;
        norm(&args, 0, test_rows);
        for (0..test_rows) |row| try std.testing.expectEqualSlices(f32, out[row * test_stride ..][0..width], kept[row * test_stride ..][0..width]);
        args.residual = &residual;
        args.out = &x;
        norm(&args, 0, test_rows);
        for (0..test_rows) |row| try std.testing.expectEqualSlices(f32, out[row * test_stride ..][0..width], x[row * test_stride ..][0..width]);
    }
}

test "layer normalisation equals the double-precision formula for odd widths and far means, any split, with and without bias" {
    var prng = std.Random.DefaultPrng.init(5);
    const random = prng.random();
    var x: [test_rows * test_stride]f32 = undefined;
    var weight: [test_stride]f32 = undefined;
    var bias: [test_stride]f32 = undefined;
    var out: [test_rows * test_stride]f32 = undefined;
    for ([_]u32{ 1, 2, 17, 33, 63, 64, 384, 768, 1025, 2079 }) |width| {
        for ([_][2]f32{ .{ 1, 0 }, .{ 1e-12, 0 }, .{ 0.5, 30 }, .{ 1e10, -1e10 } }) |spread| {
            for ([_]bool{ false, true }) |biased| {
                fill(random, &x, spread[0]);
                for (&x) |*value| value.* += spread[1];
                fill(random, &weight, 1);
                fill(random, &bias, 1);
                @memset(&out, 77);
                const args: table.Norm = .{
                    .width = width,
                    .row_count = test_rows,
                    .epsilon = 1e-12,
                    .centred = 1,
                    .x = &x,
                    .x_stride = test_stride,
                    .weight = &weight,
                    .bias = if (biased) &bias else null,
                    .residual = null,
                    .residual_stride = 0,
                    .out = &out,
                    .out_stride = test_stride,
                    .out_quantized = null,
                    .out_quantized_stride = 0,
                };
                norm(&args, 2, test_rows);
                norm(&args, 0, 2);
                for (0..test_rows) |row| {
                    const values = x[row * test_stride ..][0..width];
                    var sum: f64 = 0;
                    for (values) |value| sum += value;
                    const centre = sum / @as(f64, @floatFromInt(width));
                    var squares: f64 = 0;
                    for (values) |value| squares += (value - centre) * (value - centre);
                    const variance = squares / @as(f64, @floatFromInt(width));
                    const deviation = @sqrt(variance + 1e-12);
                    for (values, 0..) |value, column| {
                        const added: f64 = if (biased) bias[column] else 0;
                        const want = (value - centre) / deviation * weight[column] + added;
                        // The mean is rounded where the values are, far from zero.
                        const lost = (@abs(centre) + @abs(value)) * 2e-7 / deviation * @abs(weight[column]);
                        try std.testing.expectApproxEqAbs(want, out[row * test_stride + column], 2e-6 * (1 + @abs(want)) + lost);
                    }
                    try std.testing.expectEqual(@as(f32, 77), out[row * test_stride + width]);
                }
            }
        }
    }
}

test "layer normalisation in place and in each form gives the same values" {
    var prng = std.Random.DefaultPrng.init(6);
    const random = prng.random();
    const width = 768;
    const bytes = comptime table.wideRowBytes(width);
    var x: [test_rows * width]f32 = undefined;
    var weight: [width]f32 = undefined;
    var bias: [width]f32 = undefined;
    var out: [test_rows * width]f32 = undefined;
    fill(random, &x, 2);
    fill(random, &weight, 1);
    fill(random, &bias, 1);
    for (std.enums.values(table.Form)) |form| {
        var quantized: [2][test_rows * bytes]u8 align(64) = @splat(@splat(0));
        var args: table.Norm = .{
            .width = width,
            .row_count = test_rows,
            .epsilon = 1e-5,
            .centred = 1,
            .x = &x,
            .x_stride = width,
            .weight = &weight,
            .bias = &bias,
            .residual = null,
            .residual_stride = 0,
            .out_form = form,
            .out = &out,
            .out_stride = width,
            .out_quantized = null,
            .out_quantized_stride = bytes,
        };
        norm(&args, 0, test_rows);
        args.out = null;
        args.out_quantized = &quantized[0];
        norm(&args, 0, test_rows);
        for (0..test_rows) |row| quant.writeColumns(form, width, 0, width, out[row * width ..].ptr, quantized[1][row * bytes ..].ptr);
        try std.testing.expectEqualSlices(u8, &quantized[1], &quantized[0]);
        var kept = x;
        args.x = &kept;
        args.out = &kept;
        norm(&args, 0, test_rows);
        try std.testing.expectEqualSlices(f32, &out, &kept);
    }
}

test "add adds whole rows and nothing past them" {
    var prng = std.Random.DefaultPrng.init(4);
    const random = prng.random();
    var x: [test_rows * test_stride]f32 = undefined;
    var y: [test_rows * test_stride]f32 = undefined;
    for ([_]u32{ 1, 15, 64, 65, 2079 }) |width| {
        fill(random, &x, 1);
        fill(random, &y, 1);
        const before = x;
        const args: table.Add = .{ .width = width, .row_count = test_rows, .x = &x, .x_stride = test_stride, .y = &y, .y_stride = test_stride };
        add(&args, 0, 2);
        add(&args, 2, test_rows);
        for (0..test_rows) |row| {
            for (0..test_stride) |column| {
                const at = row * test_stride + column;
                try std.testing.expectEqual(if (column < width) before[at] + y[at] else before[at], x[at]);
            }
        }
    }
}
