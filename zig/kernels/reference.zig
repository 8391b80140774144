//! Plain references for the kernels' tests: GGUF weights element by element, straight from the block definitions of
//! llama.cpp's ggml-common.h, and products in double precision. Slow, scalar, and sharing nothing with the kernels but the
//! format's names. No kernel imports it.

const std = @import("std");
const table = @import("table.zig");
const Format = table.Format;

/// Columns and bytes of one GGUF block, and where its float16 fields lie.
pub const Block = struct { columns: usize, bytes: usize, halves: []const usize };

pub fn blockOf(format: Format) Block {
    return switch (format) {
        .f32 => .{ .columns = 1, .bytes = 4, .halves = &.{} },
        .f16, .bf16 => .{ .columns = 1, .bytes = 2, .halves = &.{0} },
        .q4_0, .iq4_nl => .{ .columns = 32, .bytes = 18, .halves = &.{0} },
        .q4_1 => .{ .columns = 32, .bytes = 20, .halves = &.{ 0, 2 } },
        .q5_0 => .{ .columns = 32, .bytes = 22, .halves = &.{0} },
        .q5_1 => .{ .columns = 32, .bytes = 24, .halves = &.{ 0, 2 } },
        .q8_0 => .{ .columns = 32, .bytes = 34, .halves = &.{0} },
        .q2_k => .{ .columns = 256, .bytes = 84, .halves = &.{ 80, 82 } },
        .q3_k => .{ .columns = 256, .bytes = 110, .halves = &.{108} },
        .q4_k => .{ .columns = 256, .bytes = 144, .halves = &.{ 0, 2 } },
        .q5_k => .{ .columns = 256, .bytes = 176, .halves = &.{ 0, 2 } },
        .q6_k => .{ .columns = 256, .bytes = 210, .halves = &.{208} },
        .iq4_xs => .{ .columns = 256, .bytes = 136, .halves = &.{0} },
    };
}

/// A weight as its definition factors it: d · sub · quant + m · sub_minimum.
const Element = struct { d: f64 = 1, sub: i32 = 1, quant: f64, m: f64 = 0, sub_minimum: i32 = 0 };

const iq4 = [16]i32{ -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };

fn half(bytes: []const u8, offset: usize) f64 {
    const pattern = std.mem.readInt(u16, bytes[offset..][0..2], .little);
    const fraction: f64 = @floatFromInt(pattern & 0x3ff);
    const exponent: i32 = pattern >> 10 & 31;
    std.debug.assert(exponent != 31);
    const magnitude = if (exponent == 0) std.math.ldexp(fraction, -24) else std.math.ldexp(1024 + fraction, exponent - 25);
    return if (pattern >> 15 != 0) -magnitude else magnitude;
}

fn bit(byte: u8, index: usize) i32 {
    return byte >> @intCast(index) & 1;
}

/// Nibble `i` of 32 in 16 bytes: the low ones first.
fn nibble(bytes: []const u8, i: usize) i32 {
    return if (i < 16) bytes[i] & 15 else bytes[i - 16] >> 4;
}

