//! What a level's instructions do at most, from registers and with nothing to wait for: the roofs that benchmarks print beside
//! a kernel's figure. It computes nothing of use.

const std = @import("std");
const assert = std.debug.assert;
const table = @import("table.zig");
const vec = @import("vec.zig");

/// `table.Peak`.
pub fn peak(kind: table.Peak, turns: u32, memory: [*]align(64) const u8) callconv(.c) u64 {
    return switch (kind) {
        .float => float(turns),
        .int8 => if (vec.has_tiles) vec.tilePeak(false, turns) else int8(turns),
        .bf16 => if (vec.has_tiles) vec.tilePeak(true, turns) else if (vec.has_bf16) bf16(turns) else 0,
        .read => read(turns, memory),
        .int16 => if (vec.has_words) int16(turns) else 0,
    };
}

/// Sums that do not wait for each other. A multiply-add takes four or five cycles and two begin in each: ten must be under way.
const float_sums = if (vec.register_count >= 32) 16 else 12;
/// The baseline of an architecture has vectors too, and kernels that know of none are compiled to them.
const Floats = @Vector(@max(4, vec.lanes), f32);

fn float(turns: u32) u64 {
    var sums: [float_sums]Floats = undefined;
    inline for (&sums, 0..) |*sum, index| sum.* = @splat(@floatFromInt(turns + index));
    const w: Floats = @splat(0.5 + 1 / @as(f32, @floatFromInt(turns + 4)));
    const x: Floats = @splat(0.25);
    for (0..turns) |_| {
        inline for (&sums) |*sum| sum.* = vec.mulAdd(w, sum.*, x);
    }
    std.mem.doNotOptimizeAway(sums);
    return @as(u64, turns) * float_sums * @typeInfo(Floats).vector.len * 2;
}

/// Tokens times 64 bytes of weights at a time, as in a product: the sums' registers, the activations' and the weights'.
/// 16 lanes a register: 12 + 12 + 1 of 32, or with pairs 8 + 8 + 8 + 1. Two registers: 4 + 4 + 4 + 2 of 16.
const dot_tokens = switch (vec.level) {
    .avx512_vnni, .amx => 12,
    .avx512 => 8,
    .avx2 => 2,
    .neon, .neon_dotprod, .neon_i8mm => 4,
    .x86_64_v2, .scalar => 1,
};
const dot_quads = 8;

fn int8(turns: u32) u64 {
    @setEvalBranchQuota(100_000);
    var codes: [2 * dot_quads]vec.Bytes align(64) = undefined;
    for (&codes, 0..) |*bytes, index| bytes.* = @splat(@truncate((turns + index) & 15));
    var x: [dot_tokens]i32 = undefined;
    for (&x, 0..) |*four, index| four.* = @bitCast((turns *% 0x9e3779b9 +% @as(u32, @intCast(index)) *% 0x01030507) & 0x7f7f7f7f);
    var sums: [dot_tokens]vec.Lanes16 = @splat(@splat(0));
    for (0..turns) |turn| {
        // Other weights every turn, or the compiler would multiply once.
        const first: [*]const vec.Bytes = codes[turn % dot_quads ..].ptr;
        var pairs: [dot_tokens]vec.Pairs = @splat(@splat(0));
        inline for (0..dot_quads) |quad| {
            inline for (0..dot_tokens) |token| {
                if (vec.has_pairs) {
                    pairs[token] = vec.dotPairs(pairs[token], first[quad], x[token]);
                } else sums[token] = vec.dot(sums[token], first[quad], x[token], 127);
            }
        }
        if (vec.has_pairs) inline for (0..dot_tokens) |token| {
            sums[token] = vec.addPairs(sums[token], pairs[token]);
        };
    }
    std.mem.doNotOptimizeAway(sums);
    return @as(u64, turns) * dot_quads * dot_tokens * 64 * 2;
}

const bf16_sums = 16;

fn bf16(turns: u32) u64 {
    var sums: [bf16_sums]@Vector(16, f32) = @splat(@splat(0));
    const w: vec.Bytes = @splat(@truncate(0x3c + turns % 2));
    const x: vec.Bytes = @splat(0x3c);
    for (0..turns) |_| {
        inline for (&sums) |*sum| sum.* = vec.dotBf16(sum.*, w, x);
    }
    std.mem.doNotOptimizeAway(sums);
    return @as(u64, turns) * bf16_sums * 32 * 2;
}

fn int16(turns: u32) u64 {
    var sums: [word_sums]vec.Lanes16 = @splat(@splat(0));
    const w: vec.WordPairs = @splat(@truncate(@as(i32, @intCast(turns % 128))));
    for (0..turns) |_| {
        inline for (&sums) |*sum| sum.* = vec.dotWords(sum.*, w, 0x00010001);
    }
    std.mem.doNotOptimizeAway(sums);
    return @as(u64, turns) * word_sums * 32 * 2;
}

const word_sums = 16;

/// Eight cache lines a step, each summed by itself, so that loads do not wait for additions.
fn read(turns: u32, memory: [*]align(64) const u8) u64 {
    const Words = @Vector(@max(4, vec.lanes), u32);
    const unroll = 8;
    var sums: [unroll]Words = @splat(@splat(0));
    for (0..turns) |_| {
        var at: usize = 0;
        while (at < table.peak_read_bytes) : (at += unroll * @sizeOf(Words)) {
            inline for (&sums, 0..) |*sum, index| sum.* +%= vec.load(Words, memory + at + index * @sizeOf(Words));
        }
        // The next turn reads again.
        std.mem.doNotOptimizeAway(memory);
    }
    std.mem.doNotOptimizeAway(sums);
    return @as(u64, turns) * table.peak_read_bytes;
}

comptime {
    assert(table.peak_read_bytes % (8 * 64) == 0);
}

test "a peak counts its operations, which grow with its turns, and is 0 where the level has no such instructions" {
    const memory = try std.testing.allocator.alignedAlloc(u8, .@"64", table.peak_read_bytes);
    defer std.testing.allocator.free(memory);
    @memset(memory, 1);
    // Tiles are emulated in tests, whole ones of two kinds are not.
    if (vec.has_tiles and !@import("amx_emulator.zig").hardware()) return error.SkipZigTest;
    vec.threadBegin();
    defer vec.threadEnd();
    for (std.enums.values(table.Peak)) |kind| {
        const once = peak(kind, 1, memory.ptr);
        const there = switch (kind) {
            .bf16 => vec.has_bf16,
            .int16 => vec.has_words,
            .float, .int8, .read => true,
        };
        try std.testing.expectEqual(there, once > 0);
        try std.testing.expectEqual(7 * once, peak(kind, 7, memory.ptr));
    }
}
