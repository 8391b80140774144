//! The machine under the kernels: vector widths, loads and stores, conversions, fused multiply-add, int8 dot products and
//! table look-ups of one instruction-set level. The only file of the kernels that knows an instruction set. It knows no
//! format and no layout.
//!
//! Each level compiles the kernels once, with `level_options.name` naming it and the target's CPU features set to match.
//! A result may differ in its last bits between levels (fused or separate multiply-add), never within one.

const std = @import("std");
const builtin = @import("builtin");
const assert = std.debug.assert;
const options = @import("level_options");

pub const Level = enum {
    /// The architecture's baseline, one lane at a time where a kernel has a choice.
    scalar,
    x86_64_v2,
    avx2,
    avx512,
    avx512_vnni,
    amx,
    neon,
    neon_dotprod,
    neon_i8mm,
};

pub const level: Level = std.meta.stringToEnum(Level, options.name) orelse @compileError("unknown level " ++ options.name);

/// Whether every access to memory outside a kernel's own stack is reported. Off in the ordinary tables.
pub const trace = options.trace;

/// What the level's symbols end with.
pub const suffix = @tagName(level) ++ if (trace) "_traced" else "";

/// Float32 values of one vector register.
pub const lanes = switch (level) {
    .scalar => 1,
    .x86_64_v2, .neon, .neon_dotprod, .neon_i8mm => 4,
    .avx2 => 8,
    .avx512, .avx512_vnni, .amx => 16,
};

/// Vector registers that inline kernels may count on; tiles are sized by it.
pub const register_count = switch (level) {
    .scalar, .x86_64_v2, .avx2 => 16,
    .avx512, .avx512_vnni, .amx, .neon, .neon_dotprod, .neon_i8mm => 32,
};

/// Whether `mulAdd` rounds once. Elsewhere it is a multiplication and an addition: the library call that emulates a fused
/// one is a hundred times slower.
pub const fused = switch (level) {
    .scalar, .x86_64_v2 => false,
    else => true,
};

/// Hardware conversion between float16 and float32.
const converts_f16 = fused;

pub const F = @Vector(lanes, f32);
pub const I = @Vector(lanes, i32);
pub const U = @Vector(lanes, u32);

