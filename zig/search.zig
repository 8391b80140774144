//! Exact search: the rows of a float32 matrix whose products with queries are largest. The matrix is memory that TypeScript fills
//! once, or a part of a file, mapped. A search has threads of its own, which claim blocks of rows; a short one is done on the
//! thread that asks. What is found does not depend on the threads. The last thread to end rings, and `destroy` then does not wait.

const std = @import("std");
const assert = std.debug.assert;
const allocations = @import("allocations.zig");
const cpu = @import("cpu.zig");
const Mapping = @import("mapping.zig").Mapping;
const pool_ = @import("pool.zig");
const system = @import("system.zig");
const table = @import("kernels/table.zig");

/// Floats of a row are a multiple of it, the rest zeros: 64 bytes, a vector of the widest level.
pub const column_multiple = 16;
pub const columns_max = 1 << 16;
pub const rows_max = 1 << 31;
pub const queries_max = 1024;
pub const keep_max = 1024;
/// What is claimed at once, about: long enough that claiming costs nothing, short enough that a cancelled search ends in
/// milliseconds, whatever the number of queries.
const piece_bytes = 256 << 10;

/// The rows. They are freed after every search of them.
pub const Vectors = struct {
    rows: [*]align(64) const f32,
    row_count: u32,
    columns: u32,
    place: union(enum) { memory: []align(4096) u8, file: *Mapping },

    const allocator = allocations.allocator;

    /// Zeros, for the caller to fill.
    pub fn create(row_count: u64, columns: u32) error{ OutOfMemory, Program }!*Vectors {
        if (!valid(row_count, columns)) return error.Program;
        const vectors = try allocator.create(Vectors);
        errdefer allocator.destroy(vectors);
        const memory = try allocations.map(row_count * columns * @sizeOf(f32));
        vectors.* = .{ .rows = @ptrCast(memory.ptr), .row_count = @intCast(row_count), .columns = columns, .place = .{ .memory = memory } };
        return vectors;
    }

    /// Rows that lie in a file from `offset` on, a multiple of 64.
    pub fn open(path: [*:0]const u8, offset: u64, row_count: u64, columns: u32) error{ OutOfMemory, Open, CutShort, Program }!*Vectors {
        if (!valid(row_count, columns) or offset % 64 != 0 or offset > 1 << 53) return error.Program;
        const vectors = try allocator.create(Vectors);
        errdefer allocator.destroy(vectors);
        const mapping = try Mapping.open(path, offset, row_count * columns * @sizeOf(f32));
        vectors.* = .{ .rows = @ptrCast(@alignCast(mapping.bytes().ptr)), .row_count = @intCast(row_count), .columns = columns, .place = .{ .file = mapping } };
        return vectors;
    }

    fn valid(row_count: u64, columns: u32) bool {
        return row_count > 0 and row_count <= rows_max and columns > 0 and columns <= columns_max and columns % column_multiple == 0;
    }

    pub fn destroy(vectors: *Vectors) void {
        switch (vectors.place) {
            .memory => |memory| allocations.unmap(memory),
            .file => |mapping| mapping.close(),
        }
        allocator.destroy(vectors);
    }
};

