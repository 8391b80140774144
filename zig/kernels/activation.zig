//! Elementwise functions of one vector register (exp, tanh, GELU, SiLU, ReLU), and the activation and the gated unit built on
//! them. It is not a maths library: float32 only, and only what the model families need.
//!
//! Polynomials are near-minimax fits to float64 references on the reduced range (Lawson's iterated least squares on 2,001
//! Chebyshev points), with coefficients rounded to float32. Error bounds are checked by the tests at every level. Each
//! element's result depends on that element alone.

const std = @import("std");
const assert = std.debug.assert;
const table = @import("table.zig");
const vec = @import("vec.zig");
const quant = @import("quant.zig");

const F = vec.F;
const U = vec.U;
const lanes = vec.lanes;

inline fn splat(value: f32) F {
    return @splat(value);
}

const exp_low = -87.33654; // -126 ln 2: from here up e^x is a normal number.
const exp_high = 88.72283; // The logarithm of the largest float32.

/// e^x. Relative error at most 2 ulp (2.4e-7) where the result is a normal number; 0 below -87.33654 (the result would be
/// denormal) and at -inf, inf above 88.72283, NaN for NaN. exp(0) is exactly 1.
pub inline fn exp(x: F) F {
    const y = expClamped(@min(@max(x, splat(exp_low)), splat(exp_high)));
    const above = @select(f32, x > splat(exp_high), splat(std.math.inf(f32)), y);
    const below = @select(f32, x < splat(exp_low), splat(0), above);
    return @select(f32, x == x, below, x);
}

/// `exp` for x <= 0, the same bits with fewer instructions. What is above 0 counts as 0, and NaN as -inf.
pub inline fn expNonPositive(x: F) F {
    // Written so that each is one instruction: a comparison with NaN is false.
    const at_most = @select(f32, x < splat(0), x, splat(0));
    const clamped = @select(f32, at_most > splat(exp_low), at_most, splat(exp_low));
    return @select(f32, x >= splat(exp_low), expClamped(clamped), splat(0));
}

/// e^x for `exp_low` <= x <= `exp_high`.
inline fn expClamped(x: F) F {
    // n = round(x / ln 2) by pushing the fraction out of the significand: the integer's low bits are then those of n.
    const magic = splat(12582912.0); // 1.5 * 2^23
    const shifted = vec.mulAdd(x, splat(std.math.log2e), magic);
    const n = shifted - magic;
    // r = x - n ln 2 in two steps (Cody and Waite 1980): ln 2 = 355/512 - 2.1219444e-4, and n * 355/512 is exact.
    const r = vec.mulAdd(n, splat(2.12194440054690583e-4), vec.mulAdd(n, splat(-355.0 / 512.0), x));
    // e^r = 1 + r + r^2 p(r); relative error of the exact polynomial 5.2e-11 on |r| <= ln 2 / 2.
    var p = splat(1.97903428e-4);
    p = vec.mulAdd(p, r, splat(1.39446603e-3));
    p = vec.mulAdd(p, r, splat(8.33349675e-3));
    p = vec.mulAdd(p, r, splat(4.16662954e-2));
    p = vec.mulAdd(p, r, splat(1.66666657e-1));
    p = vec.mulAdd(p, r, splat(0.5));
    const y = vec.mulAdd(p, r * r, r) + splat(1);
    // Times 2^n, by the exponent field: y is in [0.7, 1.42) and y * 2^n is normal on the range. The shift drops the bits
    // of `magic`.
    return @bitCast(@as(U, @bitCast(y)) +% (@as(U, @bitCast(shifted)) << @splat(23)));
}

/// tanh x. Relative error at most 3 ulp (3.6e-7).
pub inline fn tanh(x: F) F {
    const magnitude = @abs(x);
    // Near zero 1 - 2 / (e^2x + 1) would cancel: x + x^3 p(x^2), relative error 1.5e-10 on |x| <= 0.625.
    const z = x * x;
    var p = splat(2.14753812e-3);
    p = vec.mulAdd(p, z, splat(-8.18267558e-3));
    p = vec.mulAdd(p, z, splat(2.17029676e-2));
    p = vec.mulAdd(p, z, splat(-5.39472029e-2));
    p = vec.mulAdd(p, z, splat(1.33332103e-1));
    p = vec.mulAdd(p, z, splat(-3.33333313e-1));
    const near = vec.mulAdd(p * z, x, x);
    const far = splat(1) - splat(2) / (exp(magnitude + magnitude) + splat(1));
    const sign = @as(U, @bitCast(x)) & @as(U, @splat(0x80000000));
    const signed: F = @bitCast(@as(U, @bitCast(far)) | sign);
    // `not (magnitude > 0.625)` would send NaN to `near`; both branches keep it.
    return @select(f32, magnitude < splat(0.625), near, signed);
}

