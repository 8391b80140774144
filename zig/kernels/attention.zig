//! Attention over paged keys and values with an online softmax (Milakov and Gimelshein 2018; Dao et al. 2022,
//! "FlashAttention"), in chunks of 256 positions that are merged in ascending order.
//!
//! What fixes the bits of one row and head, whatever stands beside it in the step:
//! - a score is one chain of multiply-adds over the dimensions 0, 1, ... of its position;
//! - a page of 64 positions updates the chunk's maximum, sum and values; a value is one chain over the valid positions;
//! - pages of a chunk go in ascending order, and so do the chunks in `merge`.
//! Tiles only choose which of these chains advance together.
//!
//! Keys are read whole pages at a time: what lies outside a row's range gives scores that are replaced before any use.
//! Values outside it are never read. Pages wholly outside are not touched at all.

const std = @import("std");
const assert = std.debug.assert;
const table = @import("table.zig");
const prefetch = @import("prefetch.zig");
const vec = @import("vec.zig");
const quant = @import("quant.zig");
const rope = @import("rope.zig");
const activation = @import("activation.zig");

const F = vec.F;
const U = vec.U;
const lanes = vec.lanes;
const positions = table.page_positions;
const page_vectors = positions / lanes;
const chunk_pages = table.attention_chunk_positions / positions;

/// Where several tiles read the same, they share it as float32: this many positions (keys) or columns (values) of this many
/// dimensions (keys) or positions (values), long enough that loading and storing the sums of a tile hardly counts.
const expanded_columns = @max(32, 4 * lanes);
const expanded_rows = table.attention_expanded / expanded_columns;
const negative_infinity = -std.math.inf(f32);

comptime {
    assert(table.attention_chunk_positions % positions == 0);
    assert(positions % lanes == 0);
    assert(positions % expanded_columns == 0);
    assert(expanded_rows >= positions);
    // A tile's keys have one row of scales.
    assert(expanded_rows % table.kv_block == 0);
}

/// Queries a register tile holds at most, and in `tileVectors` the vectors (of positions or of columns) beside them.
///
/// 32 registers: 8 queries take 2 vectors: 16 sums, 2 keys (or values) and a broadcast; up to 6 queries take 4 vectors: 24
/// sums, 4 keys and a broadcast. 16 registers: up to 6 queries take 2 vectors: 12 sums, 2 keys and a broadcast. Where the
/// machine has no float16 conversion, that is most of the work, and 8 queries share it: 8 sums, a key, a broadcast and 6
/// registers for the conversion (prompts of 4 query heads of width 256 ran at 15 GFLOP/s instead of 9 with 4 queries and 2
/// vectors, on one core of a Zen 4).
///
/// Few queries need more vectors, since four chains at least must be in flight to hide a multiply-add's latency of four
/// cycles. Disassembled with LLVM 21 for 256 and 512 bits, no tile touches the stack in its loop.
const tile_queries = if (vec.register_count >= 32 or !converts_f16) 8 else 6;

fn tileVectors(comptime queries: comptime_int) comptime_int {
    const wanted = if (vec.register_count >= 32)
        (if (queries > 6) 2 else 4)
    else if (!converts_f16)
        (if (queries > 4) 1 else 2)
    else
        (if (queries > 2) 2 else 4);
    return @min(wanted, page_vectors);
}

/// Levels without fused multiply-add are those without float16 conversion.
const converts_f16 = vec.fused;

/// What one call of the kernel works with: one KV head, and rows of one sequence.
const Block = struct {
    args: *const table.Attention,
    kv_head: u32,
    /// First row, and how many (at most `attention_row_block`), all of one sequence.
    row: u32,
    row_count: u32,
    /// Query heads of the KV head.
    heads: u32,
    width: usize,
    /// [dimension][row_count * heads]: the queries, transposed so that a tile reads neighbours.
    queries: [*]f32,
    /// [query][64]: scores, then weights, of the page at hand.
    weights: [*]f32,
    /// [query]: its largest score in the page at hand.
    largest: [*]f32,
    /// Keys or values at hand as float32, where several tiles read them: `table.attention_expanded` floats.
    expanded: [*]f32,
    /// [query][width], the current chunk's unnormalised values, and [query] its maximum and sum.
    chunk: State,

    const Range = struct { first: u32, last: u32 };

    /// Positions a row sees, both included.
    inline fn range(block: *const Block, row: u32) Range {
        return rangeOf(block.args, block.row + row);
    }
};

const State = struct {
    values: [*]f32,
    maximum: [*]f32,
    sum: [*]f32,
};

inline fn rangeOf(args: *const table.Attention, row: u32) Block.Range {
    const last = vec.read(&args.rows[row].position);
    const first = if (args.window == 0 or last < args.window) 0 else last - args.window + 1;
    return .{ .first = first, .last = last };
}

/// Bytes of scratch laid out by `Layout.init`; at most what `table.scratchBytes` promises.
const Layout = struct {
    queries: [*]f32,
    weights: [*]f32,
    largest: [*]f32,
    expanded: [*]f32,
    chunk: State,
    total: State,

    fn init(scratch: [*]align(64) u8, query_count: usize, width: usize) Layout {
        // Every part starts on a cache line: query_count * width and * 64 floats are multiples of 16 floats.
        const floats: [*]f32 = @ptrCast(scratch);
        const statistics = std.mem.alignForward(usize, query_count, 16);
        var at: usize = 0;
        const parts = [_]usize{
            query_count * width, query_count * positions,  query_count * width, query_count * width,
            statistics,          statistics,               statistics,          statistics,
            statistics,          table.attention_expanded,
        };
        var pointers: [parts.len][*]f32 = undefined;
        for (parts, 0..) |part, index| {
            pointers[index] = floats + at;
            at += part;
        }
        const heads = std.math.divCeil(usize, query_count, table.attention_row_block) catch unreachable;
        assert(at * @sizeOf(f32) <= table.scratchBytes(0, @intCast(width), @intCast(heads)));
        return .{
            .queries = pointers[0],
            .weights = pointers[1],
            .largest = pointers[8],
            .expanded = pointers[9],
            .chunk = .{ .values = pointers[2], .maximum = pointers[4], .sum = pointers[5] },
            .total = .{ .values = pointers[3], .maximum = pointers[6], .sum = pointers[7] },
        };
    }
};

