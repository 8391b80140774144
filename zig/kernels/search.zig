//! The rows of a matrix with the largest products with a query, exactly: every row is multiplied, and a heap keeps the best.
//!
//! A product has one order whatever is computed beside it: a chain of multiply-adds for each lane over ascending columns, then
//! a fixed tree. One query goes through the matrix as fast as memory gives it; several share what is read.

const std = @import("std");
const assert = std.debug.assert;
const table = @import("table.zig");
const vec = @import("vec.zig");

const F = vec.F;
const lanes = vec.lanes;
const Found = table.Found;

/// Rows and queries of a tile. As many sums hide the latency of one (four cycles at two a cycle); with the rows, a query and their
/// values they fit the registers: 4 · 4 + 4 + 1 of 32, 8 + 1 of 16 and 4 · 2 + 4 + 1 of 16.
const many_queries = if (vec.register_count >= 32) 4 else 2;
const many_rows = 4;
const alone_rows = 8;

/// Rows that all queries are multiplied with before the next ones, so that they stay in the first-level cache: 24 KB of 384 columns.
const stretch_rows = 16;
/// Rows between what is multiplied and what is asked for meanwhile, into the second-level cache: the processor's own prefetching
/// begins anew with every tile. Later queries find the rows there.
const ahead_rows = 16;
/// Float32 values of a cache line.
const line = 16;

comptime {
    assert(table.search_row_block % stretch_rows == 0 and stretch_rows % alone_rows == 0 and stretch_rows % many_rows == 0);
}

/// See `table.Search`.
pub fn search(args: *const table.Search, begin: u32, end: u32) callconv(.c) void {
    assert(args.columns > 0 and args.keep > 0);
    assert(begin <= end and end <= std.math.divCeil(u32, args.row_count, table.search_row_block) catch unreachable);
    var first: u32 = begin * table.search_row_block;
    const last: u32 = @intCast(@min(args.row_count, @as(u64, end) * table.search_row_block));
    while (first < last) : (first += stretch_rows) {
        const count = @min(last - first, stretch_rows);
        var query: u32 = 0;
        inline for (.{ many_queries, 1 }) |queries| {
            while (args.query_count - query >= queries) : (query += queries) {
                searchRows(queries, args, query, first, count);
            }
        }
    }
}

/// `count` rows from `first` times `queries` queries from `query`.
fn searchRows(comptime queries: u32, args: *const table.Search, query: u32, first: u32, count: u32) void {
    const tile_rows = if (queries == 1) alone_rows else many_rows;
    var row: u32 = 0;
    while (row < count) : (row += tile_rows) {
        const valid = @min(tile_rows, count - row);
        var scores: [queries][tile_rows]f32 = undefined;
        products(queries, tile_rows, args, query, first + row, valid, &scores);
        for (&scores, query..) |*of_query, index| {
            var heap: Heap = .of(args.found, args.found_counts, index, args.keep);
            for (of_query[0..valid], 0..) |*score, offset| {
                heap.offer(.{ .row = args.row_first + first + row + @as(u32, @intCast(offset)), .score = vec.read(score) });
            }
            heap.close();
        }
    }
}

/// The products of a tile; places past the `valid` rows repeat the last one.
inline fn products(comptime queries: u32, comptime rows: u32, args: *const table.Search, query: u32, first: u32, valid: u32, scores: *[queries][rows]f32) void {
    var places: [rows][*]const f32 = undefined;
    inline for (&places, 0..) |*place, row| place.* = args.rows + (first + @min(row, valid - 1)) * args.row_stride;
    const query_rows = args.queries + query * args.query_stride;
    var sums: [queries][rows]F = @splat(@splat(@splat(0)));
    var column: usize = 0;
    while (column + lanes <= args.columns) : (column += lanes) {
        if (query == 0 and column % line == 0) {
            inline for (places) |place| vec.prefetchFar(@ptrCast(place + column + ahead_rows * args.row_stride), 0);
        }
        var values: [rows]F = undefined;
        inline for (&values, places) |*value, place| value.* = vec.load(F, place + column);
        inline for (&sums, 0..) |*of_query, index| {
            const q = vec.load(F, query_rows + index * args.query_stride + column);
            inline for (of_query, values) |*sum, value| sum.* = vec.mulAdd(value, q, sum.*);
        }
    }
    if (column < args.columns) {
        const rest = args.columns - column;
        inline for (&sums, 0..) |*of_query, index| {
            const q = vec.loadPartial(F, query_rows + index * args.query_stride + column, rest);
            inline for (of_query, places) |*sum, place| sum.* = vec.mulAdd(vec.loadPartial(F, place + column, rest), q, sum.*);
        }
    }
    inline for (scores, sums) |*of_query, of_sums| {
        inline for (of_query, of_sums) |*score, sum| {
            const total = vec.sum(sum);
            vec.write(score, if (total == total) total else -std.math.inf(f32));
        }
    }
}