/// x / (1 + e^(-t)), safe at both ends: for x = -inf the result is -0, as the limit.
inline fn timesSigmoid(x: F, t: F) F {
    // e^88 is finite, so that the quotient of the smallest x is tiny and not NaN; NaN comes through `exp(NaN)`.
    const finite = @max(x, splat(-std.math.floatMax(f32)));
    const e = exp(-t);
    const y = finite / (splat(1) + e);
    return @select(f32, x == x, y, x);
}

/// x * sigmoid(x) (Elfwing et al. 2017). Relative error at most 4 ulp (4.8e-7); below -87.3 the result decays to -0.
pub inline fn silu(x: F) F {
    return timesSigmoid(x, x);
}

/// x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) (Hendrycks and Gimpel 2016), written as x * sigmoid(2u), which is
/// the same function without the cancellation for negative x. Error at most 4e-7 of |x| * sigmoid(2u) plus what the
/// rounding of u puts into it (|2u| * 1.8e-7 relative, in the negative tail).
pub inline fn geluTanh(x: F) F {
    const two_root = splat(2 * 0.79788456080286535588); // 2 sqrt(2 / pi)
    const inner = vec.mulAdd(x * x, splat(0.044715), splat(1)) * x;
    return timesSigmoid(x, two_root * inner);
}

/// From here on GELU is x or 0: what float32 sees of the rest is less than its polynomial's error.
const gelu_far = 5.6;

/// x * Phi(x), Phi the normal distribution (Hendrycks and Gimpel 2016). Error at most 2.5e-7 of |x|; 0 from -5.6 down.
pub inline fn gelu(x: F) F {
    // max(x, 0) - |x| h(|x|) with h(a) = Phi(-a), which does not cancel where x is large; h is a polynomial in a * 2 / 5.6 - 1,
    // error 9.5e-8 on [0, 5.6]. It has no exponential and no division: half the instructions of those that have.
    const magnitude = @abs(x);
    const near = @min(magnitude, splat(gelu_far));
    const s = vec.mulAdd(near, splat(2.0 / gelu_far), splat(-1));
    const coefficients = [_]f32{
        2.31480598e-3,  -8.79157241e-3, -2.70464807e-3, 4.42630202e-2,  -3.5049025e-2, -7.63620883e-2, 1.40078112e-1, -9.98065528e-3,
        -1.90360963e-1, 2.19296008e-1,  -2.84248926e-2, -1.98199853e-1, 2.7471143e-1,  -1.98061168e-1, 8.68801326e-2, -2.21637469e-2,
        2.55513191e-3,
    };
    var h = splat(coefficients[0]);
    inline for (coefficients[1..]) |coefficient| h = vec.mulAdd(h, s, splat(coefficient));
    h = @select(f32, magnitude < splat(gelu_far), h, splat(0));
    const y = vec.mulAdd(-near, h, @max(x, splat(0)));
    return @select(f32, x == x, y, x);
}

/// max(x, 0), NaN for NaN.
pub inline fn relu(x: F) F {
    return @select(f32, x < splat(0), splat(0), x);
}

inline fn apply(comptime activation: table.Activation, x: F) F {
    return switch (activation) {
        .silu => silu(x),
        .gelu_tanh => geluTanh(x),
        .gelu => gelu(x),
        .relu => relu(x),
    };
}

/// See `table.Glu`.
pub fn glu(args: *const table.Glu, begin: u32, end: u32) callconv(.c) void {
    const units_per_row = std.math.divCeil(u32, args.width, table.glu_unit_columns) catch unreachable;
    assert(begin <= end and end <= args.row_count * units_per_row);
    assert(args.out != null or args.out_quantized != null);
    for (begin..end) |unit| {
        const row = unit / units_per_row;
        const first: u32 = @intCast(unit % units_per_row * table.glu_unit_columns);
        const last = @min(args.width, first + table.glu_unit_columns);
        switch (args.activation) {
            inline else => |activation| if (args.up) |up| {
                columns(activation, args, up + row * args.up_stride, row, first, last);
            } else columns(activation, args, null, row, first, last),
        }
    }
}