/// See `table.Attention`. `head_width` is a multiple of 16; a KV head's columns are a multiple of 32 where the output is
/// quantized. `scratch` has `table.scratchBytes` bytes.
pub fn attention(args: *const table.Attention, begin: u32, end: u32, scratch: [*]align(64) u8) callconv(.c) void {
    assert(args.kv_head_count > 0 and args.head_count % args.kv_head_count == 0);
    assert(args.head_width > 0 and args.head_width % 16 == 0);
    const heads = args.head_count / args.kv_head_count;
    if (args.split != 0) {
        assert(end <= args.row_count * args.kv_head_count * args.chunk_count);
        for (begin..end) |unit| {
            const chunk: u32 = @intCast(unit % args.chunk_count);
            const kv_head: u32 = @intCast(unit / args.chunk_count % args.kv_head_count);
            const row: u32 = @intCast(unit / args.chunk_count / args.kv_head_count);
            partialUnit(args, row, kv_head, heads, chunk, scratch);
        }
        return;
    }
    const blocks = std.math.divCeil(u32, args.row_count, table.attention_row_block) catch unreachable;
    assert(end <= blocks * args.kv_head_count);
    assert(args.out != null or args.out_quantized != null);
    for (begin..end) |unit| {
        const kv_head: u32 = @intCast(unit % args.kv_head_count);
        var row: u32 = @intCast(unit / args.kv_head_count * table.attention_row_block);
        const block_end = @min(row + table.attention_row_block, args.row_count);
        while (row < block_end) {
            const count = neighbours(args.rows[row..block_end]);
            wholeUnit(args, row, count, kv_head, heads, scratch);
            row += count;
        }
    }
}

/// How many of the first rows are of one sequence.
inline fn neighbours(rows: []const table.Row) u32 {
    if (rows.len == 1) return 1;
    const sequence = vec.read(&rows[0].sequence);
    var count: u32 = 1;
    while (count < rows.len and vec.read(&rows[count].sequence) == sequence) count += 1;
    return count;
}

fn makeBlock(args: *const table.Attention, row: u32, row_count: u32, kv_head: u32, heads: u32, layout: *const Layout) Block {
    const width: usize = args.head_width;
    const query_count = row_count * heads;
    for (0..row_count) |r| {
        const source = args.q + (row + r) * args.q_stride + kv_head * heads * width;
        for (0..heads) |head| {
            const target = layout.queries + r * heads + head;
            for (0..width) |dimension| vec.write(&target[dimension * query_count], vec.read(&source[head * width + dimension]));
        }
    }
    return .{
        .args = args,
        .kv_head = kv_head,
        .row = row,
        .row_count = row_count,
        .heads = heads,
        .width = width,
        .queries = layout.queries,
        .weights = layout.weights,
        .largest = layout.largest,
        .expanded = layout.expanded,
        .chunk = layout.chunk,
    };
}

/// split = 0: neighbouring rows of one sequence, all their chunks, down to the result.
fn wholeUnit(args: *const table.Attention, row: u32, row_count: u32, kv_head: u32, heads: u32, scratch: [*]align(64) u8) void {
    const width: usize = args.head_width;
    const layout: Layout = .init(scratch, row_count * heads, width);
    const block = makeBlock(args, row, row_count, kv_head, heads, &layout);
    // Positions ascend, so the first row begins first and the last row ends last.
    const first_chunk = block.range(0).first / table.attention_chunk_positions;
    const last_chunk = block.range(row_count - 1).last / table.attention_chunk_positions;
    for (first_chunk..last_chunk + 1) |chunk| {
        reduceChunk(&block, @intCast(chunk));
        for (0..row_count) |r| {
            const seen = block.range(@intCast(r));
            const row_first = seen.first / table.attention_chunk_positions;
            if (chunk < row_first or chunk > seen.last / table.attention_chunk_positions) continue;
            for (r * heads..(r + 1) * heads) |query| {
                merge(
                    chunk == row_first,
                    layout.total.values + query * width,
                    &layout.total.maximum[query],
                    &layout.total.sum[query],
                    layout.chunk.values + query * width,
                    vec.read(&layout.chunk.maximum[query]),
                    vec.read(&layout.chunk.sum[query]),
                    width,
                );
            }
        }
    }
    for (0..row_count) |r| {
        const values = layout.total.values + r * heads * width;
        finish(args, row + r, kv_head * heads, heads, values, layout.total.sum + r * heads);
    }
}

/// split = 1: one row, one KV head, one chunk, into `partial`.
fn partialUnit(args: *const table.Attention, row: u32, kv_head: u32, heads: u32, chunk: u32, scratch: [*]align(64) u8) void {
    const seen = rangeOf(args, row);
    if (chunk < seen.first / table.attention_chunk_positions or chunk > seen.last / table.attention_chunk_positions) return;
    const width: usize = args.head_width;
    const layout: Layout = .init(scratch, heads, width);
    const block = makeBlock(args, row, 1, kv_head, heads, &layout);
    reduceChunk(&block, chunk);
    for (0..heads) |head| {
        const partial = partialOf(args, row, kv_head * heads + head, chunk);
        vec.copy(f32, partial[0..width], layout.chunk.values + head * width);
        vec.write(&partial[width], vec.read(&layout.chunk.maximum[head]));
        vec.write(&partial[width + 1], vec.read(&layout.chunk.sum[head]));
    }
}

inline fn partialOf(args: *const table.Attention, row: usize, head: usize, chunk: usize) [*]f32 {
    return args.partial.? + ((row * args.head_count + head) * args.chunk_count + chunk) * (@as(usize, args.head_width) + 2);
}

/// See `table.Attention`: merges what `attention` with split = 1 left in `partial`. Units: rows.
pub fn attentionMerge(args: *const table.Attention, begin: u32, end: u32, scratch: [*]align(64) u8) callconv(.c) void {
    assert(begin <= end and end <= args.row_count);
    assert(args.out != null or args.out_quantized != null);
    const width: usize = args.head_width;
    const heads = args.head_count / args.kv_head_count;
    const layout: Layout = .init(scratch, heads, width);
    const total = layout.total;
    for (begin..end) |row| {
        const seen = rangeOf(args, @intCast(row));
        const first_chunk = seen.first / table.attention_chunk_positions;
        const last_chunk = seen.last / table.attention_chunk_positions;
        assert(last_chunk < args.chunk_count);
        for (0..args.kv_head_count) |kv_head| {
            for (0..heads) |head| {
                for (first_chunk..last_chunk + 1) |chunk| {
                    const partial = partialOf(args, row, kv_head * heads + head, chunk);
                    const values = total.values + head * width;
                    const first = chunk == first_chunk;
                    merge(first, values, &total.maximum[head], &total.sum[head], partial, vec.read(&partial[width]), vec.read(&partial[width + 1]), width);
                }
            }
            finish(args, row, kv_head * heads, heads, total.values, total.sum);
        }
    }
}

/// e^x of one number, by the vector function: the same bits.
inline fn exp(x: f32) f32 {
    return activation.exp(@splat(x))[0];
}

/// Adds a chunk's (values, maximum, sum) to the total; the first chunk is copied. Both splits use this function.
inline fn merge(first: bool, values: [*]f32, maximum: *f32, sum: *f32, chunk_values: [*]const f32, chunk_maximum: f32, chunk_sum: f32, width: usize) void {
    if (first) {
        vec.copy(f32, values[0..width], chunk_values);
        vec.write(maximum, chunk_maximum);
        vec.write(sum, chunk_sum);
        return;
    }
    const old_maximum = vec.read(maximum);
    const larger = @max(old_maximum, chunk_maximum);
    const base = finiteBase(larger);
    const old = exp(old_maximum - base);
    const new = exp(chunk_maximum - base);
    vec.write(maximum, larger);
    vec.write(sum, vec.mulAdd(vec.read(sum), old, chunk_sum * new));
    const olds: F = @splat(old);
    const news: F = @splat(new);
    var column: usize = 0;
    while (column < width) : (column += lanes) {
        const scaled = vec.load(F, chunk_values + column) * news;
        vec.store(values + column, vec.mulAdd(vec.load(F, values + column), olds, scaled));
    }
}

