//! Float32 values to GGUF blocks. Every format stores value ≈ scale · code (+ minimum); the codes are the nearest for given
//! scales, and the scales are searched for the least sum of squared errors, those of large values weighted a little more:
//!
//! 1. A run of 16 or 32 values is rounded at several trial scales; for the codes of each, the best scale (and minimum) is a
//!    least-squares solution, and the trial with the least error wins.
//! 2. Formats with super-blocks store a run's scale as a small integer times a float16 of the super-block. The integers are
//!    moved by steps of one and the float16 solved for again, as long as the error falls.
//!
//! Trials lie in the lanes of vectors, and a loop goes over the values, so that nothing is summed across lanes.
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
        .f32 => vec.copy(u8, out[0 .. count * 4], @ptrCast(values)),
        .f16 => for (0..count) |index| {
            vec.store(out + index * 2, @as(u16, @bitCast(vec.toF16(@as(@Vector(1, f32), .{vec.read(&values[index])}))[0])));
        },
        .bf16 => for (0..count) |index| vec.store(out + index * 2, toBf16(vec.read(&values[index]))),
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

/// The values of a run, and how much the error of each counts.
fn Run(comptime count: usize) type {
    return struct {
        x: @Vector(count, f32),
        weight: @Vector(count, f32),

        const Self = @This();

        /// Σ weight · (x − scale · q − minimum)².
        inline fn distance(run: Self, q: @Vector(count, f32), scale: f32, minimum: f32) f32 {
            const off = run.x - splat(count, scale) * q - splat(count, minimum);
            return vec.sum(run.weight * off * off);
        }
    };
}

/// How much more the errors of large values count: weights are 1 + emphasis · x² / mean x² of the run. Large weights move
/// a layer's output more than their share of the error says, and least squares alone draws all of them towards zero. At 0.5
/// the plain squared error still is below that of a quantizer which weighs by x² alone or not at all. Measured as the mean
/// divergence from the source over two texts of 12 chunks of 512 tokens, for Gemma 3 270M requantized to Q2_K, whose
/// matrices become Q4_0 and Q3_K: 0.430 at 0, 0.374 at 0.5, 0.376 at 1, 0.375 at 2, 0.399 where x² alone counts.
const emphasis = 0.5;

/// A block's runs.
inline fn runsOf(comptime width: usize, comptime format: Format, values: *const [layout.descriptor(format).super_columns]f32) [values.len / width]Run(width) {
    const parts: *const [values.len / width][width]f32 = @ptrCast(values);
    var runs: [values.len / width]Run(width) = undefined;
    for (&runs, parts) |*run, *part| {
        run.x = vec.read(part);
        const mean = squares(run.x) / width;
        run.weight = if (mean > 0) splat(width, 1) + run.x * run.x * splat(width, emphasis / mean) else @splat(1);
    }
    return runs;
}

/// The first lane that holds the least.
inline fn leastLane(comptime lanes: usize, vector: @Vector(lanes, f32)) usize {
    return std.simd.firstTrue(vector == splat(lanes, @reduce(.Min, vector))) orelse 0;
}

/// The scale for which scale · code comes nearest to the run, by least squares over trial scales, one in each lane; 0 where
/// all is zero.
inline fn fitScale(comptime count: usize, run: Run(count), comptime codes: Codes, comptime list: []const f32) f32 {
    const largest = vec.max(run.x);
    const smallest = @reduce(.Min, run.x);
    const extreme = if (largest > -smallest) largest else smallest;
    if (@abs(extreme) < magnitude_min) return 0;
    const lanes = 2 * list.len;
    // Codes reach further below zero than above, so that both signs of the scale are worth a trial.
    const ends: @Vector(lanes, f32) = comptime ends: {
        var both: [lanes]f32 = undefined;
        for (list, both[0..list.len], both[list.len..]) |trial, *low, *high| {
            low.* = codes.lowest() * trial;
            high.* = codes.highest() * trial;
        }
        break :ends both;
    };
    const inverses = ends / splat(lanes, extreme);
    const x: [count]f32 = run.x;
    const weights: [count]f32 = run.weight;
    var xq = splat(lanes, 0);
    var qq = splat(lanes, 0);
    for (x, weights) |value, weight| {
        const q = codes.round(splat(lanes, value) * inverses);
        const weighted = splat(lanes, weight) * q;
        xq += splat(lanes, value) * weighted;
        qq += weighted * q;
    }
    // The error is Σx² − (Σxq)²/Σq², each term weighted.
    const none = qq == splat(lanes, 0);
    const scales = @select(f32, none, splat(lanes, 0), xq / qq);
    const best: [lanes]f32 = scales;
    var scale = best[leastLane(lanes, -(scales * xq))];
    // The codes nearest at that scale may be others than those it was solved for.
    for (0..2) |_| {
        const q = codes.round(run.x * splat(count, inverse(scale)));
        const weighted = run.weight * q;
        const squared = vec.sum(weighted * q);
        if (squared > 0) scale = vec.sum(weighted * run.x) / squared;
    }
    return scale;
}

