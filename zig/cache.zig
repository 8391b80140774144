//! A machine's data caches, simulated: set-associative levels with least-recently-used replacement, write-allocate and
//! write-back, fed one access at a time. It counts, and says nothing about time.
//!
//! What it does as most machines do: a line that no level has is brought into every one of them; a level keeps a line that a
//! level behind it has evicted (neither inclusive nor exclusive); an evicted line that was written goes to the next level that
//! has it, else to memory, and displaces nothing on its way; a store takes the line from the caches of the other threads.
//!
//! Where machines differ and the simulator is plain: the addresses are the program's own, where a machine's second and last
//! levels see physical ones; sets are indexed by the line's number modulo the number of sets, which for a power of two are the
//! low bits and for others, such as an effective size that was measured, spreads lines that lie together just as evenly; real
//! last levels hash. Prefetched lines are there at once.
//!
//! Measured on a Zen 5 with levels of 12, 16 and 16 ways: 4 to 5 ns for a hit in the first level, 12 ns for one in the second,
//! 23 ns for a miss through all three; 6 ns more with the prefetcher, and 18 ns more for a store beside one other thread.

const std = @import("std");

pub const levels_max = 3;
pub const threads_max = 64;
/// Of one cache; the simulator takes eight bytes a line.
const bytes_max = 1 << 30;
const ways_max = 1 << 16;

pub const LevelGeometry = extern struct {
    /// Of one cache. A multiple of `ways` lines; the number of sets need not be a power of two.
    bytes: u64,
    ways: u32,
    /// A power of two, 16 to 4,096, and no less than the line of the level before.
    line_bytes: u32,
    /// Threads that share one: 0 to n - 1 the first, n to 2n - 1 the second.
    shared_by: u32,
};

pub const Geometry = extern struct {
    /// The first `level_count` count, nearest first.
    levels: [levels_max]LevelGeometry,
    level_count: u32,
    thread_count: u32,
    /// 1: each thread has a hardware prefetcher, where there is a second level for it to fill.
    prefetcher: u32,
};

pub const Kind = enum(u32) {
    load,
    store,
    /// A prefetch that the program asks for, into all levels.
    prefetch,
    /// The same into all but the first.
    prefetch_far,
};

/// Of one level, all threads together, a line each. Demand is loads and stores.
pub const LevelCounters = extern struct {
    /// Demands that reached it: all lines in the first level, and behind it what the level before did not have.
    accesses: u64 = 0,
    misses: u64 = 0,
    /// Lines that a prefetch, the program's or the hardware's, brought into it.
    prefetched: u64 = 0,

    pub fn hits(counters: LevelCounters) u64 {
        return counters.accesses - counters.misses;
    }
};

pub const Counters = extern struct {
    levels: [levels_max]LevelCounters = @splat(.{}),
    /// Lines of the last level that came from memory, for demands and prefetches alike.
    memory_lines: u64 = 0,
    /// Lines that were written back to memory, of the level that evicted them.
    write_backs: u64 = 0,

    /// What was counted since `before`.
    pub fn since(counters: Counters, before: Counters) Counters {
        var difference: Counters = undefined;
        for (&difference.levels, counters.levels, before.levels) |*level, now, then| level.* = .{
            .accesses = now.accesses - then.accesses,
            .misses = now.misses - then.misses,
            .prefetched = now.prefetched - then.prefetched,
        };
        difference.memory_lines = counters.memory_lines - before.memory_lines;
        difference.write_backs = counters.write_backs - before.write_backs;
        return difference;
    }
};

/// One cache of one level.
const Cache = struct {
    /// Sets one after another; in a set, from the line used last to the one that goes next. A line's number, and in the lowest
    /// bit whether it was written.
    entries: []u64,
    ways: u32,
    set_count: u64,
    /// All ones below a power of two.
    mask: u64,
    shift: u6,

    /// The number of no line.
    const empty = std.math.maxInt(u64) - 1;

    fn set(cache: *const Cache, line: u64) [*]u64 {
        const index = if (cache.set_count & cache.mask == 0) line & cache.mask else line % cache.set_count;
        return cache.entries.ptr + @as(usize, @intCast(index * cache.ways));
    }

    const Touched = struct { hit: bool, victim: u64 };

    /// Puts a line at the head of its set. Where it was not there, `victim` is the entry that had to make room.
    inline fn touch(cache: *const Cache, line: u64, written: u1) Touched {
        const entries = cache.set(line);
        // One pass finds it and moves what stands before it: each entry goes one place on, until the place it leaves.
        var carried = entries[0];
        if (carried >> 1 == line) {
            entries[0] = carried | written;
            return .{ .hit = true, .victim = empty };
        }
        for (entries[1..cache.ways]) |*entry| {
            const here = entry.*;
            entry.* = carried;
            if (here >> 1 == line) {
                entries[0] = here | written;
                return .{ .hit = true, .victim = empty };
            }
            carried = here;
        }
        entries[0] = line << 1 | written;
        return .{ .hit = false, .victim = carried };
    }

    fn find(cache: *const Cache, line: u64) ?*u64 {
        for (cache.set(line)[0..cache.ways]) |*entry| if (entry.* >> 1 == line) return entry;
        return null;
    }

    /// Takes a line out; its place is the first to be filled.
    fn drop(cache: *const Cache, line: u64) void {
        const entries = cache.set(line)[0..cache.ways];
        const at = for (entries, 0..) |entry, index| {
            if (entry >> 1 == line) break index;
        } else return;
        std.mem.copyForwards(u64, entries[at..], entries[at + 1 ..]);
        entries[cache.ways - 1] = empty;
    }
};

