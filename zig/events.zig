//! Event rings: one a thread, written without waiting by that thread, drained by TypeScript. A full ring drops the new
//! event and counts it; nothing is lost silently.

const std = @import("std");
const assert = std.debug.assert;
const clock = @import("clock.zig");
const program = @import("program.zig");
const system = @import("system.zig");

pub const Ring = struct {
    events: []program.Event,
    /// Events ever written and ever read; they live on lines of their own because two threads write them.
    written: std.atomic.Value(u64) align(64) = .init(0),
    read: std.atomic.Value(u64) align(64) = .init(0),
    lost: std.atomic.Value(u64) align(64) = .init(0),

    pub fn init(events: []program.Event) Ring {
        assert(std.math.isPowerOfTwo(events.len));
        return .{ .events = events };
    }

    pub fn write(ring: *Ring, event: program.Event) void {
        const at = ring.written.raw;
        if (at - ring.read.load(.acquire) == ring.events.len) {
            _ = ring.lost.fetchAdd(1, .monotonic);
            return;
        }
        ring.events[@intCast(at & (ring.events.len - 1))] = event;
        ring.written.store(at + 1, .release);
    }

    /// Events that wait to be drained, as whoever drains them sees it.
    pub fn waiting(ring: *const Ring) u64 {
        return ring.written.load(.acquire) - ring.read.raw;
    }

    /// Gives the memory back. What still waits is zeros afterwards, but for what the thread writes meanwhile.
    pub fn forget(ring: *Ring) void {
        system.discard(@alignCast(std.mem.sliceAsBytes(ring.events)));
    }

    /// Moves up to `out.len` events to `out`, their ticks turned into nanoseconds; a share has none.
    pub fn drain(ring: *Ring, out: []program.Event, time: *clock.Clock) usize {
        const from = ring.read.raw;
        const available = ring.written.load(.acquire) - from;
        const count: usize = @intCast(@min(available, out.len));
        for (out[0..count], 0..) |*slot, index| {
            slot.* = ring.events[@intCast((from + index) & (ring.events.len - 1))];
            if (slot.kind == .share) continue;
            slot.start = time.toNs(slot.start);
            slot.end = time.toNs(slot.end);
        }
        ring.read.store(from + count, .release);
        return count;
    }
};

test "a full ring counts what it loses and keeps what it has" {
    var storage: [4]program.Event = undefined;
    var ring = Ring.init(&storage);
    var time = clock.Clock.fixed(.{ .ticks = 0, .ns = 0 }, .{ .ticks = 0, .ns = 0 }, 2.0);
    for (0..6) |index| {
        ring.write(.{ .start = index, .end = index + 1, .step = 1, .rows = 1, .op = 0, .kind = .work, .thread = 0, .aux = 0 });
    }
    var out: [8]program.Event = undefined;
    try std.testing.expectEqual(4, ring.waiting());
    try std.testing.expectEqual(4, ring.drain(&out, &time));
    try std.testing.expectEqual(0, ring.waiting());
    try std.testing.expectEqual(2, ring.lost.load(.monotonic));
    for (out[0..4], 0..) |event, index| try std.testing.expectEqual(index * 2, event.start);
    try std.testing.expectEqual(0, ring.drain(&out, &time));
}

test "a share comes out as it was written" {
    var storage: [2]program.Event = undefined;
    var ring = Ring.init(&storage);
    const share: program.Share = .{ .request = 11, .sequence = 5, .rows = 9, .position = 3, .logits_rows = 7, .accepted = 2 };
    ring.write(share.event(1));
    var out: [2]program.Event = undefined;
    var time = clock.Clock.fixed(.{ .ticks = 0, .ns = 0 }, .{ .ticks = 100, .ns = 5 }, 2.0);
    try std.testing.expectEqual(1, ring.drain(&out, &time));
    try std.testing.expectEqual(share.event(1), out[0]);
    try std.testing.expectEqual(5 << 32 | 3, out[0].start);
    try std.testing.expectEqual(2 << 32 | 7, out[0].end);
}