const Line = struct { scale: f32, minimum: f32 };

/// The scale and minimum for which scale · code + minimum, codes 0 to `top`, comes nearest to the run, by least squares over
/// trial scales, one in each lane. `negative`: the minimum is at most 0.
inline fn fitLine(comptime count: usize, run: Run(count), comptime top: f32, comptime negative: bool, comptime list: []const f32) Line {
    const codes: Codes = .{ .range = .{ .low = 0, .high = top } };
    const lanes = list.len;
    const largest = vec.max(run.x);
    const smallest = if (negative) @min(0, @reduce(.Min, run.x)) else @reduce(.Min, run.x);
    var best: Line = .{ .scale = 0, .minimum = smallest };
    if (largest - smallest < magnitude_min) return best;
    // Codes that all are one more have the same error, and a minimum that is larger for nothing.
    const noise = vec.sum(run.weight * run.x * run.x) * 0x1p-32;
    const n = splat(lanes, vec.sum(run.weight));
    const sum = splat(lanes, vec.sum(run.weight * run.x));
    const x: [count]f32 = run.x;
    const weights: [count]f32 = run.weight;
    var least = std.math.inf(f32);
    var minimums = splat(lanes, smallest);
    var inverses = @as(@Vector(lanes, f32), list[0..lanes].*) * splat(lanes, top / (largest - smallest));
    // Each round of rounding to the line and solving for it again lowers the error or leaves it.
    for (0..3) |_| {
        var sum_q = splat(lanes, 0);
        var qq = splat(lanes, 0);
        var xq = splat(lanes, 0);
        for (x, weights) |value, weight| {
            const q = codes.round((splat(lanes, value) - minimums) * inverses);
            const weighted = splat(lanes, weight) * q;
            sum_q += weighted;
            qq += weighted * q;
            xq += splat(lanes, value) * weighted;
        }
        const determinant = n * qq - sum_q * sum_q;
        var scales = (n * xq - sum * sum_q) / determinant;
        var solved = (qq * sum - sum_q * xq) / determinant;
        const flat = determinant <= splat(lanes, 0x1p-20) * n * qq;
        if (negative) {
            // A run above zero has its line through zero, which is there for equal codes too.
            const through = flat | (solved > splat(lanes, 0));
            scales = @select(f32, through, xq / qq, scales);
            solved = @select(f32, through, splat(lanes, 0), solved);
        } else {
            scales = @select(f32, flat, splat(lanes, 0), scales);
        }
        const valid = (scales > splat(lanes, 0)) & (scales < splat(lanes, std.math.inf(f32)));
        scales = @select(f32, valid, scales, splat(lanes, 1));
        solved = @select(f32, valid, solved, splat(lanes, smallest));
        const distances = @select(f32, valid, distancesAt(count, run, codes, lanes, minimums, inverses, solved, scales), splat(lanes, std.math.inf(f32)));
        const lane = leastLane(lanes, distances);
        const found: [lanes]f32 = distances;
        if (found[lane] < least - noise) {
            least = found[lane];
            best = .{ .scale = @as([lanes]f32, scales)[lane], .minimum = @as([lanes]f32, solved)[lane] };
        }
        minimums = solved;
        inverses = splat(lanes, 1) / scales;
    }
    return best;
}

