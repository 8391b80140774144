//! Worker threads. Worker 0 is the engine thread itself; the others join the jobs it publishes. A job's work is claimed in
//! units by atomic counters, and waiting between ops is for units to be done, not for threads to arrive: a thread that the
//! system has not scheduled holds an op up only in the middle of a unit. A job's end waits for the threads that entered it.
//!
//! Threads spin for a bounded time, because the next op is usually microseconds away, then offer their CPU to whoever wants
//! it, and at last sleep on a futex. Sleeping comes late on purpose: on a virtual machine waking takes longer than most ops.

const std = @import("std");
const assert = std.debug.assert;
const clock = @import("clock.zig");
const system = @import("system.zig");

pub const threads_max = 64;
/// Waiting ends in sleep after this many times the spinning time.
const yield_spins = 40;

/// A counter on a cache line of its own.
pub const Counter = struct {
    value: std.atomic.Value(u32) align(64) = .init(0),
};

/// Units of one piece of work: handed out by `claimed`, counted by `done`. One thread resets it between jobs.
///
/// The units are cut into one segment a thread (threads share segments beyond eight). A thread goes through its own from
/// end to end, so that it reads memory in one stream, and then takes what the others have left: of 1 MB of weights, two
/// threads that claim in turns read a third slower.
pub const Work = struct {
    claimed: [segments_max]Counter = @splat(.{}),
    done: Counter = .{},

    const segments_max = 8;

    pub fn reset(work: *Work, thread_count: u32) void {
        for (work.claimed[0..@min(thread_count, segments_max)]) |*counter| counter.value.store(0, .monotonic);
        work.done.value.store(0, .monotonic);
    }

    /// Whether all units are done; what they wrote is visible then.
    pub fn isDone(work: *const Work, unit_count: u32) bool {
        return work.done.value.load(.seq_cst) == unit_count;
    }

    pub const Range = struct { begin: u32, end: u32 };

    /// The units that `thread` of `thread_count` begins with.
    pub fn ownSegment(thread: u32, thread_count: u32, unit_count: u32) Range {
        const segments = @min(thread_count, segments_max);
        return segmentOf(thread % segments, segments, unit_count);
    }

    fn segmentOf(segment: u32, segments: u32, unit_count: u32) Range {
        return .{
            .begin = @intCast(@as(u64, unit_count) * segment / segments),
            .end = @intCast(@as(u64, unit_count) * (segment + 1) / segments),
        };
    }

    /// The next up to `chunk` units for `thread` of `thread_count`; null when all are taken.
    pub fn claim(work: *Work, thread: u32, thread_count: u32, chunk: u32, unit_count: u32) ?Range {
        const segments = @min(thread_count, segments_max);
        for (0..segments) |step| {
            const index: u32 = @intCast((thread + step) % segments);
            const segment = segmentOf(index, segments, unit_count);
            const counter = &work.claimed[index].value;
            // A look first: threads that come late would otherwise push the counter on without end.
            if (counter.load(.monotonic) >= segment.end - segment.begin) continue;
            const begin = segment.begin + counter.fetchAdd(chunk, .monotonic);
            if (begin < segment.end) return .{ .begin = begin, .end = @min(begin + chunk, segment.end) };
        }
        return null;
    }
};

pub const Job = *const fn (context: *anyopaque, thread: u32) void;

