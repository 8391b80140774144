//! Event rings: one a thread, written without waiting by that thread, drained by TypeScript. A full ring drops the new
//! event and counts it; nothing is lost silently.

const std = @import("std");
const assert = std.debug.assert;
const clock = @import("clock.zig");
const program = @import("program.zig");
const system = @import("system.zig");

/// Slots whose memory is taken and given back at once, and for how many there is memory beyond those that are written. A page that an
/// event had to wait for would hold its thread up for as long as a hundred events take.
const piece = 1 << 14;

/// An event as it waits. Most begin where the thread's last one ended, in the same step, and fit into one slot: memory that is new, and
/// lines that have to come to the cache, are half of what an event costs. Any other is `whole` in the two slots after its first.
pub const Slot = extern struct {
    /// From the end of the event before to this one's.
    ticks: u32,
    op: u16,
    kind: u8,
    form: Form,
    rows: u32,
    /// Of a whole event, what its slots are recognised by.
    aux: u32,

    const Form = enum(u8) {
        /// Not written: memory that was given back reads so.
        nothing = 0,
        short,
        whole,
        _,
    };
};

const whole_slots = 3;

comptime {
    assert(@sizeOf(Slot) == 16);
    assert(@sizeOf(program.Event) == (whole_slots - 1) * @sizeOf(Slot));
}

fn sumOf(words: [4]u64) u32 {
    const sum = words[0] ^ std.math.rotl(u64, words[1], 17) ^ std.math.rotl(u64, words[2], 31) ^ std.math.rotl(u64, words[3], 47);
    return @truncate(sum ^ sum >> 32);
}