/// What scores are measured from: the maximum, or 0 where every score so far is -inf (which would give -inf - -inf).
inline fn finiteBase(maximum: f32) f32 {
    return if (maximum == negative_infinity) 0 else maximum;
}

/// Divides the totals of `heads` heads by their sums and writes them as the step wants them. `values` is overwritten.
inline fn finish(args: *const table.Attention, row: usize, head: usize, heads: usize, values: [*]f32, sums: [*]const f32) void {
    const width: usize = args.head_width;
    const first = head * width;
    const count = heads * width;
    const out = if (args.out) |out| out + row * args.out_stride + first else values;
    for (0..heads) |index| {
        const factor: F = @splat(1 / vec.read(&sums[index]));
        var column = index * width;
        while (column < (index + 1) * width) : (column += lanes) {
            vec.store(out + column, vec.load(F, values + column) * factor);
        }
    }
    if (args.out_quantized) |quantized| {
        assert(count % table.block_columns == 0);
        const columns = args.head_count * args.head_width;
        quant.writeColumns(args.out_form, columns, @intCast(first), @intCast(first + count), out - first, quantized + row * args.out_quantized_stride);
    }
}

/// Leaves in `block.chunk` the values, maxima and sums of every row that sees something of the chunk.
fn reduceChunk(block: *const Block, chunk: u32) void {
    const args = block.args;
    const width = block.width;
    const query_count: usize = block.row_count * block.heads;
    var value: usize = 0;
    while (value < query_count * width) : (value += lanes) vec.store(block.chunk.values + value, @as(F, @splat(0)));
    vec.fill(f32, block.chunk.maximum[0..query_count], negative_infinity);
    vec.fill(f32, block.chunk.sum[0..query_count], 0);

    const first_page = @max(chunk * chunk_pages, block.range(0).first / positions);
    const last_page = @min(chunk * chunk_pages + chunk_pages - 1, block.range(block.row_count - 1).last / positions);
    const sequence = vec.read(&args.rows[block.row].sequence);
    const key_bytes = table.kvHeadBytes(args.kv.key_format, width);
    const value_bytes = table.kvHeadBytes(args.kv.value_format, width);
    const key_place = args.kv.key_offset + block.kv_head * key_bytes;
    const value_place = args.kv.value_offset + block.kv_head * value_bytes;
    var page_index = first_page;
    while (page_index <= last_page) : (page_index += 1) {
        const page = rope.pageOf(&args.kv, sequence, page_index);
        const keys = page + key_place;
        const values = page + value_place;

        // Rows that see something of this page; both ends of the ranges ascend, so they are neighbours.
        const page_first = page_index * positions;
        var row: u32 = 0;
        while (row < block.row_count and block.range(row).last < page_first) row += 1;
        var row_end = row;
        while (row_end < block.row_count and block.range(row_end).first < page_first + positions) row_end += 1;
        if (row == row_end) continue; // Between two rows that are further apart than the window.

        // Ranges ascend: the first row begins first, the last one ends last.
        const seen: Slots = .{
            .begin = slotsOf(block.range(row), page_first).begin,
            .end = slotsOf(block.range(row_end - 1), page_first).end,
        };
        const line_bytes = prefetch.aheadLine(args.tuning);
        var ahead: Ahead = .of(values, args.kv.value_format, width, line_bytes);
        scorePage(block, keys, row * block.heads, row_end * block.heads, seen, &ahead);
        var common: Slots = .{ .begin = 0, .end = positions };
        for (row..row_end) |r| {
            const slots = slotsOf(block.range(@intCast(r)), page_first);
            for (r * block.heads..(r + 1) * block.heads) |query| {
                // Most pages are seen whole and have no cap.
                const whole = slots.begin == 0 and slots.end == positions and args.soft_cap <= 0;
                const weights = block.weights + query * positions;
                vec.write(&block.largest[query], if (whole) scaleScores(true, args, weights, slots) else scaleScores(false, args, weights, slots));
            }
            common.begin = @max(common.begin, slots.begin);
            common.end = @min(common.end, slots.end);
        }
        // In a pass of its own, and without branches that depend on the scores, so that the processor works on several queries at
        // once (7 heads of width 64 a KV head, from the cache: 81 µs instead of 105, on one core of a Zen 5).
        for (row * block.heads..row_end * block.heads) |query| softmaxPage(block, query, vec.read(&block.largest[query]));
        // Past the last page, these are asked for once more and are there.
        const next_page = @min(page_index + 1, block.range(block.row_count - 1).last / positions);
        ahead = .of(rope.pageOf(&args.kv, sequence, next_page) + key_place, args.kv.key_format, width, line_bytes);
        // Each row's values in ascending position: what only some rows see before, what all see together, and after.
        if (common.begin >= common.end) common = .{ .begin = positions, .end = positions };
        for (row..row_end) |r| {
            const slots = slotsOf(block.range(@intCast(r)), page_first);
            addValues(block, values, r * block.heads, (r + 1) * block.heads, .{ .begin = slots.begin, .end = @min(common.begin, slots.end) }, &ahead);
        }
        addValues(block, values, row * block.heads, row_end * block.heads, common, &ahead);
        for (row..row_end) |r| {
            const slots = slotsOf(block.range(@intCast(r)), page_first);
            addValues(block, values, r * block.heads, (r + 1) * block.heads, .{ .begin = common.end, .end = slots.end }, &ahead);
        }
    }
}

/// Positions of a page that a row sees, from `begin` to before `end`.
const Slots = struct { begin: u32, end: u32 };

inline fn slotsOf(seen: Block.Range, page_first: u32) Slots {
    return .{
        .begin = if (seen.first > page_first) seen.first - page_first else 0,
        .end = @min(positions, seen.last - page_first + 1),
    };
}

/// weights[query][slot] = query · key for queries [begin, end) and at least the slots given, before scale and mask.
fn scorePage(block: *const Block, keys: [*]const u8, begin: usize, end: usize, slots: Slots, ahead: *Ahead) void {
    switch (block.args.kv.key_format) {
        .f16 => scoreStored(.f16, block, keys, begin, end, slots, ahead),
        .q8_0 => scoreStored(.q8_0, block, keys, begin, end, slots, ahead),
        else => unreachable,
    }
}