/// `up` is the row of what is multiplied by, or `null`.
fn columns(comptime activation: table.Activation, args: *const table.Glu, up: anytype, row: usize, first: u32, last: u32) void {
    const gate = args.gate + row * args.gate_stride + first;
    const count = last - first;
    var local: [table.glu_unit_columns]f32 align(64) = undefined;
    const out: [*]f32 = if (args.out) |out| out + row * args.out_stride + first else &local;
    const gated = @TypeOf(up) != @TypeOf(null);
    var column: u32 = 0;
    while (column + lanes <= count) : (column += lanes) {
        const y = apply(activation, vec.load(F, gate + column));
        vec.store(out + column, if (gated) y * vec.load(F, up + first + column) else y);
    }
    if (column < count) {
        const rest = count - column;
        const y = apply(activation, vec.loadPartial(F, gate + column, rest));
        vec.storePartial(out + column, if (gated) y * vec.loadPartial(F, up + first + column, rest) else y, rest);
    }
    if (args.out_quantized) |quantized| {
        // The row's first column: writeColumns addresses a whole row and reads only [first, last).
        quant.writeColumns(args.out_form, args.width, first, last, out - first, quantized + row * args.out_quantized_stride);
    }
}

// ---------------------------------------------------------------------------------------------------------------------

/// The largest relative error of `function` against `reference` over `count` points from `low` to `high`.
fn largestError(comptime function: fn (F) callconv(.@"inline") F, comptime reference: fn (f64) f64, low: f32, high: f32, count: u32) f64 {
    var worst: f64 = 0;
    for (0..count) |index| {
        const x = low + (high - low) * (@as(f32, @floatFromInt(index)) / @as(f32, @floatFromInt(count - 1)));
        const got: f64 = function(splat(x))[0];
        const want = reference(x);
        if (@abs(want) < std.math.floatMin(f32)) {
            worst = @max(worst, @abs(got - want) / std.math.floatMin(f32) - 1);
        } else {
            worst = @max(worst, @abs(got - want) / @abs(want));
        }
    }
    return worst;
}

fn expReference(x: f64) f64 {
    return @exp(x);
}
fn tanhReference(x: f64) f64 {
    return std.math.tanh(x);
}
fn siluReference(x: f64) f64 {
    return x / (1 + @exp(-x));
}
fn geluReference(x: f64) f64 {
    return x / (1 + @exp(-2 * 0.79788456080286535588 * (x + 0.044715 * x * x * x)));
}

test "exp stays within two units in the last place over its whole range" {
    try std.testing.expect(largestError(exp, expReference, -87.33654, 88.72283, 40_001) < 2.4e-7);
    try std.testing.expect(largestError(exp, expReference, -1, 1, 20_001) < 1.8e-7);
    try std.testing.expect(largestError(exp, expReference, -1e-6, 1e-6, 101) < 1.2e-7);
}

test "exp at the ends: zero, infinity, flush and NaN" {
    const inf = std.math.inf(f32);
    const cases = [_][2]f32{
        .{ 0, 1 },                          .{ -0.0, 1 }, .{ -inf, 0 }, .{ inf, inf }, .{ -88, 0 }, .{ -1e30, 0 }, .{ 89, inf }, .{ 1e30, inf },
        .{ std.math.floatTrueMin(f32), 1 },
    };
    for (cases) |case| try std.testing.expectEqual(case[1], exp(splat(case[0]))[0]);
    try std.testing.expect(std.math.isNan(exp(splat(std.math.nan(f32)))[0]));
    try std.testing.expect(exp(splat(88.72283))[0] < inf);
    try std.testing.expect(exp(splat(-87.33654))[0] >= std.math.floatMin(f32) * 0.999999);
}

test "exp of numbers up to zero has the bits of exp, takes NaN for -inf and what is above for zero" {
    const inf = std.math.inf(f32);
    for (0..100_000) |index| {
        const x = splat(-100 * @as(f32, @floatFromInt(index)) / 99_999);
        try std.testing.expectEqual(exp(x)[0], expNonPositive(x)[0]);
    }
    const cases = [_][2]f32{
        .{ 0, 1 },                      .{ -0.0, 1 }, .{ -inf, 0 }, .{ inf, 1 }, .{ 2, 1 }, .{ std.math.nan(f32), 0 },
        .{ std.math.floatMin(f32), 1 },
    };
    for (cases) |case| try std.testing.expectEqual(case[1], expNonPositive(splat(case[0]))[0]);
}

test "tanh, SiLU and GELU stay within their bounds" {
    try std.testing.expect(largestError(tanh, tanhReference, -10, 10, 40_001) < 3.6e-7);
    try std.testing.expect(largestError(tanh, tanhReference, -0.7, 0.7, 20_001) < 3.6e-7);
    try std.testing.expect(largestError(tanh, tanhReference, -1e-30, 1e-30, 101) < 1.2e-7);
    try std.testing.expect(largestError(silu, siluReference, -80, 80, 40_001) < 4.8e-7);
    try std.testing.expect(largestError(geluTanh, geluReference, -1, 80, 40_001) < 8e-7);
    try std.testing.expect(largestError(geluTanh, geluReference, -5, 0, 20_001) < 1e-5);
}