pub const Ring = struct {
    slots: []Slot align(64),
    thread: u8,
    /// Slots ever written, and those in whose place others may be written; they live on lines of their own because two threads
    /// write them.
    writer: Writer,
    free: std.atomic.Value(u64) align(64) = .init(0),
    lost: std.atomic.Value(u64) align(64) = .init(0),
    /// Slots ever drained. Their places become free a piece at a time, once its memory was given back.
    drained: u64 align(64) = 0,
    /// There is memory for the slots from the one to the other, as far as the draining side has seen to it.
    released: u64 = 0,
    provided: u64 = 0,
    /// For who drains; null: of what comes next up to a whole event, it is not known when it was.
    drained_last: ?Before = null,

    /// All that a thread needs for most of its events, in one line: while it computes, weights sweep its caches, so that every line
    /// more comes from afar.
    const Writer = struct {
        written: std.atomic.Value(u64) align(64) = .init(0),
        /// Slots up to here may be written, as the thread has seen it last.
        free: u64,
        slots: [*]Slot,
        mask: u64,
        /// Until when the thread's events go.
        until: u64 = 0,
        /// That of the last event.
        step: u32 = 0,
        /// Whether the next event is whole, because none that was kept ends where it begins.
        apart: bool = true,

        inline fn slotAt(writer: *const Writer, slot: u64) *Slot {
            return &writer.slots[@intCast(slot & writer.mask)];
        }
    };

    comptime {
        assert(@sizeOf(Writer) == 64);
    }

    /// Where a thread's last event ended, and its step.
    const Before = struct { end: u64 = 0, step: u32 = 0 };

    pub fn init(slots: []Slot, thread: u8) Ring {
        assert(std.math.isPowerOfTwo(slots.len));
        return .{ .slots = slots, .thread = thread, .writer = .{ .free = slots.len, .slots = slots.ptr, .mask = slots.len - 1 } };
    }

    /// Until when the thread's events go. For the thread itself, as all that writes.
    pub fn until(ring: *const Ring) u64 {
        return ring.writer.until;
    }

    /// The next event begins there: what the thread did until then is in none.
    pub fn skipTo(ring: *Ring, ticks: u64) void {
        ring.writer.until = ticks;
        ring.writer.apart = true;
    }

    /// Writes an event from where the thread's last one ended to `end`.
    pub fn writeUntil(ring: *Ring, end: u64, step: u32, kind: program.EventKind, op: u16, rows: u32, aux: u32) void {
        const writer = &ring.writer;
        const ticks = end -% writer.until;
        if (writer.apart or step != writer.step or ticks > std.math.maxInt(u32)) {
            return ring.writeWhole(.{
                .start = @min(writer.until, end),
                .end = end,
                .step = step,
                .rows = rows,
                .op = op,
                .kind = kind,
                .thread = ring.thread,
                .aux = aux,
            });
        }
        writer.until = end;
        const at = writer.written.raw;
        if (at == writer.free and !ring.hasRoom(1)) return ring.lose();
        writer.slotAt(at).* = .{ .ticks = @intCast(ticks), .op = op, .kind = @intFromEnum(kind), .form = .short, .rows = rows, .aux = aux };
        ring.advance(at + 1);
    }

    /// Writes an event that may begin anywhere, or has no times.
    pub fn writeWhole(ring: *Ring, event: program.Event) void {
        assert(event.thread == ring.thread);
        const writer = &ring.writer;
        const timed = event.kind != .share;
        if (timed) writer.until = event.end;
        const at = writer.written.raw;
        if (writer.free - at < whole_slots and !ring.hasRoom(whole_slots)) return ring.lose();
        if (timed) {
            writer.step = event.step;
            writer.apart = false;
        }
        const words: [4]u64 = @bitCast(event);
        writer.slotAt(at).* = .{ .ticks = 0, .op = 0, .kind = 0, .form = .whole, .rows = 0, .aux = sumOf(words) };
        writer.slotAt(at + 1).* = @bitCast(words[0..2].*);
        writer.slotAt(at + 2).* = @bitCast(words[2..4].*);
        ring.advance(at + whole_slots);
    }

    /// The next claim of work waits until all that was written before is in the cache. So the line of the next event is asked for now: it
    /// comes while the thread computes. What is asked for sooner has left the cache again.
    inline fn advance(ring: *Ring, written: u64) void {
        ring.writer.written.store(written, .release);
        @prefetch(ring.writer.slotAt(written), .{ .rw = .write, .locality = 3, .cache = .data });
    }

    /// Looks again how many slots may be written.
    fn hasRoom(ring: *Ring, count: u64) bool {
        @branchHint(.unlikely);
        const writer = &ring.writer;
        writer.free = ring.free.load(.acquire) + ring.slots.len;
        return writer.free - writer.written.raw >= count;
    }

    fn lose(ring: *Ring) void {
        ring.writer.apart = true;
        _ = ring.lost.fetchAdd(1, .monotonic);
    }

    /// For who drains.
    inline fn slotAt(ring: *const Ring, slot: u64) *Slot {
        return &ring.slots[@intCast(slot & (ring.slots.len - 1))];
    }

    /// Slots of events that wait to be drained, as whoever drains them sees it.
    pub fn waiting(ring: *const Ring) u64 {
        return ring.writer.written.load(.acquire) - ring.drained;
    }

    /// Takes memory for the events that come next, if there is little left, so that who writes them need not wait for it.
    pub fn provide(ring: *Ring) void {
        if (ring.slots.len < piece) return;
        const wanted = ring.writer.written.load(.monotonic) + piece;
        while (ring.provided < wanted and ring.provided - ring.released < ring.slots.len) : (ring.provided += piece) {
            system.provide(ring.pieceAt(ring.provided));
        }
    }

    /// Has others written in the place of what was drained. Of large rings the memory is given back before.
    fn release(ring: *Ring) void {
        if (ring.slots.len < piece) return ring.free.store(ring.drained, .release);
        while (ring.released + piece <= ring.drained) : (ring.released += piece) system.discard(ring.pieceAt(ring.released));
        ring.provided = @max(ring.provided, ring.released);
        ring.free.store(ring.released, .release);
    }

    fn pieceAt(ring: *Ring, slot: u64) []align(4096) u8 {
        return @alignCast(std.mem.sliceAsBytes(ring.slots[@intCast(slot & (ring.slots.len - 1))..][0..piece]));
    }

    /// Gives the memory back, and with it what still waits. Of what the thread writes meanwhile, some may be given back, too.
    pub fn forget(ring: *Ring) void {
        ring.drained = ring.writer.written.load(.acquire);
        ring.drained_last = null;
        system.discard(@alignCast(std.mem.sliceAsBytes(ring.slots)));
        ring.released = std.mem.alignBackward(u64, ring.drained, piece);
        ring.provided = ring.released;
        ring.release();
    }

    /// What came of a drain: events, and whether more wait that were there when it began.
    pub const Drained = struct { count: usize, more: bool };

    /// Looks at up to `out.len` slots and moves their events to `out`, ticks turned into nanoseconds; a share has none. Of steps whose
    /// number `detail` does not divide, only they themselves and their shares are moved, and the others are over: it is never 0.
    pub fn drain(ring: *Ring, out: []program.Event, time: *clock.Clock, detail: u32) Drained {
        const written = ring.writer.written.load(.acquire);
        var at = ring.drained;
        var before = ring.drained_last;
        // What the last tick was turned into: most events begin where one ended.
        var known: ?struct { ticks: u64, ns: u64 } = null;
        var count: usize = 0;
        while (at < written and at - ring.drained < out.len) {
            const slot = ring.slotAt(at).*;
            switch (slot.form) {
                .short => {
                    at += 1;
                    const last = if (before) |*there| there else continue;
                    const start = last.end;
                    last.end += slot.ticks;
                    const kind: program.EventKind = @enumFromInt(slot.kind);
                    if (kind != .step and last.step % detail != 0) continue;
                    const start_ns = if (known != null and known.?.ticks == start) known.?.ns else time.toNs(start);
                    const end_ns = time.toNs(last.end);
                    known = .{ .ticks = last.end, .ns = end_ns };
                    out[count] = .{
                        .start = start_ns,
                        .end = end_ns,
                        .step = last.step,
                        .rows = slot.rows,
                        .op = slot.op,
                        .kind = kind,
                        .thread = ring.thread,
                        .aux = slot.aux,
                    };
                    count += 1;
                },
                .whole => {
                    const words: [4]u64 = @bitCast([2]Slot{ ring.slotAt(at + 1).*, ring.slotAt(at + 2).* });
                    if (at + whole_slots > written or sumOf(words) != slot.aux) {
                        before = null;
                        at += 1;
                        continue;
                    }
                    at += whole_slots;
                    var event: program.Event = @bitCast(words);
                    if (event.kind != .share) {
                        before = .{ .end = event.end, .step = event.step };
                        if (event.kind != .step and event.step % detail != 0) continue;
                        event.start = time.toNs(event.start);
                        event.end = time.toNs(event.end);
                    }
                    out[count] = event;
                    count += 1;
                },
                // It was given back with what was forgotten.
                else => {
                    before = null;
                    at += 1;
                },
            }
        }
        ring.drained = at;
        ring.drained_last = before;
        ring.release();
        return .{ .count = count, .more = at < written };
    }
};

