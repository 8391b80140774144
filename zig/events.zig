//! Event rings: one a thread, written without waiting by that thread, drained by TypeScript. A full ring drops the new
//! event and counts it; nothing is lost silently.

const std = @import("std");
const assert = std.debug.assert;
const clock = @import("clock.zig");
const program = @import("program.zig");
const system = @import("system.zig");

/// Events whose memory is taken and given back at once, and for how many there is memory beyond those that are written. A page that an
/// event had to wait for would hold its thread up for as long as a hundred events take.
const piece = 1 << 13;

/// Events from one that is written to one that is not in the same or the next cache line.
const ahead = 4;

pub const Ring = struct {
    events: []program.Event,
    /// Events ever written, and those in whose place others may be written; they live on lines of their own because two threads
    /// write them.
    written: std.atomic.Value(u64) align(64) = .init(0),
    free: std.atomic.Value(u64) align(64) = .init(0),
    lost: std.atomic.Value(u64) align(64) = .init(0),
    /// Events ever drained. Their places become free a piece at a time, once its memory was given back.
    drained: u64 = 0,
    /// There is memory for the events from the one to the other, as far as the draining side has seen to it.
    released: u64 = 0,
    provided: u64 = 0,

    pub fn init(events: []program.Event) Ring {
        assert(std.math.isPowerOfTwo(events.len));
        return .{ .events = events };
    }

    pub fn write(ring: *Ring, event: program.Event) void {
        const at = ring.written.raw;
        if (at - ring.free.load(.acquire) == ring.events.len) {
            _ = ring.lost.fetchAdd(1, .monotonic);
            return;
        }
        ring.events[@intCast(at & (ring.events.len - 1))] = event;
        ring.written.store(at + 1, .release);
        // The next claim of work waits until all that was written before is in the cache, and an event's line has left it since the ring
        // came round. It comes while the thread computes.
        @prefetch(&ring.events[@intCast((at + ahead) & (ring.events.len - 1))], .{ .rw = .write, .locality = 3, .cache = .data });
    }

    /// Events that wait to be drained, as whoever drains them sees it.
    pub fn waiting(ring: *const Ring) u64 {
        return ring.written.load(.acquire) - ring.drained;
    }

    /// Takes memory for the events that come next, if there is little left, so that who writes them need not wait for it.
    pub fn provide(ring: *Ring) void {
        if (ring.events.len < piece) return;
        const wanted = ring.written.load(.monotonic) + piece;
        while (ring.provided < wanted and ring.provided - ring.released < ring.events.len) : (ring.provided += piece) {
            system.provide(ring.pieceAt(ring.provided));
        }
    }

    /// Has others written in the place of what was drained. Of large rings the memory is given back before.
    fn release(ring: *Ring) void {
        if (ring.events.len < piece) return ring.free.store(ring.drained, .release);
        while (ring.released + piece <= ring.drained) : (ring.released += piece) system.discard(ring.pieceAt(ring.released));
        ring.provided = @max(ring.provided, ring.released);
        ring.free.store(ring.released, .release);
    }

    fn pieceAt(ring: *Ring, event: u64) []align(4096) u8 {
        return @alignCast(std.mem.sliceAsBytes(ring.events[@intCast(event & (ring.events.len - 1))..][0..piece]));
    }

    /// Gives the memory back, and with it what still waits. What the thread writes meanwhile may be zeros.
    pub fn forget(ring: *Ring) void {
        ring.drained = ring.written.load(.acquire);
        system.discard(@alignCast(std.mem.sliceAsBytes(ring.events)));
        ring.released = std.mem.alignBackward(u64, ring.drained, piece);
        ring.provided = ring.released;
        ring.release();
    }

    /// Moves up to `out.len` events to `out`, their ticks turned into nanoseconds; a share has none.
    pub fn drain(ring: *Ring, out: []program.Event, time: *clock.Clock) usize {
        const from = ring.drained;
        const available = ring.written.load(.acquire) - from;
        const count: usize = @intCast(@min(available, out.len));
        for (out[0..count], 0..) |*slot, index| {
            slot.* = ring.events[@intCast((from + index) & (ring.events.len - 1))];
            if (slot.kind == .share) continue;
            slot.start = time.toNs(slot.start);
            slot.end = time.toNs(slot.end);
        }
        ring.drained = from + count;
        ring.release();
        return count;
    }
};

test "what is drained gives its memory back, and nothing of what waits is lost" {
    const events = try std.testing.allocator.alignedAlloc(program.Event, .fromByteUnits(4096), 4 * piece);
    defer std.testing.allocator.free(events);
    var ring = Ring.init(events);
    var time = clock.Clock.fixed(.{ .ticks = 0, .ns = 0 }, .{ .ticks = 0, .ns = 0 }, 1.0);
    var out: [1000]program.Event = undefined;
    var written: u64 = 0;
    var read: u64 = 0;
    // Twice around, forgotten in the middle of a piece, and twice around again.
    while (read < 16 * piece) {
        if (read >= 8 * piece and read < 8 * piece + out.len) {
            ring.forget();
            for (0..100) |_| ring.write(std.mem.zeroes(program.Event));
            ring.forget();
            written += 100;
            read = written;
        }
        ring.provide();
        // The places of a piece are free once all of it was drained.
        while (written - std.mem.alignBackward(u64, read, piece) < 4 * piece) : (written += 1) {
            ring.write(.{ .start = written, .end = written + 1, .step = 1, .rows = 1, .op = 0, .kind = .work, .thread = 0, .aux = @intCast(written) });
        }
        const count = ring.drain(&out, &time);
        for (out[0..count]) |event| {
            try std.testing.expectEqual(read, event.aux);
            read += 1;
        }
        try std.testing.expect(ring.released <= read and read < ring.released + piece);
    }
    try std.testing.expectEqual(0, ring.lost.load(.monotonic));
}

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