/// Whether `a` comes after `b`, best first: of equal scores the higher row does.
fn worse(a: Found, b: Found) bool {
    return a.score < b.score or (a.score == b.score and a.row > b.row);
}

/// The best that a query has found, the worst of them on top.
const Heap = struct {
    items: [*]Found,
    count: *u32,
    len: u32,
    keep: u32,

    fn of(found: [*]Found, counts: [*]u32, query: usize, keep: u32) Heap {
        return .{ .items = found + query * keep, .count = &counts[query], .len = vec.read(&counts[query]), .keep = keep };
    }

    fn close(heap: *Heap) void {
        vec.write(heap.count, heap.len);
    }

    inline fn offer(heap: *Heap, item: Found) void {
        if (heap.len == heap.keep) {
            if (worse(item, vec.read(&heap.items[0]))) return;
            heap.down(0, heap.len, item);
        } else heap.up(item);
    }

    fn up(heap: *Heap, item: Found) void {
        var at = heap.len;
        heap.len += 1;
        while (at > 0) {
            const parent = vec.read(&heap.items[(at - 1) / 2]);
            if (!worse(item, parent)) break;
            vec.write(&heap.items[at], parent);
            at = (at - 1) / 2;
        }
        vec.write(&heap.items[at], item);
    }

    /// Puts `item` at `start`, or below it, of the first `len` items.
    fn down(heap: *Heap, start: u32, len: u32, item: Found) void {
        var at = start;
        while (2 * at + 1 < len) {
            var child = 2 * at + 1;
            if (child + 1 < len and worse(vec.read(&heap.items[child + 1]), vec.read(&heap.items[child]))) child += 1;
            if (!worse(vec.read(&heap.items[child]), item)) break;
            vec.write(&heap.items[at], vec.read(&heap.items[child]));
            at = child;
        }
        vec.write(&heap.items[at], item);
    }

    /// Takes the worst to the end again and again: the best is first then.
    fn sort(heap: *Heap) void {
        var len = heap.len;
        while (len > 1) {
            len -= 1;
            const last = vec.read(&heap.items[len]);
            vec.write(&heap.items[len], vec.read(&heap.items[0]));
            heap.down(0, len, last);
        }
    }
};

/// See `table.SearchMerge`.
pub fn merge(args: *const table.SearchMerge) callconv(.c) void {
    for (0..args.query_count) |query| {
        var heap: Heap = .of(args.found, args.found_counts, query, args.keep);
        if (args.other) |other| {
            const count = vec.read(&args.other_counts.?[query]);
            for (other[query * args.keep ..][0..count]) |*item| heap.offer(vec.read(item));
            heap.close();
        } else heap.sort();
    }
}

// ---------------------------------------------------------------------------------------------------------------------

/// What `threads` threads find that take blocks in turns, the last block first if `backwards`; the caller frees it.
fn find(args: table.Search, threads: u32, backwards: bool) !struct { found: []Found, counts: []u32 } {
    const allocator = std.testing.allocator;
    const blocks = std.math.divCeil(u32, args.row_count, table.search_row_block) catch unreachable;
    const found = try allocator.alloc(Found, threads * args.query_count * args.keep);
    defer allocator.free(found);
    const counts = try allocator.alloc(u32, threads * args.query_count);
    defer allocator.free(counts);
    @memset(counts, 0);
    for (0..blocks) |index| {
        const block: u32 = @intCast(if (backwards) blocks - 1 - index else index);
        var part = args;
        part.found = found.ptr + index % threads * args.query_count * args.keep;
        part.found_counts = counts.ptr + index % threads * args.query_count;
        search(&part, block, block + 1);
    }
    var merging: table.SearchMerge = .{ .query_count = args.query_count, .keep = args.keep, .found = found.ptr, .found_counts = counts.ptr, .other = null, .other_counts = null };
    for (1..threads) |thread| {
        merging.other = found.ptr + thread * args.query_count * args.keep;
        merging.other_counts = counts.ptr + thread * args.query_count;
        merge(&merging);
    }
    merging.other = null;
    merge(&merging);
    return .{ .found = try allocator.dupe(Found, found[0 .. args.query_count * args.keep]), .counts = try allocator.dupe(u32, counts[0..args.query_count]) };
}

