//! What a level's instructions do at most: arithmetic from registers and with nothing to wait for, and bytes moved. The roofs
//! under which kernels are seen. It computes nothing of use.

const std = @import("std");
const assert = std.debug.assert;
const table = @import("table.zig");
const vec = @import("vec.zig");

/// `table.Peak`.
pub fn peak(kind: table.Peak, turns: u32) callconv(.c) u64 {
    return switch (kind) {
        .float => float(turns),
        .int8 => if (vec.has_tiles) vec.tilePeak(false, turns) else int8(turns),
        .bf16 => if (vec.has_tiles) vec.tilePeak(true, turns) else if (vec.has_bf16) bf16(turns) else 0,
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

const Words = @Vector(@max(4, vec.lanes), u32);
const unroll = 8;

/// `table.Traffic`. Eight vectors a step, so that none waits for another.
pub fn traffic(kind: table.Traffic, turns: u32, target: [*]align(64) u8, source: [*]align(64) const u8, bytes: u64) callconv(.c) void {
    assert(bytes % table.traffic_bytes == 0);
    switch (kind) {
        inline else => |known| for (0..turns) |turn| move(known, target, source, @intCast(bytes), @intCast(turn + 1)),
    }
}

inline fn move(comptime kind: table.Traffic, target: [*]align(64) u8, source: [*]align(64) const u8, bytes: usize, turn: u32) void {
    var values: [unroll]Words = @splat(@splat(turn));
    var at: usize = 0;
    while (at < bytes) : (at += unroll * @sizeOf(Words)) {
        inline for (&values, 0..) |*value, index| {
            const offset = at + index * @sizeOf(Words);
            switch (kind) {
                .read => value.* +%= vec.load(Words, source + offset),
                .copy => value.* = vec.load(Words, source + offset),
                .write => {},
            }
            if (kind != .read) vec.store(target + offset, value.*);
        }
        // Nobody may make one call of the C library out of these stores, which would not go through the caches.
        if (kind != .read) std.mem.doNotOptimizeAway(target);
    }
    std.mem.doNotOptimizeAway(values);
    // The next turn reads again.
    std.mem.doNotOptimizeAway(source);
}

comptime {
    assert(table.traffic_bytes % (unroll * @sizeOf(Words)) == 0);
}

test "a peak counts its operations, which grow with its turns, and is 0 where the level has no such instructions" {
    // Tiles are emulated in tests, whole ones of two kinds are not.
    if (vec.has_tiles and !@import("amx_emulator.zig").hardware()) return error.SkipZigTest;
    vec.threadBegin();
    defer vec.threadEnd();
    for (std.enums.values(table.Peak)) |kind| {
        const once = peak(kind, 1);
        const there = switch (kind) {
            .bf16 => vec.has_bf16,
            .int16 => vec.has_words,
            .float, .int8 => true,
        };
        try std.testing.expectEqual(there, once > 0);
        try std.testing.expectEqual(7 * once, peak(kind, 7));
    }
}

test "traffic copies the source to the target, writes all of the target, and reads without writing" {
    const bytes = 3 * table.traffic_bytes;
    var source: [bytes]u8 align(64) = undefined;
    for (&source, 0..) |*byte, index| byte.* = @truncate(index *% 37);
    const kept = source;
    var target: [bytes + 1]u8 align(64) = @splat(0xaa);
    traffic(.read, 3, &target, &source, bytes);
    for (target) |byte| try std.testing.expectEqual(0xaa, byte);
    traffic(.copy, 2, &target, &source, bytes);
    try std.testing.expectEqualSlices(u8, &kept, target[0..bytes]);
    traffic(.write, 1, &target, &source, bytes);
    for (target[0..bytes], 0..) |byte, index| try std.testing.expectEqual(@intFromBool(index % 4 == 0), byte);
    try std.testing.expectEqual(0xaa, target[bytes]);
    try std.testing.expectEqualSlices(u8, &kept, &source);
}
