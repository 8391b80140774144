//! A part of a file as read-only memory, shared between processes. A thread of its own brings it in from the moment it is opened,
//! while others still plan what to do with it: a page that is brought in with its neighbours costs a tenth of one that is
//! waited for when it is first read.

const std = @import("std");
const assert = std.debug.assert;
const allocations = @import("allocations.zig");
const system = @import("system.zig");

/// Bytes brought in at a time; between two pieces the thread looks whether it should end.
const piece_bytes = 8 << 20;

pub const Mapping = struct {
    view: system.View,
    skip: usize,
    thread: ?std.Thread,
    stopping: std.atomic.Value(u32),

    /// `offset` is a multiple of 64, as kernels want the bytes.
    pub fn open(path: [*:0]const u8, offset: u64, length: u64) error{ OutOfMemory, Open, CutShort }!*Mapping {
        assert(length > 0 and offset % 64 == 0);
        const file = try system.File.open(path, .read);
        defer file.close();
        const begin = std.mem.alignBackward(u64, offset, system.View.granularity);
        const skip: usize = @intCast(offset - begin);
        const all: usize = std.math.cast(usize, skip + length) orelse return error.OutOfMemory;
        const mapping = try allocations.allocator.create(Mapping);
        errdefer allocations.allocator.destroy(mapping);
        mapping.* = .{
            .view = try system.View.init(file, begin, all),
            .skip = skip,
            .thread = null,
            .stopping = .init(0),
        };
        // Without the thread, pages come when they are first read.
        mapping.thread = std.Thread.spawn(.{ .stack_size = 64 << 10 }, populate, .{mapping}) catch null;
        return mapping;
    }

    pub fn bytes(mapping: *const Mapping) []const u8 {
        return mapping.view.bytes[mapping.skip..];
    }

    /// Waits until all of it is in memory. Not for two threads at once.
    pub fn awaitPopulated(mapping: *Mapping) void {
        if (mapping.thread) |thread| thread.join();
        mapping.thread = null;
    }

    /// Takes its pages out of this process's memory; they come back from the file's when they are read.
    pub fn release(mapping: *Mapping) void {
        mapping.awaitPopulated();
        system.unload(mapping.view.bytes);
    }

    pub fn close(mapping: *Mapping) void {
        mapping.stopping.store(1, .monotonic);
        mapping.awaitPopulated();
        mapping.view.deinit();
        allocations.allocator.destroy(mapping);
    }

    fn populate(mapping: *Mapping) void {
        const all = mapping.view.bytes;
        var done: usize = 0;
        while (done < all.len and mapping.stopping.load(.monotonic) == 0) : (done += piece_bytes) {
            system.populate(@alignCast(all[done..@min(done + piece_bytes, all.len)]));
        }
    }
};