test "search finds the rows with the largest products, the lower row of equal ones first, whatever the split" {
    const allocator = std.testing.allocator;
    var prng: std.Random.DefaultPrng = .init(41);
    const random = prng.random();
    const Case = struct { columns: u32, rows: u32, queries: u32, keep: u32 };
    const cases = [_]Case{
        .{ .columns = 1, .rows = 1, .queries = 1, .keep = 1 },       .{ .columns = 17, .rows = 63, .queries = 3, .keep = 5 },
        .{ .columns = 33, .rows = 64, .queries = 4, .keep = 64 },    .{ .columns = 384, .rows = 333, .queries = 5, .keep = 10 },
        .{ .columns = 768, .rows = 130, .queries = 9, .keep = 200 },
    };
    for (cases) |case| {
        const stride = case.columns + 3;
        const rows = try allocator.alloc(f32, case.rows * stride);
        defer allocator.free(rows);
        for (rows) |*value| value.* = random.floatNorm(f32);
        // Equal rows far apart.
        for ([_]usize{ 20, 60, 120 }) |row| {
            if (row >= case.rows) continue;
            @memcpy(rows[row * stride ..][0..case.columns], rows[(row / 3) * stride ..][0..case.columns]);
        }
        const queries = try allocator.alloc(f32, case.queries * stride);
        defer allocator.free(queries);
        for (queries) |*value| value.* = random.floatNorm(f32);
        const args: table.Search = .{
            .columns = case.columns,
            .row_count = case.rows,
            .query_count = case.queries,
            .keep = case.keep,
            .row_first = 1000,
            .rows = rows.ptr,
            .row_stride = stride,
            .queries = queries.ptr,
            .query_stride = stride,
            .found = undefined,
            .found_counts = undefined,
        };
        const whole = try find(args, 1, false);
        defer allocator.free(whole.found);
        defer allocator.free(whole.counts);
        for (0..case.queries) |query| {
            const want_count = @min(case.keep, case.rows);
            try std.testing.expectEqual(want_count, whole.counts[query]);
            const found = whole.found[query * case.keep ..][0..want_count];
            var in_result: [512]bool = @splat(false);
            for (found, 0..) |item, index| {
                if (index > 0) try std.testing.expect(worse(item, found[index - 1]));
                in_result[item.row - 1000] = true;
                try std.testing.expectApproxEqAbs(product(rows[(item.row - 1000) * stride ..], queries[query * stride ..], case.columns), item.score, 1e-4);
            }
            // None that was left out is better than the worst of these.
            for (0..case.rows) |row| {
                if (in_result[row]) continue;
                try std.testing.expect(product(rows[row * stride ..], queries[query * stride ..], case.columns) < found[want_count - 1].score + 1e-4);
            }
        }
        for ([_]u32{ 1, 2, 3 }) |threads| {
            const other = try find(args, threads, true);
            defer allocator.free(other.found);
            defer allocator.free(other.counts);
            try std.testing.expectEqualSlices(u32, whole.counts, other.counts);
            for (0..case.queries) |query| {
                const count = whole.counts[query];
                try std.testing.expectEqualSlices(Found, whole.found[query * case.keep ..][0..count], other.found[query * case.keep ..][0..count]);
            }
        }
        // A query by itself.
        for (0..case.queries) |query| {
            var one = args;
            one.query_count = 1;
            one.queries += query * stride;
            const alone = try find(one, 1, false);
            defer allocator.free(alone.found);
            defer allocator.free(alone.counts);
            try std.testing.expectEqualSlices(Found, whole.found[query * case.keep ..][0..alone.counts[0]], alone.found[0..alone.counts[0]]);
        }
    }
}

fn product(a: []const f32, b: []const f32, columns: usize) f64 {
    var sum: f64 = 0;
    for (a[0..columns], b[0..columns]) |x, y| sum += @as(f64, x) * y;
    return sum;
}

test "equal rows are found in their order, and what is no number comes last" {
    const columns = 40;
    const row_count = 200;
    var rows: [row_count * columns]f32 = @splat(0.5);
    rows[7 * columns] = std.math.nan(f32);
    rows[8 * columns] = 2;
    const query: [columns]f32 = @splat(1);
    const args: table.Search = .{ .columns = columns, .row_count = row_count, .query_count = 1, .keep = row_count, .rows = &rows, .row_stride = columns, .queries = &query, .query_stride = columns, .found = undefined, .found_counts = undefined };
    const all = try find(args, 2, false);
    defer std.testing.allocator.free(all.found);
    defer std.testing.allocator.free(all.counts);
    try std.testing.expectEqual(8, all.found[0].row);
    for (all.found[1..199], 0..) |item, index| {
        const row: u32 = @intCast(if (index < 7) index else index + 2);
        try std.testing.expectEqual(row, item.row);
    }
    try std.testing.expectEqual(Found{ .row = 7, .score = -std.math.inf(f32) }, all.found[199]);
}