fn scoreStored(comptime stored: Stored, block: *const Block, keys: [*]const u8, begin: usize, end: usize, slots: Slots, ahead: *Ahead) void {
    if (end - begin <= tile_queries) {
        // Memory is read in the order it lies in, and what one tile reads before the next ones stays in the first-level cache meanwhile.
        const wanted = portion(block.width, positions * stored.size(), block.args.tuning.block_bytes);
        // A tile's keys have one row of scales.
        const dimensions = if (stored == .q8_0) std.math.floorPowerOfTwo(usize, @min(wanted, table.kv_block)) else wanted;
        var dimension: usize = 0;
        while (dimension < block.width) : (dimension += dimensions) {
            const count = @min(dimensions, block.width - dimension);
            scoreTiles(stored, block, .keys(stored, keys, block.width, dimension), dimension, count, begin, end, slots, ahead);
        }
        return;
    }
    var first = slots.begin / expanded_columns * expanded_columns;
    while (first < slots.end) : (first += expanded_columns) {
        const seen: Slots = .{ .begin = @max(slots.begin, first), .end = @min(slots.end, first + expanded_columns) };
        var dimension: usize = 0;
        while (dimension < block.width) : (dimension += expanded_rows) {
            const count = @min(expanded_rows, block.width - dimension);
            const part = expand(stored, .keys, block, .keys(stored, keys, block.width, dimension), count, first, expanded_columns, ahead);
            scoreTiles(.expanded, block, part, dimension, count, begin, end, seen, ahead);
        }
    }
}

/// Of `all` rows of `row_bytes` bytes as many as `bytes` hold, or fewer, so that the portions are nearly equal.
inline fn portion(all: usize, row_bytes: usize, bytes: usize) usize {
    const portions = std.math.divCeil(usize, all, @max(1, bytes / row_bytes)) catch unreachable;
    return std.math.divCeil(usize, all, portions) catch unreachable;
}

/// How a tile finds its keys or values: as a page holds them, or expanded to float32.
const Stored = enum {
    f16,
    q8_0,
    expanded,

    /// Bytes of a value, without its part of a scale.
    inline fn size(comptime stored: Stored) comptime_int {
        return switch (stored) {
            .f16 => 2,
            .q8_0 => 1,
            .expanded => 4,
        };
    }

    /// Bytes of the scales before a KV head's keys or values in a page.
    inline fn scalesBytes(comptime stored: Stored, width: usize) usize {
        return if (stored == .q8_0) table.kvScales(width) * positions * 2 else 0;
    }
};

/// Rows of keys (a row is a dimension, a column a position) or of values (the other way round), `stride` elements from row to
/// row, `first` the column that a row begins with.
const Part = struct {
    data: [*]const u8,
    stride: usize,
    first: usize,
    /// Of the first row: where Q8_0's scales begin.
    scales: [*]const u8,

    const Side = enum { keys, values };

    /// A KV head's keys from a dimension on.
    inline fn keys(comptime stored: Stored, head: [*]const u8, width: usize, dimension: usize) Part {
        return .{
            .data = head + stored.scalesBytes(width) + dimension * positions * stored.size(),
            .stride = positions,
            .first = 0,
            .scales = head + dimension / table.kv_block * positions * 2,
        };
    }

    /// A KV head's values from a position on.
    inline fn values(comptime stored: Stored, head: [*]const u8, width: usize, slot: usize) Part {
        return .{
            .data = head + stored.scalesBytes(width) + slot * width * stored.size(),
            .stride = width,
            .first = 0,
            .scales = head + slot * (width / table.kv_block) * 2,
        };
    }

    /// What the `len` Q8_0 quants of a row from a column on are multiples of.
    inline fn scalesAt(part: *const Part, comptime side: Side, comptime len: comptime_int, row: usize, column: usize) @Vector(len, f32) {
        switch (side) {
            .keys => return vec.loadF16(len, part.scales + (row / table.kv_block * positions + column) * 2),
            .values => {
                const scale = vec.load(u16, part.scales + (row * (part.stride / table.kv_block) + column / table.kv_block) * 2);
                return vec.fromF16(@as(@Vector(len, u16), @splat(scale)));
            },
        }
    }
};

/// Adds the dimensions [dimension, dimension + count), whose keys are the rows of `keys`, to the scores.
fn scoreTiles(comptime stored: Stored, block: *const Block, keys: Part, dimension: usize, count: usize, begin: usize, end: usize, slots: Slots, ahead: *Ahead) void {
    var query = begin;
    while (query < end) {
        const tile = nextTile(end - query);
        switch (tile) {
            inline 1...tile_queries => |n| scoreTile(stored, n, block, keys, dimension, count, query, slots, ahead),
            else => unreachable,
        }
        query += tile;
    }
}

/// Tiles of equal size rather than full ones and a rest.
inline fn nextTile(queries: usize) usize {
    const tiles = (queries + tile_queries - 1) / tile_queries;
    return (queries + tiles - 1) / tiles;
}

fn scoreTile(comptime stored: Stored, comptime n: comptime_int, block: *const Block, keys: Part, dimension: usize, count: usize, query: usize, slots: Slots, ahead: *Ahead) void {
    const vectors = comptime tileVectors(n);
    const stride = block.row_count * block.heads;
    var first = slots.begin / (vectors * lanes) * (vectors * lanes);
    while (first < slots.end) : (first += vectors * lanes) {
        const target = block.weights + query * positions + first;
        var sums: [n][vectors]F = @splat(@splat(@splat(0)));
        if (dimension > 0) {
            inline for (0..n) |i| {
                inline for (0..vectors) |v| sums[i][v] = vec.load(F, target + i * positions + v * lanes);
            }
        }
        var scales: [vectors]F = undefined;
        if (stored == .q8_0) {
            inline for (0..vectors) |v| scales[v] = keys.scalesAt(.keys, lanes, 0, first + v * lanes);
        }
        var key = keys.data + (first - keys.first) * stored.size();
        var q = block.queries + dimension * stride + query;
        var lines = ahead.*;
        for (0..count) |_| {
            if (stored != .expanded) lines.step(vectors * lanes * stored.size());
            var k: [vectors]F = undefined;
            inline for (0..vectors) |v| {
                k[v] = loadAs(stored, lanes, key + v * lanes * stored.size());
                if (stored == .q8_0) k[v] *= scales[v];
            }
            inline for (0..n) |i| {
                const broadcast: F = @splat(vec.read(&q[i]));
                inline for (0..vectors) |v| sums[i][v] = vec.mulAdd(broadcast, k[v], sums[i][v]);
            }
            key += keys.stride * stored.size();
            q += stride;
        }
        ahead.* = lines;
        inline for (0..n) |i| {
            inline for (0..vectors) |v| vec.store(target + i * positions + v * lanes, sums[i][v]);
        }
    }
}

/// A vector of keys or values, Q8_0's without their scales. With them, which float32 holds exactly, every way to store them
/// gives the tiles the same numbers.
inline fn loadAs(comptime stored: Stored, comptime len: comptime_int, pointer: [*]const u8) @Vector(len, f32) {
    return switch (stored) {
        .f16 => vec.loadF16(len, pointer),
        .q8_0 => vec.loadI8(len, pointer),
        .expanded => vec.load(@Vector(len, f32), pointer),
    };
}