fn write(ring: *Ring, event: program.Event) void {
    if (event.kind == .share or event.start != ring.until()) return ring.writeWhole(event);
    ring.writeUntil(event.end, event.step, event.kind, event.op, event.rows, event.aux);
}

test "what is drained gives its memory back, and nothing of what waits is lost" {
    const slots = try std.testing.allocator.alignedAlloc(Slot, .fromByteUnits(4096), 4 * piece);
    defer std.testing.allocator.free(slots);
    var ring = Ring.init(slots, 0);
    var time = clock.Clock.fixed(.{ .ticks = 0, .ns = 0 }, .{ .ticks = 0, .ns = 0 }, 1.0);
    var out: [1000]program.Event = undefined;
    var written: u64 = 0;
    var read: u64 = 0;
    // Twice around, forgotten in the middle of a piece, and twice around again.
    while (read < 16 * piece) {
        if (read >= 8 * piece and read < 8 * piece + out.len) {
            ring.forget();
            for (0..100) |_| write(&ring, std.mem.zeroes(program.Event));
            ring.forget();
            written += 100;
            read = written;
        }
        ring.provide();
        // The places of a piece are free once all of it was drained.
        while (ring.writer.written.raw - ring.free.raw + whole_slots <= 4 * piece) : (written += 1) {
            write(&ring, .{ .start = written, .end = written + 1, .step = 1, .rows = 1, .op = 0, .kind = .work, .thread = 0, .aux = @intCast(written) });
        }
        const count = ring.drain(&out, &time, 1).count;
        for (out[0..count]) |event| {
            try std.testing.expectEqual(read, event.aux);
            read += 1;
        }
        try std.testing.expect(ring.released <= ring.drained and ring.drained < ring.released + piece);
    }
    try std.testing.expectEqual(0, ring.lost.load(.monotonic));
}