/// The errors of scales · q + minimums, a line in each lane, where q are the codes nearest at `from_minimums` and
/// `from_inverses`.
inline fn distancesAt(
    comptime count: usize,
    run: Run(count),
    comptime codes: Codes,
    comptime lanes: usize,
    from_minimums: @Vector(lanes, f32),
    from_inverses: @Vector(lanes, f32),
    minimums: @Vector(lanes, f32),
    scales: @Vector(lanes, f32),
) @Vector(lanes, f32) {
    var distances = splat(lanes, 0);
    for (@as([count]f32, run.x), @as([count]f32, run.weight)) |value, weight| {
        const q = codes.round((splat(lanes, value) - from_minimums) * from_inverses);
        const off = splat(lanes, value) - scales * q - minimums;
        distances += splat(lanes, weight) * off * off;
    }
    return distances;
}

/// The least-squares line for given codes; null where its slope is not positive, or none as all codes are the same.
inline fn solveLine(comptime count: usize, run: Run(count), q: @Vector(count, f32), comptime negative: bool) ?Line {
    const n = vec.sum(run.weight);
    const sum = vec.sum(run.weight * run.x);
    const weighted = run.weight * q;
    const sum_q = vec.sum(weighted);
    const qq = vec.sum(weighted * q);
    const xq = vec.sum(weighted * run.x);
    const determinant = n * qq - sum_q * sum_q;
    var line: Line = .{ .scale = (n * xq - sum * sum_q) / determinant, .minimum = (qq * sum - sum_q * xq) / determinant };
    // A run above zero has its line through zero, which is there for equal codes too.
    if (negative and qq > 0 and (determinant <= 0x1p-20 * n * qq or line.minimum > 0)) line = .{ .scale = xq / qq, .minimum = 0 };
    return if (line.scale > 0 and std.math.isFinite(line.scale) and std.math.isFinite(line.minimum)) line else null;
}

// ---------------------------------------------------------------------------------------------------------------------
// Formats whose block is one run.

/// Codes of a run at a scale (and minimum) as the block holds them, and their error.
fn Rounded(comptime count: usize) type {
    return struct { scale: f32, minimum: f32 = 0, q: @Vector(count, f32), distance: f32 };
}

inline fn roundedAt(comptime count: usize, run: Run(count), comptime codes: Codes, scale: f32, minimum: f32) Rounded(count) {
    const q = codes.round((run.x - splat(count, minimum)) * splat(count, inverse(scale)));
    return .{ .scale = scale, .minimum = minimum, .q = q, .distance = run.distance(q, scale, minimum) };
}

/// A block of a float16 scale and codes.
inline fn encodeScaled(run: Run(32), comptime codes: Codes, comptime list: []const f32) Rounded(32) {
    var best = roundedAt(32, run, codes, toHalf(fitScale(32, run, codes, list)), 0);
    // Rounding the scale may have moved codes: once more at what is best for them.
    const weighted = run.weight * best.q;
    const qq = vec.sum(weighted * best.q);
    if (qq > 0) {
        const again = roundedAt(32, run, codes, toHalf(vec.sum(weighted * run.x) / qq), 0);
        if (again.distance < best.distance) best = again;
    }
    return best;
}

/// A block of a float16 scale, a float16 minimum and codes.
inline fn encodeLine(run: Run(32), comptime top: f32, comptime list: []const f32) Rounded(32) {
    const codes: Codes = .{ .range = .{ .low = 0, .high = top } };
    const line = fitLine(32, run, top, false, list);
    var best = roundedAt(32, run, codes, toHalf(line.scale), toHalf(line.minimum));
    if (solveLine(32, run, best.q, false)) |solved| {
        const again = roundedAt(32, run, codes, toHalf(solved.scale), toHalf(solved.minimum));
        if (again.distance < best.distance) best = again;
    }
    return best;
}

// ---------------------------------------------------------------------------------------------------------------------
// Formats of super-blocks.

/// Rounds of moving the runs' integers and solving for the super-block's float16.
const refinements = 3;

