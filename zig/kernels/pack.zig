//! GGUF tensors to the packed layout of format.zig. Exact: a packed weight is the GGUF weight. Block layouts are those of
//! llama.cpp's ggml-common.h.

const std = @import("std");
const assert = std.debug.assert;
const table = @import("table.zig");
const vec = @import("vec.zig");
const layout = @import("format.zig");

const Format = layout.Format;
const group_rows = layout.group_rows;
const B16 = @Vector(16, u8);
const B32 = @Vector(32, u8);

/// `table.Pack`. Units: groups of 16 rows.
pub fn pack(args: *const table.Pack, begin: u32, end: u32) callconv(.c) void {
    assert(end <= layout.groupCount(args.rows));
    switch (args.format) {
        inline else => |format| @call(.never_inline, Pack(format).run, .{ args, begin, end }),
    }
}

fn Pack(comptime format: Format) type {
    return struct {
        fn run(args: *const table.Pack, begin: u32, end: u32) void {
            for (begin..end) |group| {
                const first = group * group_rows;
                const rows = @min(group_rows, args.rows - first);
                const source = args.source + first * layout.sourceRowBytes(format, args.columns);
                const weight = args.weight + group * layout.groupBytes(format, args.columns);
                const scales = args.scales + group * layout.groupScaleBytes(format, args.columns);
                if (comptime format.quantized()) {
                    packQuantized(format, source, rows, args.columns, weight, scales);
                } else {
                    packFloat(format, source, rows, args.columns, weight);
                }
            }
        }
    };
}

fn packFloat(comptime format: Format, source: [*]const u8, rows: usize, columns: u32, weight: [*]u8) void {
    const Element = if (format == .f32) u32 else u16;
    const size = @sizeOf(Element);
    const row_bytes = layout.sourceRowBytes(format, columns);
    const pairs = format == .bf16;
    const columns_padded = if (pairs) std.mem.alignForward(usize, columns, 2) else columns;
    for (0..columns_padded) |column| {
        for (0..group_rows) |row| {
            const value: Element = if (row < rows and column < columns) vec.load(Element, source + row * row_bytes + column * size) else 0;
            const place = if (pairs) (column / 2 * group_rows + row) * 2 + column % 2 else column * group_rows + row;
            vec.store(weight + place * size, value);
        }
    }
}

fn packQuantized(comptime format: Format, source: [*]const u8, rows: usize, columns: u32, weight: [*]u8, scales: [*]u8) void {
    const d = comptime layout.descriptor(format);
    const row_bytes = layout.sourceRowBytes(format, columns);
    const blocks = d.super_columns / layout.block_columns;
    for (0..columns / d.super_columns) |super| {
        const super_scales = scales + super * d.superBytes();
        if (rows < group_rows) vec.fill(u8, super_scales[0..d.superBytes()], 0);
        var codes: [group_rows][d.super_columns]u8 align(64) = undefined;
        for (0..rows) |row| {
            unpack(format, source + row * row_bytes + super * d.source_bytes, &codes[row], .{ .super = super_scales, .row = row });
        }
        for (rows..group_rows) |row| codes[row] = @splat(0);

        for (0..blocks) |block| {
            var quads: [layout.quads][group_rows]u32 align(64) = undefined;
            for (0..group_rows) |row| {
                inline for (0..layout.quads) |quad| quads[quad][row] = vec.load(u32, codes[row][block * layout.block_columns + quad * 4 ..].ptr);
            }
            packPlanes(d, @ptrCast(&quads), weight + (super * blocks + block) * d.blockBytes());
        }
    }
}

/// Splits the codes of eight quads into the format's planes.
inline fn packPlanes(comptime d: layout.Descriptor, quads: *align(64) const [layout.quads][layout.quad_bytes]u8, out: [*]u8) void {
    comptime var shift = 0;
    comptime var place = 0;
    inline for (d.planes) |bits| {
        const per_vector = 8 / bits;
        inline for (0..layout.quads / per_vector) |vector| {
            var bytes: vec.Bytes = @splat(0);
            inline for (0..per_vector) |index| {
                const code: vec.Bytes = quads[vector * per_vector + index];
                bytes |= if (bits == 8) code else vec.bitField(code, shift, index * bits, ((1 << bits) - 1) << (index * bits));
            }
            vec.store(out + place, bytes);
            place += layout.quad_bytes;
        }
        shift += bits;
    }
    comptime assert(place == d.blockBytes());
}