/// `rows` rows of `columns` stored keys or values, from column `first` on, as float32, once for all tiles that read them.
fn expand(comptime stored: Stored, comptime side: Part.Side, block: *const Block, part: Part, rows: usize, first: usize, columns: usize, ahead: *Ahead) Part {
    assert(rows <= expanded_rows and columns <= expanded_columns);
    var source = part.data + first * stored.size();
    var out = block.expanded;
    for (0..rows) |row| {
        var column: usize = 0;
        while (column < columns) : (column += 16) {
            ahead.step(16 * stored.size());
            var values = loadAs(stored, 16, source + column * stored.size());
            if (stored == .q8_0) values *= part.scalesAt(side, 16, row, first + column);
            vec.store(out + column, values);
        }
        source += part.stride * stored.size();
        out += expanded_columns;
    }
    return .{ .data = @ptrCast(block.expanded), .stride = expanded_columns, .first = first, .scales = undefined };
}

/// Memory that is read after what is being read now, asked for as fast as that goes by: whatever reads stored keys or values
/// moves on by as many bytes as it reads.
const Ahead = struct {
    next: [*]const u8,
    /// 0: nothing is asked for.
    line_bytes: u32,

    /// What lies at `head` in a page: the scales at once, the rest step by step.
    inline fn of(head: [*]const u8, format: table.Format, width: usize, line_bytes: u32) Ahead {
        const scales_bytes = if (format == .q8_0) Stored.q8_0.scalesBytes(width) else 0;
        if (line_bytes > 0) prefetch.askAll(head, scales_bytes, line_bytes);
        return .{ .next = head + scales_bytes, .line_bytes = line_bytes };
    }

    /// Every line is asked for: with every second one, what was read took as long as if none had been (24 GB/s of keys and
    /// values instead of 45 where memory gives 48, on two cores of a Zen 5).
    inline fn step(ahead: *Ahead, comptime bytes: comptime_int) void {
        if (ahead.line_bytes == 0) return;
        if (ahead.line_bytes == prefetch.usual_line) {
            comptime var line: usize = 0;
            inline while (line < bytes) : (line += prefetch.usual_line) vec.prefetchFar(ahead.next, line);
        } else prefetch.askAll(ahead.next, bytes, ahead.line_bytes);
        ahead.next += bytes;
    }
};

/// Turns a query's scores of a page, of which `largest` is the largest, into weights e^(score - maximum), and moves its
/// maximum, sum and values to the new maximum.
inline fn softmaxPage(block: *const Block, query: usize, largest: f32) void {
    const weights = block.weights + query * positions;
    const old_maximum = vec.read(&block.chunk.maximum[query]);
    const maximum = if (largest > old_maximum) largest else old_maximum;
    const base = finiteBase(maximum);
    const bases: F = @splat(base);
    var sum: F = @splat(0);
    for (0..page_vectors) |v| {
        const weight = activation.expNonPositive(vec.load(F, weights + v * lanes) - bases);
        vec.store(weights + v * lanes, weight);
        sum += weight;
    }
    const corrections = activation.expNonPositive(@as(F, @splat(old_maximum - base)));
    vec.write(&block.chunk.maximum[query], maximum);
    vec.write(&block.chunk.sum[query], vec.mulAdd(vec.read(&block.chunk.sum[query]), corrections[0], vec.sum(sum)));
    const values = block.chunk.values + query * block.width;
    var column: usize = 0;
    while (column < block.width) : (column += lanes) {
        vec.store(values + column, vec.load(F, values + column) * corrections);
    }
}

/// Scales, caps and masks the scores of a page; returns the largest, among those that are numbers. `plain`: all are seen and
/// none is capped.
inline fn scaleScores(comptime plain: bool, args: *const table.Attention, weights: [*]f32, slots: Slots) f32 {
    const scale: F = @splat(args.scale);
    const minus: F = @splat(negative_infinity);
    const begin: U = @splat(slots.begin);
    const end: U = @splat(slots.end);
    const iota = std.simd.iota(u32, lanes);
    var largest = minus;
    for (0..page_vectors) |v| {
        var score = vec.load(F, weights + v * lanes) * scale;
        if (!plain) {
            if (args.soft_cap > 0) {
                const cap: F = @splat(args.soft_cap);
                score = activation.tanh(score / cap) * cap;
            }
            const slot = iota + @as(U, @splat(@intCast(v * lanes)));
            score = @select(f32, slot >= begin, score, minus);
            score = @select(f32, slot < end, score, minus);
        }
        vec.store(weights + v * lanes, score);
        largest = greater(score, largest);
    }
    return largestOf(largest);
}

/// Per lane the larger one, `b` where `a` is not a number: one instruction, where @max takes three.
inline fn greater(a: anytype, b: @TypeOf(a)) @TypeOf(a) {
    return @select(f32, a > b, a, b);
}

/// The largest element of a vector of numbers, by halving.
fn largestOf(vector: anytype) f32 {
    if (@typeInfo(@TypeOf(vector)).vector.len == 1) return vector[0];
    return largestOf(greater(vec.lowHalf(vector), vec.highHalf(vector)));
}

/// values[query] += Σ weight[query][slot] · value[slot] over `slots`, for queries [begin, end).
fn addValues(block: *const Block, values: [*]const u8, begin: usize, end: usize, slots: Slots, ahead: *Ahead) void {
    switch (block.args.kv.value_format) {
        .f16 => addStored(.f16, block, values, begin, end, slots, ahead),
        .q8_0 => addStored(.q8_0, block, values, begin, end, slots, ahead),
        else => unreachable,
    }
}

fn addStored(comptime stored: Stored, block: *const Block, values: [*]const u8, begin: usize, end: usize, slots: Slots, ahead: *Ahead) void {
    const width = block.width;
    if (end - begin <= tile_queries) {
        const wanted: u32 = @intCast(portion(positions, width * stored.size(), block.args.tuning.block_bytes));
        var slot = slots.begin;
        while (slot < slots.end) : (slot += wanted) {
            const seen: Slots = .{ .begin = slot, .end = @min(slots.end, slot + wanted) };
            valueTiles(stored, block, .values(stored, values, width, slot), width, begin, end, seen, ahead);
        }
        return;
    }
    if (slots.begin >= slots.end) return;
    var column: usize = 0;
    while (column < width) : (column += expanded_columns) {
        const columns = @min(expanded_columns, width - column);
        const stretch: Part = .values(stored, values, width, slots.begin);
        const part = expand(stored, .values, block, stretch, slots.end - slots.begin, column, columns, ahead);
        valueTiles(.expanded, block, part, columns, begin, end, slots, ahead);
    }
}

/// The same for `columns` columns of `values`, whose rows are the slots given.
fn valueTiles(comptime stored: Stored, block: *const Block, values: Part, columns: usize, begin: usize, end: usize, slots: Slots, ahead: *Ahead) void {
    const column_end = values.first + columns;
    var query = begin;
    while (query < end) {
        const tile = nextTile(end - query);
        switch (tile) {
            inline 1...tile_queries => |n| {
                const vectors = comptime tileVectors(n);
                var column = values.first;
                while (column + vectors * lanes <= column_end) : (column += vectors * lanes) {
                    valueTile(stored, n, vectors, block, values, query, column, slots, ahead);
                }
                while (column < column_end) : (column += lanes) {
                    valueTile(stored, n, 1, block, values, query, column, slots, ahead);
                }
            },
            else => unreachable,
        }
        query += tile;
    }
}