/// value = d · sub · code: runs of `width` values with a signed integer scale each.
fn Scaled(comptime width: usize, comptime codes: Codes, comptime sub_low: f32, comptime sub_high: f32, comptime list: []const f32) type {
    return struct {
        d: f32,
        subs: [count]f32,
        q: [count]@Vector(width, f32),
        distance: f32,

        const Self = @This();
        const count = 256 / width;
        const Runs = [count]Run(width);

        fn fit(runs: *const Runs) Self {
            var scales: [count]f32 = undefined;
            var extreme: f32 = 0;
            for (runs, &scales) |run, *scale| {
                scale.* = fitScale(width, run, codes, list);
                if (@abs(scale.*) > @abs(extreme)) extreme = scale.*;
            }
            var d = toHalf(extreme / sub_low);
            var wanted: [count]f32 = undefined;
            for (scales, &wanted) |scale, *sub| sub.* = clamped(scale * inverse(d));
            var best = at(runs, d, &wanted);
            for (0..refinements) |_| {
                d = best.solved(runs);
                const next = at(runs, d, &best.subs);
                if (next.distance >= best.distance) break;
                best = next;
            }
            return best;
        }

        inline fn clamped(sub: f32) f32 {
            return @max(sub_low, @min(sub_high, nearest(@as(@Vector(1, f32), .{@max(sub_low, @min(sub_high, sub))}))[0]));
        }

        /// The nearest codes at `d`, each run at the best of `wanted` and its neighbours.
        fn at(runs: *const Runs, d: f32, wanted: *const [count]f32) Self {
            var result: Self = .{ .d = d, .subs = undefined, .q = undefined, .distance = 0 };
            for (runs, wanted, 0..) |run, middle, index| {
                var least = std.math.inf(f32);
                inline for (.{ 0, -1, 1 }) |step| {
                    const sub = clamped(middle + step);
                    const rounded = roundedAt(width, run, codes, d * sub, 0);
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
        fn solved(self: *const Self, runs: *const Runs) f32 {
            var xa: f32 = 0;
            var aa: f32 = 0;
            for (runs, self.subs, self.q) |run, sub, q| {
                const weighted = run.weight * q;
                xa += sub * vec.sum(weighted * run.x);
                aa += sub * sub * vec.sum(weighted * q);
            }
            return if (aa > 0) toHalf(xa / aa) else self.d;
        }

        fn stored(self: *const Self) [256]u8 {
            var codes_stored: [count][width]u8 = undefined;
            for (&codes_stored, self.q) |*out, q| out.* = codes.stored(width, q);
            return @bitCast(codes_stored);
        }
    };
}

/// value = d · sub · code − m · sub_minimum: runs of `width` values with two unsigned integers each, 0 to `sub_top`.
fn Lined(comptime width: usize, comptime top: f32, comptime sub_top: f32, comptime list: []const f32) type {
    return struct {
        d: f32,
        m: f32,
        subs: [count]f32,
        sub_minimums: [count]f32,
        q: [count]@Vector(width, f32),
        distance: f32,

        const Self = @This();
        const count = 256 / width;
        const Runs = [count]Run(width);
        const codes: Codes = .{ .range = .{ .low = 0, .high = top } };

        fn fit(runs: *const Runs) Self {
            var lines: [count]Line = undefined;
            var scale_max: f32 = 0;
            var minimum_max: f32 = 0;
            for (runs, &lines) |run, *line| {
                line.* = fitLine(width, run, top, true, list);
                scale_max = @max(scale_max, line.scale);
                minimum_max = @max(minimum_max, -line.minimum);
            }
            const d = toHalf(scale_max / sub_top);
            const m = toHalf(minimum_max / sub_top);
            var subs: [count]f32 = undefined;
            var sub_minimums: [count]f32 = undefined;
            for (lines, &subs, &sub_minimums) |line, *sub, *sub_minimum| {
                sub.* = @min(sub_top, @round(line.scale * inverse(d)));
                sub_minimum.* = @min(sub_top, @round(-line.minimum * inverse(m)));
            }
            var best = at(runs, d, m, &subs, &sub_minimums);
            for (0..refinements) |_| {
                const line = best.solved(runs);
                const next = at(runs, line.scale, -line.minimum, &best.subs, &best.sub_minimums);
                if (next.distance >= best.distance) break;
                best = next;
            }
            return best;
        }

        inline fn clamped(subs: @Vector(15, f32)) @Vector(15, f32) {
            return @max(splat(15, 0), @min(splat(15, sub_top), subs));
        }

        /// How far from what is wanted a run's integers are looked for, a pair in each lane.
        const steps: [2]@Vector(15, f32) = steps: {
            var pairs: [2][15]f32 = undefined;
            for (&pairs[0], &pairs[1], 0..) |*sub, *sub_minimum, lane| {
                sub.* = @as(f32, @floatFromInt(lane % 5)) - 2;
                sub_minimum.* = @as(f32, @floatFromInt(lane / 5)) - 1;
            }
            break :steps .{ pairs[0], pairs[1] };
        };

        /// The nearest codes at `d` and `m`, each run at the best of the integers wanted and their neighbours.
        fn at(runs: *const Runs, d: f32, m: f32, subs: *const [count]f32, sub_minimums: *const [count]f32) Self {
            var result: Self = .{ .d = d, .m = m, .subs = undefined, .sub_minimums = undefined, .q = undefined, .distance = 0 };
            for (runs, subs, sub_minimums, 0..) |run, sub_wanted, minimum_wanted, index| {
                const tried = clamped(splat(15, sub_wanted) + steps[0]);
                const tried_minimums = clamped(splat(15, minimum_wanted) + steps[1]);
                const scales = splat(15, d) * tried;
                const minimums = splat(15, -m) * tried_minimums;
                const inverses = @select(f32, scales == splat(15, 0), splat(15, 0), splat(15, 1) / scales);
                const lane = leastLane(15, distancesAt(width, run, codes, 15, minimums, inverses, minimums, scales));
                result.subs[index] = @as([15]f32, tried)[lane];
                result.sub_minimums[index] = @as([15]f32, tried_minimums)[lane];
                const rounded = roundedAt(width, run, codes, d * result.subs[index], -m * result.sub_minimums[index]);
                result.q[index] = rounded.q;
                result.distance += rounded.distance;
            }
            return result;
        }

        /// The best d and m for these codes and integers: x ≈ d · a + minimum · b.
        fn solved(self: *const Self, runs: *const Runs) Line {
            var xa: f32 = 0;
            var xb: f32 = 0;
            var aa: f32 = 0;
            var ab: f32 = 0;
            var bb: f32 = 0;
            for (runs, self.subs, self.sub_minimums, self.q) |run, sub, b, q| {
                const a = q * splat(width, sub);
                const weighted = run.weight * a;
                xa += vec.sum(weighted * run.x);
                aa += vec.sum(weighted * a);
                xb += b * vec.sum(run.weight * run.x);
                ab += b * vec.sum(weighted);
                bb += b * b * vec.sum(run.weight);
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
            var codes_stored: [count][width]u8 = undefined;
            for (&codes_stored, self.q) |*out, q| out.* = codes.stored(width, q);
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
            const block = encodeScaled(runsOf(32, format, values)[0], codes, &trials(8, 0, 15, 0.80, 1.14));
            storeHalf(out, block.scale);
            storeNibbles(out + 2, codes.stored(32, block.q));
        },
        .q4_1 => {
            const codes: Codes = .{ .range = .{ .low = 0, .high = 15 } };
            const block = encodeLine(runsOf(32, format, values)[0], 15, &trials(15, 1, 14, 0.90, 1.20));
            storeHalf(out, block.scale);
            storeHalf(out + 2, block.minimum);
            storeNibbles(out + 4, codes.stored(32, block.q));
        },
        .q5_0 => {
            const codes: Codes = .{ .range = .{ .low = -16, .high = 15 } };
            const block = encodeScaled(runsOf(32, format, values)[0], codes, &trials(16, 1, 14, 0.92, 1.07));
            storeHalf(out, block.scale);
            const stored = codes.stored(32, block.q);
            vec.store(out + 2, fifthBits(stored));
            storeNibbles(out + 6, stored);
        },
        .q5_1 => {
            const codes: Codes = .{ .range = .{ .low = 0, .high = 31 } };
            const block = encodeLine(runsOf(32, format, values)[0], 31, &trials(31, 2, 13, 0.94, 1.12));
            storeHalf(out, block.scale);
            storeHalf(out + 2, block.minimum);
            const stored = codes.stored(32, block.q);
            vec.store(out + 4, fifthBits(stored));
            storeNibbles(out + 8, stored);
        },
        .q8_0 => {
            // The widest scale: with so fine steps, none other gains anything that could be measured.
            const codes: Codes = .{ .range = .{ .low = -127, .high = 127 } };
            const run: Run(32) = .{ .x = vec.read(values), .weight = @splat(1) };
            const block = roundedAt(32, run, codes, toHalf(vec.max(@abs(run.x)) / 127), 0);
            storeHalf(out, block.scale);
            vec.store(out + 2, @as(@Vector(32, i8), @intFromFloat(block.q)));
        },
        .iq4_nl => {
            const block = encodeScaled(runsOf(32, format, values)[0], .iq4, &trials(1, 0, 15, 0.80, 1.15));
            storeHalf(out, block.scale);
            storeNibbles(out + 2, (Codes{ .iq4 = {} }).stored(32, block.q));
        },
        .q2_k => {
            const block = Lined(16, 3, 15, &trials(3, 1, 14, 0.80, 1.35)).fit(&runsOf(16, format, values));
            for (0..16) |run| vec.write(&out[run], byteOf(block.subs[run]) | byteOf(block.sub_minimums[run]) << 4);
            storeCrumbs(out + 16, &block.stored());
            storeHalf(out + 80, block.d);
            storeHalf(out + 82, block.m);
        },
        .q3_k => {
            const block = Scaled(16, .{ .range = .{ .low = -4, .high = 3 } }, -32, 31, &trials(4, 1, 14, 0.80, 1.2)).fit(&runsOf(16, format, values));
            const stored = block.stored();
            var third: B32 = @splat(0);
            inline for (0..8) |index| third |= @as(B32, stored[index * 32 ..][0..32].*) >> @splat(2) << @splat(index);
            vec.store(out, third);
            storeCrumbs(out + 32, &stored);
            vec.fill(u8, out[96..108], 0);
            for (0..16) |run| {
                const sub = byteOf(block.subs[run] + 32);
                addBits(&out[96 + run % 8], (sub & 15) << @intCast(run / 8 * 4));
                addBits(&out[104 + run % 4], sub >> 4 << @intCast(run / 4 * 2));
            }
            storeHalf(out + 108, block.d);
        },
        .q4_k, .q5_k => {
            const five = format == .q5_k;
            const list = comptime if (five) trials(31, 3, 12, 0.97, 1.09) else trials(15, 2, 13, 0.94, 1.16);
            const block = Lined(32, if (five) 31 else 15, 63, &list).fit(&runsOf(32, format, values));
            storeHalf(out, block.d);
            storeHalf(out + 2, block.m);
            for (0..4) |run| {
                const sub = byteOf(block.subs[run + 4]);
                const minimum = byteOf(block.sub_minimums[run + 4]);
                vec.write(&out[4 + run], byteOf(block.subs[run]) | sub >> 4 << 6);
                vec.write(&out[8 + run], byteOf(block.sub_minimums[run]) | minimum >> 4 << 6);
                vec.write(&out[12 + run], (sub & 15) | (minimum & 15) << 4);
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
            const block = Scaled(16, .{ .range = .{ .low = -32, .high = 31 } }, -128, 127, &trials(32, 1, 6, 0.98, 1.03)).fit(&runsOf(16, format, values));
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
            for (0..16) |run| vec.write(&out[192 + run], byteOf(block.subs[run]));
            storeHalf(out + 208, block.d);
        },
        .iq4_xs => {
            const block = Scaled(32, .iq4, -32, 31, &trials(1, 0, 15, 0.80, 1.15)).fit(&runsOf(32, format, values));
            const stored = block.stored();
            storeHalf(out, block.d);
            vec.fill(u8, out[2..8], 0);
            var upper: u16 = 0;
            for (0..8) |run| {
                const sub = byteOf(block.subs[run] + 32);
                addBits(&out[4 + run / 2], (sub & 15) << @intCast(run % 2 * 4));
                upper |= @as(u16, sub >> 4) << @intCast(run * 2);
                storeNibbles(out + 8 + run * 16, stored[run * 32 ..][0..32].*);
            }
            vec.store(out + 2, upper);
        },
    }
}

/// 32 codes in 16 bytes: the first 16 in the low nibbles, the others in the high ones; bits above the fourth are dropped.
inline fn addBits(byte: *u8, bits: u8) void {
    vec.write(byte, vec.read(byte) | bits);
}

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