test "what a thread skips is in no event" {
    var storage: [16]Slot = undefined;
    var ring = Ring.init(&storage, 0);
    var time = clock.Clock.fixed(.{ .ticks = 0, .ns = 0 }, .{ .ticks = 0, .ns = 0 }, 1.0);
    ring.skipTo(5);
    ring.writeUntil(8, 1, .work, 0, 1, 1);
    ring.writeUntil(10, 1, .work, 1, 1, 1);
    ring.skipTo(15);
    ring.writeUntil(20, 1, .work, 2, 1, 1);
    // A counter that is behind that of another CPU.
    ring.writeUntil(19, 1, .work, 3, 1, 1);
    ring.writeUntil(22, 1, .work, 4, 1, 1);
    var out: [16]program.Event = undefined;
    try std.testing.expectEqual(5, ring.drain(&out, &time, 1).count);
    for (out[0..5], [_][2]u64{ .{ 5, 8 }, .{ 8, 10 }, .{ 15, 20 }, .{ 19, 19 }, .{ 19, 22 } }, 0..) |event, times, op| {
        try std.testing.expectEqual(times, [2]u64{ event.start, event.end });
        try std.testing.expectEqual(op, event.op);
    }
}

test "a full ring counts what it loses and keeps what it has" {
    var storage: [8]Slot = undefined;
    var ring = Ring.init(&storage, 0);
    var time = clock.Clock.fixed(.{ .ticks = 0, .ns = 0 }, .{ .ticks = 0, .ns = 0 }, 2.0);
    // The first is whole.
    for (0..8) |index| {
        write(&ring, .{ .start = index, .end = index + 1, .step = 1, .rows = 1, .op = 0, .kind = .work, .thread = 0, .aux = 0 });
    }
    var out: [8]program.Event = undefined;
    try std.testing.expectEqual(8, ring.waiting());
    try std.testing.expectEqual(6, ring.drain(&out, &time, 1).count);
    try std.testing.expectEqual(0, ring.waiting());
    try std.testing.expectEqual(2, ring.lost.load(.monotonic));
    for (out[0..6], 0..) |event, index| try std.testing.expectEqual(index * 2, event.start);
    try std.testing.expectEqual(0, ring.drain(&out, &time, 1).count);
    // The next does not begin where the last one that was kept ended.
    write(&ring, .{ .start = 8, .end = 9, .step = 1, .rows = 1, .op = 0, .kind = .work, .thread = 0, .aux = 0 });
    try std.testing.expectEqual(1, ring.drain(&out, &time, 1).count);
    try std.testing.expectEqual(16, out[0].start);
}

test "a share comes out as it was written" {
    var storage: [4]Slot = undefined;
    var ring = Ring.init(&storage, 0);
    const share: program.Share = .{ .request = 11, .sequence = 5, .rows = 9, .position = 3, .logits_rows = 7, .accepted = 2 };
    write(&ring, share.event(1));
    var out: [2]program.Event = undefined;
    var time = clock.Clock.fixed(.{ .ticks = 0, .ns = 0 }, .{ .ticks = 100, .ns = 5 }, 2.0);
    try std.testing.expectEqual(1, ring.drain(&out, &time, 1).count);
    try std.testing.expectEqual(share.event(1), out[0]);
    try std.testing.expectEqual(5 << 32 | 3, out[0].start);
    try std.testing.expectEqual(2 << 32 | 7, out[0].end);
}