fn valueTile(comptime stored: Stored, comptime n: comptime_int, comptime vectors: comptime_int, block: *const Block, values: Part, query: usize, column: usize, slots: Slots, ahead: *Ahead) void {
    const width = block.width;
    const target = block.chunk.values + query * width + column;
    var sums: [n][vectors]F = undefined;
    inline for (0..n) |i| {
        inline for (0..vectors) |v| sums[i][v] = vec.load(F, target + i * width + v * lanes);
    }
    var weight = block.weights + query * positions + slots.begin;
    var value = values.data + (column - values.first) * stored.size();
    var lines = ahead.*;
    for (0..slots.end - slots.begin) |row| {
        if (stored != .expanded) lines.step(vectors * lanes * stored.size());
        var x: [vectors]F = undefined;
        var scales: F = undefined;
        inline for (0..vectors) |v| {
            x[v] = loadAs(stored, lanes, value + v * lanes * stored.size());
            if (stored == .q8_0) {
                if (v * lanes % table.kv_block == 0) scales = values.scalesAt(.values, lanes, row, column + v * lanes);
                x[v] *= scales;
            }
        }
        inline for (0..n) |i| {
            const broadcast: F = @splat(vec.read(&weight[i * positions]));
            inline for (0..vectors) |v| sums[i][v] = vec.mulAdd(broadcast, x[v], sums[i][v]);
        }
        weight += 1;
        value += values.stride * stored.size();
    }
    ahead.* = lines;
    inline for (0..n) |i| {
        inline for (0..vectors) |v| vec.store(target + i * width + v * lanes, sums[i][v]);
    }
}

// ---------------------------------------------------------------------------------------------------------------------

const Shape = struct {
    heads: u32,
    kv_heads: u32,
    width: u32,
    window: u32 = 0,
    soft_cap: f32 = 0,
    key_format: table.Format = .f16,
    value_format: table.Format = .f16,
    sequences: []const Run,

    /// Rows of one sequence: positions `first` to `first + count - 1`.
    const Run = struct { first: u32, count: u32 };
};

/// Keys and values of several sequences in pages, in a shuffled order, with NaN wherever no position was stored.
const Fixture = struct {
    allocator: std.mem.Allocator,
    args: table.Attention,
    pages: []align(64) u8,
    page_table: []u32,
    rows: []table.Row,
    q: []f32,
    /// [sequence][position][kv_head][width], as stored.
    keys: [][]f32,
    values: [][]f32,
    partial: []f32,
    scratch: []align(64) u8,

    fn init(allocator: std.mem.Allocator, random: std.Random, shape: Shape, magnitude: f32) !Fixture {
        const k_width = shape.kv_heads * shape.width;
        const key_bytes = table.kvHeadBytes(shape.key_format, shape.width);
        const value_bytes = table.kvHeadBytes(shape.value_format, shape.width);
        const page_bytes = shape.kv_heads * (key_bytes + value_bytes);
        var row_count: u32 = 0;
        var longest: u32 = 0;
        for (shape.sequences) |span| {
            row_count += span.count;
            longest = @max(longest, span.first + span.count);
        }
        const table_stride = (longest + positions - 1) / positions + 1;
        const sequence_count = shape.sequences.len;
        const page_table = try allocator.alloc(u32, table_stride * sequence_count);
        @memset(page_table, 0xfffffff); // Stale: a read of it crashes.
        var page_count: u32 = 0;
        for (shape.sequences) |span| page_count += (span.first + span.count + positions - 1) / positions;
        const order = try allocator.alloc(u32, page_count);
        defer allocator.free(order);
        for (order, 0..) |*entry, index| entry.* = @intCast(index);
        random.shuffle(u32, order);
        const pages = try allocator.alignedAlloc(u8, .@"64", page_bytes * page_count);
        @memset(pages, 0xff); // NaN in float16, which Q8_0's scales are.
        const rows = try allocator.alloc(table.Row, row_count);
        const q = try allocator.alloc(f32, row_count * shape.heads * shape.width);
        for (q) |*x| x.* = random.floatNorm(f32) * magnitude;
        const keys = try allocator.alloc([]f32, sequence_count);
        const values = try allocator.alloc([]f32, sequence_count);
        var next_page: usize = 0;
        var next_row: usize = 0;
        for (shape.sequences, 0..) |span, sequence| {
            const length = span.first + span.count;
            keys[sequence] = try allocator.alloc(f32, length * k_width);
            values[sequence] = try allocator.alloc(f32, length * k_width);
            for (0..span.count) |index| {
                rows[next_row] = .{ .sequence = @intCast(sequence), .position = span.first + @as(u32, @intCast(index)) };
                next_row += 1;
            }
            // The oldest page any row sees; those before were given back.
            const seen = if (shape.window == 0 or span.first < shape.window) 0 else span.first - shape.window + 1;
            for (0..(length + positions - 1) / positions) |page| {
                if ((page + 1) * positions > seen) page_table[sequence * table_stride + page] = order[next_page];
                next_page += 1;
            }
            for (0..length) |position| {
                for (0..shape.kv_heads) |head| {
                    for (0..shape.width) |at| {
                        const index = (position * shape.kv_heads + head) * shape.width + at;
                        if (position < seen) continue; // Outside every window: NaN stays, or the page is gone.
                        const page = pages[page_table[sequence * table_stride + position / positions] * page_bytes ..];
                        const slot = position % positions;
                        keys[sequence][index] = put(shape.key_format, .keys, page[head * key_bytes ..], shape.width, slot, at, random);
                        const value_place = shape.kv_heads * key_bytes + head * value_bytes;
                        values[sequence][index] = put(shape.value_format, .values, page[value_place..], shape.width, slot, at, random);
                    }
                }
            }
        }
        const chunk_count = (longest - 1) / table.attention_chunk_positions + 1;
        const partial = try allocator.alloc(f32, row_count * shape.heads * chunk_count * (shape.width + 2));
        @memset(partial, std.math.nan(f32));
        const scratch = try allocator.alignedAlloc(u8, .@"64", table.scratchBytes(32, shape.width, shape.heads / shape.kv_heads));
        @memset(scratch, 0xff);
        return .{
            .allocator = allocator,
            .pages = pages,
            .page_table = page_table,
            .rows = rows,
            .q = q,
            .keys = keys,
            .values = values,
            .partial = partial,
            .scratch = scratch,
            .args = .{
                .head_count = shape.heads,
                .kv_head_count = shape.kv_heads,
                .head_width = shape.width,
                .row_count = row_count,
                .window = shape.window,
                .scale = 1 / @sqrt(@as(f32, @floatFromInt(shape.width))),
                .soft_cap = shape.soft_cap,
                .split = 0,
                .chunk_count = chunk_count,
                .q = q.ptr,
                .q_stride = shape.heads * shape.width,
                .rows = rows.ptr,
                .kv = .{
                    .base = pages.ptr,
                    .page_bytes = page_bytes,
                    .page_table = page_table.ptr,
                    .table_stride = table_stride,
                    .key_offset = 0,
                    .value_offset = shape.kv_heads * key_bytes,
                    .key_format = shape.key_format,
                    .value_format = shape.value_format,
                },
                .partial = partial.ptr,
                .out = null,
                .out_stride = shape.heads * shape.width,
                .out_quantized = null,
                .out_quantized_stride = table.quantizedRowBytes(std.mem.alignForward(u32, shape.heads * shape.width, 32)),
            },
        };
    }

    /// Stores a random key or value of a KV head, dimension by dimension, as `table.KvView` says; returns what it stands for.
    fn put(format: table.Format, side: Part.Side, head: []u8, width: usize, slot: usize, dimension: usize, random: std.Random) f32 {
        const place = if (side == .keys) dimension * positions + slot else slot * width + dimension;
        if (format == .f16) {
            const value: f16 = @floatCast(random.floatNorm(f32));
            std.mem.writeInt(u16, head[place * 2 ..][0..2], @bitCast(value), .little);
            return value;
        }
        const block = dimension / 32;
        const scale = head[(if (side == .keys) block * positions + slot else slot * (width / 32) + block) * 2 ..][0..2];
        if (dimension % 32 == 0) std.mem.writeInt(u16, scale, @bitCast(@as(f16, @floatCast(0.002 + random.float(f32) * 0.02))), .little);
        const multiple = random.intRangeAtMost(i8, -127, 127);
        head[width / 32 * positions * 2 + place] = @bitCast(multiple);
        const scale_value: f16 = @bitCast(std.mem.readInt(u16, scale, .little));
        return @as(f32, scale_value) * @as(f32, @floatFromInt(multiple));
    }

    fn deinit(fixture: *Fixture) void {
        const allocator = fixture.allocator;
        for (fixture.keys, fixture.values) |k, v| {
            allocator.free(k);
            allocator.free(v);
        }
        allocator.free(fixture.keys);
        allocator.free(fixture.values);
        allocator.free(fixture.pages);
        allocator.free(fixture.page_table);
        allocator.free(fixture.rows);
        allocator.free(fixture.q);
        allocator.free(fixture.partial);
        allocator.free(fixture.scratch);
    }

    /// Rows [row, row + count) by themselves, with the given split, in units of `step`.
    fn run(fixture: *Fixture, row: u32, count: u32, split: u32, step: u32, out: ?[]f32, quantized: ?[]u8) void {
        var args = fixture.args;
        args.row_count = count;
        args.rows += row;
        args.q += row * args.q_stride;
        args.out = if (out) |o| o.ptr + row * args.out_stride else null;
        args.out_quantized = if (quantized) |o| o.ptr + row * args.out_quantized_stride else null;
        args.split = split;
        const scratch: [*]align(64) u8 = fixture.scratch.ptr;
        const units = if (split == 0)
            (count + table.attention_row_block - 1) / table.attention_row_block * args.kv_head_count
        else
            count * args.kv_head_count * args.chunk_count;
        var unit: u32 = 0;
        while (unit < units) : (unit += step) attention(&args, unit, @min(units, unit + step), scratch);
        if (split != 0) attentionMerge(&args, 0, count, scratch);
    }

    fn reference(fixture: *const Fixture, row: usize, head: usize, out: []f64) void {
        const args = &fixture.args;
        const place = fixture.rows[row];
        const width: usize = args.head_width;
        const kv_head = head / (args.head_count / args.kv_head_count);
        const first = if (args.window == 0 or place.position < args.window) 0 else place.position - args.window + 1;
        const q = fixture.q[(row * args.head_count + head) * width ..][0..width];
        @memset(out, 0);
        var maximum = -std.math.inf(f64);
        var sum: f64 = 0;
        for ([_]bool{ false, true }) |second| {
            for (first..place.position + 1) |position| {
                const at = (position * args.kv_head_count + kv_head) * width;
                var score: f64 = 0;
                for (q, fixture.keys[place.sequence][at..][0..width]) |a, b| score += @as(f64, a) * b;
                score *= args.scale;
                if (args.soft_cap > 0) score = args.soft_cap * std.math.tanh(score / args.soft_cap);
                maximum = @max(maximum, score);
                if (!second) continue;
                const weight = @exp(score - maximum);
                sum += weight;
                for (out, fixture.values[place.sequence][at..][0..width]) |*o, v| o.* += weight * v;
            }
        }
        for (out) |*o| o.* /= sum;
    }
};