comptime {
    // The level's name and the features it is compiled with must agree: a wider instruction in a narrow level would crash
    // the machines the narrow level exists for.
    const Feature = std.Target.x86.Feature;
    if (builtin.cpu.arch == .x86_64) {
        const has = struct {
            fn has(feature: Feature) bool {
                return std.Target.x86.featureSetHas(builtin.cpu.features, feature);
            }
        }.has;
        assert(has(.sse4_1) == (level != .scalar));
        assert(has(.avx) == (lanes >= 8));
        assert(has(.avx512f) == (lanes >= 16));
        assert(has(.avx512vnni) == (level == .avx512_vnni or level == .amx));
        assert(has(.amx_int8) == (level == .amx));
    } else if (builtin.cpu.arch == .aarch64) {
        assert(std.Target.aarch64.featureSetHas(builtin.cpu.features, .dotprod) == (level == .neon_dotprod or level == .neon_i8mm));
        assert(std.Target.aarch64.featureSetHas(builtin.cpu.features, .i8mm) == (level == .neon_i8mm));
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// What is reported.

pub const Access = enum(u32) {
    load = 0,
    store = 1,
    /// Into the first-level cache.
    prefetch = 2,
    /// Into the second-level cache.
    prefetch_far = 3,
};

/// Defined by what links a level that reports (trace.zig).
extern fn tinyai_trace_access(address: usize, bytes: u32, operations: u32, kind: u32) callconv(.c) void;

/// Where the stack of the kernel that runs on this thread begins: its frames lie below. Set by `entered`.
threadlocal var stack_end: usize = 0;

/// `kernel`, which is called from outside, telling where its stack begins. The same function where nothing is reported.
pub fn entered(comptime kernel: anytype) *const @TypeOf(kernel) {
    if (!trace) return &kernel;
    const Arguments = std.meta.ArgsTuple(@TypeOf(kernel));
    const info = @typeInfo(@TypeOf(kernel)).@"fn";
    const Result = info.return_type.?;
    const wrapped = struct {
        inline fn call(arguments: Arguments) Result {
            stack_end = @frameAddress();
            return @call(.never_inline, kernel, arguments);
        }

        fn one(a: info.params[0].type.?) callconv(.c) Result {
            return call(.{a});
        }

        fn three(a: info.params[0].type.?, b: info.params[1].type.?, c: info.params[2].type.?) callconv(.c) Result {
            return call(.{ a, b, c });
        }

        fn four(a: info.params[0].type.?, b: info.params[1].type.?, c: info.params[2].type.?, d: info.params[3].type.?) callconv(.c) Result {
            return call(.{ a, b, c, d });
        }
    };
    return switch (info.params.len) {
        1 => &wrapped.one,
        3 => &wrapped.three,
        4 => &wrapped.four,
        else => comptime unreachable,
    };
}

/// Bytes that one load or store moves at most.
const register_bytes = @max(16, lanes * 4);

/// Reports an access that is about to be made: `bytes` in a row, by `operations` instructions.
noinline fn report(pointer: *const anyopaque, bytes: usize, operations: usize, kind: Access) void {
    const address = @intFromPtr(pointer);
    // A function may be given a place on the stack or one in memory.
    if (bytes == 0 or (address >= @frameAddress() and address < stack_end)) return;
    tinyai_trace_access(address, @intCast(bytes), @intCast(operations), @intFromEnum(kind));
}

/// An access of a whole `T`. The call of a function of its own takes a third of the code that telling everything would.
inline fn touch(comptime T: type, pointer: *const anyopaque, comptime kind: Access) void {
    if (trace) Report(bytesOf(T), kind).of(pointer);
}

fn Report(comptime bytes: comptime_int, comptime kind: Access) type {
    return struct {
        noinline fn of(pointer: *const anyopaque) void {
            report(pointer, bytes, operationsOf(bytes), kind);
        }
    };
}

/// An access of as many bytes as are only known when it runs, by whole registers.
inline fn touchBytes(pointer: *const anyopaque, bytes: usize, kind: Access) void {
    if (trace) report(pointer, bytes, operationsOf(bytes), kind);
}

inline fn operationsOf(bytes: anytype) @TypeOf(bytes) {
    return (bytes + register_bytes - 1) / register_bytes;
}

/// Bytes that a value of `T` takes in memory: a vector's elements lie side by side.
fn bytesOf(comptime T: type) comptime_int {
    return switch (@typeInfo(T)) {
        .vector => |info| info.len * @sizeOf(info.child),
        .array => |info| info.len * bytesOf(info.child),
        else => @sizeOf(T),
    };
}

// ---------------------------------------------------------------------------------------------------------------------
// Memory. Kernels read and write everything that is not their own stack through these.

/// Reads a `T` (a scalar or a vector) from any address.
pub inline fn load(comptime T: type, pointer: *const anyopaque) T {
    touch(T, pointer, .load);
    return @as(*align(1) const T, @ptrCast(pointer)).*;
}

/// Writes `value` to any address.
pub inline fn store(pointer: *anyopaque, value: anytype) void {
    touch(@TypeOf(value), pointer, .store);
    @as(*align(1) @TypeOf(value), @ptrCast(pointer)).* = value;
}

/// Reads what `pointer` points to.
pub inline fn read(pointer: anytype) @typeInfo(@TypeOf(pointer)).pointer.child {
    touch(@TypeOf(pointer.*), pointer, .load);
    return pointer.*;
}

/// Writes what `pointer` points to.
pub inline fn write(pointer: anytype, value: @typeInfo(@TypeOf(pointer)).pointer.child) void {
    touch(@TypeOf(value), pointer, .store);
    pointer.* = value;
}

/// Copies elements to a place that the source does not overlap: by registers, and what is left in halves of one. The library's
/// function for it would copy some bytes twice.
pub inline fn copy(comptime T: type, target: []T, source: [*]const T) void {
    const to: [*]u8 = @ptrCast(target.ptr);
    const from: [*]const u8 = @ptrCast(source);
    const count = target.len * @sizeOf(T);
    var at: usize = 0;
    while (at + register_bytes <= count) : (at += register_bytes) store(to + at, load(@Vector(register_bytes, u8), from + at));
    comptime var part_bytes = register_bytes / 2;
    inline while (part_bytes >= @sizeOf(T)) : (part_bytes /= 2) {
        if (count & part_bytes != 0) {
            store(to + at, load(@Vector(part_bytes, u8), from + at));
            at += part_bytes;
        }
    }
}

/// Writes `value` to every element.
pub inline fn fill(comptime T: type, target: []T, value: T) void {
    touchBytes(target.ptr, target.len * @sizeOf(T), .store);
    @memset(target, value);
}

/// Reads the first `count` (at most the length of `T`) elements; the others are zero.
pub inline fn loadPartial(comptime T: type, pointer: *const anyopaque, count: usize) T {
    const info = @typeInfo(T).vector;
    assert(count <= info.len);
    if (count == info.len) return load(T, pointer);
    var elements: [info.len]info.child = @splat(0);
    const source: [*]const u8 = @ptrCast(pointer);
    var at: usize = 0;
    // In halves, quarters and so on: what the compiler makes of a loop reads some elements twice.
    comptime var part_len = info.len / 2;
    inline while (part_len > 0) : (part_len /= 2) {
        if (count & part_len != 0) {
            elements[at..][0..part_len].* = load(@Vector(part_len, info.child), source + at * @sizeOf(info.child));
            at += part_len;
        }
    }
    return elements;
}

/// Writes the first `count` elements of `value`.
pub inline fn storePartial(pointer: *anyopaque, value: anytype, count: usize) void {
    const info = @typeInfo(@TypeOf(value)).vector;
    assert(count <= info.len);
    if (count == info.len) return store(pointer, value);
    const elements: [info.len]info.child = value;
    const target: [*]u8 = @ptrCast(pointer);
    var at: usize = 0;
    comptime var part_len = info.len / 2;
    inline while (part_len > 0) : (part_len /= 2) {
        if (count & part_len != 0) {
            store(target + at * @sizeOf(info.child), @as(@Vector(part_len, info.child), elements[at..][0..part_len].*));
            at += part_len;
        }
    }
}

/// Asks for the cache line at `pointer`, which may lie past the end of the data: a prefetch never faults.
pub inline fn prefetch(pointer: [*]const u8, comptime offset_bytes: comptime_int) void {
    const address: [*]const u8 = @ptrFromInt(@intFromPtr(pointer) +% offset_bytes);
    touch(u8, address, .prefetch);
    @prefetch(address, .{ .rw = .read, .locality = 3, .cache = .data });
}

/// The same, into the second-level cache and not the first.
pub inline fn prefetchFar(pointer: [*]const u8, comptime offset_bytes: comptime_int) void {
    const address: [*]const u8 = @ptrFromInt(@intFromPtr(pointer) +% offset_bytes);
    touch(u8, address, .prefetch_far);
    @prefetch(address, .{ .rw = .read, .locality = 2, .cache = .data });
}

// ---------------------------------------------------------------------------------------------------------------------
// Float32 arithmetic.

/// a · b + c, rounded once where `fused`, twice elsewhere. Any vector of f32, or an f32.
pub inline fn mulAdd(a: anytype, b: @TypeOf(a), c: @TypeOf(a)) @TypeOf(a) {
    return if (fused) @mulAdd(@TypeOf(a), a, b, c) else a * b + c;
}

/// The sum of a vector's elements by halving: ((0 + n/2) + (n/4 + 3n/4)) ..., the same on every run.
pub fn sum(vector: anytype) @typeInfo(@TypeOf(vector)).vector.child {
    const info = @typeInfo(@TypeOf(vector)).vector;
    if (info.len == 1) return vector[0];
    const half = info.len / 2;
    if (half * 2 != info.len) @compileError("length must be a power of two");
    return sum(lowHalf(vector) + highHalf(vector));
}

/// The largest element.
pub inline fn max(vector: anytype) @typeInfo(@TypeOf(vector)).vector.child {
    return @reduce(.Max, vector);
}

pub inline fn lowHalf(vector: anytype) Half(@TypeOf(vector)) {
    return part(vector, 0, 2);
}

pub inline fn highHalf(vector: anytype) Half(@TypeOf(vector)) {
    return part(vector, 1, 2);
}

fn Half(comptime T: type) type {
    const info = @typeInfo(T).vector;
    return @Vector(info.len / 2, info.child);
}

/// The `index`-th of `count` equal parts of a vector.
inline fn part(vector: anytype, comptime index: comptime_int, comptime count: comptime_int) @Vector(@typeInfo(@TypeOf(vector)).vector.len / count, @typeInfo(@TypeOf(vector)).vector.child) {
    const info = @typeInfo(@TypeOf(vector)).vector;
    const width = info.len / count;
    return @shuffle(info.child, vector, undefined, std.simd.iota(i32, width) + @as(@Vector(width, i32), @splat(index * width)));
}

/// The concatenation of two vectors.
pub inline fn join(low: anytype, high: @TypeOf(low)) @Vector(2 * @typeInfo(@TypeOf(low)).vector.len, @typeInfo(@TypeOf(low)).vector.child) {
    return std.simd.join(low, high);
}

/// Rows become columns: element i of result j is element j of row i.
pub inline fn transpose(rows: [lanes]F) [lanes]F {
    // Each step interleaves the first half of the rows with the second; after as many steps as halvings every row has been
    // spread over all of them.
    const low, const high = comptime masks: {
        var both: [2][lanes]i32 = undefined;
        for (&both, 0..) |*mask, half| for (mask, 0..) |*place, index| {
            const element: i32 = half * (lanes / 2) + index / 2;
            place.* = if (index % 2 == 0) element else ~element;
        };
        break :masks both;
    };
    var result = rows;
    comptime var step = 1;
    inline while (step < lanes) : (step *= 2) {
        var next: [lanes]F = undefined;
        inline for (0..lanes / 2) |index| {
            next[2 * index] = @shuffle(f32, result[index], result[index + lanes / 2], low);
            next[2 * index + 1] = @shuffle(f32, result[index], result[index + lanes / 2], high);
        }
        result = next;
    }
    return result;
}

/// Rounds to the nearest integer, ties to even. |value| must be below 2^22.
pub inline fn roundToInt(value: anytype) @Vector(@typeInfo(@TypeOf(value)).vector.len, i32) {
    // 1.5 · 2^23 pushes the fraction out of the significand, rounding as the machine rounds; the integer is what its low
    // bits then hold. Exact at every level, where an instruction for it differs between them.
    const T = @TypeOf(value);
    const Int = @Vector(@typeInfo(T).vector.len, i32);
    const magic: T = @splat(12582912.0);
    return @as(Int, @bitCast(value + magic)) -% @as(Int, @bitCast(magic));
}

// ---------------------------------------------------------------------------------------------------------------------
// Conversions. `n` values at a time, any power of two.

/// float16 values (as stored) to float32, exactly, denormals and infinities included.
pub inline fn fromF16(half: anytype) @Vector(@typeInfo(@TypeOf(half)).vector.len, f32) {
    const len = @typeInfo(@TypeOf(half)).vector.len;
    if (converts_f16) return @floatCast(@as(@Vector(len, f16), @bitCast(half)));
    const Bits = @Vector(len, u32);
    const Float = @Vector(len, f32);
    const bits: Bits = @as(@Vector(len, u16), @bitCast(half));
    const sign = (bits & @as(Bits, @splat(0x8000))) << @splat(16);
    // Exponent and fraction in float32's places; multiplying by 2^112 corrects the bias and normalises denormals.
    const scaled: Float = @as(Float, @bitCast((bits & @as(Bits, @splat(0x7fff))) << @splat(13))) * @as(Float, @splat(0x1p112));
    const magnitude: Bits = @bitCast(scaled);
    const not_finite = (bits & @as(Bits, @splat(0x7c00))) == @as(Bits, @splat(0x7c00));
    const fixed = @select(u32, not_finite, magnitude | @as(Bits, @splat(0x7f800000)), magnitude);
    return @bitCast(fixed | sign);
}

/// float32 to float16, to nearest, ties to even.
pub inline fn toF16(value: anytype) @Vector(@typeInfo(@TypeOf(value)).vector.len, f16) {
    const len = @typeInfo(@TypeOf(value)).vector.len;
    if (converts_f16) return @floatCast(value);
    const Bits = @Vector(len, u32);
    const Float = @Vector(len, f32);
    const input: Bits = @bitCast(value);
    const sign = input & @as(Bits, @splat(0x80000000));
    const bits = input ^ sign;
    // Below 2^-14 the result is denormal: adding 0.5 leaves its fraction, rounded, in the sum's low bits.
    const magic: Bits = @splat((127 - 15 + 23 - 10 + 1) << 23);
    const denormal = @as(Bits, @bitCast(@as(Float, @bitCast(bits)) + @as(Float, @bitCast(magic)))) -% magic;
    const odd = (bits >> @splat(13)) & @as(Bits, @splat(1));
    const normal = (bits -% @as(Bits, @splat((127 - 15) << 23)) +% @as(Bits, @splat(0xfff)) +% odd) >> @splat(13);
    const infinite = @select(u32, bits > @as(Bits, @splat(0x7f800000)), @as(Bits, @splat(0x7e00)), @as(Bits, @splat(0x7c00)));
    const small = bits < @as(Bits, @splat((127 - 14) << 23));
    const large = bits >= @as(Bits, @splat((127 + 16) << 23));
    const magnitude = @select(u32, large, infinite, @select(u32, small, denormal, normal));
    return @bitCast(@as(@Vector(len, u16), @truncate(magnitude | (sign >> @splat(16)))));
}

/// Reads `len` float16 values as float32.
pub inline fn loadF16(comptime len: comptime_int, pointer: *const anyopaque) @Vector(len, f32) {
    return fromF16(load(@Vector(len, u16), pointer));
}

/// Reads `len` int8 values as float32.
pub inline fn loadI8(comptime len: comptime_int, pointer: *const anyopaque) @Vector(len, f32) {
    return @floatFromInt(@as(@Vector(len, i32), load(@Vector(len, i8), pointer)));
}

/// Writes float32 values as float16.
pub inline fn storeF16(pointer: *anyopaque, value: anytype) void {
    store(pointer, @as(@Vector(@typeInfo(@TypeOf(value)).vector.len, u16), @bitCast(toF16(value))));
}

/// Reads `len` bfloat16 values as float32.
pub inline fn loadBf16(comptime len: comptime_int, pointer: *const anyopaque) @Vector(len, f32) {
    const bits: @Vector(len, u32) = load(@Vector(len, u16), pointer);
    return @bitCast(bits << @splat(16));
}

// ---------------------------------------------------------------------------------------------------------------------
// Int8 dot products: 64 bytes are 16 lanes of 4.

pub const Bytes = @Vector(64, u8);
pub const Lanes16 = @Vector(16, i32);

/// Whether `dot` subtracts 128 from weights whose `weight_max` is above 127, because the level multiplies signed bytes.
/// Where false, the caller corrects by 128 times the sum of the activations.
pub const dot_subtracts_128 = switch (level) {
    .x86_64_v2, .avx2, .avx512, .neon, .neon_dotprod => true,
    .scalar, .avx512_vnni, .amx, .neon_i8mm => false,
};

/// acc[i] + Σ_k w[4i + k] · x[k], exactly, for 16 lanes. `x` is four int8 in −127..127, first in the lowest byte. `w` is at
/// most `weight_max`, known at compile time: above 127 the weight is taken as `w − 128` where `dot_subtracts_128`.
pub inline fn dot(acc: Lanes16, w: Bytes, x: i32, comptime weight_max: comptime_int) Lanes16 {
    const full = weight_max > 127;
    switch (level) {
        .scalar => return dotScalar(acc, w, x),
        .avx512_vnni, .amx => {
            var result = acc;
            asm ("vpdpbusd %[x], %[w], %[acc]"
                : [acc] "+v" (result),
                : [w] "v" (w),
                  [x] "v" (@as(Lanes16, @splat(x))),
            );
            return result;
        },
        .avx512 => {
            // No sign instruction at this width: negate the activations of negative weights under a mask. |w| ≤ 128 and
            // |x| ≤ 127, so a pair's sum is at most 2 · 128 · 127 = 32,512 and does not saturate.
            const pattern: @Vector(64, i8) = @bitCast(@as(Lanes16, @splat(x)));
            const signed: @Vector(64, i8) = @bitCast(w ^ @as(Bytes, @splat(0x80)));
            const unsigned: Bytes = if (full) @abs(signed) else w;
            const activation = if (full) @select(i8, signed < @as(@Vector(64, i8), @splat(0)), -%pattern, pattern) else pattern;
            const pairs = asm ("vpmaddubsw %[x], %[w], %[out]"
                : [out] "=v" (-> @Vector(32, i16)),
                : [w] "v" (unsigned),
                  [x] "v" (activation),
            );
            return acc + asm ("vpmaddwd %[ones], %[pairs], %[out]"
                : [out] "=v" (-> Lanes16),
                : [pairs] "v" (pairs),
                  [ones] "v" (@as(@Vector(32, i16), @splat(1))),
            );
        },
        .avx2 => {
            var halves: [2]@Vector(8, i32) = undefined;
            inline for (0..2) |index| halves[index] = dotAvx2(part(acc, index, 2), part(w, index, 2), x, full);
            return join(halves[0], halves[1]);
        },
        .x86_64_v2 => {
            var quarters: [4]@Vector(4, i32) = undefined;
            inline for (0..4) |index| quarters[index] = dotV2(part(acc, index, 4), part(w, index, 4), x, full);
            return join(join(quarters[0], quarters[1]), join(quarters[2], quarters[3]));
        },
        .neon, .neon_dotprod, .neon_i8mm => {
            var quarters: [4]@Vector(4, i32) = undefined;
            inline for (0..4) |index| quarters[index] = dotNeon(part(acc, index, 4), part(w, index, 4), x, full);
            return join(join(quarters[0], quarters[1]), join(quarters[2], quarters[3]));
        },
    }
}

/// Whether products of narrow codes are summed in 16 bits first: half the multiplications where a quad takes two.
pub const has_pairs = switch (level) {
    .x86_64_v2, .avx2, .avx512 => true,
    .scalar, .avx512_vnni, .amx, .neon, .neon_dotprod, .neon_i8mm => false,
};

/// Sums of two neighbouring products.
pub const Pairs = @Vector(32, i16);

/// acc[i] + w[2i] · x[2i mod 4] + w[2i + 1] · x[2i mod 4 + 1] for 32 pairs; `w` is at most 127. Only where `has_pairs`. The
/// addition is inside the assembly: outside, the compiler keeps the products of all quads before it adds them up, and they do
/// not fit the registers (Q4_K at 256 tokens: 149 GOP/s instead of 181, on one core of a Zen 3).
pub inline fn dotPairs(acc: Pairs, w: Bytes, x: i32) Pairs {
    const pattern: @Vector(64, i8) = @bitCast(@as(Lanes16, @splat(x)));
    switch (level) {
        .avx512 => {
            var result = acc;
            var products: Pairs = undefined;
            asm (
                \\vpmaddubsw %[x], %[w], %[products]
                \\vpaddw %[products], %[acc], %[acc]
                : [acc] "+v" (result),
                  [products] "=&v" (products),
                : [w] "v" (w),
                  [x] "v" (pattern),
            );
            return result;
        },
        .avx2 => {
            var halves: [2]@Vector(16, i16) = undefined;
            inline for (0..2) |index| {
                var result = part(acc, index, 2);
                var products: @Vector(16, i16) = undefined;
                asm (
                    \\vpmaddubsw %[x], %[w], %[products]
                    \\vpaddw %[products], %[acc], %[acc]
                    : [acc] "+x" (result),
                      [products] "=&x" (products),
                    : [w] "x" (part(w, index, 2)),
                      [x] "x" (part(pattern, index, 2)),
                );
                halves[index] = result;
            }
            return join(halves[0], halves[1]);
        },
        .x86_64_v2 => {
            var quarters: [4]@Vector(8, i16) = undefined;
            inline for (0..4) |index| {
                var products: @Vector(16, u8) = part(w, index, 4);
                asm ("pmaddubsw %[x], %[w]"
                    : [w] "+x" (products),
                    : [x] "x" (part(pattern, index, 4)),
                );
                quarters[index] = @bitCast(products);
            }
            return acc + join(join(quarters[0], quarters[1]), join(quarters[2], quarters[3]));
        },
        else => comptime unreachable,
    }
}

/// acc[i] + pairs[2i] + pairs[2i + 1].
pub inline fn addPairs(acc: Lanes16, pairs: Pairs) Lanes16 {
    switch (level) {
        .avx512 => return acc + asm ("vpmaddwd %[ones], %[pairs], %[out]"
            : [out] "=v" (-> Lanes16),
            : [pairs] "v" (pairs),
              [ones] "v" (@as(Pairs, @splat(1))),
        ),
        .avx2 => {
            var halves: [2]@Vector(8, i32) = undefined;
            inline for (0..2) |index| halves[index] = asm ("vpmaddwd %[ones], %[pairs], %[out]"
                : [out] "=x" (-> @Vector(8, i32)),
                : [pairs] "x" (part(pairs, index, 2)),
                  [ones] "x" (@as(@Vector(16, i16), @splat(1))),
            );
            return acc + join(halves[0], halves[1]);
        },
        .x86_64_v2 => {
            var quarters: [4]@Vector(4, i32) = undefined;
            inline for (0..4) |index| {
                var sums = part(pairs, index, 4);
                asm ("pmaddwd %[ones], %[pairs]"
                    : [pairs] "+x" (sums),
                    : [ones] "x" (@as(@Vector(8, i16), @splat(1))),
                );
                quarters[index] = @bitCast(sums);
            }
            return acc + join(join(quarters[0], quarters[1]), join(quarters[2], quarters[3]));
        },
        else => comptime unreachable,
    }
}

/// Whether the level multiplies 16-bit integers and sums pairs of products in 32 bits, twice as many products an
/// instruction as float32 has.
pub const has_words = switch (level) {
    .avx512_vnni, .amx => true,
    else => false,
};

/// 16 lanes of 2 int16.
pub const WordPairs = @Vector(32, i16);

/// acc[i] + w[2i] · x[0] + w[2i + 1] · x[1], exactly, for 16 lanes; `x` is two int16, first in the lower half. Only where
/// `has_words`.
pub inline fn dotWords(acc: Lanes16, w: WordPairs, x: i32) Lanes16 {
    comptime assert(has_words);
    var result = acc;
    asm ("vpdpwssd %[x], %[w], %[acc]"
        : [acc] "+v" (result),
        : [w] "v" (w),
          [x] "v" (@as(Lanes16, @splat(x))),
    );
    return result;
}

/// The low halves of two vectors' lanes as pairs, those of `low` first. Only where `has_words`. What the compiler would make of it
/// takes Intel's processors four operations instead of two.
pub inline fn pairWords(low: Lanes16, high: Lanes16) WordPairs {
    comptime assert(has_words);
    var result = low;
    var shifted: Lanes16 = undefined;
    asm (
        \\vpslld $16, %[high], %[shifted]
        \\vpternlogd $0xe4, %[mask], %[shifted], %[low]
        : [low] "+v" (result),
          [shifted] "=&v" (shifted),
        : [high] "v" (high),
          [mask] "v" (@as(Lanes16, @splat(0xffff))),
    );
    return @bitCast(result);
}

/// Not inline: unrolled into every format's every tile it would make this level the slowest to compile and the largest.
noinline fn dotScalar(acc: Lanes16, w: Bytes, x: i32) Lanes16 {
    const weights: [64]u8 = w;
    const activations: [4]i8 = @bitCast(x);
    var result: [16]i32 = acc;
    for (0..16) |row| {
        inline for (0..4) |column| result[row] += @as(i32, weights[4 * row + column]) * activations[column];
    }
    return result;
}

inline fn dotAvx2(acc: @Vector(8, i32), w: @Vector(32, u8), x: i32, comptime full: bool) @Vector(8, i32) {
    const pattern: @Vector(32, i8) = @bitCast(@as(@Vector(8, i32), @splat(x)));
    const signed: @Vector(32, i8) = @bitCast(w ^ @as(@Vector(32, u8), @splat(0x80)));
    const unsigned: @Vector(32, u8) = if (full) @abs(signed) else w;
    const ones: @Vector(16, i16) = @splat(1);
    // The addition is inside the assembly, as in `dotPairs`.
    var result = acc;
    var products: @Vector(32, i8) = undefined;
    if (full) {
        // |w| ≤ 128 and |x| ≤ 127: a pair's sum is at most 2 · 128 · 127 = 32,512 and does not saturate.
        asm (
            \\vpsignb %[signs], %[x], %[products]
            \\vpmaddubsw %[products], %[w], %[products]
            \\vpmaddwd %[ones], %[products], %[products]
            \\vpaddd %[products], %[acc], %[acc]
            : [acc] "+x" (result),
              [products] "=&x" (products),
            : [w] "x" (unsigned),
              [signs] "x" (signed),
              [x] "x" (pattern),
              [ones] "x" (ones),
        );
    } else {
        asm (
            \\vpmaddubsw %[x], %[w], %[products]
            \\vpmaddwd %[ones], %[products], %[products]
            \\vpaddd %[products], %[acc], %[acc]
            : [acc] "+x" (result),
              [products] "=&x" (products),
            : [w] "x" (w),
              [x] "x" (pattern),
              [ones] "x" (ones),
        );
    }
    return result;
}

inline fn dotV2(acc: @Vector(4, i32), w: @Vector(16, u8), x: i32, comptime full: bool) @Vector(4, i32) {
    var activation: @Vector(16, i8) = @bitCast(@as(@Vector(4, i32), @splat(x)));
    const signed: @Vector(16, i8) = @bitCast(w ^ @as(@Vector(16, u8), @splat(0x80)));
    if (full) asm ("psignb %[w], %[x]"
        : [x] "+x" (activation),
        : [w] "x" (signed),
    );
    var pairs: @Vector(16, u8) = if (full) @abs(signed) else w;
    asm ("pmaddubsw %[x], %[w]"
        : [w] "+x" (pairs),
        : [x] "x" (activation),
    );
    asm ("pmaddwd %[ones], %[pairs]"
        : [pairs] "+x" (pairs),
        : [ones] "x" (@as(@Vector(8, i16), @splat(1))),
    );
    return acc + @as(@Vector(4, i32), @bitCast(pairs));
}

inline fn dotNeon(acc: @Vector(4, i32), w: @Vector(16, u8), x: i32, comptime full: bool) @Vector(4, i32) {
    const activation: @Vector(16, i8) = @bitCast(@as(@Vector(4, i32), @splat(x)));
    var result = acc;
    if (level == .neon_i8mm) {
        asm ("usdot %[acc].4s, %[w].16b, %[x].16b"
            : [acc] "+w" (result),
            : [w] "w" (w),
              [x] "w" (activation),
        );
        return result;
    }
    const signed: @Vector(16, i8) = @bitCast(if (full) w ^ @as(@Vector(16, u8), @splat(0x80)) else w);
    if (level == .neon_dotprod) {
        asm ("sdot %[acc].4s, %[w].16b, %[x].16b"
            : [acc] "+w" (result),
            : [w] "w" (signed),
              [x] "w" (activation),
        );
        return result;
    }
    // |w| ≤ 128 and |x| ≤ 127: the sum of two products fits in 16 bits.
    const low = asm ("smull %[out].8h, %[w].8b, %[x].8b"
        : [out] "=w" (-> @Vector(8, i16)),
        : [w] "w" (signed),
          [x] "w" (activation),
    );
    const high = asm ("smull2 %[out].8h, %[w].16b, %[x].16b"
        : [out] "=w" (-> @Vector(8, i16)),
        : [w] "w" (signed),
          [x] "w" (activation),
    );
    const pairs = asm ("addp %[out].8h, %[low].8h, %[high].8h"
        : [out] "=w" (-> @Vector(8, i16)),
        : [low] "w" (low),
          [high] "w" (high),
    );
    asm ("sadalp %[acc].4s, %[pairs].8h"
        : [acc] "+w" (result),
        : [pairs] "w" (pairs),
    );
    return result;
}

// ---------------------------------------------------------------------------------------------------------------------
// Threads.

/// Called on a thread before its first kernel: shapes the tile registers where the level has them. The process must have
/// the operating system's permission for them (cpu.zig).
pub fn threadBegin() callconv(.c) void {
    if (has_tiles) asm volatile ("ldtilecfg (%[config])"
        :
        : [config] "r" (&tile_config),
        : .{ .memory = true });
}

/// Called on a thread after its last kernel.
pub fn threadEnd() callconv(.c) void {
    if (has_tiles) asm volatile ("tilerelease");
}

// ---------------------------------------------------------------------------------------------------------------------
// Tiles: int8 products of 16 tokens with 16 rows at once.

pub const has_tiles = level == .amx;

/// Tokens of a tile product.
pub const tile_tokens = 16;

/// Sums of a tile product, [token][row].
pub const TileSums = [tile_tokens][16]i32;

const TileConfig = extern struct {
    palette: u8 = 1,
    start_row: u8 = 0,
    reserved: [14]u8 = @splat(0),
    /// Bytes of a row, by tile register.
    row_bytes: [16]u16,
    rows: [16]u8,
};

/// 0 and 1: sums of 16 × 16 int32. 2: 32 activations of 16 tokens; 4: their weights, 8 quads of 64 bytes. 3 and 5: the same
/// for 16 columns. One configuration serves both, so that a thread configures once.
const tile_config: TileConfig align(64) = .{
    .row_bytes = .{ 64, 64, 32, 16, 64, 64 } ++ .{0} ** 10,
    .rows = .{ 16, 16, 16, 16, 8, 4 } ++ .{0} ** 10,
};

comptime {
    assert(@sizeOf(TileConfig) == 64);
}

/// sums[token][row] = Σ_k w[row][k] · x[token][k] over `columns` (16 or 32) columns. `codes` are signed, in quads of 64 bytes;
/// `x` is the first token's int8 activations, `stride` bytes from the next one's. `parity` alternates the register, so that
/// neighbouring products overlap.
pub inline fn tileProduct(comptime columns: u32, comptime parity: u1, sums: *align(64) TileSums, x: [*]const u8, stride: u64, codes: [*]const u8) void {
    const a = if (columns == 32) "%%tmm2" else "%%tmm3";
    const b = if (columns == 32) "%%tmm4" else "%%tmm5";
    const c = if (parity == 0) "%%tmm0" else "%%tmm1";
    if (trace) {
        for (0..tile_tokens) |row| touch([columns]u8, x + row * stride, .load);
        for (0..columns / 4) |row| touch(Bytes, codes + row * 64, .load);
        touch(TileSums, sums, .store);
    }
    asm volatile ("tilezero " ++ c ++ "\n" ++
            "tileloadd (%[x],%[stride]), " ++ a ++ "\n" ++
            "tileloadd (%[codes],%[line]), " ++ b ++ "\n" ++
            "tdpbssd " ++ b ++ ", " ++ a ++ ", " ++ c ++ "\n" ++
            "tilestored " ++ c ++ ", (%[sums],%[line])"
        :
        : [x] "r" (x),
          [stride] "r" (stride),
          [codes] "r" (codes),
          [line] "r" (@as(u64, 64)),
          [sums] "r" (sums),
        : .{ .memory = true });
}

/// Eight whole tiles, of which `tilePeak` makes the first four its sums.
const peak_config: TileConfig align(64) = .{ .row_bytes = .{64} ** 8 ++ .{0} ** 8, .rows = .{16} ** 8 ++ .{0} ** 8 };

/// The most that the tiles do: products of whole tiles that wait for nothing, `turns` times four; the number of operations.
/// They are of int8, or with `bf16` of bfloat16. The thread's own configuration is back when it returns.
pub fn tilePeak(comptime bf16: bool, turns: u32) u64 {
    asm volatile ("ldtilecfg (%[config])"
        :
        : [config] "r" (&peak_config),
        : .{ .memory = true });
    const product = if (bf16) "tdpbf16ps " else "tdpbssd ";
    for (0..turns) |_| asm volatile (product ++ "%%tmm6, %%tmm4, %%tmm0\n" ++
            product ++ "%%tmm7, %%tmm4, %%tmm1\n" ++
            product ++ "%%tmm6, %%tmm5, %%tmm2\n" ++
            product ++ "%%tmm7, %%tmm5, %%tmm3");
    threadBegin();
    const columns = if (bf16) 32 else 64;
    return @as(u64, turns) * 4 * 16 * 16 * columns * 2;
}

// ---------------------------------------------------------------------------------------------------------------------
// Bfloat16 products: 64 bytes are 16 lanes of 2.

pub const has_bf16 = level == .avx512_vnni or level == .amx;

/// acc[i] + w[2i] · x[2i] + w[2i + 1] · x[2i + 1] for 16 lanes of pairs of bfloat16. Only where `has_bf16`.
pub inline fn dotBf16(acc: @Vector(16, f32), w: Bytes, x: Bytes) @Vector(16, f32) {
    var result = acc;
    asm ("vdpbf16ps %[x], %[w], %[acc]"
        : [acc] "+v" (result),
        : [w] "v" (w),
          [x] "v" (x),
    );
    return result;
}

// ---------------------------------------------------------------------------------------------------------------------
// Bytes.

/// `bytes` shifted so that the bit at `from` comes to `to`, masked by `mask` (which must hide what crosses byte borders).
pub inline fn bitField(bytes: Bytes, comptime from: comptime_int, comptime to: comptime_int, comptime mask: u8) Bytes {
    const Words = @Vector(16, u32);
    const words: Words = @bitCast(bytes);
    const moved = if (from > to) words >> @splat(from - to) else if (from < to) words << @splat(to - from) else words;
    return @as(Bytes, @bitCast(moved)) & @as(Bytes, @splat(mask));
}

noinline fn lookupScalar(table: *const [16]u8, indices: Bytes) Bytes {
    var result: [64]u8 = indices;
    for (&result) |*byte| byte.* = table[byte.* & 15];
    return result;
}

/// table[index] for 64 indices of 0 to 15.
pub inline fn lookup(comptime table: [16]u8, indices: Bytes) Bytes {
    switch (level) {
        .scalar => return lookupScalar(&table, indices),
        .avx512, .avx512_vnni, .amx => return asm ("vpshufb %[i], %[t], %[out]"
            : [out] "=v" (-> Bytes),
            : [t] "v" (@as(Bytes, table ++ table ++ table ++ table)),
              [i] "v" (indices),
        ),
        .avx2 => {
            var halves: [2]@Vector(32, u8) = undefined;
            inline for (0..2) |index| halves[index] = asm ("vpshufb %[i], %[t], %[out]"
                : [out] "=x" (-> @Vector(32, u8)),
                : [t] "x" (@as(@Vector(32, u8), table ++ table)),
                  [i] "x" (part(indices, index, 2)),
            );
            return join(halves[0], halves[1]);
        },
        .x86_64_v2, .neon, .neon_dotprod, .neon_i8mm => {
            var quarters: [4]@Vector(16, u8) = undefined;
            inline for (0..4) |index| {
                if (level == .x86_64_v2) {
                    var values: @Vector(16, u8) = table;
                    asm ("pshufb %[i], %[t]"
                        : [t] "+x" (values),
                        : [i] "x" (part(indices, index, 4)),
                    );
                    quarters[index] = values;
                } else quarters[index] = asm ("tbl %[out].16b, {%[t].16b}, %[i].16b"
                    : [out] "=w" (-> @Vector(16, u8)),
                    : [t] "w" (@as(@Vector(16, u8), table)),
                      [i] "w" (part(indices, index, 4)),
                );
            }
            return join(join(quarters[0], quarters[1]), join(quarters[2], quarters[3]));
        },
    }
}

// ---------------------------------------------------------------------------------------------------------------------

test "float16 converts exactly both ways, for all 65,536 patterns" {
    var start: u32 = 0;
    while (start < 65536) : (start += 16) {
        const patterns = @as(@Vector(16, u16), @truncate(std.simd.iota(u32, 16) + @as(@Vector(16, u32), @splat(start))));
        const floats: [16]f32 = fromF16(patterns);
        const back: [16]u16 = @as(@Vector(16, u16), @bitCast(toF16(@as(@Vector(16, f32), floats))));
        for (floats, back, @as([16]u16, patterns)) |float, returned, pattern| {
            const expected = referenceF16(pattern);
            if (std.math.isNan(expected)) {
                try std.testing.expect(std.math.isNan(float));
                try std.testing.expect(returned & 0x7fff > 0x7c00);
            } else {
                try std.testing.expectEqual(expected, float);
                try std.testing.expectEqual(pattern, returned);
            }
        }
    }
}

fn referenceF16(pattern: u16) f64 {
    const fraction: f64 = @floatFromInt(pattern & 0x3ff);
    const exponent: i32 = pattern >> 10 & 31;
    const magnitude = if (exponent == 31)
        (if (pattern & 0x3ff == 0) std.math.inf(f64) else std.math.nan(f64))
    else if (exponent == 0)
        std.math.ldexp(fraction, -24)
    else
        std.math.ldexp(1024 + fraction, exponent - 25);
    return if (pattern & 0x8000 != 0) -magnitude else magnitude;
}

test "float32 rounds to the nearest float16, ties to even" {
    var prng: std.Random.DefaultPrng = .init(3);
    for (0..4096) |round| {
        var values: [16]f32 = undefined;
        for (&values) |*value| {
            const random = prng.random();
            value.* = switch (round % 3) {
                0 => random.floatNorm(f32),
                1 => random.floatNorm(f32) * 0x1p-20,
                // Half-way between two float16 values.
                else => @floatCast((referenceF16(random.int(u16) & 0x7bfe) + referenceF16(random.int(u16) & 0x3ff)) * 0.5),
            };
        }
        const converted: [16]u16 = @as(@Vector(16, u16), @bitCast(toF16(@as(@Vector(16, f32), values))));
        for (values, converted) |value, pattern| {
            const distance = @abs(referenceF16(pattern) - value);
            const below = if (pattern & 0x7fff == 0) pattern else pattern - 1;
            const above = if (pattern & 0x7fff == 0x7c00) pattern else pattern + 1;
            for ([_]u16{ below, above }) |other| {
                const other_distance = @abs(referenceF16(other) - value);
                try std.testing.expect(distance < other_distance or (distance == other_distance and pattern & 1 == 0) or other == pattern);
            }
        }
    }
}

test "bfloat16 is the upper half of float32" {
    const source = [_]u16{ 0x3f80, 0xc000, 0x0001, 0x7f80, 0x8000, 0x4049, 0, 1 };
    const floats: [8]f32 = loadBf16(8, &source);
    for (source, floats) |pattern, float| try std.testing.expectEqual(@as(u32, pattern) << 16, @as(u32, @bitCast(float)));
}

test "dot is exact for every extreme of weights and activations" {
    var prng: std.Random.DefaultPrng = .init(4);
    for (0..512) |round| {
        var weights: [64]u8 = undefined;
        var activations: [4]i8 = undefined;
        for (&weights) |*weight| weight.* = switch (round) {
            0, 1 => 255,
            2, 3 => 0,
            4, 5 => 127,
            6, 7 => 128,
            else => prng.random().int(u8),
        };
        for (&activations) |*activation| activation.* = switch (round) {
            0, 2, 4, 6 => 127,
            1, 3, 5, 7 => -127,
            else => prng.random().intRangeAtMost(i8, -127, 127),
        };
        const x: i32 = @bitCast(activations);
        const start: Lanes16 = @splat(-5);
        const full: [16]i32 = dot(start, weights, x, 255);
        const narrow: [16]i32 = dot(start, weights & @as(Bytes, @splat(127)), x, 127);
        for (0..16) |row| {
            var expected_full: i32 = -5;
            var expected_narrow: i32 = -5;
            for (0..4) |column| {
                const weight: i32 = weights[4 * row + column];
                expected_full += (weight - if (dot_subtracts_128) 128 else 0) * activations[column];
                expected_narrow += (weight & 127) * activations[column];
            }
            try std.testing.expectEqual(expected_full, full[row]);
            try std.testing.expectEqual(expected_narrow, narrow[row]);
        }
    }
}

test "products of 16-bit integers are exact, the largest sums included" {
    if (!has_words) return error.SkipZigTest;
    var prng: std.Random.DefaultPrng = .init(7);
    for (0..256) |round| {
        var weights: [32]i16 = undefined;
        var x: [2]i16 = undefined;
        for (&weights) |*weight| weight.* = if (round < 2) 8191 else prng.random().intRangeAtMost(i16, -8191, 8191);
        for (&x) |*value| value.* = switch (round) {
            0 => 8191,
            1 => -8191,
            else => prng.random().intRangeAtMost(i16, -8191, 8191),
        };
        // As much as the other 30 products of a block may have left there.
        const start: i32 = switch (round) {
            0 => 30 * 8191 * 8191,
            1 => -30 * 8191 * 8191,
            else => -5,
        };
        const found: [16]i32 = dotWords(@splat(start), weights, @bitCast(x));
        for (found, 0..) |value, lane| {
            try std.testing.expectEqual(start + @as(i32, weights[2 * lane]) * x[0] + @as(i32, weights[2 * lane + 1]) * x[1], value);
        }
    }
}

test "pairs of words are the low halves of two vectors" {
    if (!has_words) return error.SkipZigTest;
    var prng: std.Random.DefaultPrng = .init(8);
    var low: [16]i32 = undefined;
    var high: [16]i32 = undefined;
    for (&low, &high) |*a, *b| {
        a.* = prng.random().int(i32);
        b.* = prng.random().int(i32);
    }
    const found: [32]i16 = pairWords(low, high);
    for (0..16) |lane| {
        try std.testing.expectEqual(@as(i16, @truncate(low[lane])), found[2 * lane]);
        try std.testing.expectEqual(@as(i16, @truncate(high[lane])), found[2 * lane + 1]);
    }
}

test "sums of pairs are exact for as many quads as fit 16 bits" {
    if (!has_pairs) return error.SkipZigTest;
    var prng: std.Random.DefaultPrng = .init(6);
    for (0..64) |round| {
        for ([_]u8{ 15, 31, 63, 127 }, [_]usize{ 8, 4, 2, 1 }) |code_max, count| {
            var pairs: Pairs = @splat(0);
            var expected: [16]i32 = @splat(-7);
            for (0..count) |_| {
                var weights: [64]u8 = undefined;
                var activations: [4]i8 = undefined;
                for (&weights) |*weight| weight.* = if (round < 2) code_max else prng.random().uintAtMost(u8, code_max);
                for (&activations) |*x| x.* = if (round == 0) 127 else if (round == 1) -127 else prng.random().intRangeAtMost(i8, -127, 127);
                pairs = dotPairs(pairs, weights, @bitCast(activations));
                for (&expected, 0..) |*sum_, row| {
                    for (activations, weights[4 * row ..][0..4]) |x, weight| sum_.* += @as(i32, weight) * x;
                }
            }
            const found: [16]i32 = addPairs(@splat(-7), pairs);
            try std.testing.expectEqual(expected, found);
        }
    }
}

test "bit fields and look-ups agree with plain arithmetic" {
    var prng: std.Random.DefaultPrng = .init(5);
    var bytes: [64]u8 = undefined;
    prng.random().bytes(&bytes);
    inline for (.{ .{ 4, 0, 0x0f }, .{ 0, 4, 0x30 }, .{ 2, 4, 0x30 }, .{ 6, 4, 0x30 }, .{ 7, 4, 0x10 }, .{ 0, 0, 0x0f } }) |case| {
        const found: [64]u8 = bitField(bytes, case[0], case[1], case[2]);
        for (bytes, found) |byte, value| {
            const moved: u32 = @as(u32, byte) << case[1] >> case[0];
            try std.testing.expectEqual(@as(u8, @truncate(moved & case[2])), value);
        }
    }
    const table = [16]u8{ 1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241 };
    for (&bytes) |*byte| byte.* &= 15;
    const found: [64]u8 = lookup(table, bytes);
    for (bytes, found) |index, value| try std.testing.expectEqual(table[index], value);
}

test "transposing makes rows columns" {
    var rows: [lanes]F = undefined;
    for (&rows, 0..) |*row, index| row.* = std.simd.iota(f32, lanes) + @as(F, @splat(@as(f32, @floatFromInt(index * 100))));
    for (transpose(rows), 0..) |column, index| {
        const values: [lanes]f32 = column;
        for (values, 0..) |value, row| try std.testing.expectEqual(@as(f32, @floatFromInt(row * 100 + index)), value);
    }
}

test "sums are exact for exact inputs and rounding goes to even" {
    try std.testing.expectEqual(@as(f32, 120), sum(@as(@Vector(16, f32), std.simd.iota(f32, 16))));
    const rounded: [4]i32 = roundToInt(@as(@Vector(4, f32), .{ 2.5, -3.5, 0.49999997, -126.6 }));
    try std.testing.expectEqualSlices(i32, &.{ 2, -4, 0, -127 }, &rounded);
}