fn element(format: Format, b: []const u8, i: usize) Element {
    switch (format) {
        .f32 => return .{ .quant = @as(f32, @bitCast(std.mem.readInt(u32, b[0..4], .little))) },
        .f16 => return .{ .quant = half(b, 0) },
        .bf16 => return .{ .quant = @as(f32, @bitCast(@as(u32, std.mem.readInt(u16, b[0..2], .little)) << 16)) },
        .q4_0 => return .{ .d = half(b, 0), .quant = @floatFromInt(nibble(b[2..], i) - 8) },
        .q4_1 => return .{ .d = half(b, 0), .quant = @floatFromInt(nibble(b[4..], i)), .m = half(b, 2), .sub_minimum = 1 },
        .q5_0 => return .{ .d = half(b, 0), .quant = @floatFromInt(nibble(b[6..], i) + 16 * bit(b[2 + i / 8], i % 8) - 16) },
        .q5_1 => return .{ .d = half(b, 0), .quant = @floatFromInt(nibble(b[8..], i) + 16 * bit(b[4 + i / 8], i % 8)), .m = half(b, 2), .sub_minimum = 1 },
        .q8_0 => return .{ .d = half(b, 0), .quant = @floatFromInt(@as(i8, @bitCast(b[2 + i]))) },
        .iq4_nl => return .{ .d = half(b, 0), .quant = @floatFromInt(iq4[@intCast(nibble(b[2..], i))]) },
        .q2_k => return .{
            .d = half(b, 80),
            .sub = b[i / 16] & 15,
            .quant = @floatFromInt(b[16 + i / 128 * 32 + i % 32] >> @intCast(i % 128 / 32 * 2) & 3),
            .m = half(b, 82),
            .sub_minimum = -@as(i32, b[i / 16] >> 4),
        },
        .q3_k => {
            const sub = i / 16;
            const low: i32 = if (sub < 8) b[96 + sub] & 15 else b[96 + sub - 8] >> 4;
            const high: i32 = b[104 + sub % 4] >> @intCast(sub / 4 * 2) & 3;
            const crumb: i32 = b[32 + i / 128 * 32 + i % 32] >> @intCast(i % 128 / 32 * 2) & 3;
            return .{ .d = half(b, 108), .sub = low + 16 * high - 32, .quant = @floatFromInt(crumb - 4 * (1 - bit(b[i % 32], i / 32))) };
        },
        .q4_k, .q5_k => {
            const sub = i / 32;
            const s = b[4..16];
            const scale: i32 = if (sub < 4) s[sub] & 63 else @as(i32, s[sub + 4] & 15) + 16 * @as(i32, s[sub - 4] >> 6);
            const minimum: i32 = if (sub < 4) s[sub + 4] & 63 else @as(i32, s[sub + 4] >> 4) + 16 * @as(i32, s[sub] >> 6);
            const byte = b[(if (format == .q4_k) @as(usize, 16) else 48) + i / 64 * 32 + i % 32];
            const low: i32 = if (i % 64 < 32) byte & 15 else byte >> 4;
            const high: i32 = if (format == .q4_k) 0 else bit(b[16 + i % 32], sub);
            return .{ .d = half(b, 0), .sub = scale, .quant = @floatFromInt(low + 16 * high), .m = half(b, 2), .sub_minimum = -minimum };
        },
        .q6_k => {
            const byte = b[i / 128 * 64 + i % 64];
            const low: i32 = if (i % 128 < 64) byte & 15 else byte >> 4;
            const high: i32 = b[128 + i / 128 * 32 + i % 32] >> @intCast(i % 128 / 32 * 2) & 3;
            return .{ .d = half(b, 208), .sub = @as(i8, @bitCast(b[192 + i / 16])), .quant = @floatFromInt(low + 16 * high - 32) };
        },
        .iq4_xs => {
            const sub = i / 32;
            const low: i32 = if (sub % 2 == 0) b[4 + sub / 2] & 15 else b[4 + sub / 2] >> 4;
            const high: i32 = std.mem.readInt(u16, b[2..4], .little) >> @intCast(2 * sub) & 3;
            return .{ .d = half(b, 0), .sub = low + 16 * high - 32, .quant = @floatFromInt(iq4[@intCast(nibble(b[8 + 16 * sub ..], i % 32))]) };
        },
    }
}

fn at(format: Format, row: []const u8, column: usize) Element {
    const block = blockOf(format);
    return element(format, row[column / block.columns * block.bytes ..][0..block.bytes], column % block.columns);
}

/// The weight without any rounding.
pub fn exact(format: Format, row: []const u8, column: usize) f64 {
    const e = at(format, row, column);
    return e.d * @as(f64, @floatFromInt(e.sub)) * e.quant + e.m * @as(f64, @floatFromInt(e.sub_minimum));
}

/// Twice the magnitude of the minimum: what cancels when a product with minimums is summed in two parts.
pub fn cancelled(format: Format, row: []const u8, column: usize) f64 {
    const e = at(format, row, column);
    return 2 * @abs(e.m * @as(f64, @floatFromInt(e.sub_minimum)));
}

/// The weight in float32, rounded where llama.cpp and the `gguf` Python package round.
pub fn dequantized(format: Format, row: []const u8, column: usize) f32 {
    const e = at(format, row, column);
    const scale: f32 = @as(f32, @floatCast(e.d)) * @as(f32, @floatFromInt(e.sub));
    const minimum: f32 = @as(f32, @floatCast(e.m)) * @as(f32, @floatFromInt(@abs(e.sub_minimum)));
    const value = scale * @as(f32, @floatCast(e.quant));
    return switch (format) {
        .q4_1, .q5_1 => value + minimum,
        .q2_k, .q4_k, .q5_k => value - minimum,
        else => value,
    };
}

