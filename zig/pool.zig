//! Worker threads. Worker 0 is the engine thread itself; the others join the jobs it publishes. A job's work is claimed in
//! units by atomic counters, and waiting between ops is for units to be done, not for threads to arrive: a thread that the
//! system has not scheduled holds an op up only in the middle of a unit. A job's end waits for the threads that entered it.
//!
//! How many threads there are may change between jobs.
//!
//! Threads spin for a bounded time, because the next op is usually microseconds away, then offer their CPU to whoever wants
//! it, and at last sleep on a futex. Sleeping comes late on purpose: on a virtual machine waking takes longer than most ops.

const std = @import("std");
const assert = std.debug.assert;
const clock = @import("clock.zig");
const system = @import("system.zig");

pub const threads_max = 64;
/// Waiting ends in sleep after this many times the spinning time; sooner where CPU time is limited, which waiting uses up too, but not at
/// once: threads that wake for every op come too late for most of them.
const yield_spins = 40;
const yield_spins_limited = 10;

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
    yield_spins: std.atomic.Value(u32) = .init(yield_spins),
    threads: [threads_max]std.Thread = undefined,
    spawned: u32 = 0,
    context: *anyopaque = undefined,
    job: Job = undefined,
    thread_begin: Job = undefined,
    thread_end: Job = undefined,
    /// Workers from this number on end.
    kept: std.atomic.Value(u32) = .init(threads_max),
    /// Whether every thread is to run the job, and how many beside worker 0 have.
    for_each: bool = false,
    visits: std.atomic.Value(u32) = .init(0),
    /// Odd while a job is open to threads, even between jobs.
    epoch: std.atomic.Value(u32) align(64) = .init(0),
    /// Threads beside worker 0 that are inside the open job.
    active: std.atomic.Value(u32) align(64) = .init(0),
    sleepers: std.atomic.Value(u32) align(64) = .init(0),
    /// Workers whose `thread_begin` is over and whose `thread_end` is not.
    begun: std.atomic.Value(u32) = .init(0),

    /// Starts workers 1 to thread_count − 1.
    pub fn start(pool: *Pool) error{Threads}!void {
        try pool.resize(pool.thread_count);
    }

    /// Starts workers, or ends the last ones: `thread_count` take part in the next job. Between jobs, on worker 0. When a thread cannot be
    /// started, all is as it was.
    pub fn resize(pool: *Pool, thread_count: u32) error{Threads}!void {
        assert(thread_count >= 1 and thread_count <= threads_max);
        const before = pool.spawned + 1;
        errdefer pool.end(before);
        while (pool.spawned + 1 < thread_count) : (pool.spawned += 1) {
            const index = pool.spawned + 1;
            pool.threads[index] = std.Thread.spawn(.{ .stack_size = 1 << 20 }, worker, .{ pool, index }) catch return error.Threads;
        }
        pool.end(thread_count);
        pool.thread_count = thread_count;
    }

    /// Ends the workers from `thread_count` on, if there are some.
    fn end(pool: *Pool, thread_count: u32) void {
        if (pool.spawned < thread_count) return;
        pool.kept.store(thread_count, .release);
        _ = pool.epoch.fetchAdd(2, .seq_cst);
        system.wakeAll(&pool.epoch);
        for (thread_count..pool.spawned + 1) |index| pool.threads[index].join();
        pool.spawned = thread_count - 1;
        pool.kept.store(threads_max, .release);
    }

    /// Whether CPU time is limited. On any thread, at any time.
    pub fn limit(pool: *Pool, limited: bool) void {
        pool.yield_spins.store(if (limited) yield_spins_limited else yield_spins, .monotonic);
    }

    /// Returns when every worker has begun. Jobs need not wait for that: who comes late finds the work taken.
    pub fn awaitBegun(pool: *Pool) void {
        pool.await(&pool.begun, pool.spawned, nothing);
    }

    pub fn stop(pool: *Pool) void {
        pool.end(1);
    }

    /// Runs `job` on this thread as worker 0 and on every other that comes in time, and returns when none is inside it.
    /// The job on worker 0 must leave no unit unclaimed.
    pub fn run(pool: *Pool, job: Job) void {
        if (pool.thread_count == 1) return job(pool.context, 0);
        pool.open(job);
        job(pool.context, 0);
        pool.close();
    }

    /// Runs `job` once on every thread, and returns when all have.
    pub fn runForEach(pool: *Pool, job: Job) void {
        if (pool.thread_count == 1) return job(pool.context, 0);
        pool.visits.store(0, .monotonic);
        pool.for_each = true;
        pool.open(job);
        job(pool.context, 0);
        // The job stays open until the last has come.
        pool.await(&pool.visits, pool.spawned, nothing);
        pool.close();
        pool.for_each = false;
    }

    fn open(pool: *Pool, job: Job) void {
        pool.job = job;
        _ = pool.epoch.fetchAdd(1, .seq_cst);
        pool.wakeSleepers(&pool.epoch);
    }

    fn close(pool: *Pool) void {
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
        if (waited > pool.spin_ticks * pool.yield_spins.load(.monotonic)) return false;
        if (waited > pool.spin_ticks) {
            std.Thread.yield() catch {};
        } else std.atomic.spinLoopHint();
        return true;
    }

    /// Waits for a job to be opened after `last`, and gives its epoch; null: `thread` is to end.
    fn awaitJob(pool: *Pool, thread: u32, last: u32) ?u32 {
        const begin = clock.ticks();
        while (pool.patient(begin)) {
            const epoch = pool.epoch.load(.acquire);
            if (epoch == last) continue;
            if (thread >= pool.kept.load(.acquire)) return null;
            if (epoch & 1 != 0) return epoch;
        }
        _ = pool.sleepers.fetchAdd(1, .seq_cst);
        defer _ = pool.sleepers.fetchSub(1, .seq_cst);
        while (true) {
            const epoch = pool.epoch.load(.seq_cst);
            if (epoch != last) {
                if (thread >= pool.kept.load(.acquire)) return null;
                if (epoch & 1 != 0) return epoch;
            }
            system.wait(&pool.epoch, epoch, null);
        }
    }

    fn worker(pool: *Pool, thread: u32) void {
        pool.thread_begin(pool.context, thread);
        _ = pool.begun.fetchAdd(1, .seq_cst);
        pool.wakeSleepers(&pool.begun);
        var epoch: u32 = 0;
        while (pool.awaitJob(thread, epoch)) |opened| {
            epoch = opened;
            _ = pool.active.fetchAdd(1, .seq_cst);
            if (pool.epoch.load(.seq_cst) == epoch) {
                pool.job(pool.context, thread);
                if (pool.for_each) {
                    _ = pool.visits.fetchAdd(1, .seq_cst);
                    pool.wakeSleepers(&pool.visits);
                }
            }
            _ = pool.active.fetchSub(1, .seq_cst);
            pool.wakeSleepers(&pool.active);
        }
        _ = pool.begun.fetchSub(1, .seq_cst);
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

test "workers start and end between jobs, and a job for each runs once on every one" {
    const Context = struct {
        pool: Pool = .{ .thread_count = 1, .spin_ticks = 1000 },
        work: Work = .{},
        units: std.atomic.Value(u32) = .init(0),
        began: [8]u32 = @splat(0),
        ended: [8]u32 = @splat(0),
        visits: [8]u32 = @splat(0),

        const Self = @This();
        fn of(context: *anyopaque) *Self {
            return @ptrCast(@alignCast(context));
        }
        fn begin(context: *anyopaque, thread: u32) void {
            of(context).began[thread] += 1;
        }
        fn end(context: *anyopaque, thread: u32) void {
            of(context).ended[thread] += 1;
        }
        fn visit(context: *anyopaque, thread: u32) void {
            of(context).visits[thread] += 1;
        }
        fn job(context: *anyopaque, thread: u32) void {
            const self = of(context);
            while (self.work.claim(thread, self.pool.thread_count, 1, 20)) |_| _ = self.units.fetchAdd(1, .monotonic);
        }
    };
    var context: Context = .{};
    context.pool.context = &context;
    context.pool.thread_begin = Context.begin;
    context.pool.thread_end = Context.end;
    var began: [8]u32 = @splat(0);
    var ended: [8]u32 = @splat(0);
    var visits: [8]u32 = @splat(0);
    var before: u32 = 1;
    for ([_]u32{ 1, 4, 2, 2, 8, 1, 3, 8, 5 }, 1..) |thread_count, round| {
        try context.pool.resize(thread_count);
        context.pool.awaitBegun();
        for (before..@max(before, thread_count)) |thread| began[thread] += 1;
        for (thread_count..@max(before, thread_count)) |thread| ended[thread] += 1;
        for (visits[0..thread_count]) |*count| count.* += 1;
        before = thread_count;
        context.pool.runForEach(Context.visit);
        context.work.reset(thread_count);
        context.pool.run(Context.job);
        try std.testing.expectEqual(@as(u32, @intCast(20 * round)), context.units.raw);
        try std.testing.expectEqual(began, context.began);
        try std.testing.expectEqual(ended, context.ended);
        try std.testing.expectEqual(visits, context.visits);
    }
    context.pool.stop();
    try std.testing.expectEqual(context.began, context.ended);
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
