//! Time stamps cheap enough for every op: the CPU's own counter, calibrated against the monotonic clock.

const std = @import("std");
const builtin = @import("builtin");
const system = @import("system.zig");

const arch = builtin.cpu.arch;

/// The CPU's counter; nanoseconds of the monotonic clock where it has none that a process may read.
pub inline fn ticks() u64 {
    switch (arch) {
        .x86_64 => {
            var low: u32 = undefined;
            var high: u32 = undefined;
            asm volatile ("rdtsc"
                : [low] "={eax}" (low),
                  [high] "={edx}" (high),
            );
            return @as(u64, high) << 32 | low;
        },
        .aarch64 => return asm volatile ("mrs %[out], cntvct_el0"
            : [out] "=r" (-> u64),
        ),
        else => return system.monotonicNs(),
    }
}

/// Two readings of both clocks give the rate. Reading them together takes under 100 ns, so `begin` and `end` 5 ms apart
/// bound the error of the rate by 20 ppm: 20 µs a second.
pub const Calibration = struct {
    base_ticks: u64,
    base_ns: u64,
    ns_per_tick: f64,

    const interval_ns_min = 5 * std.time.ns_per_ms;

    pub const Start = struct { ticks: u64, ns: u64 };

    /// Both clocks at once: of several readings the one that took least, because a thread may lose its CPU in between.
    pub fn begin() Start {
        var best: Start = undefined;
        var best_ns: u64 = std.math.maxInt(u64);
        for (0..8) |_| {
            const before = system.monotonicNs();
            const at = ticks();
            const took_ns = system.monotonicNs() - before;
            if (took_ns < best_ns) {
                best_ns = took_ns;
                best = .{ .ticks = at, .ns = before + took_ns / 2 };
            }
        }
        return best;
    }

    /// Waits until enough time has passed since `begin`.
    pub fn end(start: Start) Calibration {
        while (system.monotonicNs() - start.ns < interval_ns_min) std.atomic.spinLoopHint();
        return soFar(start);
    }

    /// The same without waiting: the less time has passed, the less exact.
    pub fn soFar(start: Start) Calibration {
        const now = begin();
        const elapsed_ns: f64 = @floatFromInt(@max(1, now.ns - start.ns));
        const elapsed_ticks: f64 = @floatFromInt(@max(1, now.ticks -% start.ticks));
        return .{ .base_ticks = now.ticks, .base_ns = now.ns, .ns_per_tick = elapsed_ns / elapsed_ticks };
    }
};

/// Turns ticks into nanoseconds for as long as a process runs: it calibrates again and again, over longer and longer stretches up
/// to ten seconds, and follows the monotonic clock. What a tick was turned into never changes, and times never go back: what is
/// found wrong is made good by bending the rate by at most `bend_max` from the last tick on that was turned.
pub const Clock = struct {
    /// The last ones that were begun, of `count`.
    pieces: [pieces_max]Piece,
    count: usize = 1,
    /// The latest tick that was turned.
    turned: u64 = 0,
    /// Where the rate is measured from, and where it will be measured from next.
    from: Calibration.Start,
    next: Calibration.Start,

    /// A straight line that holds from `ticks` on, up to the next piece.
    const Piece = struct {
        ticks: u64,
        ns: u64,
        ns_per_tick: f64,

        fn at(piece: Piece, wanted: u64) u64 {
            const delta_ns: i64 = @intFromFloat(@floor(difference(wanted, piece.ticks) * piece.ns_per_tick));
            return piece.ns +% @as(u64, @bitCast(delta_ns));
        }
    };

    /// While events are drained, six seconds' worth; older ticks are turned by the oldest.
    const pieces_max = 128;
    const interval_ns: f64 = 100 * std.time.ns_per_ms;
    const stretch_ns = 5 * std.time.ns_per_s;
    /// 40 µs a second.
    const bend_max = 40e-6;

    /// Waits until enough time has passed since `start` for a first calibration.
    pub fn init(start: Calibration.Start) Clock {
        const first = Calibration.end(start);
        return fixed(start, .{ .ticks = first.base_ticks, .ns = first.base_ns }, first.ns_per_tick);
    }

    /// `from` and `now` are both clocks at once.
    pub fn fixed(from: Calibration.Start, now: Calibration.Start, ns_per_tick: f64) Clock {
        var clock: Clock = .{ .pieces = undefined, .from = from, .next = now };
        clock.pieces[0] = .{ .ticks = now.ticks, .ns = now.ns, .ns_per_tick = ns_per_tick };
        return clock;
    }

    /// Calibrates again if that is due.
    pub fn follow(clock: *Clock) void {
        const piece = clock.pieces[(clock.count - 1) % pieces_max];
        const passed: f64 = @floatFromInt(ticks() -| piece.ticks);
        if (passed * piece.ns_per_tick >= interval_ns) clock.correct(Calibration.begin());
    }

    /// `now` is both clocks at once.
    fn correct(clock: *Clock, now: Calibration.Start) void {
        const piece = clock.pieces[(clock.count - 1) % pieces_max];
        const begin = @max(clock.turned, piece.ticks);
        if (now.ticks <= begin or now.ticks <= clock.from.ticks or now.ns <= clock.from.ns) return;
        const rate = difference(now.ns, clock.from.ns) / difference(now.ticks, clock.from.ticks);
        if (now.ns -| clock.next.ns >= stretch_ns) {
            clock.from = clock.next;
            clock.next = now;
        }
        // From the last tick that was turned to now, then on from now.
        const begin_ns = piece.at(begin);
        const gap = difference(now.ticks, begin);
        const expected_ns = gap * piece.ns_per_tick;
        const wrong_ns = difference(now.ns, begin_ns) - expected_ns;
        const made_good_ns = std.math.clamp(wrong_ns, -bend_max * expected_ns, bend_max * expected_ns);
        const bend = std.math.clamp((wrong_ns - made_good_ns) / interval_ns, -bend_max, bend_max);
        const before: Piece = .{ .ticks = begin, .ns = begin_ns, .ns_per_tick = (expected_ns + made_good_ns) / gap };
        clock.push(before);
        clock.push(.{ .ticks = now.ticks, .ns = before.at(now.ticks), .ns_per_tick = rate * (1 + bend) });
    }

    fn push(clock: *Clock, piece: Piece) void {
        clock.pieces[clock.count % pieces_max] = piece;
        clock.count += 1;
    }

    /// Nanoseconds of the monotonic clock at `at`, which may lie before the first calibration.
    pub fn toNs(clock: *Clock, at: u64) u64 {
        clock.turned = @max(clock.turned, at);
        const kept = @min(clock.count, pieces_max);
        for (1..kept) |back| {
            const piece = &clock.pieces[(clock.count - back) % pieces_max];
            if (at >= piece.ticks) return piece.at(at);
        }
        return clock.pieces[(clock.count - kept) % pieces_max].at(at);
    }

    fn difference(a: u64, b: u64) f64 {
        return @floatFromInt(@as(i64, @bitCast(a -% b)));
    }
};