/// A thread's hardware prefetcher, after the streamers of common processors: it watches the lines that the second level is
/// asked for, follows several streams of them at once, upwards and downwards, each within a page, and brings the lines that a
/// stream comes to next into the second level. It does not know where a stream goes on behind its page.
const Streamer = struct {
    /// By age of their last use: the oldest is given up for a new one.
    pages: [streams]u64 = @splat(no_page),
    uses: [streams]u64 = @splat(0),
    states: [streams]Stream = undefined,
    time: u64 = 0,
    /// The last one used, which is looked at first.
    recent: usize = 0,

    const streams = 16;
    const page_bytes = 4096;
    const no_page = std.math.maxInt(u64);
    /// Lines that it is ahead of a stream at most; lines further apart than that make no stream.
    const ahead_max = 8;
    /// Lines that it asks for at one access, so that it gets ahead little by little.
    const asked_max = 2;

    /// Lines are numbered within the page.
    const Stream = struct {
        last: i32,
        /// The furthest line that was asked for.
        ahead: i32,
        /// 1 or -1; 0: not known yet.
        direction: i32,
    };

    const Asked = struct { first: u64 = 0, direction: i32 = 0, count: u32 = 0 };

    fn observe(streamer: *Streamer, line: u64, shift: u6) Asked {
        const page_shift = std.math.log2_int(u64, page_bytes) - shift;
        const page = line >> page_shift;
        const at: i32 = @intCast(line & ((@as(u64, 1) << page_shift) - 1));
        streamer.time += 1;
        const again = streamer.pages[streamer.recent] == page;
        const index = if (again) streamer.recent else std.mem.indexOfScalar(u64, &streamer.pages, page) orelse {
            const oldest = std.mem.indexOfMin(u64, &streamer.uses);
            streamer.pages[oldest] = page;
            streamer.uses[oldest] = streamer.time;
            streamer.states[oldest] = .{ .last = at, .ahead = at, .direction = 0 };
            return .{};
        };
        streamer.recent = index;
        streamer.uses[index] = streamer.time;
        const stream = &streamer.states[index];
        const distance = at - stream.last;
        if (distance == 0) return .{};
        stream.last = at;
        const direction = std.math.sign(distance);
        if (@abs(distance) > ahead_max or stream.direction == -direction) {
            stream.direction = 0;
            return .{};
        }
        if (stream.direction == 0 or (stream.ahead - at) * direction < 0) stream.ahead = at;
        stream.direction = direction;
        const page_lines = @as(i32, 1) << @intCast(page_shift);
        const room = if (direction > 0) page_lines - 1 - stream.ahead else stream.ahead;
        const count = @min(asked_max, room, ahead_max - (stream.ahead - at) * direction);
        const first = stream.ahead + direction;
        stream.ahead += count * direction;
        return .{ .first = @bitCast((@as(i64, @bitCast(page << page_shift))) + first), .direction = direction, .count = @intCast(count) };
    }
};

