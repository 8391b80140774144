//! Worker threads. Worker 0 is the engine thread itself; the others wait for it to publish a job, run it, and wait again.
//! Threads spin for a bounded time, because the next op is usually microseconds away, and then sleep on a futex.

const std = @import("std");
const assert = std.debug.assert;
const clock = @import("clock.zig");
const system = @import("system.zig");

pub const threads_max = 64;

/// A counter on a cache line of its own.
pub const Counter = struct {
    value: std.atomic.Value(u32) align(64) = .init(0),
};

pub const Pool = struct {
    thread_count: u32,
    spin_ticks: u64 = 0,
    threads: [threads_max]std.Thread = undefined,
    spawned: u32 = 0,
    context: *anyopaque = undefined,
    job: *const fn (context: *anyopaque, thread: u32) void = undefined,
    thread_begin: *const fn (context: *anyopaque, thread: u32) void = undefined,
    thread_end: *const fn (context: *anyopaque, thread: u32) void = undefined,
    /// Ascends with every job; its lowest bit set means: end.
    epoch: std.atomic.Value(u32) align(64) = .init(0),
    arrived: std.atomic.Value(u32) align(64) = .init(0),
    generation: std.atomic.Value(u32) align(64) = .init(0),
    sleepers: std.atomic.Value(u32) align(64) = .init(0),

    /// Starts workers 1 to thread_count − 1.
    pub fn start(pool: *Pool) error{Threads}!void {
        assert(pool.thread_count >= 1 and pool.thread_count <= threads_max);
        for (1..pool.thread_count) |index| {
            pool.threads[index] = std.Thread.spawn(.{ .stack_size = 1 << 20 }, worker, .{ pool, @as(u32, @intCast(index)) }) catch {
                pool.stop();
                return error.Threads;
            };
            pool.spawned += 1;
        }
    }

    pub fn stop(pool: *Pool) void {
        _ = pool.epoch.fetchOr(1, .release);
        system.wakeAll(&pool.epoch);
        for (1..pool.spawned + 1) |index| pool.threads[index].join();
        pool.spawned = 0;
    }

    /// Runs `job` on every thread, this one as worker 0, and returns when all are done.
    pub fn run(pool: *Pool, job: *const fn (context: *anyopaque, thread: u32) void) void {
        if (pool.thread_count > 1) {
            pool.job = job;
            _ = pool.epoch.fetchAdd(2, .seq_cst);
            pool.wakeSleepers(&pool.epoch);
        }
        job(pool.context, 0);
        pool.barrier();
    }

    /// Returns once every thread has called it.
    pub fn barrier(pool: *Pool) void {
        if (pool.thread_count == 1) return;
        const generation = pool.generation.load(.acquire);
        if (pool.arrived.fetchAdd(1, .acq_rel) + 1 == pool.thread_count) {
            pool.arrived.store(0, .monotonic);
            _ = pool.generation.fetchAdd(1, .seq_cst);
            pool.wakeSleepers(&pool.generation);
        } else {
            pool.await(&pool.generation, generation);
        }
    }

    fn wakeSleepers(pool: *Pool, address: *const std.atomic.Value(u32)) void {
        // seq_cst here and in `await`: either the sleeper sees the new value or we see the sleeper.
        if (pool.sleepers.load(.seq_cst) != 0) system.wakeAll(address);
    }

    /// Returns when `address` no longer holds `old`.
    fn await(pool: *Pool, address: *const std.atomic.Value(u32), old: u32) void {
        const begin = clock.ticks();
        while (address.load(.acquire) == old) {
            for (0..16) |_| std.atomic.spinLoopHint();
            if (clock.ticks() -% begin > pool.spin_ticks) break;
        } else return;
        _ = pool.sleepers.fetchAdd(1, .seq_cst);
        while (address.load(.seq_cst) == old) system.wait(address, old, null);
        _ = pool.sleepers.fetchSub(1, .seq_cst);
    }

    fn worker(pool: *Pool, thread: u32) void {
        pool.thread_begin(pool.context, thread);
        var epoch: u32 = 0;
        while (true) {
            pool.await(&pool.epoch, epoch);
            epoch = pool.epoch.load(.acquire);
            if (epoch & 1 != 0) break;
            pool.job(pool.context, thread);
            pool.barrier();
        }
        pool.thread_end(pool.context, thread);
    }
};

test "every thread runs every job, and a barrier holds all of them" {
    const Context = struct {
        pool: Pool = .{ .thread_count = 4, .spin_ticks = 1000 },
        before: std.atomic.Value(u32) = .init(0),
        torn: std.atomic.Value(u32) = .init(0),

        fn of(context: *anyopaque) *@This() {
            return @ptrCast(@alignCast(context));
        }
        fn nothing(_: *anyopaque, _: u32) void {}
        fn job(context: *anyopaque, _: u32) void {
            const self = of(context);
            _ = self.before.fetchAdd(1, .monotonic);
            self.pool.barrier();
            if (self.before.load(.monotonic) % 4 != 0) _ = self.torn.fetchAdd(1, .monotonic);
            self.pool.barrier();
        }
    };
    var context: Context = .{};
    context.pool.context = &context;
    context.pool.thread_begin = Context.nothing;
    context.pool.thread_end = Context.nothing;
    try context.pool.start();
    for (0..200) |_| context.pool.run(Context.job);
    context.pool.stop();
    try std.testing.expectEqual(800, context.before.raw);
    try std.testing.expectEqual(0, context.torn.raw);
}