test "a clock follows the monotonic clock without a jump and without changing what it has said" {
    // A counter of 3 GHz beside a clock that runs 100 ppm faster than was measured at first, and is read with an error.
    const Time = struct {
        fn ns(ticks_: u64) u64 {
            return 7_000_000_000 + @as(u64, @intFromFloat(@as(f64, @floatFromInt(ticks_)) / 3.0 * 1.0001));
        }
    };
    var clock = Clock.fixed(.{ .ticks = 0, .ns = Time.ns(0) }, .{ .ticks = 15_000_000, .ns = Time.ns(15_000_000) }, 1.0 / 3.0);
    var random: std.Random.DefaultPrng = .init(1);
    var said: [1000]struct { ticks: u64, ns: u64 } = undefined;
    var at: u64 = 15_000_000;
    var last_ns: u64 = 0;
    var drained: usize = 0;
    for (0..3000) |round| {
        // Events for a while, or, now and then, nothing for a quarter of an hour.
        at += if (round % 1000 == 999) 3_000_000_000 * 900 else random.random().uintLessThan(u64, 30_000_000);
        const error_ns = random.random().uintLessThan(u64, 100);
        const piece = clock.pieces[(clock.count - 1) % Clock.pieces_max];
        if (@as(f64, @floatFromInt(at - piece.ticks)) * piece.ns_per_tick >= Clock.interval_ns) {
            clock.correct(.{ .ticks = at, .ns = Time.ns(at) + error_ns });
        }
        const ns = clock.toNs(at);
        try std.testing.expect(ns >= last_ns);
        last_ns = ns;
        const off = @as(i64, @intCast(ns)) - @as(i64, @intCast(Time.ns(at)));
        // 100 ppm wrong for 100 ms, at first; what is made good at 40 ppm is gone after half a second.
        try std.testing.expect(@abs(off) < 15_000);
        if (round > 200) try std.testing.expect(@abs(off) < 300);
        said[drained % said.len] = .{ .ticks = at, .ns = ns };
        drained += 1;
        // The last few hundred events may begin again where another ended.
        const known = said[(drained - 1 - random.random().uintLessThan(usize, @min(drained, 100))) % said.len];
        if (round % 1000 > 200 and round % 1000 < 900) try std.testing.expectEqual(known.ns, clock.toNs(known.ticks));
    }
}

test "ticks convert to the monotonic clock" {
    var clock = Clock.init(Calibration.begin());
    const before = system.monotonicNs();
    const at = clock.toNs(ticks());
    const after = system.monotonicNs();
    // Both clocks bracket the reading however long it took; the rest is the calibration's own error.
    const error_ns_max = 100 * std.time.ns_per_us;
    try std.testing.expect(at + error_ns_max > before);
    try std.testing.expect(at < after + error_ns_max);
}