/// The caches that a number of threads see. They are threads of the program that is simulated: only one thread may call.
pub const Hierarchy = struct {
    geometry: Geometry,
    counters: Counters = .{},
    /// By level; those that there are.
    caches: [levels_max][threads_max]Cache = undefined,
    /// By level and thread: the one that it sees.
    seen: [levels_max][threads_max]u8 = undefined,
    streamers: [threads_max]Streamer = @splat(.{}),
    entries: []u64,

    const allocator = std.heap.c_allocator;

    pub fn create(geometry: Geometry) error{ OutOfMemory, Geometry }!*Hierarchy {
        if (!valid(geometry)) return error.Geometry;
        var entry_count: u64 = 0;
        for (geometry.levels[0..geometry.level_count]) |level| {
            entry_count += cacheCount(geometry, level) * (level.bytes / level.line_bytes);
        }
        const hierarchy = try allocator.create(Hierarchy);
        errdefer allocator.destroy(hierarchy);
        hierarchy.* = .{ .geometry = geometry, .entries = try allocator.alloc(u64, entry_count) };
        var rest = hierarchy.entries;
        for (geometry.levels[0..geometry.level_count], 0..) |level, l| {
            const line_count: usize = @intCast(level.bytes / level.line_bytes);
            const set_count = line_count / level.ways;
            for (hierarchy.caches[l][0..cacheCount(geometry, level)]) |*cache| {
                cache.* = .{
                    .entries = rest[0..line_count],
                    .ways = level.ways,
                    .set_count = set_count,
                    .mask = set_count - 1,
                    .shift = std.math.log2_int(u32, level.line_bytes),
                };
                rest = rest[line_count..];
            }
            for (0..geometry.thread_count) |thread| hierarchy.seen[l][thread] = @intCast(thread / level.shared_by);
        }
        hierarchy.reset();
        return hierarchy;
    }

    pub fn destroy(hierarchy: *Hierarchy) void {
        allocator.free(hierarchy.entries);
        allocator.destroy(hierarchy);
    }

    fn valid(geometry: Geometry) bool {
        if (geometry.level_count < 1 or geometry.level_count > levels_max) return false;
        if (geometry.thread_count < 1 or geometry.thread_count > threads_max or geometry.prefetcher > 1) return false;
        var line_bytes: u32 = 16;
        for (geometry.levels[0..geometry.level_count]) |level| {
            if (level.bytes > bytes_max or level.ways < 1 or level.ways > ways_max) return false;
            if (!std.math.isPowerOfTwo(level.line_bytes) or level.line_bytes < line_bytes or level.line_bytes > Streamer.page_bytes) return false;
            if (level.bytes == 0 or level.bytes % (@as(u64, level.ways) * level.line_bytes) != 0) return false;
            if (level.shared_by == 0) return false;
            line_bytes = level.line_bytes;
        }
        return true;
    }

    fn cacheCount(geometry: Geometry, level: LevelGeometry) u32 {
        return std.math.divCeil(u32, geometry.thread_count, level.shared_by) catch unreachable;
    }

    /// Empties the caches, writes nothing back, and forgets what was counted and what the prefetchers saw.
    pub fn reset(hierarchy: *Hierarchy) void {
        @memset(hierarchy.entries, Cache.empty);
        hierarchy.counters = .{};
        hierarchy.streamers = @splat(.{});
    }

    /// What was counted since the last reset: `snapshot().since(before)` is what an op did.
    pub fn snapshot(hierarchy: *const Hierarchy) Counters {
        return hierarchy.counters;
    }

    /// An access of a thread to `bytes` bytes; it is one to each line of the first level that they touch.
    pub inline fn access(hierarchy: *Hierarchy, thread: u32, address: u64, bytes: u32, kind: Kind) void {
        if (bytes == 0) return;
        const shift = hierarchy.caches[0][0].shift;
        const last = (address +% (bytes - 1)) >> shift;
        var line = address >> shift;
        while (true) : (line += 1) {
            switch (kind) {
                .load => hierarchy.request(thread, 0, line << shift, 0, .demand),
                .store => {
                    if (hierarchy.geometry.thread_count > 1) hierarchy.takeFromOthers(thread, line << shift);
                    hierarchy.request(thread, 0, line << shift, 1, .demand);
                },
                .prefetch => hierarchy.request(thread, 0, line << shift, 0, .prefetch),
                .prefetch_far => hierarchy.request(thread, @min(1, hierarchy.geometry.level_count - 1), line << shift, 0, .prefetch),
            }
            if (line >= last) return;
        }
    }

    /// A line that is in use all the time, nobody knows how often: it counts as an access where it misses.
    pub inline fn keep(hierarchy: *Hierarchy, thread: u32, address: u64) void {
        const before = hierarchy.counters.levels[0].misses;
        hierarchy.access(thread, address, 1, .load);
        hierarchy.counters.levels[0].accesses -= @intFromBool(hierarchy.counters.levels[0].misses == before);
    }

    const Cause = enum { demand, prefetch, streamer };

    /// Asks level `from` for a line, and those behind it until one has it; it is then in all of them.
    inline fn request(hierarchy: *Hierarchy, thread: u32, from: u32, address: u64, written: u1, comptime cause: Cause) void {
        const cache = hierarchy.cacheOf(from, thread);
        const found = cache.touch(address >> cache.shift, written);
        hierarchy.count(from, found.hit, cause);
        if (!found.hit) hierarchy.fetch(thread, from, address, found.victim, cause);
        if (from == 1 and cause != .streamer) hierarchy.stream(thread, address);
    }

    /// Level `missed` did not have a line, and has put it in the place of `first_victim`.
    fn fetch(hierarchy: *Hierarchy, thread: u32, missed: u32, address: u64, first_victim: u64, comptime cause: Cause) void {
        var victim = first_victim;
        var level = missed;
        while (true) {
            if (victim & 1 != 0) hierarchy.writeBack(thread, level, victim >> 1);
            level += 1;
            if (level == hierarchy.geometry.level_count) {
                hierarchy.counters.memory_lines += 1;
                break;
            }
            const cache = hierarchy.cacheOf(level, thread);
            const found = cache.touch(address >> cache.shift, 0);
            hierarchy.count(level, found.hit, cause);
            if (found.hit) break;
            victim = found.victim;
        }
        if (missed == 0) hierarchy.stream(thread, address);
    }

    inline fn count(hierarchy: *Hierarchy, level: u32, hit: bool, comptime cause: Cause) void {
        const counters = &hierarchy.counters.levels[level];
        if (cause == .demand) {
            counters.accesses += 1;
            counters.misses += @intFromBool(!hit);
        } else counters.prefetched += @intFromBool(!hit);
    }

    inline fn cacheOf(hierarchy: *Hierarchy, level: u32, thread: u32) *Cache {
        return &hierarchy.caches[level][hierarchy.seen[level][thread]];
    }

    fn writeBack(hierarchy: *Hierarchy, thread: u32, level: u32, line: u64) void {
        const address = line << hierarchy.caches[level][0].shift;
        for (level + 1..hierarchy.geometry.level_count) |next| {
            const cache = hierarchy.cacheOf(@intCast(next), thread);
            if (cache.find(address >> cache.shift)) |entry| {
                entry.* |= 1;
                return;
            }
        }
        hierarchy.counters.write_backs += 1;
    }

    /// A line that is written must be in no other thread's caches. What they wrote to it is on its way with this store.
    fn takeFromOthers(hierarchy: *Hierarchy, thread: u32, address: u64) void {
        for (hierarchy.geometry.levels[0..hierarchy.geometry.level_count], 0..) |level, l| {
            const own = hierarchy.seen[l][thread];
            for (hierarchy.caches[l][0..cacheCount(hierarchy.geometry, level)], 0..) |*cache, index| {
                if (index != own) cache.drop(address >> cache.shift);
            }
        }
    }

    /// The second level was asked for a line, by the program.
    fn stream(hierarchy: *Hierarchy, thread: u32, address: u64) void {
        if (hierarchy.geometry.prefetcher == 0 or hierarchy.geometry.level_count < 2) return;
        const shift = hierarchy.caches[1][0].shift;
        const asked = hierarchy.streamers[thread].observe(address >> shift, shift);
        var line = asked.first;
        for (0..asked.count) |_| {
            hierarchy.request(thread, 1, line << shift, 0, .streamer);
            line = if (asked.direction > 0) line + 1 else line - 1;
        }
    }
};

