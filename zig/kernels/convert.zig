//! Tensor values from one GGUF format to another, block by block: read as float32, checked, written by encode.zig.

const std = @import("std");
const assert = std.debug.assert;
const table = @import("table.zig");
const vec = @import("vec.zig");
const layout = @import("format.zig");
const pack = @import("pack.zig");
const encode = @import("encode.zig").encode;

const Format = table.Format;

/// The largest float16. Formats other than F32 and BF16 keep scales or values in float16.
const half_max: f32 = 65504;

/// `table.Convert`.
pub fn convert(args: *const table.Convert) callconv(.c) table.Converted {
    const values = args.values[0..args.count];
    switch (args.source_format) {
        inline else => |format| @call(.never_inline, decode, .{ format, args.source, values }),
    }
    const largest = magnitude(values);
    if (!std.math.isFinite(largest)) return .not_finite;
    const narrow = args.target_format != .f32 and args.target_format != .bf16;
    if (narrow and largest > half_max) return .out_of_range;
    switch (args.target_format) {
        inline else => |format| @call(.never_inline, encode, .{ format, values.ptr, values.len, args.target }),
    }
    return .done;
}

/// The largest magnitude; infinite or NaN where any value is.
fn magnitude(values: []const f32) f32 {
    var bits: u32 = 0;
    // Bits of magnitudes are ordered as the magnitudes are, infinity and NaN above all others.
    for (values) |*value| bits = @max(bits, @as(u32, @bitCast(vec.read(value))) & 0x7fff_ffff);
    return @bitCast(bits);
}

/// Reads as many values as `out` holds, a multiple of the format's block.
fn decode(comptime format: Format, source: [*]const u8, out: []f32) void {
    switch (format) {
        .f32 => vec.copy(u8, std.mem.sliceAsBytes(out), source),
        .f16 => for (out, 0..) |*value, index| {
            vec.write(value, vec.loadF16(1, source + index * 2)[0]);
        },
        .bf16 => for (out, 0..) |*value, index| {
            vec.write(value, vec.loadBf16(1, source + index * 2)[0]);
        },
        else => {
            const d = comptime layout.descriptor(format);
            assert(out.len % d.super_columns == 0);
            for (0..out.len / d.super_columns) |block| {
                decodeBlock(format, source + block * d.source_bytes, out[block * d.super_columns ..][0..d.super_columns]);
            }
        },
    }
}