pub const Pool = struct {
    thread_count: u32,
    spin_ticks: u64 = 0,
    threads: [threads_max]std.Thread = undefined,
    spawned: u32 = 0,
    context: *anyopaque = undefined,
    job: Job = undefined,
    thread_begin: Job = undefined,
    thread_end: Job = undefined,
    ending: std.atomic.Value(u32) = .init(0),
    /// Odd while a job is open to threads, even between jobs.
    epoch: std.atomic.Value(u32) align(64) = .init(0),
    /// Threads beside worker 0 that are inside the open job.
    active: std.atomic.Value(u32) align(64) = .init(0),
    sleepers: std.atomic.Value(u32) align(64) = .init(0),
    /// Workers whose `thread_begin` is over.
    begun: std.atomic.Value(u32) = .init(0),

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

    /// Returns when every worker has begun. Jobs need not wait for that: who comes late finds the work taken.
    pub fn awaitBegun(pool: *Pool) void {
        pool.await(&pool.begun, pool.spawned, nothing);
    }

    pub fn stop(pool: *Pool) void {
        pool.ending.store(1, .release);
        _ = pool.epoch.fetchAdd(2, .seq_cst);
        system.wakeAll(&pool.epoch);
        for (1..pool.spawned + 1) |index| pool.threads[index].join();
        pool.spawned = 0;
    }

    /// Runs `job` on this thread as worker 0 and on every other that comes in time, and returns when none is inside it.
    /// The job on worker 0 must leave no unit unclaimed.
    pub fn run(pool: *Pool, job: Job) void {
        if (pool.thread_count == 1) return job(pool.context, 0);
        pool.job = job;
        _ = pool.epoch.fetchAdd(1, .seq_cst);
        pool.wakeSleepers(&pool.epoch);
        job(pool.context, 0);
        // Closed before the look at `active`, entered before the look at `epoch`: no thread slips in unseen.
        _ = pool.epoch.fetchAdd(1, .seq_cst);
        pool.await(&pool.active, 0, nothing);
    }

    /// Counts `count` units of `work` as done.
    pub fn finish(pool: *Pool, work: *Work, count: u32) void {
        _ = work.done.value.fetchAdd(count, .seq_cst);
        pool.wakeSleepers(&work.done.value);
    }

    /// Returns when all units of `work` are done; their results are visible then. Meanwhile `pastime.step()` is called again and
    /// again until it says that nothing is left to do: it must be short.
    pub fn awaitDone(pool: *Pool, work: *const Work, unit_count: u32, pastime: anytype) void {
        if (!work.isDone(unit_count)) pool.await(&work.done.value, unit_count, pastime);
    }

    /// No pastime.
    pub const nothing: struct {
        fn step(_: @This()) bool {
            return false;
        }
    } = .{};

    fn wakeSleepers(pool: *Pool, address: *const std.atomic.Value(u32)) void {
        // seq_cst here and in `await`: either the sleeper sees the new value or we see the sleeper.
        if (pool.sleepers.load(.seq_cst) != 0) system.wakeAll(address);
    }

    /// Returns when `address` holds `wanted`. All loads are seq_cst: `run` closes a job and looks at `active` in that order.
    fn await(pool: *Pool, address: *const std.atomic.Value(u32), wanted: u32, pastime: anytype) void {
        if (address.load(.seq_cst) == wanted) return;
        while (pastime.step()) if (address.load(.seq_cst) == wanted) return;
        const begin = clock.ticks();
        while (pool.patient(begin)) if (address.load(.seq_cst) == wanted) return;
        _ = pool.sleepers.fetchAdd(1, .seq_cst);
        while (true) {
            const value = address.load(.seq_cst);
            if (value == wanted) break;
            system.wait(address, value, null);
        }
        _ = pool.sleepers.fetchSub(1, .seq_cst);
    }

    /// Passes a moment; false once it is time to sleep.
    inline fn patient(pool: *const Pool, begin: u64) bool {
        const waited = clock.ticks() -% begin;
        if (waited > pool.spin_ticks * yield_spins) return false;
        if (waited > pool.spin_ticks) {
            std.Thread.yield() catch {};
        } else std.atomic.spinLoopHint();
        return true;
    }

    /// Waits for a job to be opened after `last`, and gives its epoch.
    fn awaitJob(pool: *Pool, last: u32) u32 {
        const begin = clock.ticks();
        while (pool.patient(begin)) {
            const epoch = pool.epoch.load(.acquire);
            if (epoch != last and (epoch & 1 != 0 or pool.ending.load(.acquire) != 0)) return epoch;
        }
        _ = pool.sleepers.fetchAdd(1, .seq_cst);
        defer _ = pool.sleepers.fetchSub(1, .seq_cst);
        while (true) {
            const epoch = pool.epoch.load(.seq_cst);
            if (epoch != last and (epoch & 1 != 0 or pool.ending.load(.acquire) != 0)) return epoch;
            system.wait(&pool.epoch, epoch, null);
        }
    }

    fn worker(pool: *Pool, thread: u32) void {
        pool.thread_begin(pool.context, thread);
        _ = pool.begun.fetchAdd(1, .seq_cst);
        pool.wakeSleepers(&pool.begun);
        var epoch: u32 = 0;
        while (true) {
            epoch = pool.awaitJob(epoch);
            if (pool.ending.load(.acquire) != 0) break;
            _ = pool.active.fetchAdd(1, .seq_cst);
            if (pool.epoch.load(.seq_cst) == epoch) pool.job(pool.context, thread);
            _ = pool.active.fetchSub(1, .seq_cst);
            pool.wakeSleepers(&pool.active);
        }
        pool.thread_end(pool.context, thread);
    }
};