// ---------------------------------------------------------------------------------------------------------------------
// Tests.

const testing = std.testing;

/// Levels with lines of 64 bytes that one thread has to itself.
fn alone(sizes: []const [2]u32, prefetcher: bool) Geometry {
    var geometry: Geometry = .{ .levels = undefined, .level_count = @intCast(sizes.len), .thread_count = 1, .prefetcher = @intFromBool(prefetcher) };
    for (geometry.levels[0..sizes.len], sizes) |*level, size| {
        level.* = .{ .bytes = size[0], .ways = size[1], .line_bytes = 64, .shared_by = 1 };
    }
    return geometry;
}

/// Sizes in the proportions of machines, and small: 4 KiB, 32 KiB, 96 KiB (a number of sets that is no power of two).
const small = [_][2]u32{ .{ 4 << 10, 4 }, .{ 32 << 10, 8 }, .{ 96 << 10, 16 } };

/// Reads `count` values of 4 bytes that are `stride` bytes apart, and says what that counted.
fn strided(hierarchy: *Hierarchy, count: u64, stride: u64) Counters {
    const before = hierarchy.snapshot();
    for (0..count) |index| hierarchy.access(0, 1 << 20 | index * stride, 4, .load);
    return hierarchy.snapshot().since(before);
}

test "a first pass misses once a line at all levels, whether a stride is shorter or longer than a line" {
    const hierarchy = try Hierarchy.create(alone(&small, false));
    defer hierarchy.destroy();
    for ([_]u64{ 4, 8, 16, 32, 64, 128, 192, 1024, 4096 }) |stride| {
        hierarchy.reset();
        const count = 10_000;
        const counted = strided(hierarchy, count, stride);
        const lines = if (stride <= 64) std.math.divCeil(u64, count * stride, 64) catch unreachable else count;
        try testing.expectEqual(count, counted.levels[0].accesses);
        for (counted.levels) |level| {
            try testing.expectEqual(lines, level.misses);
            try testing.expectEqual(0, level.prefetched);
        }
        for (counted.levels[1..]) |level| try testing.expectEqual(lines, level.accesses);
        try testing.expectEqual(lines, counted.memory_lines);
        try testing.expectEqual(0, counted.write_backs);
    }
}

test "a working set that fits a level stays there, and one way more than fits never hits: the one read next has just gone" {
    for ([_][2]u32{ .{ 4 << 10, 4 }, .{ 48 << 10, 12 }, .{ 20 << 10, 20 }, .{ 96 << 10, 16 }, .{ 7 * 3 * 64, 3 }, .{ 13 * 64, 13 } }) |size| {
        const hierarchy = try Hierarchy.create(alone(&.{size}, false));
        defer hierarchy.destroy();
        const lines = size[0] / 64;
        const sets = lines / size[1];
        // Just below, at and above the size; lines that lie together spread over the sets evenly.
        for ([_]u32{ lines - 1, lines, lines + 1, lines + sets, 2 * lines }) |count| {
            hierarchy.reset();
            try testing.expectEqual(count, strided(hierarchy, count, 64).levels[0].misses);
            // Each line above the size costs its set all of its lines, and leaves the others alone.
            const full = @min(count -| lines, sets);
            const wanted: u64 = if (full == sets) count else full * (size[1] + 1);
            for (0..3) |_| try testing.expectEqual(wanted, strided(hierarchy, count, 64).levels[0].misses);
        }
    }
}

