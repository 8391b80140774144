//! Float32 values to GGUF blocks. Every format stores value ≈ scale · code (+ minimum); the codes are the nearest for given
//! scales, and the scales are searched for the least sum of squared errors:
//!
//! 1. A run of 16 or 32 values is rounded at several trial scales; for the codes of each, the best scale (and minimum) is a
//!    least-squares solution, and the trial with the least error wins.
//! 2. Formats with super-blocks store a run's scale as a small integer times a float16 of the super-block. The integers are
//!    moved by steps of one and the float16 solved for again, as long as the error falls.
//!
//! Errors are those of what is stored: scales rounded as the block holds them. A block depends on nothing but its values.
//! Block layouts are those of llama.cpp's ggml-common.h; pack.zig reads them.

const std = @import("std");
const assert = std.debug.assert;
const table = @import("table.zig");
const vec = @import("vec.zig");
const layout = @import("format.zig");

const Format = table.Format;

/// A run whose largest magnitude is below this becomes zeros: its scale would round to zero in float16.
const magnitude_min: f32 = 0x1p-40;
/// The largest float16.
const half_max: f32 = 65504;

/// `count` values, a multiple of the format's block, of magnitude at most `half_max` unless the format is F32 or BF16.
pub fn encode(comptime format: Format, values: [*]const f32, count: usize, out: [*]u8) void {
    switch (format) {
        .f32 => @memcpy(out[0 .. count * 4], @as([*]const u8, @ptrCast(values))[0 .. count * 4]),
        .f16 => for (0..count) |index| {
            vec.store(out + index * 2, @as(u16, @bitCast(vec.toF16(@as(@Vector(1, f32), .{values[index]}))[0])));
        },
        .bf16 => for (0..count) |index| vec.store(out + index * 2, toBf16(values[index])),
        else => {
            const d = comptime layout.descriptor(format);
            assert(count % d.super_columns == 0);
            for (0..count / d.super_columns) |block| {
                encodeBlock(format, values[block * d.super_columns ..][0..d.super_columns], out + block * d.source_bytes);
            }
        },
    }
}