pub const Search = struct {
    args: table.Search,
    kernels: *const table.Table,
    thread_count: u32,
    notify_fd: c_int,
    queries: []align(64) f32,
    /// Each thread's, [thread][query][keep], and how many of them there are.
    found: []table.Found,
    found_counts: []u32,
    threads: [pool_.threads_max]std.Thread = undefined,
    spawned: u32 = 0,
    units: pool_.Work = .{},
    stopping: std.atomic.Value(u32) = .init(0),
    running: std.atomic.Value(u32) align(64),
    ended: std.atomic.Value(u32) = .init(0),

    const allocator = allocations.allocator;

    /// Begins to look for the `keep` best rows of each query; `queries` have as many floats as rows, and are copied. With no
    /// thread of its own it has ended when it returns, and does not ring.
    pub fn create(
        vectors: *const Vectors,
        queries: []const f32,
        keep: u32,
        level: u32,
        thread_count: u32,
        notify_fd: c_int,
    ) error{ OutOfMemory, Threads, Program }!*Search {
        const query_count = queries.len / vectors.columns;
        if (queries.len % vectors.columns != 0 or query_count == 0 or query_count > queries_max) return error.Program;
        if (keep == 0 or keep > keep_max or thread_count > pool_.threads_max) return error.Program;
        if (level >= cpu.levels.len or !cpu.supported(level)) return error.Program;
        const search = try allocator.create(Search);
        errdefer allocator.destroy(search);
        const copied = try allocator.alignedAlloc(f32, .@"64", queries.len);
        errdefer allocator.free(copied);
        @memcpy(copied, queries);
        const parts = @max(1, thread_count);
        const found = try allocator.alloc(table.Found, parts * query_count * keep);
        errdefer allocator.free(found);
        const found_counts = try allocator.alloc(u32, parts * query_count);
        errdefer allocator.free(found_counts);
        @memset(found_counts, 0);
        search.* = .{
            .args = .{
                .columns = vectors.columns,
                .row_count = vectors.row_count,
                .query_count = @intCast(query_count),
                .keep = keep,
                .rows = vectors.rows,
                .row_stride = vectors.columns,
                .queries = copied.ptr,
                .query_stride = vectors.columns,
                .found = found.ptr,
                .found_counts = found_counts.ptr,
            },
            .kernels = cpu.levels[level].kernels,
            .thread_count = parts,
            .notify_fd = notify_fd,
            .queries = copied,
            .found = found,
            .found_counts = found_counts,
            .running = .init(parts),
        };
        if (thread_count == 0) {
            search.work(0);
            search.conclude();
            return search;
        }
        while (search.spawned < thread_count) : (search.spawned += 1) {
            search.threads[search.spawned] = std.Thread.spawn(.{ .stack_size = 1 << 20 }, run, .{ search, search.spawned }) catch {
                search.stop();
                for (search.threads[0..search.spawned]) |thread| thread.join();
                return error.Threads;
            };
        }
        return search;
    }

    /// Asks the threads to end soon; what is then found is not all.
    pub fn stop(search: *Search) void {
        search.stopping.store(1, .monotonic);
    }

    /// How many rows were found for each query: `keep`, or all that there are. Only after `ended`.
    pub fn foundCount(search: *const Search) u32 {
        return @min(search.args.keep, search.args.row_count);
    }

    /// [query][foundCount]: the best first. Only after `ended`, and not of a search that was stopped.
    pub fn read(search: *const Search, rows: []u32, scores: []f32) void {
        const count = search.foundCount();
        for (0..search.args.query_count) |query| {
            for (search.found[query * search.args.keep ..][0..count], query * count..) |found, place| {
                rows[place] = found.row;
                scores[place] = found.score;
            }
        }
    }

    /// Only after `ended`.
    pub fn destroy(search: *Search) void {
        for (search.threads[0..search.spawned]) |thread| thread.join();
        allocator.free(search.found_counts);
        allocator.free(search.found);
        allocator.free(search.queries);
        allocator.destroy(search);
    }

    fn run(search: *Search, thread: u32) void {
        search.kernels.thread_begin();
        search.work(thread);
        search.kernels.thread_end();
        if (search.running.fetchSub(1, .acq_rel) != 1) return;
        search.conclude();
        system.ring(search.notify_fd);
    }

    /// Looks through blocks of rows until there are no more.
    fn work(search: *Search, thread: u32) void {
        const args = search.part(thread);
        const block_bytes = @as(u64, args.columns) * @sizeOf(f32) * table.search_row_block;
        const chunk: u32 = @intCast(@max(1, piece_bytes / block_bytes));
        const unit_count = std.math.divCeil(u32, args.row_count, table.search_row_block) catch unreachable;
        while (search.stopping.load(.monotonic) == 0) {
            const range = search.units.claim(thread, search.thread_count, chunk, unit_count) orelse return;
            search.kernels.search(&args, range.begin, range.end);
        }
    }

    /// The kernel's arguments with what a thread has found.
    fn part(search: *const Search, thread: u32) table.Search {
        var args = search.args;
        args.found += @as(usize, thread) * args.query_count * args.keep;
        args.found_counts += @as(usize, thread) * args.query_count;
        return args;
    }

    /// Makes one list of what all threads have found.
    fn conclude(search: *Search) void {
        var merge: table.SearchMerge = .{
            .query_count = search.args.query_count,
            .keep = search.args.keep,
            .found = search.found.ptr,
            .found_counts = search.found_counts.ptr,
            .other = null,
            .other_counts = null,
        };
        for (1..search.thread_count) |thread| {
            const other = search.part(@intCast(thread));
            merge.other = other.found;
            merge.other_counts = other.found_counts;
            search.kernels.search_merge(&merge);
        }
        merge.other = null;
        merge.other_counts = null;
        search.kernels.search_merge(&merge);
        search.ended.store(1, .release);
    }
};