test "a working set is found in the first level that holds it" {
    const hierarchy = try Hierarchy.create(alone(&small, false));
    defer hierarchy.destroy();
    const lines = [_]u64{ 64, 512, 1536, 2 * 1536 };
    for (lines, 0..) |count, holder| {
        hierarchy.reset();
        _ = strided(hierarchy, count, 64);
        const counted = strided(hierarchy, count, 64);
        for (counted.levels, 0..) |level, l| {
            try testing.expectEqual(@as(u64, if (l <= holder) count else 0), level.accesses);
            try testing.expectEqual(@as(u64, if (l < holder) count else 0), level.misses);
            try testing.expectEqual(level.accesses - level.misses, level.hits());
        }
        try testing.expectEqual(@as(u64, if (holder == small.len) count else 0), counted.memory_lines);
    }
}

test "a stride of as many bytes as a way has meets one set" {
    const hierarchy = try Hierarchy.create(alone(&.{.{ 32 << 10, 8 }}, false));
    defer hierarchy.destroy();
    for ([_]u64{ 8, 9 }) |count| {
        hierarchy.reset();
        _ = strided(hierarchy, count, 4096);
        try testing.expectEqual(@as(u64, if (count == 8) 0 else count), strided(hierarchy, count, 4096).levels[0].misses);
    }
}

test "random reads miss as often as lines are not in the cache, at every level" {
    const hierarchy = try Hierarchy.create(alone(&small, false));
    defer hierarchy.destroy();
    var random: std.Random.Xoshiro256 = .init(11);
    const lines = 6144;
    for (0..50_000) |_| hierarchy.access(0, random.random().uintLessThan(u64, lines) * 64, 8, .load);
    const count = 400_000;
    const before = hierarchy.snapshot();
    for (0..count) |_| hierarchy.access(0, random.random().uintLessThan(u64, lines) * 64, 8, .load);
    const counted = hierarchy.snapshot().since(before);
    // Each set holds the last different lines among as many equally likely ones: a read finds one of them with the
    // probability ways / (lines of that set), whatever came before. Behind other levels, what a set holds is not so simple;
    // but a level that holds all of a smaller one's lines has a miss rate of its own for the whole.
    const held = [_]f64{ 64, 512, 1536 };
    for (counted.levels, held, 0..) |level, size, l| {
        const expected = 1 - size / lines;
        const found = @as(f64, @floatFromInt(level.misses)) / count;
        // Five standard deviations of a count of independent draws; levels behind the first, which do not see what the first
        // has, keep some of its lines too short.
        const deviation = @sqrt(expected * (1 - expected) / count);
        try testing.expectApproxEqAbs(expected, found, if (l == 0) 5 * deviation else 0.01);
    }
}

/// Misses of the first level when a matrix of float32 is transposed into another, in blocks of `block` by `block`.
fn transposeMisses(hierarchy: *Hierarchy, width: u64, block: u64) u64 {
    const source = 1 << 24;
    // Not a multiple of a way away, or a source and a target line that are used together meet in the same set.
    const target = 1 << 26 | 64 * 17;
    hierarchy.reset();
    var top: u64 = 0;
    while (top < width) : (top += block) {
        var left: u64 = 0;
        while (left < width) : (left += block) {
            for (top..top + block) |row| for (left..left + block) |column| {
                hierarchy.access(0, source + (row * width + column) * 4, 4, .load);
                hierarchy.access(0, target + (column * width + row) * 4, 4, .store);
            };
        }
    }
    return hierarchy.snapshot().levels[0].misses;
}

test "a transpose in blocks of a line misses once a line, a naive one once an element that it writes" {
    const hierarchy = try Hierarchy.create(alone(&.{.{ 32 << 10, 8 }}, false));
    defer hierarchy.destroy();
    // Rows of 1,040 values are 65 lines: columns spread over all sets, 16 rows or columns of a block fit side by side.
    const width = 1040;
    const lines = width * width / 16;
    const blocked = transposeMisses(hierarchy, width, 16);
    // The target begins at a line, and so do blocks.
    try testing.expectEqual(2 * lines, blocked);
    // A column has 1,040 lines, which 512 do not hold until the next column: every store misses.
    const naive = transposeMisses(hierarchy, width, width);
    try testing.expectEqual(lines + width * width, naive);
}

