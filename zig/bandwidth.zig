//! How fast this machine moves memory and what its caches hold: the roofs under which kernels work, measured with a level's
//! vectors, on as many threads as an engine's, which claim their work as an op's do. It computes nothing of a model.

const std = @import("std");
const assert = std.debug.assert;
const allocations = @import("allocations.zig");
const clock = @import("clock.zig");
const cpu = @import("cpu.zig");
const pool_ = @import("pool.zig");
const system = @import("system.zig");
const table = @import("kernels/table.zig");

/// What is claimed at once: long enough that claiming costs nothing (3 µs in a first-level cache), short enough that a thread
/// which the system interrupts does not hold the others (100 µs of memory).
pub const piece_bytes = 1 << 20;
/// As an engine's threads wait (src/engine/engine.ts).
const spin_ns = 50_000;
/// So that a copy's target is not a multiple of 4,096 bytes from its source: processors take loads and stores that are so far
/// apart for the same ones. A thread's memory is a page longer for it.
const copy_shift = 2048;

pub const Meter = struct {
    kernels: *const table.Table,
    pool: pool_.Pool,
    memory: []align(4096) u8,
    /// What each thread has for itself.
    share_bytes: usize,
    units: pool_.Work = .{},
    traffic: table.Traffic = .read,
    /// Of the running measurement: bytes that a thread works on, and pieces of all threads.
    working_bytes: usize = 0,
    unit_count: u32 = 0,
    /// Of each thread's memory, what has been written to, so that its pages are there.
    touched_bytes: usize = 0,
    /// Where each thread goes on.
    places: [pool_.threads_max]Place = @splat(.{}),

    const Place = struct { offset: usize align(64) = 0 };
    const allocator = allocations.allocator;

    /// Sets aside what each of the threads works on at most.
    pub fn create(bytes_max: u64, level: u32, thread_count: u32) error{ OutOfMemory, Threads }!*Meter {
        assert(bytes_max > 0 and thread_count >= 1 and thread_count <= pool_.threads_max);
        const meter = try allocator.create(Meter);
        errdefer allocator.destroy(meter);
        const share_bytes = std.mem.alignForward(u64, bytes_max, piece_bytes) + 4096;
        meter.* = .{
            .kernels = cpu.levels[level].kernels,
            .pool = .{ .thread_count = thread_count, .context = meter, .thread_begin = nothing, .thread_end = nothing },
            .memory = try allocations.map(share_bytes * thread_count),
            .share_bytes = @intCast(share_bytes),
        };
        errdefer allocations.unmap(meter.memory);
        meter.pool.spin_ticks = @intFromFloat(spin_ns / clock.Calibration.end(clock.Calibration.begin()).ns_per_tick);
        try meter.pool.start();
        return meter;
    }

    pub fn destroy(meter: *Meter) void {
        meter.pool.stop();
        allocations.unmap(meter.memory);
        allocator.destroy(meter);
    }

    /// What a measurement moved, and how long that took. Of a copy both what is read and what is written.
    pub const Moved = extern struct { bytes: u64, time_ns: u64 };

    /// Each thread goes over `working_bytes` of its own, again and again, until all together have moved `total_bytes` or a
    /// little more. Null: a number is out of bounds.
    pub fn measure(meter: *Meter, traffic: table.Traffic, working_bytes: u64, total_bytes: u64) ?Moved {
        if (working_bytes == 0 or working_bytes > meter.share_bytes - 4096 or working_bytes % (2 * table.traffic_bytes) != 0) return null;
        if (working_bytes > piece_bytes and working_bytes % piece_bytes != 0) return null;
        const unit_bytes = unitBytes(working_bytes);
        const unit_count = std.math.cast(u31, std.math.divCeil(u64, total_bytes, unit_bytes) catch unreachable) orelse return null;
        if (unit_count == 0) return null;
        if (meter.working_bytes != working_bytes) meter.places = @splat(.{});
        meter.traffic = traffic;
        meter.working_bytes = @intCast(working_bytes);
        meter.unit_count = unit_count;
        meter.units.reset(meter.pool.thread_count);
        meter.touch();
        const begin_ns = system.monotonicNs();
        meter.pool.run(job);
        return .{ .bytes = unit_count * unit_bytes, .time_ns = system.monotonicNs() - begin_ns };
    }

    /// Writes to pages that are used for the first time: on a virtual machine, getting a gigabyte can take seconds.
    fn touch(meter: *Meter) void {
        const wanted = @min(meter.working_bytes + 4096, meter.share_bytes);
        for (0..meter.pool.thread_count) |thread| {
            var at = meter.touched_bytes;
            while (at < wanted) : (at += 4096) meter.memory[thread * meter.share_bytes + at] = @truncate(at >> 12);
        }
        meter.touched_bytes = std.mem.alignForward(usize, @max(meter.touched_bytes, wanted), 4096);
    }

    /// A piece of a large working set, or as many turns of a small one.
    fn unitBytes(working_bytes: u64) u64 {
        return piece_bytes / @min(piece_bytes, working_bytes) * @min(piece_bytes, working_bytes);
    }

    fn nothing(_: *anyopaque, _: u32) void {}

    fn job(context: *anyopaque, thread: u32) void {
        const meter: *Meter = @ptrCast(@alignCast(context));
        while (meter.units.claim(thread, meter.pool.thread_count, 1, meter.unit_count)) |_| {
            meter.move(thread);
            meter.pool.finish(&meter.units, 1);
        }
    }

    fn move(meter: *Meter, thread: u32) void {
        const place = &meter.places[thread].offset;
        const bytes = @min(piece_bytes, meter.working_bytes);
        const turns: u32 = @intCast(piece_bytes / bytes);
        const own: [*]align(64) u8 = @alignCast(meter.memory.ptr + thread * meter.share_bytes);
        if (meter.traffic == .copy) {
            const source: [*]align(64) u8 = @alignCast(own + place.* / 2);
            const target: [*]align(64) u8 = @alignCast(source + meter.working_bytes / 2 + copy_shift);
            meter.kernels.traffic(.copy, turns, target, source, bytes / 2);
        } else {
            const from: [*]align(64) u8 = @alignCast(own + place.*);
            meter.kernels.traffic(meter.traffic, turns, from, from, bytes);
        }
        place.* += bytes;
        if (place.* == meter.working_bytes) place.* = 0;
    }
};

