//! Weight formats: how each one's quants, scales and minimums are packed, as one table that drives the matrix products,
//! the packing and the embedding. It computes nothing.
//!
//! The packed layout. Rows stand in groups of 16 (the last one padded with zeros), columns in blocks of 32. A block of a
//! group is eight column quads; a quad's codes are 64 bytes: byte 4r + c is row r, column 4 · quad + c. Codes are unsigned:
//! value = scale · (code − offset) + minimum. A code of fewer than eight bits is split into planes of 4, 2 or 1 bits, lowest
//! bits first, and a plane of b bits keeps quad q in vector q / (8/b), at bit b · (q mod (8/b)) of each byte. A block's
//! planes lie together, blocks in ascending column, groups in ascending row; every vector is 64-byte aligned.
//!
//! Scales lie apart, per group and super-block: float16 d of the 16 rows; where the format has minimums, float16 m of the 16
//! rows; then for each sub-block the 16 rows' 8-bit sub-scales, followed by their sub-minimums.
//!
//! Float formats: [column][16 rows] of float32 or float16; bfloat16 as [column pair][16 rows][2], an odd last column paired
//! with zeros.

const std = @import("std");
const assert = std.debug.assert;
const table = @import("table.zig");

pub const Format = table.Format;
pub const group_rows = table.group_rows;
pub const block_columns = table.block_columns;
pub const quads = block_columns / 4;
/// Bytes of one quad's codes.
pub const quad_bytes = group_rows * 4;

pub const SubScale = enum {
    /// d alone scales the whole super-block.
    none,
    /// One int8 a row and sub-block.
    scale,
    /// An int8 scale and an unsigned 8-bit minimum a row and sub-block.
    scale_minimum,
    /// Scale in the low nibble, minimum in the high one.
    nibbles,
};

pub const Minimum = enum {
    none,
    /// value = … + m.
    added,
    /// value = … − m · sub-minimum.
    subtracted,
};

pub const Descriptor = struct {
    /// Bytes of one GGUF block, which spans `super_columns` columns.
    source_bytes: u32,
    /// Columns that share d (and m).
    super_columns: u32,
    /// Columns that share a sub-scale: 16 or 32.
    sub_columns: u32,
    /// Bits of each plane, lowest first.
    planes: []const comptime_int,
    /// Subtracted from a code to get the quant.
    offset: u8,
    /// Codes index this table, whose entries are then the codes.
    lookup: ?[16]u8 = null,
    sub_scale: SubScale = .none,
    minimum: Minimum = .none,

    /// The largest code that a product sees.
    pub fn weightMax(comptime d: Descriptor) comptime_int {
        if (d.lookup) |values| return std.mem.max(u8, &values);
        return (1 << d.codeBits()) - 1;
    }

    pub fn codeBits(comptime d: Descriptor) comptime_int {
        var bits = 0;
        for (d.planes) |plane| bits += plane;
        return bits;
    }

    /// Bytes of one block's planes in a group.
    pub fn blockBytes(comptime d: Descriptor) comptime_int {
        return d.codeBits() * group_rows * block_columns / 8;
    }

    pub fn subBlocks(comptime d: Descriptor) comptime_int {
        return d.super_columns / d.sub_columns;
    }

    /// Bytes of one sub-block's sub-scales in a group.
    pub fn subBytes(comptime d: Descriptor) comptime_int {
        return switch (d.sub_scale) {
            .none => 0,
            .scale, .nibbles => group_rows,
            .scale_minimum => 2 * group_rows,
        };
    }

    /// Bytes before the sub-scales: d and m.
    pub fn headBytes(comptime d: Descriptor) comptime_int {
        return group_rows * 2 * (if (d.minimum == .none) 1 else 2);
    }

    /// Bytes of one super-block's scales in a group.
    pub fn superBytes(comptime d: Descriptor) comptime_int {
        return d.headBytes() + d.subBlocks() * d.subBytes();
    }
};

/// The 4-bit codes of IQ4_NL and IQ4_XS, with 128 added. Source: llama.cpp's `kvalues_iq4nl`.
pub const iq4_values = [16]u8{ 1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241 };