fn expectAttention(shape: Shape, magnitude: f32, tolerance: f64) !void {
    const allocator = std.testing.allocator;
    var prng = std.Random.DefaultPrng.init(shape.heads * 1000 + shape.width + shape.window);
    var fixture: Fixture = try .init(allocator, prng.random(), shape, magnitude);
    defer fixture.deinit();
    const args = &fixture.args;
    const columns = args.head_count * args.head_width;
    const row_count = args.row_count;
    const quantizes = args.head_count / args.kv_head_count * args.head_width % 32 == 0;
    const out = try allocator.alloc(f32, row_count * columns);
    defer allocator.free(out);
    const other = try allocator.alloc(f32, row_count * columns);
    defer allocator.free(other);
    const quantized = try allocator.alloc(u8, row_count * args.out_quantized_stride);
    defer allocator.free(quantized);
    const other_quantized = try allocator.alloc(u8, row_count * args.out_quantized_stride);
    defer allocator.free(other_quantized);
    @memset(quantized, 0);
    @memset(other_quantized, 0);

    fixture.run(0, row_count, 0, std.math.maxInt(u16), out, if (quantizes) quantized else null);
    const want = try allocator.alloc(f64, args.head_width);
    defer allocator.free(want);
    for (0..row_count) |row| {
        if (row % 3 != 0 and row + 5 < row_count) continue; // The reference is slow.
        for (0..args.head_count) |head| {
            fixture.reference(row, head, want);
            for (want, out[row * columns + head * args.head_width ..][0..args.head_width]) |w, o| {
                try std.testing.expectApproxEqAbs(w, o, tolerance);
            }
        }
    }
    // Split by chunks, unit by unit.
    @memset(other, 0);
    fixture.run(0, row_count, 1, 1, other, if (quantizes) other_quantized else null);
    try std.testing.expectEqualSlices(u32, @ptrCast(out), @ptrCast(other));
    try std.testing.expectEqualSlices(u8, quantized, other_quantized);
    // Row by row.
    @memset(other, 0);
    for (0..row_count) |row| fixture.run(@intCast(row), 1, 0, 1, other, null);
    try std.testing.expectEqualSlices(u32, @ptrCast(out), @ptrCast(other));
    // Blocks that start elsewhere.
    if (row_count > 1) {
        @memset(other, 0);
        fixture.run(0, 1, 0, 1, other, null);
        fixture.run(1, row_count - 1, 0, 2, other, null);
        try std.testing.expectEqualSlices(u32, @ptrCast(out), @ptrCast(other));
    }
    if (!quantizes) return;
    // Only quantized, both splits.
    for ([_]u32{ 0, 1 }) |split| {
        @memset(other_quantized, 0);
        fixture.run(0, row_count, split, 3, null, other_quantized);
        try std.testing.expectEqualSlices(u8, quantized, other_quantized);
    }
}