test "every piece is moved, of working sets smaller and larger than a piece, on one thread and on several" {
    for ([_]u32{ 1, 3 }) |thread_count| {
        const meter = try Meter.create(3 * piece_bytes - 1, 0, thread_count);
        defer meter.destroy();
        for (std.enums.values(table.Traffic)) |traffic| {
            for ([_]u64{ 8192, 24 << 10, piece_bytes, 3 * piece_bytes }) |working_bytes| {
                const moved = meter.measure(traffic, working_bytes, 7 * piece_bytes).?;
                try std.testing.expect(moved.time_ns > 0);
                try std.testing.expect(moved.bytes >= 7 * piece_bytes and moved.bytes < 8 * piece_bytes);
                try std.testing.expectEqual(meter.unit_count, meter.units.done.value.raw);
            }
        }
    }
}

test "a copy of all that a thread has leaves its first half in its second one, and what others have alone" {
    const meter = try Meter.create(2 * piece_bytes, 0, 1);
    defer meter.destroy();
    const half = piece_bytes;
    for (meter.memory, 0..) |*byte, index| byte.* = @truncate(index *% 2654435761 >> 7);
    _ = meter.measure(.copy, 2 * piece_bytes, 2 * piece_bytes);
    try std.testing.expectEqualSlices(u8, meter.memory[0..half], meter.memory[half + copy_shift ..][0..half]);
    const last = meter.memory[meter.memory.len - 1];
    _ = meter.measure(.write, 2 * piece_bytes, 2 * piece_bytes);
    try std.testing.expectEqual(last, meter.memory[meter.memory.len - 1]);
    for (meter.memory[0 .. 2 * piece_bytes], 0..) |byte, index| try std.testing.expectEqual(@intFromBool(index % 4 == 0), byte);
}

test "what is out of bounds is not measured" {
    const meter = try Meter.create(2 * piece_bytes, 0, 1);
    defer meter.destroy();
    for ([_][2]u64{ .{ 0, 1 }, .{ 100, 1 }, .{ 3 * piece_bytes, 1 }, .{ piece_bytes + 4096, 1 }, .{ 4096, 0 }, .{ 4096, 1 << 60 } }) |pair| {
        try std.testing.expectEqual(null, meter.measure(.read, pair[0], pair[1]));
    }
}