fn await(search: *Search) void {
    while (search.ended.load(.acquire) == 0) std.Thread.yield() catch {};
}

test "the best rows are those of a full sort, on no thread and on several, of memory and of few rows" {
    const gpa = std.testing.allocator;
    var random: std.Random.DefaultPrng = .init(7);
    const ends = try system.openPipe();
    defer for (ends) |end| (system.File{ .handle = end }).close();
    for ([_][2]u32{ .{ 1, 16 }, .{ 65, 16 }, .{ 3000, 48 } }) |shape| {
        const row_count, const columns = shape;
        const vectors = try Vectors.create(row_count, columns);
        defer vectors.destroy();
        const rows = @constCast(vectors.rows)[0 .. row_count * columns];
        // Whole numbers, so that sums are exact in any order, and many are equal.
        for (rows) |*value| value.* = @floatFromInt(random.random().intRangeAtMost(i32, -2, 2));
        var queries: [2 * 48]f32 = undefined;
        for (&queries) |*value| value.* = @floatFromInt(random.random().intRangeAtMost(i32, -2, 2));
        const expected = try gpa.alloc(table.Found, row_count);
        defer gpa.free(expected);
        for ([_]u32{ 0, 1, 3 }) |thread_count| {
            for ([_]u32{ 1, 10, 100 }) |keep| {
                const search = try Search.create(vectors, queries[0 .. 2 * columns], keep, 0, thread_count, ends[1]);
                await(search);
                defer search.destroy();
                const count = search.foundCount();
                try std.testing.expectEqual(@min(keep, row_count), count);
                var found_rows: [200]u32 = undefined;
                var scores: [200]f32 = undefined;
                search.read(&found_rows, &scores);
                for (0..2) |query| {
                    for (expected, 0..) |*entry, row| {
                        var sum: f64 = 0;
                        for (rows[row * columns ..][0..columns], queries[query * columns ..][0..columns]) |a, b| sum += a * b;
                        entry.* = .{ .row = @intCast(row), .score = @floatCast(sum) };
                    }
                    std.mem.sort(table.Found, expected, {}, better);
                    for (expected[0..count], query * count..) |entry, place| {
                        try std.testing.expectEqual(entry.row, found_rows[place]);
                        try std.testing.expectEqual(entry.score, scores[place]);
                    }
                }
            }
        }
    }
}

fn better(_: void, a: table.Found, b: table.Found) bool {
    return a.score > b.score or (a.score == b.score and a.row < b.row);
}

test "a search that is stopped ends, and rings" {
    const ends = try system.openPipe();
    defer for (ends) |end| (system.File{ .handle = end }).close();
    const vectors = try Vectors.create(100_000, 16);
    defer vectors.destroy();
    const search = try Search.create(vectors, &@as([16]f32, @splat(1)), 5, 0, 2, ends[1]);
    search.stop();
    await(search);
    search.destroy();
    var byte: [1]u8 = undefined;
    try std.testing.expectEqual(1, std.c.read(ends[0], &byte, 1));
}

test "what is out of bounds is refused" {
    try std.testing.expectError(error.Program, Vectors.create(0, 16));
    try std.testing.expectError(error.Program, Vectors.create(1, 15));
    try std.testing.expectError(error.Program, Vectors.create(rows_max + 1, 16));
    const vectors = try Vectors.create(1, 16);
    defer vectors.destroy();
    const queries: [32]f32 = @splat(0);
    for ([_]struct { u32, u32, u32, u32 }{ .{ 0, 1, 0, 0 }, .{ 15, 1, 0, 0 }, .{ 16, 0, 0, 0 }, .{ 16, keep_max + 1, 0, 0 }, .{ 16, 1, 100, 0 }, .{ 16, 1, 0, 65 } }) |case| {
        const length, const keep, const level, const thread_count = case;
        try std.testing.expectError(error.Program, Search.create(vectors, queries[0..length], keep, level, thread_count, -1));
    }
}
