//! What an engine takes of memory, by what it is for. Before there is one, it follows from the program's header; while there is one,
//! its pieces are asked for, and the system for how much of them is in memory: much of it costs nothing until it is written.
//! Not in it: threads' stacks, which libc maps.

const std = @import("std");
const system = @import("system.zig");

pub const Part = enum(u32) {
    weights = 0,
    constants = 1,
    /// The head's screen.
    copies = 2,
    program = 3,
    activations = 4,
    /// Of requests: prompts, and what was drawn.
    tokens = 5,
    keys_and_values = 6,
    /// What is known of each page of keys and values.
    pages = 7,
    /// Lists and tables of such pages, written from the start.
    page_lists = 8,
    scratch = 9,
    candidates = 10,
    events = 11,
    records = 12,
    /// The engine itself, its step, its ops.
    engine = 13,
};

pub const part_count = @typeInfo(Part).@"enum".fields.len;

/// Bytes by part.
pub const Amounts = [part_count]u64;

/// A sum over an engine's pieces.
pub const Footprint = struct {
    taken: Amounts = @splat(0),
    resident: Amounts = @splat(0),

    pub fn add(footprint: *Footprint, part: Part, memory: []const u8) void {
        footprint.taken[@intFromEnum(part)] += memory.len;
        footprint.resident[@intFromEnum(part)] += @min(memory.len, system.residentBytes(memory));
    }
};

test "what was only reserved is not in memory, what was written is" {
    const allocations = @import("allocations.zig");
    const memory = try allocations.reserve(64 << 20);
    defer allocations.unreserve(memory);
    var before: Footprint = .{};
    before.add(.activations, memory);
    try std.testing.expectEqual(64 << 20, before.taken[@intFromEnum(Part.activations)]);
    if (!system.tells_resident) return error.SkipZigTest;
    try std.testing.expectEqual(0, before.resident[@intFromEnum(Part.activations)]);
    // A byte of the first page, two at the border of two others, and pages that the system is asked for apart.
    memory[10] = 1;
    @memset(memory[3 * 4096 - 1 ..][0..2], 1);
    @memset(memory[40 << 20 ..][0 .. 1 << 20], 1);
    var after: Footprint = .{};
    after.add(.activations, memory);
    try std.testing.expectEqual(3 * 4096 + (1 << 20), after.resident[@intFromEnum(Part.activations)]);
    // A piece has no more in memory than it has.
    var part: Footprint = .{};
    part.add(.tokens, memory[4000..4090]);
    try std.testing.expectEqual(90, part.resident[@intFromEnum(Part.tokens)]);
}