/// Where one row's scales of a super-block go.
pub const Scales = struct {
    super: [*]u8,
    row: usize,

    /// d, copied as float16 bits.
    inline fn d(scales: Scales, bits: u16) void {
        vec.store(scales.super + scales.row * 2, bits);
    }

    inline fn m(scales: Scales, bits: u16) void {
        vec.store(scales.super + (group_rows + scales.row) * 2, bits);
    }

    inline fn sub(scales: Scales, comptime format: Format, index: usize, value: u8) void {
        const shape = comptime layout.descriptor(format);
        vec.write(&scales.super[shape.headBytes() + index * shape.subBytes() + scales.row], value);
    }

    inline fn subMinimum(scales: Scales, comptime format: Format, index: usize, value: u8) void {
        const shape = comptime layout.descriptor(format);
        vec.write(&scales.super[shape.headBytes() + index * shape.subBytes() + group_rows + scales.row], value);
    }
};

const nibble: B16 = @splat(15);
const high: B16 = @splat(4);

/// One GGUF block of one row: its codes in column order, and its scales.
pub inline fn unpack(comptime format: Format, block: [*]const u8, codes: *[layout.descriptor(format).super_columns]u8, scales: Scales) void {
    switch (format) {
        .f32, .f16, .bf16 => unreachable,
        .q4_0, .iq4_nl => {
            scales.d(vec.load(u16, block));
            codes.* = nibbles(block + 2);
        },
        .q4_1 => {
            scales.d(vec.load(u16, block));
            scales.m(vec.load(u16, block + 2));
            codes.* = nibbles(block + 4);
        },
        .q5_0 => {
            scales.d(vec.load(u16, block));
            codes.* = nibbles(block + 6) | fifthBits(vec.load(u32, block + 2));
        },
        .q5_1 => {
            scales.d(vec.load(u16, block));
            scales.m(vec.load(u16, block + 2));
            codes.* = nibbles(block + 8) | fifthBits(vec.load(u32, block + 4));
        },
        .q8_0 => {
            scales.d(vec.load(u16, block));
            codes.* = vec.load(B32, block + 2) ^ @as(B32, @splat(0x80));
        },
        .q2_k => {
            scales.d(vec.load(u16, block + 80));
            scales.m(vec.load(u16, block + 82));
            for (0..16) |index| scales.sub(format, index, vec.read(&block[index]));
            inline for (0..8) |index| {
                const crumbs = vec.load(B32, block + 16 + index / 4 * 32);
                codes[index * 32 ..][0..32].* = crumbs >> @splat(index % 4 * 2) & @as(B32, @splat(3));
            }
        },
        .q3_k => {
            scales.d(vec.load(u16, block + 108));
            for (0..16) |index| {
                const packed_scales = block + 96;
                const low = if (index < 8) vec.read(&packed_scales[index]) & 15 else vec.read(&packed_scales[index - 8]) >> 4;
                const upper = vec.read(&packed_scales[8 + index % 4]) >> @intCast(index / 4 * 2) & 3;
                scales.sub(format, index, (low | upper << 4) -% 32);
            }
            const third = vec.load(B32, block);
            inline for (0..8) |index| {
                const crumbs = vec.load(B32, block + 32 + index / 4 * 32) >> @splat(index % 4 * 2) & @as(B32, @splat(3));
                codes[index * 32 ..][0..32].* = crumbs | (third >> @splat(index) & @as(B32, @splat(1))) << @splat(2);
            }
        },
        .q4_k, .q5_k => {
            scales.d(vec.load(u16, block));
            scales.m(vec.load(u16, block + 2));
            const packed_scales = block + 4;
            for (0..4) |index| {
                const low_scale = vec.read(&packed_scales[index]);
                const low_minimum = vec.read(&packed_scales[index + 4]);
                const high_both = vec.read(&packed_scales[index + 8]);
                scales.sub(format, index, low_scale & 63);
                scales.subMinimum(format, index, low_minimum & 63);
                scales.sub(format, index + 4, (high_both & 15) | low_scale >> 6 << 4);
                scales.subMinimum(format, index + 4, high_both >> 4 | low_minimum >> 6 << 4);
            }
            const quants = block + if (format == .q4_k) 16 else 48;
            inline for (0..8) |index| {
                const pair = vec.load(B32, quants + index / 2 * 32);
                const low = if (index % 2 == 0) pair & @as(B32, @splat(15)) else pair >> @splat(4);
                const fifth = if (format == .q4_k) @as(B32, @splat(0)) else (vec.load(B32, block + 16) >> @splat(index) & @as(B32, @splat(1))) << @splat(4);
                codes[index * 32 ..][0..32].* = low | fifth;
            }
        },
        .q6_k => {
            scales.d(vec.load(u16, block + 208));
            for (0..16) |index| scales.sub(format, index, vec.read(&block[192 + index]));
            inline for (0..8) |index| {
                // 128 columns share 64 bytes of low nibbles and 32 of upper bits.
                const half = index / 4;
                const quarter = index % 4;
                const pair = vec.load(B32, block + half * 64 + quarter % 2 * 32);
                const low = if (quarter < 2) pair & @as(B32, @splat(15)) else pair >> @splat(4);
                const upper = vec.load(B32, block + 128 + half * 32) >> @splat(quarter * 2) & @as(B32, @splat(3));
                codes[index * 32 ..][0..32].* = low | upper << @splat(4);
            }
        },
        .iq4_xs => {
            scales.d(vec.load(u16, block));
            const upper = vec.load(u16, block + 2);
            for (0..8) |index| {
                const low = vec.read(&block[4 + index / 2]) >> @intCast(index % 2 * 4) & 15;
                const top: u8 = @intCast(upper >> @intCast(index * 2) & 3);
                scales.sub(format, index, (low | top << 4) -% 32);
                codes[index * 32 ..][0..32].* = nibbles(block + 8 + index * 16);
            }
        },
    }
}