test "an access that straddles lines touches all of them, and one of no bytes none" {
    const hierarchy = try Hierarchy.create(alone(&small, false));
    defer hierarchy.destroy();
    const cases = [_]struct { address: u64, bytes: u32, lines: u64 }{
        .{ .address = 0x1000, .bytes = 64, .lines = 1 },
        .{ .address = 0x103f, .bytes = 1, .lines = 1 },
        .{ .address = 0x103f, .bytes = 2, .lines = 2 },
        .{ .address = 0x1001, .bytes = 64, .lines = 2 },
        .{ .address = 0x1000, .bytes = 256, .lines = 4 },
        .{ .address = 0x1020, .bytes = 256, .lines = 5 },
        .{ .address = 0x1020, .bytes = 0, .lines = 0 },
        .{ .address = std.math.maxInt(u64) - 7, .bytes = 8, .lines = 1 },
    };
    for (cases) |case| for ([_]Kind{ .load, .store }) |kind| {
        hierarchy.reset();
        for (0..2) |_| hierarchy.access(0, case.address, case.bytes, kind);
        const counted = hierarchy.snapshot();
        try testing.expectEqual(2 * case.lines, counted.levels[0].accesses);
        for (counted.levels) |level| try testing.expectEqual(case.lines, level.misses);
        try testing.expectEqual(case.lines, counted.memory_lines);
    };
}

test "a written line is written back once, when the last level that has it gives it up" {
    const hierarchy = try Hierarchy.create(alone(&.{ .{ 4 << 10, 4 }, .{ 32 << 10, 8 } }, false));
    defer hierarchy.destroy();
    for (0..64) |line| for (0..3) |_| hierarchy.access(0, line * 64, 64, .store);
    // The first level gives all of them up to the second.
    for (64..128) |line| hierarchy.access(0, line * 64, 64, .load);
    try testing.expectEqual(0, hierarchy.snapshot().write_backs);
    for (128..64 + 512) |line| hierarchy.access(0, line * 64, 64, .load);
    try testing.expectEqual(64, hierarchy.snapshot().write_backs);
    for (0..2048) |line| hierarchy.access(0, line * 64, 64, .load);
    try testing.expectEqual(64, hierarchy.snapshot().write_backs);
}

test "what one thread has read another finds in the shared level alone, and what one has written no other has" {
    var geometry = alone(&small, false);
    geometry.thread_count = 3;
    geometry.levels[1].shared_by = 2;
    geometry.levels[2].shared_by = 4;
    const hierarchy = try Hierarchy.create(geometry);
    defer hierarchy.destroy();
    const Step = struct { thread: u32, kind: Kind, misses: [3]u64 };
    const steps = [_]Step{
        .{ .thread = 0, .kind = .load, .misses = .{ 1, 1, 1 } },
        .{ .thread = 0, .kind = .load, .misses = .{ 0, 0, 0 } },
        // Shares the second level with the first thread.
        .{ .thread = 1, .kind = .load, .misses = .{ 1, 0, 0 } },
        .{ .thread = 2, .kind = .load, .misses = .{ 1, 1, 0 } },
        .{ .thread = 2, .kind = .store, .misses = .{ 0, 0, 0 } },
        .{ .thread = 1, .kind = .load, .misses = .{ 1, 1, 0 } },
        .{ .thread = 2, .kind = .load, .misses = .{ 0, 0, 0 } },
        .{ .thread = 1, .kind = .store, .misses = .{ 0, 0, 0 } },
        .{ .thread = 0, .kind = .load, .misses = .{ 1, 0, 0 } },
        .{ .thread = 2, .kind = .load, .misses = .{ 1, 1, 0 } },
    };
    for (steps) |step| {
        const before = hierarchy.snapshot();
        hierarchy.access(step.thread, 0x4000, 4, step.kind);
        const counted = hierarchy.snapshot().since(before);
        for (step.misses, counted.levels) |expected, level| try testing.expectEqual(expected, level.misses);
    }
}

test "two threads that go through all of a private level do not disturb each other there, and do in a shared one" {
    for ([_]u32{ 1, 2 }) |shared_by| {
        var geometry = alone(&.{ .{ 4 << 10, 4 }, .{ 32 << 10, 8 } }, false);
        geometry.thread_count = 2;
        for (geometry.levels[0..2]) |*level| level.shared_by = shared_by;
        const hierarchy = try Hierarchy.create(geometry);
        defer hierarchy.destroy();
        var before = hierarchy.snapshot();
        for (0..2) |_| {
            before = hierarchy.snapshot();
            for (0..64) |line| for (0..2) |thread| hierarchy.access(@intCast(thread), thread << 20 | line * 64, 64, .load);
        }
        try testing.expectEqual(@as(u64, if (shared_by == 1) 0 else 128), hierarchy.snapshot().since(before).levels[0].misses);
    }
}

test "a prefetch of the program's fills the level that it names and those behind, and counts as no access" {
    const hierarchy = try Hierarchy.create(alone(&small, false));
    defer hierarchy.destroy();
    hierarchy.access(0, 0, 64, .prefetch);
    hierarchy.access(0, 64, 64, .prefetch_far);
    hierarchy.access(0, 64, 64, .prefetch_far);
    var counted = hierarchy.snapshot();
    for (counted.levels, [_]u64{ 1, 2, 2 }) |level, prefetched| {
        try testing.expectEqual(LevelCounters{ .prefetched = prefetched }, level);
    }
    try testing.expectEqual(2, counted.memory_lines);
    hierarchy.access(0, 0, 64, .load);
    hierarchy.access(0, 64, 64, .load);
    counted = hierarchy.snapshot();
    for (counted.levels, [_]u64{ 1, 0, 0 }) |level, misses| try testing.expectEqual(misses, level.misses);
    try testing.expectEqual(2, counted.memory_lines);
}

