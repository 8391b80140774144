//! A text's vector from the hidden states of its rows: their mean, the first or the last of them, divided by its length where
//! asked for (Reimers and Gurevych 2019, "Sentence-BERT").
//!
//! A mean is a chain of additions in the order of the rows, whatever steps they come in.

const std = @import("std");
const assert = std.debug.assert;
const table = @import("table.zig");
const vec = @import("vec.zig");
const norm = @import("norm.zig");

const F = vec.F;
const lanes = vec.lanes;

/// Vectors shorter than this are divided by it instead, as PyTorch's `normalize` does.
const length_min = 1e-12;

/// See `table.Pool`.
pub fn pool(args: *const table.Pool, begin: u32, end: u32) callconv(.c) void {
    assert(begin <= end and end <= args.text_count);
    assert(args.width > 0);
    const width: usize = args.width;
    for (begin..end) |index| {
        const text = vec.read(&args.texts[index]);
        assert(text.count > 0 and text.position + text.count <= text.total);
        const out = args.out + text.slot * args.out_stride;
        const x = args.x + text.first * args.x_stride;
        const is_last = text.position + text.count == text.total;
        switch (text.pooling) {
            .mean => for (0..text.count) |row| {
                const values = x + row * args.x_stride;
                if (text.position + row == 0) vec.copy(f32, out[0..width], values) else norm.addRow(out, values, width);
            },
            .first => if (text.position == 0) vec.copy(f32, out[0..width], x),
            .last => if (is_last) vec.copy(f32, out[0..width], x + (text.count - 1) * args.x_stride),
        }
        if (!is_last) continue;
        if (text.pooling == .mean) multiply(out, width, 1 / @as(f32, @floatFromInt(text.total)));
        if (text.normalise != 0) {
            const length = norm.length(out, width);
            // Written so that what is not a number stays it.
            multiply(out, width, 1 / (if (length < length_min) length_min else length));
        }
    }
}

fn multiply(x: [*]f32, width: usize, factor: f32) void {
    var column: usize = 0;
    while (column + lanes <= width) : (column += lanes) vec.store(x + column, vec.load(F, x + column) * @as(F, @splat(factor)));
    while (column < width) : (column += 1) vec.write(&x[column], vec.read(&x[column]) * factor);
}

// ---------------------------------------------------------------------------------------------------------------------

test "a text's vector is the mean, the first or the last of its rows, normalised where asked, in one step or in several" {
    var prng: std.Random.DefaultPrng = .init(31);
    const stride = 800;
    const row_count = 12;
    var x: [row_count * stride]f32 = undefined;
    for (&x) |*value| value.* = prng.random().floatNorm(f32) + 0.3;
    // Three texts: rows 0 to 6, row 7, rows 8 to 11; slots in another order.
    const texts = [_]struct { first: u32, count: u32, slot: u32 }{
        .{ .first = 0, .count = 7, .slot = 3 }, .{ .first = 7, .count = 1, .slot = 0 }, .{ .first = 8, .count = 4, .slot = 2 },
    };
    for ([_]u32{ 1, 17, 33, 384, 768 }) |width| for (std.enums.values(table.Pooling)) |pooling| for ([_]u32{ 0, 1 }) |normalise| {
        var outs: [2][4 * stride]f32 = @splat(@splat(99));
        for (&outs, 0..) |*out, run| {
            var args: table.Pool = .{ .width = width, .text_count = texts.len, .texts = undefined, .x = &x, .x_stride = stride, .out = out, .out_stride = stride };
            // All at once, or a row a step.
            const steps: u32 = if (run == 0) 1 else 7;
            for (0..steps) |step| {
                var parts: [texts.len]table.PooledText = undefined;
                var count: u32 = 0;
                for (texts) |text| {
                    if (run == 1 and step >= text.count) continue;
                    const position: u32 = if (run == 0) 0 else @intCast(step);
                    parts[count] = .{
                        .first = text.first + position,
                        .count = if (run == 0) text.count else 1,
                        .slot = text.slot,
                        .position = position,
                        .total = text.count,
                        .pooling = pooling,
                        .normalise = normalise,
                    };
                    count += 1;
                }
                args.texts = &parts;
                args.text_count = count;
                for (0..count) |index| pool(&args, @intCast(index), @intCast(index + 1));
            }
        }
        try std.testing.expectEqualSlices(u32, @ptrCast(&outs[0]), @ptrCast(&outs[1]));
        for (texts) |text| {
            var want: [stride]f64 = @splat(0);
            for (0..width) |column| {
                switch (pooling) {
                    .mean => for (0..text.count) |row| {
                        want[column] += x[(text.first + row) * stride + column] / @as(f64, @floatFromInt(text.count));
                    },
                    .first => want[column] = x[text.first * stride + column],
                    .last => want[column] = x[(text.first + text.count - 1) * stride + column],
                }
            }
            var squares: f64 = 0;
            for (want[0..width]) |value| squares += value * value;
            const divisor = if (normalise == 1) @sqrt(squares) else 1;
            const found = outs[0][text.slot * stride ..];
            for (want[0..width], found[0..width]) |w, f| try std.testing.expectApproxEqAbs(w / divisor, f, 1e-6 * @max(1, @abs(w)));
            try std.testing.expectEqual(@as(f32, 99), found[width]);
        }
        // The slot that no text has.
        for (outs[0][stride .. 2 * stride]) |value| try std.testing.expectEqual(@as(f32, 99), value);
    };
}

test "a vector of zeros stays one, and a value that is no number shows" {
    var x: [2 * 20]f32 = @splat(0);
    x[25] = std.math.nan(f32);
    var out: [2 * 20]f32 = @splat(7);
    const texts = [_]table.PooledText{
        .{ .first = 0, .count = 1, .slot = 0, .position = 0, .total = 1, .pooling = .mean, .normalise = 1 },
        .{ .first = 1, .count = 1, .slot = 1, .position = 0, .total = 1, .pooling = .last, .normalise = 1 },
    };
    const args: table.Pool = .{ .width = 20, .text_count = 2, .texts = &texts, .x = &x, .x_stride = 20, .out = &out, .out_stride = 20 };
    pool(&args, 0, 2);
    for (out[0..20]) |value| try std.testing.expectEqual(@as(f32, 0), value);
    for (out[20..]) |value| try std.testing.expect(std.math.isNan(value));
}