/// 16 bytes: low nibbles are columns 0 to 15, high ones 16 to 31.
inline fn nibbles(bytes: [*]const u8) B32 {
    const pair = vec.load(B16, bytes);
    return vec.join(pair & nibble, pair >> high);
}

/// Bit j of `bits` as bit 4 of byte j.
inline fn fifthBits(bits: u32) B32 {
    return @as(B32, @as(@Vector(32, u1), @bitCast(bits))) << @splat(4);
}

// ---------------------------------------------------------------------------------------------------------------------

const reference = @import("reference.zig");
const matmul = @import("matmul.zig");

/// A packed weight and the GGUF rows it came from, for tests.
pub const Sample = struct {
    format: Format,
    rows: u32,
    columns: u32,
    source: []u8,
    weight: []align(64) u8,
    scales: []align(64) u8,

    const allocator = std.testing.allocator;

    pub fn make(format: Format, rows: u32, columns: u32, kind: reference.Fill, random: std.Random) !Sample {
        const bytes = layout.packedBytes(format, rows, columns);
        const sample: Sample = .{
            .format = format,
            .rows = rows,
            .columns = columns,
            .source = try allocator.alloc(u8, rows * reference.rowBytes(format, columns)),
            .weight = try allocator.alignedAlloc(u8, .@"64", bytes.weight),
            .scales = try allocator.alignedAlloc(u8, .@"64", bytes.scales),
        };
        reference.fill(format, sample.source, kind, random);
        // Packing must write every byte.
        @memset(sample.weight, 0xa5);
        @memset(sample.scales, 0x7f);
        const args: table.Pack = .{
            .format = format,
            .rows = rows,
            .columns = columns,
            .source = sample.source.ptr,
            .weight = sample.weight.ptr,
            .scales = sample.scales.ptr,
        };
        pack(&args, 0, layout.groupCount(rows));
        return sample;
    }

    pub fn free(sample: Sample) void {
        allocator.free(sample.source);
        allocator.free(sample.weight);
        allocator.free(sample.scales);
    }

    pub fn row(sample: Sample, index: usize) []const u8 {
        const bytes = reference.rowBytes(sample.format, sample.columns);
        return sample.source[index * bytes ..][0..bytes];
    }
};

/// A small and an odd column count that the format allows.
pub fn testColumns(format: Format) [2]u32 {
    const columns: u32 = @intCast(reference.blockOf(format).columns);
    return if (columns == 1) .{ 1, 77 } else .{ columns, columns * 3 };
}