/// Through the packed layout's codes and scales, of which a group's first row is used.
fn decodeBlock(comptime format: Format, block: [*]const u8, out: *[layout.descriptor(format).super_columns]f32) void {
    const d = comptime layout.descriptor(format);
    var scales: [d.superBytes()]u8 = undefined;
    var codes: [d.super_columns]u8 = undefined;
    pack.unpack(format, block, &codes, .{ .super = &scales, .row = 0 });
    const scale = vec.loadF16(1, &scales)[0];
    const minimum = if (d.minimum == .none) 0 else vec.loadF16(1, scales[layout.group_rows * 2 ..])[0];
    inline for (0..d.subBlocks()) |index| {
        const sub = scales[d.headBytes() + index * d.subBytes() ..];
        const step: f32 = scale * switch (d.sub_scale) {
            .none => 1,
            .scale => @as(f32, @floatFromInt(@as(i8, @bitCast(sub[0])))),
            .scale_minimum => @as(f32, @floatFromInt(sub[0])),
            .nibbles => @as(f32, @floatFromInt(sub[0] & 15)),
        };
        const base: f32 = switch (d.minimum) {
            .none => 0,
            .added => minimum,
            .subtracted => -minimum * @as(f32, @floatFromInt(if (d.sub_scale == .nibbles) sub[0] >> 4 else sub[layout.group_rows])),
        };
        for (codes[index * d.sub_columns ..][0..d.sub_columns], out[index * d.sub_columns ..][0..d.sub_columns]) |code, *value| {
            const quant = @as(i32, if (d.lookup) |entries| entries[code] else code) - d.offset;
            const scaled = step * @as(f32, @floatFromInt(quant));
            vec.write(value, if (d.minimum == .none) scaled else scaled + base);
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------

const reference = @import("reference.zig");

/// What a format's steps are to its range at most: a bound of the error as a share of a run's largest magnitude.
fn errorShare(format: Format) f64 {
    return switch (format) {
        .f32 => 0,
        .f16 => 0x1p-11,
        .bf16 => 0x1p-8,
        .q8_0 => 0.004,
        .q6_k => 0.02,
        .q5_0, .q5_1, .q5_k => 0.04,
        .q4_0, .q4_1, .q4_k => 0.08,
        .iq4_nl, .iq4_xs => 0.1,
        .q3_k => 0.2,
        .q2_k => 0.4,
    };
}

fn fillSample(values: []f32, kind: usize, random: std.Random) void {
    for (values, 0..) |*value, index| {
        value.* = switch (kind) {
            0 => random.floatNorm(f32),
            1 => random.float(f32) * 1e-3 + 1e-3, // All of one sign.
            2 => if (index % 31 == 0) -60000 else random.floatNorm(f32),
            3 => 0,
            4 => -0.37,
            5 => random.floatNorm(f32) * 0x1p-60, // Too small for float16 scales.
            6 => random.floatNorm(f32) * @exp2(@as(f32, @floatFromInt(index / 32 % 7)) * 3 - 9),
            7 => if (index < 100) 65504 else -65504,
            else => unreachable,
        };
    }
}

test "every format holds what it is given, within its steps, whatever the values" {
    const count = 1024;
    var prng: std.Random.DefaultPrng = .init(21);
    for (std.enums.values(Format)) |format| {
        for (0..8) |kind| {
            var values: [count]f32 = undefined;
            fillSample(&values, kind, prng.random());
            var scratch: [count]f32 = undefined;
            var encoded: [count * 4]u8 = @splat(0xa5);
            const args: table.Convert = .{
                .source_format = .f32,
                .target_format = format,
                .count = count,
                .source = @ptrCast(&values),
                .target = &encoded,
                .values = &scratch,
            };
            try std.testing.expectEqual(table.Converted.done, convert(&args));
            // Runs of a super-block share its float16, so that small runs beside a large one are coarser.
            const shared: usize = @max(32, reference.blockOf(format).columns);
            for (0..count / shared) |block| {
                var largest: f64 = 0;
                var sum: f64 = 0;
                for (block * shared..(block + 1) * shared) |index| {
                    const found: f64 = reference.dequantized(format, &encoded, index);
                    try std.testing.expect(std.math.isFinite(found));
                    largest = @max(largest, @abs(@as(f64, values[index])));
                    sum += (found - values[index]) * (found - values[index]);
                }
                const bound = largest * errorShare(format) + 0x1p-40;
                if (sum > bound * bound * @as(f64, @floatFromInt(shared))) {
                    std.debug.print("{t} kind {d} block {d}: error {d}, bound {d}\n", .{ format, kind, block, @sqrt(sum / @as(f64, @floatFromInt(shared))), bound });
                    return error.TestUnexpectedResult;
                }
            }
        }
    }
}

test "every format is read to the bits of its definition" {
    const count = 512;
    var prng: std.Random.DefaultPrng = .init(22);
    for (std.enums.values(Format)) |format| {
        for (std.enums.values(reference.Fill)) |kind| {
            var source: [count * 4]u8 = undefined;
            const bytes = source[0..reference.rowBytes(format, count)];
            reference.fill(format, bytes, kind, prng.random());
            var values: [count]f32 = undefined;
            switch (format) {
                inline else => |known| decode(known, bytes.ptr, &values),
            }
            for (values, 0..) |found, index| {
                try std.testing.expectEqual(@as(u32, @bitCast(reference.dequantized(format, bytes, index))), @as(u32, @bitCast(found)));
            }
        }
    }
}

test "values that are no numbers, or that float16 cannot hold, are refused" {
    for (std.enums.values(Format)) |format| {
        for ([_]f32{ std.math.inf(f32), -std.math.inf(f32), std.math.nan(f32), 65536, -1e30 }) |bad| {
            var values: [256]f32 = @splat(1);
            values[200] = bad;
            var scratch: [256]f32 = undefined;
            var encoded: [1024]u8 = undefined;
            const args: table.Convert = .{ .source_format = .f32, .target_format = format, .count = 256, .source = @ptrCast(&values), .target = &encoded, .values = &scratch };
            const wide = format == .f32 or format == .bf16;
            const expected: table.Converted = if (!std.math.isFinite(bad)) .not_finite else if (wide) .done else .out_of_range;
            try std.testing.expectEqual(expected, convert(&args));
        }
    }
}