test "tanh, SiLU and GELU at the ends" {
    const inf = std.math.inf(f32);
    try std.testing.expectEqual(@as(f32, 1), tanh(splat(inf))[0]);
    try std.testing.expectEqual(@as(f32, -1), tanh(splat(-inf))[0]);
    try std.testing.expectEqual(@as(f32, 1), tanh(splat(1e30))[0]);
    try std.testing.expect(std.math.isNan(tanh(splat(std.math.nan(f32)))[0]));
    inline for (.{ silu, geluTanh }) |function| {
        try std.testing.expectEqual(@as(f32, 0), function(splat(0))[0]);
        try std.testing.expectEqual(inf, function(splat(inf))[0]);
        try std.testing.expectEqual(@as(f32, 0), function(splat(-inf))[0]);
        try std.testing.expectEqual(@as(f32, 1e30), function(splat(1e30))[0]);
        try std.testing.expectEqual(@as(f32, 0), @abs(function(splat(-1e30))[0]));
        try std.testing.expect(std.math.isNan(function(splat(std.math.nan(f32)))[0]));
    }
}

/// x * Phi(x) in double precision. Phi by the series of erf near zero and by the continued fraction of erfc further out
/// (Abramowitz and Stegun 1964, 7.1.6 and 7.1.14).
fn exactGelu(x: f64) f64 {
    const z = @abs(x) / @sqrt(2.0);
    var erfc: f64 = undefined;
    if (z < 2.5) {
        var term = z;
        var sum = z;
        var n: f64 = 0;
        while (term > 1e-18) : (n += 1) {
            term *= 2 * z * z / (2 * n + 3);
            sum += term;
        }
        erfc = 1 - 2.0 / @sqrt(std.math.pi) * @exp(-z * z) * sum;
    } else {
        var fraction = z;
        var n: f64 = 80;
        while (n > 0) : (n -= 1) fraction = z + n / 2 / fraction;
        erfc = @exp(-z * z) / @sqrt(std.math.pi) / fraction;
    }
    return if (x < 0) x * erfc / 2 else x * (1 - erfc / 2);
}

fn reluReference(x: f64) f64 {
    return @max(x, 0);
}

test "the exact GELU stays within its bound over the whole line" {
    try std.testing.expectApproxEqAbs(0.8413447460685429, exactGelu(1), 1e-14);
    try std.testing.expectApproxEqAbs(-4 * 3.167124183311992e-5, exactGelu(-4), 1e-15);
    for (0..400_001) |index| {
        const x: f32 = -20 + 40 * @as(f32, @floatFromInt(index)) / 400_000;
        const error_ = @abs(exactGelu(x) - gelu(splat(x))[0]);
        try std.testing.expect(error_ <= 2.5e-7 * @abs(x) + 1e-30);
    }
}

test "the exact GELU and ReLU at the ends" {
    const inf = std.math.inf(f32);
    inline for (.{ gelu, relu }) |function| {
        try std.testing.expectEqual(@as(f32, 0), function(splat(0))[0]);
        try std.testing.expectEqual(inf, function(splat(inf))[0]);
        try std.testing.expectEqual(@as(f32, 0), @abs(function(splat(-inf))[0]));
        try std.testing.expectEqual(@as(f32, 1e30), function(splat(1e30))[0]);
        try std.testing.expectEqual(@as(f32, 0), @abs(function(splat(-1e30))[0]));
        try std.testing.expectEqual(@as(f32, 5.6), function(splat(5.6))[0]);
        try std.testing.expect(std.math.isNan(function(splat(std.math.nan(f32)))[0]));
    }
}