test "a line that is kept in use stays while others go by, and counts where it misses" {
    const hierarchy = try Hierarchy.create(alone(&small, false));
    defer hierarchy.destroy();
    // Fewer lines in between than a set has.
    for (0..1000) |line| {
        hierarchy.access(0, 1 << 20 | line * 64, 64, .load);
        if (line % 16 == 0) hierarchy.keep(0, 0x40);
    }
    const counted = hierarchy.snapshot();
    try testing.expectEqual(LevelCounters{ .accesses = 1001, .misses = 1001 }, counted.levels[0]);
    try testing.expectEqual(LevelCounters{ .accesses = 1001, .misses = 1001 }, counted.levels[1]);
    for (1000..1000 + 64) |line| hierarchy.access(0, 1 << 20 | line * 64, 64, .load);
    hierarchy.keep(0, 0x40);
    try testing.expectEqual(LevelCounters{ .accesses = 1066, .misses = 1066 }, hierarchy.snapshot().levels[0]);
}

test "the prefetcher leaves of a stream the first two lines of each page, upwards and downwards, in several streams at once" {
    const hierarchy = try Hierarchy.create(alone(&.{ .{ 4 << 10, 4 }, .{ 256 << 10, 8 }, .{ 3 << 20, 16 } }, true));
    defer hierarchy.destroy();
    const page_count = 24;
    const page_lines = Streamer.page_bytes / 64;
    for ([_]bool{ true, false }) |upwards| for ([_]u64{ 1, 8, Streamer.streams }) |streams| {
        hierarchy.reset();
        const lines = page_count / streams * page_lines;
        const stream_count = if (streams > page_count) page_count else streams;
        for (0..@intCast(lines)) |step| for (0..@intCast(stream_count)) |stream| {
            const line = stream * lines * 3 + if (upwards) step else lines - 1 - step;
            hierarchy.access(0, 1 << 24 | line * 64, 64, .load);
        };
        const counted = hierarchy.snapshot();
        const read = stream_count * lines;
        try testing.expectEqual(read, counted.levels[0].misses);
        try testing.expectEqual(read, counted.levels[1].accesses);
        for (counted.levels[1..]) |level| {
            try testing.expectEqual(read / page_lines * 2, level.misses);
            try testing.expectEqual(read - read / page_lines * 2, level.prefetched);
        }
        // No line more than is read: it stops at the page's end.
        try testing.expectEqual(read, counted.memory_lines);
    };
}

test "the prefetcher changes nothing on random reads but by what it displaces" {
    var misses: [2]u64 = undefined;
    for (&misses, [_]bool{ false, true }) |*sum, prefetcher| {
        const hierarchy = try Hierarchy.create(alone(&small, prefetcher));
        defer hierarchy.destroy();
        var random: std.Random.Xoshiro256 = .init(5);
        for (0..200_000) |_| hierarchy.access(0, random.random().uintLessThan(u64, 1 << 18) * 64, 8, .load);
        const counted = hierarchy.snapshot();
        sum.* = counted.levels[2].misses;
        if (!prefetcher) try testing.expectEqual(0, counted.levels[2].prefetched);
    }
    const more = @as(f64, @floatFromInt(misses[1])) / @as(f64, @floatFromInt(misses[0])) - 1;
    try testing.expect(@abs(more) < 0.002);
}

test "what is no geometry is refused" {
    const good = alone(&small, true);
    for (0..13) |index| {
        var bad = good;
        switch (index) {
            0 => bad.level_count = 0,
            1 => bad.level_count = 4,
            2 => bad.thread_count = 0,
            3 => bad.thread_count = threads_max + 1,
            4 => bad.prefetcher = 2,
            5 => bad.levels[0].ways = 0,
            6 => bad.levels[1].bytes = 0,
            7 => bad.levels[2].bytes = (96 << 10) + 64,
            8 => bad.levels[2].bytes = 480 << 30,
            9 => bad.levels[0].line_bytes = 48,
            10 => bad.levels[1].line_bytes = 32,
            11 => bad.levels[2].line_bytes = 8192,
            else => bad.levels[1].shared_by = 0,
        }
        try testing.expectError(error.Geometry, Hierarchy.create(bad));
    }
}

