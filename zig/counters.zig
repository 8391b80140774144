//! The CPU's own counters for threads of this process, as far as the system gives them (Linux, perf_event_open): a group of
//! events for each thread, counted in user mode and read together. It knows no event; which ones are counted TypeScript says.

const std = @import("std");
const builtin = @import("builtin");
const assert = std.debug.assert;
const allocations = @import("allocations.zig");
const linux = std.os.linux;

pub const threads_max = 64;
/// Of a group. More than a CPU counts at once would never be counted at all.
pub const events_max = 8;

/// An event as perf_event_open names it.
pub const Event = extern struct { type: u64, config: u64 };

/// The sum over the threads. Where the CPU's counters were shared with other groups, values are scaled up to all of the time.
pub const Reading = extern struct {
    values: [events_max]u64 = @splat(0),
    /// Time in which the threads ran, and of it the time in which they were counted, ns.
    enabled_ns: u64 = 0,
    running_ns: u64 = 0,
};

/// What reading a group gives: its size, two times, then a value each, in the order of opening.
const GroupValues = extern struct { count: u64, enabled_ns: u64, running_ns: u64, values: [events_max]u64 };

const no_system_call = 38; // ENOSYS

pub const Counters = struct {
    thread_count: u32,
    event_count: u32,
    /// Events that the system gave, by bits; the same for every thread.
    given: u32,
    files: [threads_max][events_max]i32,

    /// `failure`: the system's error number if no event is given.
    pub fn open(thread_ids: []const u32, events: []const Event, failure: *u32) error{ OutOfMemory, Refused }!*Counters {
        assert(thread_ids.len >= 1 and thread_ids.len <= threads_max and events.len >= 1 and events.len <= events_max);
        failure.* = no_system_call;
        if (builtin.os.tag != .linux) return error.Refused;
        const counters = try allocations.allocator.create(Counters);
        counters.* = .{
            .thread_count = @intCast(thread_ids.len),
            .event_count = @intCast(events.len),
            .given = 0,
            .files = @splat(@splat(-1)),
        };
        errdefer counters.close();
        for (thread_ids, 0..) |thread_id, thread| {
            var leader: i32 = -1;
            for (events, 0..) |event, index| {
                // What the first thread was refused, no other is asked for.
                if (thread > 0 and counters.given >> @intCast(index) & 1 == 0) continue;
                const file = openEvent(event, thread_id, leader, failure) orelse {
                    if (thread > 0) return error.Refused;
                    continue;
                };
                counters.files[thread][index] = file;
                counters.given |= @as(u32, 1) << @intCast(index);
                if (leader < 0) leader = file;
            }
            if (counters.given == 0) return error.Refused;
        }
        failure.* = 0;
        return counters;
    }

    fn openEvent(event: Event, thread_id: u32, leader: i32, failure: *u32) ?i32 {
        var attributes: linux.perf_event_attr = .{
            .type = @enumFromInt(@as(u32, @intCast(event.type))),
            .config = event.config,
            .read_format = 1 | 2 | 8, // PERF_FORMAT_TOTAL_TIME_ENABLED, _TOTAL_TIME_RUNNING, _GROUP
            .flags = .{ .exclude_kernel = true, .exclude_hv = true },
        };
        const close_on_exec = 8;
        const result = linux.perf_event_open(&attributes, @intCast(thread_id), -1, leader, close_on_exec);
        const problem = linux.errno(result);
        if (problem == .SUCCESS) return @intCast(result);
        // The first reason is told: it is that of the event that matters most.
        if (failure.* == no_system_call) failure.* = @intFromEnum(problem);
        return null;
    }

    pub fn read(counters: *const Counters) Reading {
        var sum: Reading = .{};
        if (builtin.os.tag != .linux) return sum; // There are none.
        for (counters.files[0..counters.thread_count]) |files| {
            const leader = for (files) |file| {
                if (file >= 0) break file;
            } else continue;
            var group: GroupValues = undefined;
            const got = linux.read(leader, std.mem.asBytes(&group), @sizeOf(GroupValues));
            if (linux.errno(got) == .SUCCESS and got > 0) add(&sum, &group, counters.given);
        }
        return sum;
    }

    /// Adds one thread's values, scaled, to their events' places.
    fn add(sum: *Reading, group: *const GroupValues, given: u32) void {
        sum.enabled_ns += group.enabled_ns;
        sum.running_ns += group.running_ns;
        if (group.running_ns == 0) return;
        const scale = @as(f64, @floatFromInt(group.enabled_ns)) / @as(f64, @floatFromInt(group.running_ns));
        var at: usize = 0;
        for (&sum.values, 0..) |*value, index| {
            if (given >> @intCast(index) & 1 == 0) continue;
            if (at == group.count) return;
            const counted: f64 = @floatFromInt(group.values[at]);
            value.* += if (group.enabled_ns == group.running_ns) group.values[at] else @intFromFloat(counted * scale);
            at += 1;
        }
    }

    pub fn close(counters: *Counters) void {
        if (builtin.os.tag == .linux) for (counters.files[0..counters.thread_count]) |files| {
            for (files) |file| if (file >= 0) {
                _ = linux.close(file);
            };
        };
        allocations.allocator.destroy(counters);
    }
};

test "a group's values go to the events that were given, scaled to the whole time" {
    var sum: Reading = .{};
    const whole: GroupValues = .{ .count = 2, .enabled_ns = 100, .running_ns = 100, .values = .{ 7, 9 } ++ .{0} ** 6 };
    Counters.add(&sum, &whole, 0b101);
    try std.testing.expectEqual(Reading{ .values = .{ 7, 0, 9 } ++ .{0} ** 5, .enabled_ns = 100, .running_ns = 100 }, sum);
    const quarter: GroupValues = .{ .count = 2, .enabled_ns = 400, .running_ns = 100, .values = .{ 10, 1000 } ++ .{0} ** 6 };
    Counters.add(&sum, &quarter, 0b101);
    try std.testing.expectEqual(Reading{ .values = .{ 47, 0, 4009 } ++ .{0} ** 5, .enabled_ns = 500, .running_ns = 200 }, sum);
    const never: GroupValues = .{ .count = 2, .enabled_ns = 50, .running_ns = 0, .values = @splat(1) };
    Counters.add(&sum, &never, 0b101);
    try std.testing.expectEqual(47, sum.values[0]);
    try std.testing.expectEqual(550, sum.enabled_ns);
}
