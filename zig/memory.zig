//! The KV cache's pages: per group of layers a pool of equal pages, a free list, and a page table per running sequence.
//! Pages cost memory when they are first written. Everything is set aside when the program is loaded.

const std = @import("std");
const assert = std.debug.assert;
const program = @import("program.zig");
const system = @import("system.zig");
const table = @import("kernels/table.zig");

pub const page_positions = table.page_positions;

pub const KvGroup = struct {
    window: u32,
    page_bytes: u64,
    base: []align(4096) u8,
    /// Stack of free pages; the pages of low numbers come first, so that a short run touches little memory.
    free: []u32,
    free_count: u32,
    /// Pages promised to running sequences, so that a running one never finds the pool empty.
    reserved: u32 = 0,
    /// page_table[sequence · table_stride + position / 64].
    page_table: []u32,
    table_stride: u32,
    /// Per sequence: pages below this index were given back; pages from `allocated` on are not taken yet.
    released: [program.sequences_max]u32 = @splat(0),
    allocated: [program.sequences_max]u32 = @splat(0),

    pub fn init(allocator: std.mem.Allocator, descriptor: program.KvGroup, batch_max: u32, context_max: u32) error{OutOfMemory}!KvGroup {
        const stride = std.math.divCeil(u32, context_max, page_positions) catch unreachable;
        const base = try system.map(descriptor.page_bytes * descriptor.page_count, true);
        errdefer system.unmap(base);
        const free = try allocator.alloc(u32, descriptor.page_count);
        errdefer allocator.free(free);
        for (free, 0..) |*page, index| page.* = descriptor.page_count - 1 - @as(u32, @intCast(index));
        const page_table = try allocator.alloc(u32, @as(usize, batch_max) * stride);
        @memset(page_table, 0);
        return .{
            .window = descriptor.window,
            .page_bytes = descriptor.page_bytes,
            .base = base,
            .free = free,
            .free_count = descriptor.page_count,
            .page_table = page_table,
            .table_stride = stride,
        };
    }

    pub fn deinit(group: *KvGroup, allocator: std.mem.Allocator) void {
        allocator.free(group.page_table);
        allocator.free(group.free);
        system.unmap(group.base);
    }

    /// Pages a sequence of `positions` holds at most at any time, when a step adds at most `step_rows` positions.
    pub fn pagesNeeded(group: *const KvGroup, positions: u32, step_rows: u32) u32 {
        const all = std.math.divCeil(u32, positions, page_positions) catch unreachable;
        if (group.window == 0) return all;
        // The window, the step's own rows, and a partly used page at each end.
        return @min(all, (group.window + step_rows) / page_positions + 2);
    }

    /// Makes sure that positions below `end` of `sequence` have pages.
    pub fn ensure(group: *KvGroup, sequence: u32, end: u32) void {
        const needed = std.math.divCeil(u32, end, page_positions) catch unreachable;
        while (group.allocated[sequence] < needed) : (group.allocated[sequence] += 1) {
            assert(group.free_count > 0); // Admission reserved it.
            group.free_count -= 1;
            group.page_table[sequence * group.table_stride + group.allocated[sequence]] = group.free[group.free_count];
        }
    }

    /// Gives back pages that positions from `next` on no longer look at.
    pub fn releaseBehind(group: *KvGroup, sequence: u32, next: u32) void {
        if (group.window == 0 or next + 1 <= group.window) return;
        group.releaseBelow(sequence, @min((next + 1 - group.window) / page_positions, group.allocated[sequence]));
    }

    pub fn releaseAll(group: *KvGroup, sequence: u32) void {
        group.releaseBelow(sequence, group.allocated[sequence]);
        group.allocated[sequence] = 0;
        group.released[sequence] = 0;
    }

    fn releaseBelow(group: *KvGroup, sequence: u32, end: u32) void {
        while (group.released[sequence] < end) : (group.released[sequence] += 1) {
            const page = group.page_table[sequence * group.table_stride + group.released[sequence]];
            assert(group.free_count < group.free.len);
            group.free[group.free_count] = page;
            group.free_count += 1;
        }
    }
};

test "a windowed group holds few pages however long the sequence" {
    const allocator = std.testing.allocator;
    var group = try KvGroup.init(allocator, .{ .window = 128, .page_count = 6, .page_bytes = 4096 }, 2, 4096);
    defer group.deinit(allocator);
    var next: u32 = 0;
    while (next < 4096) : (next += 64) {
        group.ensure(1, next + 64);
        group.releaseBehind(1, next + 64);
        try std.testing.expect(group.free.len - group.free_count <= group.pagesNeeded(4096, 64));
    }
    group.releaseAll(1);
    try std.testing.expectEqual(6, group.free_count);
}

test "pages of two sequences differ" {
    const allocator = std.testing.allocator;
    var group = try KvGroup.init(allocator, .{ .window = 0, .page_count = 8, .page_bytes = 4096 }, 2, 256);
    defer group.deinit(allocator);
    group.ensure(0, 200);
    group.ensure(1, 256);
    var seen: [8]bool = @splat(false);
    for (0..2) |sequence| for (0..4) |page| {
        const number = group.page_table[sequence * group.table_stride + page];
        try std.testing.expect(!seen[number]);
        seen[number] = true;
    };
}