/// The same caches written down as one says it, slowly: a list for each set, from the line used longest ago to the one used
/// last, of addresses.
const Naive = struct {
    const Line = struct { address: u64, written: bool };
    const Set = std.ArrayList(Line);

    geometry: Geometry,
    sets: std.AutoHashMap([3]u64, Set),
    counters: Counters = .{},

    fn init(geometry: Geometry) Naive {
        return .{ .geometry = geometry, .sets = .init(testing.allocator) };
    }

    fn deinit(naive: *Naive) void {
        var sets = naive.sets.valueIterator();
        while (sets.next()) |each| each.deinit(testing.allocator);
        naive.sets.deinit();
    }

    fn setOf(naive: *Naive, level: usize, unit: u64, address: u64) !*Set {
        const geometry = naive.geometry.levels[level];
        const index = address / geometry.line_bytes % (geometry.bytes / geometry.line_bytes / geometry.ways);
        const entry = try naive.sets.getOrPut(.{ level, unit, index });
        if (!entry.found_existing) entry.value_ptr.* = .empty;
        return entry.value_ptr;
    }

    fn placeOf(each: *const Set, address: u64, line_bytes: u64) ?usize {
        for (each.items, 0..) |line, place| if (line.address == address / line_bytes * line_bytes) return place;
        return null;
    }

    fn access(naive: *Naive, thread: u64, address: u64, bytes: u64, kind: Kind) !void {
        const step = naive.geometry.levels[0].line_bytes;
        var line = address / step * step;
        while (line < address + bytes) : (line += step) {
            if (kind == .store) try naive.forget(thread, line);
            const far = kind == .prefetch_far and naive.geometry.level_count > 1;
            try naive.reach(thread, if (far) 1 else 0, line, kind);
        }
    }

    fn forget(naive: *Naive, thread: u64, address: u64) !void {
        for (naive.geometry.levels[0..naive.geometry.level_count], 0..) |level, l| {
            for (0..naive.geometry.thread_count) |other| {
                if (other / level.shared_by == thread / level.shared_by) continue;
                const each = try naive.setOf(l, other / level.shared_by, address);
                if (placeOf(each, address, level.line_bytes)) |place| _ = each.orderedRemove(place);
            }
        }
    }

    fn reach(naive: *Naive, thread: u64, first: usize, address: u64, kind: Kind) !void {
        const demand = kind == .load or kind == .store;
        for (first..naive.geometry.level_count) |l| {
            const level = naive.geometry.levels[l];
            const counters = &naive.counters.levels[l];
            const each = try naive.setOf(l, thread / level.shared_by, address);
            const written = l == 0 and kind == .store;
            if (demand) counters.accesses += 1;
            if (placeOf(each, address, level.line_bytes)) |place| {
                const line = each.orderedRemove(place);
                try each.append(testing.allocator, .{ .address = line.address, .written = line.written or written });
                return;
            }
            if (demand) counters.misses += 1 else counters.prefetched += 1;
            if (each.items.len == level.ways) {
                const gone = each.orderedRemove(0);
                if (gone.written) try naive.passOn(thread, l + 1, gone.address);
            }
            try each.append(testing.allocator, .{ .address = address / level.line_bytes * level.line_bytes, .written = written });
        }
        naive.counters.memory_lines += 1;
    }

    fn passOn(naive: *Naive, thread: u64, first: usize, address: u64) !void {
        for (first..naive.geometry.level_count) |l| {
            const level = naive.geometry.levels[l];
            const each = try naive.setOf(l, thread / level.shared_by, address);
            if (placeOf(each, address, level.line_bytes)) |place| {
                each.items[place].written = true;
                return;
            }
        }
        naive.counters.write_backs += 1;
    }
};

test "random accesses in random geometries count exactly what a list for each set counts" {
    var source: std.Random.Xoshiro256 = .init(2026);
    const random = source.random();
    for (0..60) |_| {
        var geometry: Geometry = .{
            .levels = undefined,
            .level_count = random.intRangeAtMost(u32, 1, levels_max),
            .thread_count = random.intRangeAtMost(u32, 1, 5),
            .prefetcher = 0,
        };
        var line_bytes: u32 = @as(u32, 16) << random.uintLessThan(u5, 4);
        var sets: u64 = random.intRangeAtMost(u32, 1, 9);
        for (geometry.levels[0..geometry.level_count]) |*level| {
            if (random.uintLessThan(u32, 4) == 0) line_bytes *= 2;
            const ways = random.intRangeAtMost(u32, 1, 12);
            level.* = .{ .bytes = sets * ways * line_bytes, .ways = ways, .line_bytes = line_bytes, .shared_by = random.intRangeAtMost(u32, 1, 4) };
            sets *= random.intRangeAtMost(u32, 1, 4);
        }
        const hierarchy = try Hierarchy.create(geometry);
        defer hierarchy.destroy();
        var naive: Naive = .init(geometry);
        defer naive.deinit();
        const last = geometry.levels[geometry.level_count - 1];
        const span = @max(4 * @as(u64, line_bytes), last.bytes * random.intRangeAtMost(u64, 1, 4));
        var place: u64 = 0;
        for (0..4000) |_| {
            // Half of them near the one before.
            place = if (random.boolean()) random.uintLessThan(u64, span) else (place + random.uintLessThan(u64, 100)) % span;
            const thread = random.uintLessThan(u32, geometry.thread_count);
            const bytes = random.intRangeAtMost(u32, 1, if (random.boolean()) 8 else 200);
            const kind = random.enumValue(Kind);
            hierarchy.access(thread, place, bytes, kind);
            try naive.access(thread, place, bytes, kind);
        }
        try testing.expectEqual(naive.counters, hierarchy.snapshot());
    }
}