pub fn rowBytes(format: Format, columns: usize) usize {
    const block = blockOf(format);
    return columns / block.columns * block.bytes;
}

pub const Fill = enum {
    /// Random codes, scales of ordinary size.
    random,
    /// Everything zero.
    zeros,
    /// All bits of codes and sub-scales set, the largest float16 scales.
    largest,
    /// Random codes, denormal float16 scales.
    denormal,
};

/// Fills `rows` GGUF rows so that every float16 is finite.
pub fn fill(format: Format, rows: []u8, kind: Fill, random: std.Random) void {
    const block = blockOf(format);
    switch (kind) {
        .zeros => @memset(rows, 0),
        .largest => @memset(rows, 0xff),
        .random, .denormal => random.bytes(rows),
    }
    if (format == .f32) {
        for (std.mem.bytesAsSlice(f32, rows)) |*value| value.* = switch (kind) {
            .random => random.floatNorm(f32),
            .zeros => 0,
            .largest => 1e30,
            .denormal => std.math.floatTrueMin(f32) * random.float(f32) * 1000,
        };
        return;
    }
    var start: usize = 0;
    while (start < rows.len) : (start += block.bytes) {
        for (block.halves) |offset| {
            const pattern = std.mem.readInt(u16, rows[start + offset ..][0..2], .little);
            const finite: u16 = switch (kind) {
                .zeros => 0,
                .largest => if (format == .bf16) 0x7000 else 0x7bff,
                .denormal => pattern & 0x83ff,
                // Magnitudes of 2^-9 to 2^-2, either sign; bfloat16's exponent lies elsewhere.
                .random => if (format == .bf16) pattern & 0x807f | 0x3e80 else (pattern & 0x9fff) % 0x2000 + 0x1800 + (pattern & 0x8000),
            };
            std.mem.writeInt(u16, rows[start + offset ..][0..2], finite, .little);
        }
    }
}

const Checksum = struct { format: Format, crc32: u32 };

/// Of 12 pseudo-random blocks as the `gguf` Python package dequantizes them (test/kernels/make_reference_checksums.py).
const checksums = [_]Checksum{
    .{ .format = .f16, .crc32 = 0x5f020ffa },
    .{ .format = .bf16, .crc32 = 0x7de2ec18 },
    .{ .format = .q4_0, .crc32 = 0x68f8bb1a },
    .{ .format = .q4_1, .crc32 = 0x2805e18b },
    .{ .format = .q5_0, .crc32 = 0xdeb70d2d },
    .{ .format = .q5_1, .crc32 = 0xfb448404 },
    .{ .format = .q8_0, .crc32 = 0xe637e1a2 },
    .{ .format = .q2_k, .crc32 = 0x81bc2226 },
    .{ .format = .q3_k, .crc32 = 0xd0719093 },
    .{ .format = .q4_k, .crc32 = 0x038ddaa1 },
    .{ .format = .q5_k, .crc32 = 0x4595c483 },
    .{ .format = .q6_k, .crc32 = 0x3be11d06 },
    .{ .format = .iq4_nl, .crc32 = 0xb5a67faf },
    .{ .format = .iq4_xs, .crc32 = 0x426d23cc },
};

test "the reference dequantizes as the gguf Python package, bit for bit" {
    for (checksums) |checksum| {
        const block = blockOf(checksum.format);
        var bytes: [12 * 210]u8 = undefined;
        const row = bytes[0 .. 12 * block.bytes];
        var state: u32 = 1;
        for (row) |*byte| {
            state = state *% 1664525 +% 1013904223;
            byte.* = @intCast(state >> 24);
        }
        for (0..12) |index| {
            for (block.halves) |offset| row[index * block.bytes + offset + 1] &= 0xbf;
        }
        var crc: std.hash.Crc32 = .init();
        for (0..12 * block.columns) |column| {
            const value = dequantized(checksum.format, row, column);
            crc.update(std.mem.asBytes(&value));
        }
        std.testing.expectEqual(checksum.crc32, crc.final()) catch |err| {
            std.debug.print("format {t}\n", .{checksum.format});
            return err;
        };
    }
}
