//! How fast this machine reads memory: the roof under which generation works, measured by the same threads' number and the
//! same kind of claims as an op's. It computes nothing of a model.

const std = @import("std");
const assert = std.debug.assert;
const allocations = @import("allocations.zig");
const system = @import("system.zig");

pub const threads_max = 64;
/// A claim of memory: long enough that claiming costs nothing (about 100 µs of reading), short enough that a thread which
/// the system interrupts does not hold the others.
const piece_bytes = 1 << 20;

/// Eight cache lines a turn of the loop, each summed by itself, so that loads do not wait for additions.
const Lines = @Vector(8, u64);
const unroll = 8;

pub const Meter = struct {
    memory: []align(4096) u8,
    thread_count: u32,
    claim: std.atomic.Value(u64) align(64) = .init(0),

    /// Sets `bytes` (rounded up to whole pieces) aside and writes to each page, so that the pages exist and differ.
    pub fn create(bytes: u64, thread_count: u32) error{OutOfMemory}!*Meter {
        assert(bytes > 0 and thread_count >= 1 and thread_count <= threads_max);
        const allocator = allocations.allocator;
        const meter = try allocator.create(Meter);
        errdefer allocator.destroy(meter);
        meter.* = .{ .memory = try allocations.map(std.mem.alignForward(u64, bytes, piece_bytes)), .thread_count = thread_count };
        for (meter.memory, 0..) |*byte, index| byte.* = @truncate(index >> 12);
        return meter;
    }

    pub fn destroy(meter: *Meter) void {
        allocations.unmap(meter.memory);
        allocations.allocator.destroy(meter);
    }

    /// Reads all of it once on all threads; returns how long that took, in ns. A thread that cannot be started is one fewer.
    pub fn measure(meter: *Meter) u64 {
        var threads: [threads_max]std.Thread = undefined;
        var spawned: usize = 0;
        meter.claim.store(0, .monotonic);
        const begin_ns = system.monotonicNs();
        while (spawned + 1 < meter.thread_count) : (spawned += 1) {
            threads[spawned] = std.Thread.spawn(.{ .stack_size = 1 << 20 }, read, .{meter}) catch break;
        }
        read(meter);
        for (threads[0..spawned]) |thread| thread.join();
        return system.monotonicNs() - begin_ns;
    }

    fn read(meter: *Meter) void {
        var sums: [unroll]Lines = @splat(@splat(0));
        while (true) {
            const begin = meter.claim.fetchAdd(piece_bytes, .monotonic);
            if (begin >= meter.memory.len) break;
            const piece: [*]const Lines = @ptrCast(@alignCast(meter.memory.ptr + @as(usize, @intCast(begin))));
            var line: usize = 0;
            while (line < piece_bytes / @sizeOf(Lines)) : (line += unroll) {
                inline for (0..unroll) |index| sums[index] +%= piece[line + index];
            }
        }
        std.mem.doNotOptimizeAway(sums);
    }
};

test "every piece is read, on one thread and on several" {
    for ([_]u32{ 1, 3 }) |thread_count| {
        const meter = try Meter.create(5 * piece_bytes - 1, thread_count);
        defer meter.destroy();
        try std.testing.expectEqual(5 * piece_bytes, meter.memory.len);
        try std.testing.expect(meter.measure() > 0);
        try std.testing.expect(meter.claim.raw >= 5 * piece_bytes);
        try std.testing.expect(meter.measure() > 0);
    }
}