test "every unit runs once, in order of its work, whoever runs it" {
    const Context = struct {
        pool: Pool = .{ .thread_count = 4, .spin_ticks = 1000 },
        first: Work = .{},
        second: Work = .{},
        runs: [2][100]std.atomic.Value(u32) = @splat(@splat(.init(0))),
        early: std.atomic.Value(u32) = .init(0),

        const Self = @This();
        fn of(context: *anyopaque) *Self {
            return @ptrCast(@alignCast(context));
        }
        fn nothing(_: *anyopaque, _: u32) void {}
        fn job(context: *anyopaque, thread: u32) void {
            const self = of(context);
            while (self.first.claim(thread, 4, 3, 100)) |range| {
                for (range.begin..range.end) |unit| _ = self.runs[0][unit].fetchAdd(1, .monotonic);
                self.pool.finish(&self.first, range.end - range.begin);
            }
            self.pool.awaitDone(&self.first, 100, Pool.nothing);
            for (&self.runs[0]) |*run| if (run.load(.monotonic) != self.runs[0][0].load(.monotonic)) {
                _ = self.early.fetchAdd(1, .monotonic);
            };
            while (self.second.claim(thread, 4, 1, 100)) |range| _ = self.runs[1][range.begin].fetchAdd(1, .monotonic);
        }
    };
    var context: Context = .{};
    context.pool.context = &context;
    context.pool.thread_begin = Context.nothing;
    context.pool.thread_end = Context.nothing;
    try context.pool.start();
    for (0..200) |_| {
        context.first.reset(4);
        context.second.reset(4);
        context.pool.run(Context.job);
    }
    context.pool.stop();
    for (&context.runs) |*work| for (work) |*run| try std.testing.expectEqual(200, run.raw);
    try std.testing.expectEqual(0, context.early.raw);
}

test "segments are gone through from end to end, and then the others' rest is taken" {
    var work: Work = .{};
    for ([_]u32{ 1, 2, 3, 12 }) |thread_count| {
        for ([_]u32{ 0, 1, 5, 100 }) |unit_count| {
            work.reset(thread_count);
            var seen: [100]bool = @splat(false);
            var thread: u32 = thread_count - 1;
            while (work.claim(thread, thread_count, 7, unit_count)) |range| {
                try std.testing.expect(range.begin < range.end and range.end <= unit_count);
                for (seen[range.begin..range.end]) |*unit| {
                    try std.testing.expect(!unit.*);
                    unit.* = true;
                }
                // Another comes in for a while.
                if (range.begin % 3 == 1) thread = (thread + 1) % thread_count;
            }
            for (seen[0..unit_count]) |unit| try std.testing.expect(unit);
        }
    }
    work.reset(2);
    try std.testing.expectEqual(Work.Range{ .begin = 50, .end = 57 }, work.claim(1, 2, 7, 100).?);
    try std.testing.expectEqual(Work.Range{ .begin = 57, .end = 64 }, work.claim(1, 2, 7, 100).?);
    try std.testing.expectEqual(Work.Range{ .begin = 0, .end = 7 }, work.claim(0, 2, 7, 100).?);
}