/// To nearest, ties to even.
inline fn toBf16(value: f32) u16 {
    const bits: u32 = @bitCast(value);
    return @truncate((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/// The nearest float16, as float32.
inline fn toHalf(value: f32) f32 {
    return vec.toF16(@as(@Vector(1, f32), .{@max(-half_max, @min(half_max, value))}))[0];
}

inline fn storeHalf(out: [*]u8, value: f32) void {
    vec.storeF16(out, @as(@Vector(1, f32), .{value}));
}

inline fn splat(comptime count: usize, value: f32) @Vector(count, f32) {
    return @splat(value);
}

/// The nearest integers, as floats. |value| must be below 2^22.
inline fn nearest(value: anytype) @TypeOf(value) {
    const magic: @TypeOf(value) = @splat(12582912.0); // 1.5 · 2^23
    return value + magic - magic;
}

/// 1 / scale, and 0 for 0.
inline fn inverse(scale: f32) f32 {
    return if (scale == 0) 0 else 1 / scale;
}

inline fn squares(vector: anytype) f32 {
    return vec.sum(vector * vector);
}

// ---------------------------------------------------------------------------------------------------------------------
// Codes.

/// The values that a format's codes stand for, before the scale.
const Codes = union(enum) {
    /// All integers of a range.
    range: struct { low: f32, high: f32 },
    /// The 16 of IQ4_NL and IQ4_XS.
    iq4,

    fn lowest(comptime codes: Codes) f32 {
        return switch (codes) {
            .range => |range| range.low,
            .iq4 => iq4[0],
        };
    }

    fn highest(comptime codes: Codes) f32 {
        return switch (codes) {
            .range => |range| range.high,
            .iq4 => iq4[15],
        };
    }

    /// The value of the code nearest to each of `scaled`.
    inline fn round(comptime codes: Codes, scaled: anytype) @TypeOf(scaled) {
        const T = @TypeOf(scaled);
        switch (codes) {
            .range => |range| return nearest(@min(@max(scaled, @as(T, @splat(range.low))), @as(T, @splat(range.high)))),
            .iq4 => {
                var value: T = @splat(iq4[0]);
                inline for (1..16) |code| {
                    value = @select(f32, scaled > @as(T, @splat((iq4[code - 1] + iq4[code]) / 2)), @as(T, @splat(iq4[code])), value);
                }
                return value;
            },
        }
    }

    /// Codes as stored: counted from 0.
    inline fn stored(comptime codes: Codes, comptime count: usize, values: @Vector(count, f32)) [count]u8 {
        switch (codes) {
            .range => |range| return @as(@Vector(count, u8), @intFromFloat(values - splat(count, range.low))),
            .iq4 => {
                var code: @Vector(count, u8) = @splat(0);
                inline for (1..16) |index| {
                    code += @select(u8, values >= splat(count, iq4[index]), @as(@Vector(count, u8), @splat(1)), @as(@Vector(count, u8), @splat(0)));
                }
                return code;
            },
        }
    }
};

const iq4: [16]f32 = values: {
    var values: [16]f32 = undefined;
    for (layout.iq4_values, &values) |code, *value| value.* = @as(f32, code) - 128;
    break :values values;
};

// ---------------------------------------------------------------------------------------------------------------------
// One run of values.

/// Trial scales: the extreme value comes to the outermost code times each of these. First those at which it comes to `top`
/// or one of the `fewer` codes before it, so that values which came from the same format are found again; then `count` of
/// an even grid. Below 1 the outermost codes stay empty, above it the extreme value is cut off in favour of finer steps for
/// the others.
fn trials(comptime top: f32, comptime fewer: usize, comptime count: usize, comptime first: f32, comptime last: f32) [1 + fewer + count]f32 {
    var list: [1 + fewer + count]f32 = undefined;
    for (list[0 .. 1 + fewer], 0..) |*trial, index| trial.* = (top - @as(f32, @floatFromInt(index))) / top;
    for (list[1 + fewer ..], 0..) |*trial, index| trial.* = first + (last - first) * @as(f32, @floatFromInt(index)) / (count - 1);
    return list;
}

/// The scale for which scale · code comes nearest to `x`, by least squares over trial scales; 0 where all is zero.
inline fn fitScale(comptime count: usize, x: @Vector(count, f32), comptime codes: Codes, comptime list: []const f32) f32 {
    const largest = vec.max(x);
    const smallest = @reduce(.Min, x);
    const extreme = if (largest > -smallest) largest else smallest;
    if (@abs(extreme) < magnitude_min) return 0;
    var best: f32 = 0;
    var gain_max: f32 = -1;
    // Codes reach further below zero than above, so that both signs of the scale are worth a trial.
    inline for (.{ codes.lowest(), codes.highest() }) |end| {
        for (list) |trial| {
            const q = codes.round(x * splat(count, end * trial / extreme));
            const xq = vec.sum(x * q);
            const qq = squares(q);
            // The squared error is Σx² − (Σxq)²/Σq².
            if (xq * xq > gain_max * qq) {
                gain_max = xq * xq / qq;
                best = xq / qq;
            }
        }
    }
    return best;
}

const Line = struct { scale: f32, minimum: f32 };

/// The scale and minimum for which scale · code + minimum, codes 0 to `top`, comes nearest to `x`.
/// `negative`: the minimum is at most 0.
inline fn fitLine(comptime count: usize, x: @Vector(count, f32), comptime top: f32, comptime negative: bool, comptime list: []const f32) Line {
    const codes: Codes = .{ .range = .{ .low = 0, .high = top } };
    const largest = vec.max(x);
    const smallest = if (negative) @min(0, @reduce(.Min, x)) else @reduce(.Min, x);
    const sum = vec.sum(x);
    var best: Line = .{ .scale = 0, .minimum = smallest };
    if (largest - smallest < magnitude_min) return best;
    // Codes that all are one more have the same error, and a minimum that is larger for nothing.
    const noise = squares(x) * 0x1p-32;
    var least = std.math.inf(f32);
    for (list) |trial| {
        var q = codes.round((x - splat(count, smallest)) * splat(count, top * trial / (largest - smallest)));
        // Each round of solving for the line and rounding to it lowers the error or leaves it.
        for (0..2) |_| {
            const line = solveLine(count, x, sum, q, negative) orelse break;
            const distance = squares(x - splat(count, line.scale) * q - splat(count, line.minimum));
            if (distance < least - noise) {
                least = distance;
                best = line;
            }
            q = codes.round((x - splat(count, line.minimum)) * splat(count, inverse(line.scale)));
        }
    }
    return best;
}

/// The least-squares line for given codes; null where its slope is not positive, or none as all codes are the same.
inline fn solveLine(comptime count: usize, x: @Vector(count, f32), sum: f32, q: @Vector(count, f32), comptime negative: bool) ?Line {
    const n: f32 = @floatFromInt(count);
    const sum_q = vec.sum(q);
    const qq = squares(q);
    const xq = vec.sum(x * q);
    const determinant = n * qq - sum_q * sum_q;
    var line: Line = .{ .scale = (n * xq - sum * sum_q) / determinant, .minimum = (qq * sum - sum_q * xq) / determinant };
    // A run above zero has its line through zero, which is there for equal codes too.
    if (negative and qq > 0 and (determinant == 0 or line.minimum > 0)) line = .{ .scale = xq / qq, .minimum = 0 };
    return if (line.scale > 0 and std.math.isFinite(line.scale)) line else null;
}

// ---------------------------------------------------------------------------------------------------------------------
// Formats whose block is one run.

/// Codes of a run at a scale (and minimum) as the block holds them, and their squared error.
fn Rounded(comptime count: usize) type {
    return struct { scale: f32, minimum: f32 = 0, q: @Vector(count, f32), distance: f32 };
}

inline fn roundedAt(comptime count: usize, x: @Vector(count, f32), comptime codes: Codes, scale: f32, minimum: f32) Rounded(count) {
    const q = codes.round((x - splat(count, minimum)) * splat(count, inverse(scale)));
    return .{ .scale = scale, .minimum = minimum, .q = q, .distance = squares(x - splat(count, scale) * q - splat(count, minimum)) };
}

/// A block of a float16 scale and codes.
inline fn encodeScaled(x: @Vector(32, f32), comptime codes: Codes, comptime list: []const f32) Rounded(32) {
    var best = roundedAt(32, x, codes, toHalf(fitScale(32, x, codes, list)), 0);
    // Rounding the scale may have moved codes: once more at what is best for them.
    const qq = squares(best.q);
    if (qq > 0) {
        const again = roundedAt(32, x, codes, toHalf(vec.sum(x * best.q) / qq), 0);
        if (again.distance < best.distance) best = again;
    }
    return best;
}

/// A block of a float16 scale, a float16 minimum and codes.
inline fn encodeLine(x: @Vector(32, f32), comptime top: f32, comptime list: []const f32) Rounded(32) {
    const codes: Codes = .{ .range = .{ .low = 0, .high = top } };
    const line = fitLine(32, x, top, false, list);
    var best = roundedAt(32, x, codes, toHalf(line.scale), toHalf(line.minimum));
    if (solveLine(32, x, vec.sum(x), best.q, false)) |solved| {
        const again = roundedAt(32, x, codes, toHalf(solved.scale), toHalf(solved.minimum));
        if (again.distance < best.distance) best = again;
    }
    return best;
}

// ---------------------------------------------------------------------------------------------------------------------
// Formats of super-blocks.

/// Rounds of moving the runs' integers and solving for the super-block's float16.
const refinements = 3;

/// value = d · sub · code: runs with a signed integer scale each.
fn Scaled(comptime run: usize, comptime codes: Codes, comptime sub_low: f32, comptime sub_high: f32, comptime list: []const f32) type {
    return struct {
        d: f32,
        subs: [runs]f32,
        q: [runs]Run,
        distance: f32,

        const Self = @This();
        const runs = 256 / run;
        const Run = @Vector(run, f32);

        fn fit(values: *const [256]f32) Self {
            const x: *const [runs][run]f32 = @ptrCast(values);
            var scales: [runs]f32 = undefined;
            var extreme: f32 = 0;
            for (x, &scales) |part, *scale| {
                scale.* = fitScale(run, part, codes, list);
                if (@abs(scale.*) > @abs(extreme)) extreme = scale.*;
            }
            var d = toHalf(extreme / sub_low);
            var wanted: [runs]f32 = undefined;
            for (scales, &wanted) |scale, *sub| sub.* = clamped(scale * inverse(d));
            var best = at(x, d, &wanted);
            for (0..refinements) |_| {
                d = best.solved(x);
                const next = at(x, d, &best.subs);
                if (next.distance >= best.distance) break;
                best = next;
            }
            return best;
        }

        inline fn clamped(sub: f32) f32 {
            return @max(sub_low, @min(sub_high, nearest(@as(@Vector(1, f32), .{@max(sub_low, @min(sub_high, sub))}))[0]));
        }

        /// The nearest codes at `d`, each run at the best of `wanted` and its neighbours.
        fn at(x: *const [runs][run]f32, d: f32, wanted: *const [runs]f32) Self {
            var result: Self = .{ .d = d, .subs = undefined, .q = undefined, .distance = 0 };
            for (x, wanted, 0..) |part, middle, index| {
                var least = std.math.inf(f32);
                inline for (.{ 0, -1, 1 }) |step| {
                    const sub = clamped(middle + step);
                    const rounded = roundedAt(run, part, codes, d * sub, 0);
                    if (rounded.distance < least) {
                        least = rounded.distance;
                        result.subs[index] = sub;
                        result.q[index] = rounded.q;
                    }
                }
                result.distance += least;
            }
            return result;
        }

        /// The best d for these codes and integers.
        fn solved(self: *const Self, x: *const [runs][run]f32) f32 {
            var xa: f32 = 0;
            var aa: f32 = 0;
            for (x, self.subs, self.q) |part, sub, q| {
                xa += sub * vec.sum(@as(Run, part) * q);
                aa += sub * sub * squares(q);
            }
            return if (aa > 0) toHalf(xa / aa) else self.d;
        }

        fn stored(self: *const Self) [256]u8 {
            var codes_stored: [runs][run]u8 = undefined;
            for (&codes_stored, self.q) |*out, q| out.* = codes.stored(run, q);
            return @bitCast(codes_stored);
        }
    };
}

/// value = d · sub · code − m · sub_minimum: runs with two unsigned integers each, 0 to `sub_top`.
fn Lined(comptime run: usize, comptime top: f32, comptime sub_top: f32, comptime list: []const f32) type {
    return struct {
        d: f32,
        m: f32,
        subs: [runs]f32,
        sub_minimums: [runs]f32,
        q: [runs]Run,
        distance: f32,

        const Self = @This();
        const runs = 256 / run;
        const Run = @Vector(run, f32);
        const codes: Codes = .{ .range = .{ .low = 0, .high = top } };

        fn fit(values: *const [256]f32) Self {
            const x: *const [runs][run]f32 = @ptrCast(values);
            var lines: [runs]Line = undefined;
            var scale_max: f32 = 0;
            var minimum_max: f32 = 0;
            for (x, &lines) |part, *line| {
                line.* = fitLine(run, part, top, true, list);
                scale_max = @max(scale_max, line.scale);
                minimum_max = @max(minimum_max, -line.minimum);
            }
            const d = toHalf(scale_max / sub_top);
            const m = toHalf(minimum_max / sub_top);
            var subs: [runs]f32 = undefined;
            var sub_minimums: [runs]f32 = undefined;
            for (lines, &subs, &sub_minimums) |line, *sub, *sub_minimum| {
                sub.* = clamped(line.scale * inverse(d));
                sub_minimum.* = clamped(-line.minimum * inverse(m));
            }
            var best = at(x, d, m, &subs, &sub_minimums);
            for (0..refinements) |_| {
                const line = best.solved(x);
                const next = at(x, line.scale, -line.minimum, &best.subs, &best.sub_minimums);
                if (next.distance >= best.distance) break;
                best = next;
            }
            return best;
        }

        inline fn clamped(sub: f32) f32 {
            return nearest(@as(@Vector(1, f32), .{@max(0, @min(sub_top, sub))}))[0];
        }

        /// The nearest codes at `d` and `m`, each run at the best of the integers wanted and their neighbours.
        fn at(x: *const [runs][run]f32, d: f32, m: f32, subs: *const [runs]f32, sub_minimums: *const [runs]f32) Self {
            var result: Self = .{ .d = d, .m = m, .subs = undefined, .sub_minimums = undefined, .q = undefined, .distance = 0 };
            for (x, subs, sub_minimums, 0..) |part, sub_wanted, minimum_wanted, index| {
                var least = std.math.inf(f32);
                for ([_]f32{ 0, -1, 1 }) |minimum_step| {
                    for ([_]f32{ 0, -1, 1 }) |step| {
                        const sub = clamped(sub_wanted + step);
                        const sub_minimum = clamped(minimum_wanted + minimum_step);
                        const rounded = roundedAt(run, part, codes, d * sub, -m * sub_minimum);
                        if (rounded.distance < least) {
                            least = rounded.distance;
                            result.subs[index] = sub;
                            result.sub_minimums[index] = sub_minimum;
                            result.q[index] = rounded.q;
                        }
                    }
                }
                result.distance += least;
            }
            return result;
        }

        /// The best d and m for these codes and integers: x ≈ d · a + minimum · b.
        fn solved(self: *const Self, x: *const [runs][run]f32) Line {
            var xa: f32 = 0;
            var xb: f32 = 0;
            var aa: f32 = 0;
            var ab: f32 = 0;
            var bb: f32 = 0;
            for (x, self.subs, self.sub_minimums, self.q) |part, sub, b, q| {
                const a = q * splat(run, sub);
                xa += vec.sum(@as(Run, part) * a);
                aa += squares(a);
                xb += b * vec.sum(@as(Run, part));
                ab += b * vec.sum(a);
                bb += b * b * run;
            }
            const determinant = aa * bb - ab * ab;
            if (determinant > 0) {
                const d = (bb * xa - ab * xb) / determinant;
                const minimum = (aa * xb - ab * xa) / determinant;
                if (d > 0 and minimum <= 0) return .{ .scale = toHalf(d), .minimum = toHalf(minimum) };
            }
            return .{ .scale = self.d, .minimum = -self.m };
        }

        fn stored(self: *const Self) [256]u8 {
            var codes_stored: [runs][run]u8 = undefined;
            for (&codes_stored, self.q) |*out, q| out.* = codes.stored(run, q);
            return @bitCast(codes_stored);
        }
    };
}

inline fn byteOf(value: f32) u8 {
    return @bitCast(@as(i8, @intFromFloat(value)));
}

// ---------------------------------------------------------------------------------------------------------------------
// Blocks.

const B16 = @Vector(16, u8);
const B32 = @Vector(32, u8);

fn encodeBlock(comptime format: Format, values: *const [layout.descriptor(format).super_columns]f32, out: [*]u8) void {
    switch (format) {
        .f32, .f16, .bf16 => unreachable,
        .q4_0 => {
            const codes: Codes = .{ .range = .{ .low = -8, .high = 7 } };
            const block = encodeScaled(values.*, codes, &trials(8, 0, 18, 0.80, 1.14));
            storeHalf(out, block.scale);
            storeNibbles(out + 2, codes.stored(32, block.q));
        },
        .q4_1 => {
            const codes: Codes = .{ .range = .{ .low = 0, .high = 15 } };
            const block = encodeLine(values.*, 15, &trials(15, 1, 12, 0.95, 1.17));
            storeHalf(out, block.scale);
            storeHalf(out + 2, block.minimum);
            storeNibbles(out + 4, codes.stored(32, block.q));
        },
        .q5_0 => {
            const codes: Codes = .{ .range = .{ .low = -16, .high = 15 } };
            const block = encodeScaled(values.*, codes, &trials(16, 1, 14, 0.92, 1.07));
            storeHalf(out, block.scale);
            const stored = codes.stored(32, block.q);
            vec.store(out + 2, fifthBits(stored));
            storeNibbles(out + 6, stored);
        },
        .q5_1 => {
            const codes: Codes = .{ .range = .{ .low = 0, .high = 31 } };
            const block = encodeLine(values.*, 31, &trials(31, 2, 8, 0.99, 1.07));
            storeHalf(out, block.scale);
            storeHalf(out + 2, block.minimum);
            const stored = codes.stored(32, block.q);
            vec.store(out + 4, fifthBits(stored));
            storeNibbles(out + 8, stored);
        },
        .q8_0 => {
            // The widest scale: with so fine steps, none other gains anything that could be measured.
            const codes: Codes = .{ .range = .{ .low = -127, .high = 127 } };
            const x: @Vector(32, f32) = values.*;
            const block = roundedAt(32, x, codes, toHalf(vec.max(@abs(x)) / 127), 0);
            storeHalf(out, block.scale);
            vec.store(out + 2, @as(@Vector(32, i8), @intFromFloat(block.q)));
        },
        .iq4_nl => {
            const block = encodeScaled(values.*, .iq4, &trials(1, 0, 16, 0.80, 1.15));
            storeHalf(out, block.scale);
            storeNibbles(out + 2, (Codes{ .iq4 = {} }).stored(32, block.q));
        },
        .q2_k => {
            const block = Lined(16, 3, 15, &trials(3, 1, 10, 0.85, 1.35)).fit(values);
            for (0..16) |run| out[run] = byteOf(block.subs[run]) | byteOf(block.sub_minimums[run]) << 4;
            storeCrumbs(out + 16, &block.stored());
            storeHalf(out + 80, block.d);
            storeHalf(out + 82, block.m);
        },
        .q3_k => {
            const block = Scaled(16, .{ .range = .{ .low = -4, .high = 3 } }, -32, 31, &trials(4, 1, 14, 0.80, 1.2)).fit(values);
            const stored = block.stored();
            var third: B32 = @splat(0);
            inline for (0..8) |index| third |= @as(B32, stored[index * 32 ..][0..32].*) >> @splat(2) << @splat(index);
            vec.store(out, third);
            storeCrumbs(out + 32, &stored);
            @memset(out[96..108], 0);
            for (0..16) |run| {
                const sub = byteOf(block.subs[run] + 32);
                out[96 + run % 8] |= (sub & 15) << @intCast(run / 8 * 4);
                out[104 + run % 4] |= sub >> 4 << @intCast(run / 4 * 2);
            }
            storeHalf(out + 108, block.d);
        },
        .q4_k, .q5_k => {
            const five = format == .q5_k;
            const list = comptime if (five) trials(31, 3, 6, 0.99, 1.07) else trials(15, 2, 7, 0.96, 1.14);
            const block = Lined(32, if (five) 31 else 15, 63, &list).fit(values);
            storeHalf(out, block.d);
            storeHalf(out + 2, block.m);
            for (0..4) |run| {
                const sub = byteOf(block.subs[run + 4]);
                const minimum = byteOf(block.sub_minimums[run + 4]);
                out[4 + run] = byteOf(block.subs[run]) | sub >> 4 << 6;
                out[8 + run] = byteOf(block.sub_minimums[run]) | minimum >> 4 << 6;
                out[12 + run] = (sub & 15) | (minimum & 15) << 4;
            }
            const stored = block.stored();
            if (five) {
                var fifth: B32 = @splat(0);
                inline for (0..8) |index| fifth |= @as(B32, stored[index * 32 ..][0..32].*) >> @splat(4) << @splat(index);
                vec.store(out + 16, fifth);
            }
            const quants = out + if (five) 48 else 16;
            inline for (0..4) |index| {
                vec.store(quants + index * 32, (@as(B32, stored[index * 64 ..][0..32].*) & @as(B32, @splat(15))) | @as(B32, stored[index * 64 + 32 ..][0..32].*) << @splat(4));
            }
        },
        .q6_k => {
            const block = Scaled(16, .{ .range = .{ .low = -32, .high = 31 } }, -128, 127, &trials(32, 1, 6, 0.98, 1.03)).fit(values);
            const stored = block.stored();
            inline for (0..2) |half| {
                const codes = stored[half * 128 ..][0..128];
                inline for (0..2) |index| {
                    vec.store(out + half * 64 + index * 32, (@as(B32, codes[index * 32 ..][0..32].*) & @as(B32, @splat(15))) | @as(B32, codes[64 + index * 32 ..][0..32].*) << @splat(4));
                }
                var upper: B32 = @splat(0);
                inline for (0..4) |index| upper |= @as(B32, codes[index * 32 ..][0..32].*) >> @splat(4) << @splat(index * 2);
                vec.store(out + 128 + half * 32, upper);
            }
            for (0..16) |run| out[192 + run] = byteOf(block.subs[run]);
            storeHalf(out + 208, block.d);
        },
        .iq4_xs => {
            const block = Scaled(32, .iq4, -32, 31, &trials(1, 0, 16, 0.80, 1.15)).fit(values);
            const stored = block.stored();
            storeHalf(out, block.d);
            @memset(out[2..8], 0);
            var upper: u16 = 0;
            for (0..8) |run| {
                const sub = byteOf(block.subs[run] + 32);
                out[4 + run / 2] |= (sub & 15) << @intCast(run % 2 * 4);
                upper |= @as(u16, sub >> 4) << @intCast(run * 2);
                storeNibbles(out + 8 + run * 16, stored[run * 32 ..][0..32].*);
            }
            vec.store(out + 2, upper);
        },
    }
}

/// 32 codes in 16 bytes: the first 16 in the low nibbles, the others in the high ones; bits above the fourth are dropped.
inline fn storeNibbles(out: [*]u8, codes: [32]u8) void {
    const low: B16 = codes[0..16].*;
    const high: B16 = codes[16..32].*;
    vec.store(out, (low & @as(B16, @splat(15))) | high << @splat(4));
}

/// The fifth bit of 32 codes.
inline fn fifthBits(codes: [32]u8) u32 {
    const bits: @Vector(32, u1) = @truncate(@as(B32, codes) >> @splat(4));
    return @bitCast(bits);
}

/// The lower two bits of 256 codes: 32 bytes hold four runs of 32.
inline fn storeCrumbs(out: [*]u8, codes: *const [256]u8) void {
    inline for (0..2) |half| {
        var bytes: B32 = @splat(0);
        inline for (0..4) |index| {
            bytes |= (@as(B32, codes[half * 128 + index * 32 ..][0..32].*) & @as(B32, @splat(3))) << @splat(index * 2);
        }
        vec.store(out + half * 32, bytes);
    }
}