test "attention equals the plain softmax at page and chunk borders, for one row" {
    for ([_]u32{ 0, 1, 62, 63, 64, 127, 128, 511, 512, 513, 1024, 2000 }) |position| {
        try expectAttention(.{ .heads = 4, .kv_heads = 1, .width = 64, .sequences = &.{.{ .first = position, .count = 1 }} }, 1, 3e-6);
    }
}

const formats = [_]struct { key: table.Format, value: table.Format }{
    .{ .key = .f16, .value = .f16 },  .{ .key = .q8_0, .value = .q8_0 },
    .{ .key = .f16, .value = .q8_0 }, .{ .key = .q8_0, .value = .f16 },
};

test "attention equals the plain softmax for every ratio of query to KV heads, and any grouping gives the same bits" {
    const Ratio = struct { heads: u32, kv_heads: u32, width: u32 };
    const ratios = [_]Ratio{
        .{ .heads = 1, .kv_heads = 1, .width = 64 },
        .{ .heads = 3, .kv_heads = 3, .width = 32 },
        .{ .heads = 4, .kv_heads = 2, .width = 80 },
        .{ .heads = 4, .kv_heads = 1, .width = 256 },
        .{ .heads = 14, .kv_heads = 2, .width = 64 },
        .{ .heads = 8, .kv_heads = 1, .width = 128 },
        .{ .heads = 16, .kv_heads = 1, .width = 48 },
        .{ .heads = 34, .kv_heads = 2, .width = 16 },
        .{ .heads = 2, .kv_heads = 2, .width = 16 },
        .{ .heads = 2, .kv_heads = 1, .width = 512 },
    };
    // Keys and values of different formats meet each other in one ratio: under an emulator, all ratios take minutes.
    for (ratios) |ratio| for (formats) |format| {
        if (ratio.width % table.kv_block != 0 and (format.key != .f16 or format.value != .f16)) continue;
        if (format.key != format.value and ratio.heads != 14) continue;
        try expectAttention(.{
            .heads = ratio.heads,
            .kv_heads = ratio.kv_heads,
            .width = ratio.width,
            .key_format = format.key,
            .value_format = format.value,
            .sequences = &.{ .{ .first = 57, .count = 9 }, .{ .first = 0, .count = 3 }, .{ .first = 254, .count = 4 }, .{ .first = 100, .count = 1 } },
        }, 1, 3e-6);
    };
}

test "sliding windows cross pages and chunks, and pages that were given back are not read" {
    for ([_]u32{ 1, 2, 63, 64, 65, 100, 512, 513, 700 }) |window| for ([_]table.Format{ .f16, .q8_0 }) |format| {
        try expectAttention(.{
            .heads = 4,
            .kv_heads = 2,
            .width = 32,
            .key_format = format,
            .value_format = format,
            .window = window,
            .sequences = &.{ .{ .first = 0, .count = 6 }, .{ .first = 60, .count = 9 }, .{ .first = 509, .count = 8 }, .{ .first = 1218, .count = 2 } },
        }, 1, 3e-6);
    };
}

test "soft caps bound the scores before the softmax" {
    try expectAttention(.{ .heads = 4, .kv_heads = 2, .width = 64, .soft_cap = 5, .sequences = &.{.{ .first = 500, .count = 20 }} }, 8, 2e-5);
}

test "large scores neither overflow nor lose the largest" {
    // Scores of about ±1000: the softmax is nearly one position; float32 rounding of the scores shows in the result.
    try expectAttention(.{ .heads = 2, .kv_heads = 1, .width = 64, .sequences = &.{.{ .first = 600, .count = 5 }} }, 300, 5e-3);
    try expectAttention(.{ .heads = 2, .kv_heads = 1, .width = 64, .sequences = &.{.{ .first = 600, .count = 5 }} }, 0, 3e-6);
    try expectAttention(.{ .heads = 2, .kv_heads = 1, .width = 64, .sequences = &.{.{ .first = 600, .count = 5 }} }, 1e-40, 3e-6);
}

test "attention has the same bits under every tuning" {
    const allocator = std.testing.allocator;
    for (formats) |format| {
        var prng = std.Random.DefaultPrng.init(10);
        // Few queries, which read keys and values as they are stored, and in row blocks many, which expand them.
        var fixture: Fixture = try .init(allocator, prng.random(), .{
            .heads = 2,
            .kv_heads = 1,
            .width = 96,
            .key_format = format.key,
            .value_format = format.value,
            .sequences = &.{ .{ .first = 300, .count = 1 }, .{ .first = 60, .count = 13 } },
        }, 1);
        defer fixture.deinit();
        const rows = fixture.args.row_count;
        const fixed = try allocator.alloc(f32, rows * 192);
        defer allocator.free(fixed);
        const tuned = try allocator.alloc(f32, rows * 192);
        defer allocator.free(tuned);
        fixture.run(0, rows, 0, 3, fixed, null);
        for ([_]u32{ 0, 1, 1, 1 }, [_]u32{ 64, 32, 64, 256 }) |ahead, line_bytes| {
            for ([_]u32{ table.Tuning.block_bytes_min, 1600, 8192, table.Tuning.block_bytes_max }) |block_bytes| {
                var tuning: table.Tuning = .fixed;
                tuning.ahead = ahead;
                tuning.line_bytes = line_bytes;
                tuning.block_bytes = block_bytes;
                fixture.args.tuning = &tuning;
                for ([_]u32{ 0, 1 }) |split| {
                    @memset(tuned, 0);
                    fixture.run(0, rows, split, 3, tuned, null);
                    try std.testing.expectEqualSlices(u32, @ptrCast(fixed), @ptrCast(tuned));
                }
            }
        }
    }
}

test "rows of one sequence further apart than the window do not read the pages between" {
    // Not what a step holds today, but what the contract (ascending positions) allows.
    const allocator = std.testing.allocator;
    var prng = std.Random.DefaultPrng.init(9);
    var fixture: Fixture = try .init(allocator, prng.random(), .{ .heads = 2, .kv_heads = 1, .width = 32, .sequences = &.{.{ .first = 10, .count = 700 }} }, 1);
    defer fixture.deinit();
    fixture.args.window = 20;
    fixture.rows[1].position = 650;
    fixture.page_table[4] = 0xfffffff;
    const out = try allocator.alloc(f32, fixture.args.row_count * 64);
    defer allocator.free(out);
    fixture.run(0, 2, 0, 9, out, null);
    var want: [32]f64 = undefined;
    for (0..2) |row| {
        for (0..2) |head| {
            fixture.reference(row, head, &want);
            for (want, out[row * 64 + head * 32 ..][0..32]) |w, o| try std.testing.expectApproxEqAbs(w, o, 3e-6);
        }
    }
}