test "all events come out as they were written, whether they follow each other or not" {
    var storage: [64]Slot = undefined;
    var ring = Ring.init(&storage, 3);
    var time = clock.Clock.fixed(.{ .ticks = 0, .ns = 0 }, .{ .ticks = 0, .ns = 0 }, 1.0);
    var random: std.Random.DefaultPrng = .init(7);
    const from = random.random();
    var sent: [8]program.Event = undefined;
    var out: [whole_slots * sent.len]program.Event = undefined;
    var end: u64 = 1000;
    var step: u32 = 1;
    for (0..20_000) |_| {
        const count = 1 + from.uintLessThan(usize, sent.len);
        for (sent[0..count]) |*event| {
            if (from.uintLessThan(u32, 8) == 0) step += 1;
            // A gap, and more ticks than a slot holds.
            const start = if (from.uintLessThan(u32, 8) == 0) end + 1 else end;
            const took: u64 = if (from.uintLessThan(u32, 8) == 0) 1 << 33 else from.uintLessThan(u32, 1 << 20);
            const kind = from.enumValue(program.EventKind);
            event.* = .{ .start = start, .end = start + took, .step = step, .rows = from.int(u32), .op = from.int(u16), .kind = kind, .thread = 3, .aux = from.int(u32) };
            if (kind != .share) end = event.end;
            write(&ring, event.*);
        }
        try std.testing.expectEqual(count, ring.drain(&out, &time, 1).count);
        try std.testing.expectEqualSlices(program.Event, sent[0..count], out[0..count]);
    }
    try std.testing.expectEqual(0, ring.lost.load(.monotonic));
}

test "of steps that are not looked at closely, they themselves and their shares are handed over, with their times" {
    var storage: [256]Slot = undefined;
    var ring = Ring.init(&storage, 0);
    var time = clock.Clock.fixed(.{ .ticks = 0, .ns = 0 }, .{ .ticks = 0, .ns = 0 }, 1.0);
    var at: u64 = 100;
    for (0..9) |step| {
        const begin = at;
        for (0..5) |op| {
            write(&ring, .{ .start = at, .end = at + op, .step = @intCast(step), .rows = 1, .op = @intCast(op), .kind = .work, .thread = 0, .aux = 0 });
            at += op;
        }
        const share: program.Share = .{ .request = 1, .sequence = 2, .rows = 3, .position = 4, .logits_rows = 1, .accepted = 0 };
        write(&ring, share.event(@intCast(step)));
        write(&ring, .{ .start = begin, .end = at, .step = @intCast(step), .rows = 1, .op = 0, .kind = .step, .thread = 0, .aux = 1 });
    }
    var out: [128]program.Event = undefined;
    const count = ring.drain(&out, &time, 4).count;
    // Three steps of 7 events and six of 2.
    try std.testing.expectEqual(3 * 7 + 6 * 2, count);
    for (out[0..count]) |event| switch (event.kind) {
        .step => try std.testing.expectEqual([2]u64{ 100 + 10 * event.step, 110 + 10 * event.step }, [2]u64{ event.start, event.end }),
        .share => try std.testing.expectEqual(1, event.aux),
        else => {
            try std.testing.expectEqual(0, event.step % 4);
            try std.testing.expectEqual(event.start + event.op, event.end);
        },
    };
}

test "what was given back while it was written is left out, up to the next whole event" {
    // Any slots are zeros again, as if their page had been given back right after they were written.
    var random: std.Random.DefaultPrng = .init(5);
    const from = random.random();
    var out: [64]program.Event = undefined;
    var time = clock.Clock.fixed(.{ .ticks = 0, .ns = 0 }, .{ .ticks = 0, .ns = 0 }, 1.0);
    for (0..2000) |_| {
        var storage: [64]Slot = undefined;
        var ring = Ring.init(&storage, 0);
        var end: u64 = 77;
        for (0..4) |step| {
            for (0..8) |index| {
                write(&ring, .{ .start = end, .end = end + index, .step = @intCast(step), .rows = 1 << 24, .op = 5, .kind = .work, .thread = 0, .aux = @intCast(8 * step + index) });
                end += index;
            }
        }
        const first = from.uintLessThan(usize, 20);
        @memset(storage[first..][0..from.uintLessThan(usize, 20)], std.mem.zeroes(Slot));
        const count = ring.drain(&out, &time, 1).count;
        try std.testing.expect(count >= 8);
        try std.testing.expectEqual(0, ring.waiting());
        for (out[0..count]) |event| {
            const place = event.aux % 8;
            try std.testing.expectEqual(77 + 28 * (event.aux / 8) + place * (place -| 1) / 2, event.start);
            try std.testing.expectEqual(event.aux / 8, event.step);
        }
    }
}