/// The quantized formats. A new one is a line here and its unpacking in pack.zig.
pub fn descriptor(comptime format: Format) Descriptor {
    return switch (format) {
        .f32, .f16, .bf16 => @compileError("float formats have no descriptor"),
        .q4_0 => .{ .source_bytes = 18, .super_columns = 32, .sub_columns = 32, .planes = &.{4}, .offset = 8 },
        .q4_1 => .{ .source_bytes = 20, .super_columns = 32, .sub_columns = 32, .planes = &.{4}, .offset = 0, .minimum = .added },
        .q5_0 => .{ .source_bytes = 22, .super_columns = 32, .sub_columns = 32, .planes = &.{ 4, 1 }, .offset = 16 },
        .q5_1 => .{ .source_bytes = 24, .super_columns = 32, .sub_columns = 32, .planes = &.{ 4, 1 }, .offset = 0, .minimum = .added },
        .q8_0 => .{ .source_bytes = 34, .super_columns = 32, .sub_columns = 32, .planes = &.{8}, .offset = 128 },
        .q2_k => .{ .source_bytes = 84, .super_columns = 256, .sub_columns = 16, .planes = &.{2}, .offset = 0, .sub_scale = .nibbles, .minimum = .subtracted },
        .q3_k => .{ .source_bytes = 110, .super_columns = 256, .sub_columns = 16, .planes = &.{ 2, 1 }, .offset = 4, .sub_scale = .scale },
        .q4_k => .{ .source_bytes = 144, .super_columns = 256, .sub_columns = 32, .planes = &.{4}, .offset = 0, .sub_scale = .scale_minimum, .minimum = .subtracted },
        .q5_k => .{ .source_bytes = 176, .super_columns = 256, .sub_columns = 32, .planes = &.{ 4, 1 }, .offset = 0, .sub_scale = .scale_minimum, .minimum = .subtracted },
        .q6_k => .{ .source_bytes = 210, .super_columns = 256, .sub_columns = 16, .planes = &.{ 4, 2 }, .offset = 32, .sub_scale = .scale },
        .iq4_nl => .{ .source_bytes = 18, .super_columns = 32, .sub_columns = 32, .planes = &.{4}, .offset = 128, .lookup = iq4_values },
        .iq4_xs => .{ .source_bytes = 136, .super_columns = 256, .sub_columns = 32, .planes = &.{4}, .offset = 128, .lookup = iq4_values, .sub_scale = .scale },
    };
}

pub fn groupCount(rows: u32) u32 {
    return std.math.divCeil(u32, rows, group_rows) catch unreachable;
}

/// Bytes of one group's quants (or float values).
pub fn groupBytes(comptime format: Format, columns: u32) usize {
    return switch (format) {
        .f32 => @as(usize, columns) * group_rows * 4,
        .f16 => @as(usize, columns) * group_rows * 2,
        .bf16 => std.mem.alignForward(usize, columns, 2) * group_rows * 2,
        else => {
            const d = comptime descriptor(format);
            assert(columns % d.super_columns == 0);
            return @as(usize, columns / block_columns) * d.blockBytes();
        },
    };
}

/// Bytes of one group's scales; 0 for float formats.
pub fn groupScaleBytes(comptime format: Format, columns: u32) usize {
    switch (format) {
        .f32, .f16, .bf16 => return 0,
        else => {
            const d = comptime descriptor(format);
            assert(columns % d.super_columns == 0);
            return @as(usize, columns / d.super_columns) * d.superBytes();
        },
    }
}

/// Bytes of a GGUF row.
pub fn sourceRowBytes(comptime format: Format, columns: u32) usize {
    return switch (format) {
        .f32 => @as(usize, columns) * 4,
        .f16, .bf16 => @as(usize, columns) * 2,
        else => {
            const d = comptime descriptor(format);
            assert(columns % d.super_columns == 0);
            return @as(usize, columns / d.super_columns) * d.source_bytes;
        },
    };
}

/// What a packed weight takes, each part rounded up to 64 bytes. src/plan/formats.ts mirrors it.
pub const Bytes = struct { weight: u64, scales: u64 };

pub fn packedBytes(format: Format, rows: u32, columns: u32) Bytes {
    switch (format) {
        inline else => |known| return .{
            .weight = std.mem.alignForward(u64, @as(u64, groupCount(rows)) * groupBytes(known, columns), 64),
            .scales = std.mem.alignForward(u64, @as(u64, groupCount(rows)) * groupScaleBytes(known, columns), 64),
        },
    }
}

test "no format grows by more than four per cent over GGUF" {
    inline for (comptime std.enums.values(Format)) |format| {
        const bytes = packedBytes(format, 256, 2560);
        const source = 256 * sourceRowBytes(format, 2560);
        try std.testing.expect((bytes.weight + bytes.scales) * 100 <= source * 104);
        try std.testing.expect(bytes.weight + bytes.scales >= source);
    }
}
