//! Holds threads to a share of CPU time: what they have used is paid for by time that passes, and who finds that it has not been
//! paid for yet sleeps until it is. All threads pay into one account, so that they sleep at the same time and none waits
//! awake for another. What counts is what the system says that a thread was on a CPU for, spinning included.

const std = @import("std");
const threads_max = @import("pool.zig").threads_max;
const system = @import("system.zig");

pub const Throttle = struct {
    /// Percent of one CPU's time that all threads together may use; 0: all that they can.
    percent: std.atomic.Value(u32) = .init(0),
    /// Bumped with every change, which wakes who sleeps.
    changes: std.atomic.Value(u32) = .init(0),
    /// When all that was used will be paid for, on the monotonic clock.
    paid_ns: std.atomic.Value(u64) align(64) = .init(0),
    threads: [threads_max]Thread = @splat(.{}),

    /// Debts up to this long are run up before somebody sleeps: longer than waking takes, shorter than a reader of tokens sees.
    const debt_ns_max = 2 * std.time.ns_per_ms;
    /// Time that nobody used pays for this much of what comes after it, which evens out sleep that lasted too long.
    const credit_ns_max = 10 * std.time.ns_per_ms;
    /// Asking the system what a thread has used takes a call, so it is not asked more often than this.
    const look_ns = std.time.ns_per_ms / 2;

    /// What a thread knows of itself.
    const Thread = struct {
        /// For which of the changes the rest holds.
        change: u32 align(64) = 0,
        /// Its CPU time, and when, at the last look.
        cpu_ns: u64 = 0,
        looked_ns: u64 = 0,
    };

    /// Called on any thread; it holds at once.
    pub fn limit(throttle: *Throttle, percent: u32) void {
        if (percent == throttle.percent.load(.monotonic)) return;
        throttle.percent.store(percent, .monotonic);
        throttle.paid_ns.store(0, .monotonic);
        _ = throttle.changes.fetchAdd(1, .seq_cst);
        system.wakeAll(&throttle.changes);
    }

    /// Called by each thread now and then while it computes. True: it slept.
    pub fn pass(throttle: *Throttle, index: u32) bool {
        const percent = throttle.percent.load(.monotonic);
        if (percent == 0) return false;
        const thread = &throttle.threads[index];
        const now_ns = system.monotonicNs();
        const change = throttle.changes.load(.acquire);
        if (thread.change == change and now_ns - thread.looked_ns < look_ns) return false;
        const cpu_ns = system.threadCpuNs();
        const used_ns = if (thread.change == change) cpu_ns -| thread.cpu_ns else 0;
        thread.* = .{ .change = change, .cpu_ns = cpu_ns, .looked_ns = now_ns };
        const paid_ns = throttle.charge(now_ns, used_ns * 100 / percent);
        if (paid_ns <= now_ns + debt_ns_max) return false;
        throttle.sleepUntil(paid_ns, change);
        return true;
    }

    /// Adds to what is to be paid for; until when that takes.
    fn charge(throttle: *Throttle, now_ns: u64, cost_ns: u64) u64 {
        var before = throttle.paid_ns.load(.monotonic);
        while (true) {
            const after = @max(before, now_ns -| credit_ns_max) + cost_ns;
            before = throttle.paid_ns.cmpxchgWeak(before, after, .monotonic, .monotonic) orelse return after;
        }
    }

    fn sleepUntil(throttle: *Throttle, end_ns: u64, change: u32) void {
        while (true) {
            const now_ns = system.monotonicNs();
            if (now_ns >= end_ns) return;
            system.wait(&throttle.changes, change, end_ns - now_ns);
            if (throttle.changes.load(.acquire) != change) return;
        }
    }
};

test "what was used is paid for by time, and time that nobody used pays for little" {
    var throttle: Throttle = .{};
    const ms = std.time.ns_per_ms;
    // Long idle: a credit of 10 ms.
    try std.testing.expectEqual(1005 * ms, throttle.charge(1000 * ms, 15 * ms));
    // Two threads at once.
    try std.testing.expectEqual(1009 * ms, throttle.charge(1000 * ms, 4 * ms));
    try std.testing.expectEqual(1010 * ms, throttle.charge(1012 * ms, 1 * ms));
    try std.testing.expectEqual(1990 * ms, throttle.charge(2000 * ms, 0));
}

test "a change wakes who sleeps, and forgets what was to be paid for" {
    var throttle: Throttle = .{};
    throttle.limit(1);
    const hour_ns = 3600 * std.time.ns_per_s;
    const owed_ns = throttle.charge(system.monotonicNs(), hour_ns);
    const thread = try std.Thread.spawn(.{}, Throttle.sleepUntil, .{ &throttle, owed_ns, throttle.changes.raw });
    throttle.limit(50);
    thread.join();
    try std.testing.expect(!throttle.pass(0));
    try std.testing.expect(throttle.charge(system.monotonicNs(), 0) < owed_ns);
}