test "activate applies every function to odd widths, several rows and any split, in place and in each form" {
    var prng = std.Random.DefaultPrng.init(2);
    const row_count = 3;
    const stride = 1540;
    for ([_]u32{ 1, 17, 33, 384, 512, 513, 768, 1536 }) |width| {
        for (std.enums.values(table.Activation)) |activation| {
            var x: [row_count * stride]f32 = undefined;
            for (&x) |*value| value.* = prng.random().floatNorm(f32) * 3;
            var out: [row_count * stride]f32 = @splat(99);
            const quantized_stride = comptime table.wideRowBytes(1536);
            var quantized: [row_count * quantized_stride]u8 align(64) = undefined;
            var direct: [row_count * quantized_stride]u8 align(64) = undefined;
            var args: table.Glu = .{
                .activation = activation,
                .width = width,
                .row_count = row_count,
                .gate = &x,
                .gate_stride = stride,
                .up = null,
                .up_stride = 0,
                .out = &out,
                .out_stride = stride,
                .out_quantized = null,
                .out_quantized_stride = quantized_stride,
            };
            const units = row_count * (std.math.divCeil(u32, width, table.glu_unit_columns) catch unreachable);
            for (0..units) |unit| glu(&args, @intCast(unit), @intCast(unit + 1));
            for (0..row_count) |row| {
                for (x[row * stride ..][0..width], out[row * stride ..][0..width]) |value, found| {
                    const want = switch (activation) {
                        .silu => siluReference(value),
                        .gelu_tanh => geluReference(value),
                        .gelu => exactGelu(value),
                        .relu => reluReference(value),
                    };
                    try std.testing.expectApproxEqAbs(want, found, 2e-6 * @max(1, @abs(want)));
                }
                try std.testing.expectEqual(@as(f32, 99), out[row * stride + width]);
            }
            args.out = null;
            for (std.enums.values(table.Form)) |form| {
                if (form == .int8 and width % 32 != 0) continue;
                quantized = @splat(0);
                direct = @splat(0);
                args.out_form = form;
                args.out_quantized = &direct;
                glu(&args, 0, units);
                for (0..row_count) |row| {
                    quant.writeColumns(form, width, 0, width, out[row * stride ..].ptr, quantized[row * quantized_stride ..].ptr);
                }
                try std.testing.expectEqualSlices(u8, &quantized, &direct);
            }
            args.out = &x;
            args.out_quantized = null;
            glu(&args, 0, units);
            for (0..row_count) |row| try std.testing.expectEqualSlices(f32, out[row * stride ..][0..width], x[row * stride ..][0..width]);
        }
    }
}

test "glu is act(gate) times up for odd widths, several rows and any split, and quantizes what it wrote" {
    var random = std.Random.DefaultPrng.init(1);
    const widths = [_]u32{ 1, 7, 31, 32, 33, 512, 513, 1024, 2080 };
    for (widths) |width| {
        for ([_]table.Activation{ .silu, .gelu_tanh }) |activation| {
            const row_count = 3;
            const stride = 2100;
            var gate: [row_count * stride]f32 = undefined;
            var up: [row_count * stride]f32 = undefined;
            var out: [row_count * stride]f32 = @splat(99);
            for (&gate, &up) |*g, *u| {
                g.* = random.random().floatNorm(f32) * 3;
                u.* = random.random().floatNorm(f32);
            }
            const quantized_stride = comptime table.wideRowBytes(2112);
            var quantized: [row_count * quantized_stride]u8 align(64) = @splat(0);
            var direct: [row_count * quantized_stride]u8 align(64) = @splat(0);
            var args: table.Glu = .{
                .activation = activation,
                .width = width,
                .row_count = row_count,
                .gate = &gate,
                .gate_stride = stride,
                .up = &up,
                .up_stride = stride,
                .out = &out,
                .out_stride = stride,
                .out_quantized = null,
                .out_quantized_stride = quantized_stride,
            };
            const units = row_count * (std.math.divCeil(u32, width, table.glu_unit_columns) catch unreachable);
            for (0..units) |unit| glu(&args, @intCast(unit), @intCast(unit + 1));
            for (0..row_count) |row| {
                for (0..width) |column| {
                    const g: f64 = gate[row * stride + column];
                    const want = (if (activation == .silu) siluReference(g) else geluReference(g)) * up[row * stride + column];
                    try std.testing.expectApproxEqAbs(want, out[row * stride + column], 2e-6 * @max(1, @abs(want)));
                }
                try std.testing.expectEqual(@as(f32, 99), out[row * stride + width]); // Nothing past the row.
            }
            // Without the float output, all units at once: the rows of each form are those of the float output.
            args.out = null;
            for (std.enums.values(table.Form)) |form| {
                if (form == .int8 and width % 32 != 0) continue;
                quantized = @splat(0);
                direct = @splat(0);
                args.out_form = form;
                args.out_quantized = &direct;
                glu(&args, 0, units);
                for (0..row_count) |row| {
                    quant.writeColumns(form, width, 0, width, out[row * stride ..].ptr, quantized[row * quantized_stride ..].ptr);
                }
                try std.testing.expectEqualSlices(u8, &quantized, &direct);
            }
        }
    }
}