test "a packed weight dequantizes to the bits of the GGUF weight" {
    var prng: std.Random.DefaultPrng = .init(11);
    for (std.enums.values(Format)) |format| {
        for (std.enums.values(reference.Fill)) |kind| {
            for (testColumns(format)) |columns| {
                for ([_]u32{ 1, 16, 37 }) |rows| {
                    const sample = try Sample.make(format, rows, columns, kind, prng.random());
                    defer sample.free();
                    const tokens = try std.testing.allocator.alloc(u32, rows);
                    defer std.testing.allocator.free(tokens);
                    for (tokens, 0..) |*token, index| token.* = @intCast(rows - 1 - index);
                    const stride = columns + 3;
                    const out = try std.testing.allocator.alloc(f32, rows * stride);
                    defer std.testing.allocator.free(out);
                    const args: table.Embed = .{
                        .format = format,
                        .rows = rows,
                        .columns = columns,
                        .token_count = rows,
                        .weight = sample.weight.ptr,
                        .scales = sample.scales.ptr,
                        .tokens = tokens.ptr,
                        .out = out.ptr,
                        .out_stride = stride,
                        .scale = 1,
                    };
                    matmul.embed(&args, 0, rows / 2);
                    matmul.embed(&args, rows / 2, rows);
                    for (tokens, 0..) |token, index| {
                        for (0..columns) |column| {
                            const expected = reference.dequantized(format, sample.row(token), column);
                            const found = out[index * stride + column];
                            if (@as(u32, @bitCast(expected)) != @as(u32, @bitCast(found))) {
                                std.debug.print("{t} {t} row {d} column {d}: expected {d}, found {d}\n", .{ format, kind, token, column, expected, found });
                                return error.TestUnexpectedResult;
                            }
                        }
                    }
                }
            }
        }
    }
}

test "embedding adds the row of each token's position, whatever the format and the split" {
    var prng: std.Random.DefaultPrng = .init(13);
    for ([_]Format{ .f32, .bf16, .q8_0 }) |format| {
        for ([_]u32{ 1, 17, 33, 384, 768 }) |columns| {
            if (format == .q8_0 and columns % 32 != 0) continue;
            const sample = try Sample.make(format, 20, columns, .random, prng.random());
            defer sample.free();
            const positions = try std.testing.allocator.alloc(f32, 10 * columns);
            defer std.testing.allocator.free(positions);
            for (positions) |*value| value.* = prng.random().floatNorm(f32);
            const tokens = [_]u32{ 3, 19, 3, 0 };
            const rows_at = [_]table.Row{ .{ .sequence = 0, .position = 0 }, .{ .sequence = 0, .position = 1 }, .{ .sequence = 5, .position = 9 }, .{ .sequence = 2, .position = 4 } };
            const out = try std.testing.allocator.alloc(f32, tokens.len * columns);
            defer std.testing.allocator.free(out);
            const args: table.Embed = .{
                .format = format,
                .rows = 20,
                .columns = columns,
                .token_count = tokens.len,
                .weight = sample.weight.ptr,
                .scales = sample.scales.ptr,
                .tokens = &tokens,
                .out = out.ptr,
                .out_stride = columns,
                .scale = 2,
                .positions = positions.ptr,
                .positions_stride = columns,
                .rows_at = &rows_at,
            };
            matmul.embed(&args, 1, tokens.len);
            matmul.embed(&args, 0, 1);
            for (tokens, rows_at, 0..) |token, at, index| {
                for (0..columns) |column| {
                    const expected = reference.dequantized(format, sample.row(token), column) * 2 + positions[at.position * columns + column];
                    try std.testing.expectEqual(expected, out[index * columns + column]);
                }
            }
        }
    }
}

test "packing a range of groups writes what packing all of them writes there" {
    var prng: std.Random.DefaultPrng = .init(12);
    for ([_]Format{ .q8_0, .q4_k, .bf16 }) |format| {
        const whole = try Sample.make(format, 50, 256, .random, prng.random());
        defer whole.free();
        const bytes = layout.packedBytes(format, 50, 256);
        const weight = try std.testing.allocator.alignedAlloc(u8, .@"64", bytes.weight);
        defer std.testing.allocator.free(weight);
        const scales = try std.testing.allocator.alignedAlloc(u8, .@"64", bytes.scales);
        defer std.testing.allocator.free(scales);
        @memcpy(weight, whole.weight);
        @memcpy(scales, whole.scales);
        const group_weight = bytes.weight / 4;
        const group_scales = bytes.scales / 4;
        @memset(weight[group_weight .. 3 * group_weight], 0);
        @memset(scales[group_scales .. 3 * group_scales], 0);
        const args: table.Pack = .{ .format = format, .rows = 50, .columns = 256, .source = whole.source.ptr, .weight = weight.ptr, .scales = scales.ptr };
        pack(&args, 1, 2);
        pack(&args, 2, 3);
        try std.testing.expectEqualSlices(u8, whole.weight, weight);
        try std.testing.expectEqualSlices(u8, whole.scales, scales);
    }
}
