//! The KV cache's pages: per group of layers a pool of equal pages and a page table per running sequence. A page may be held
//! by several sequences that begin alike, and keeps what it holds after the last of them until it is needed for something
//! else (prefix.zig finds it again). Pages cost memory from when they are first written; where a limit leaves less than all groups
//! have, those that nobody holds are given back to the system. Everything is set aside when the program is loaded.

const std = @import("std");
const assert = std.debug.assert;
const allocations = @import("allocations.zig");
const program = @import("program.zig");
const system = @import("system.zig");
const table = @import("kernels/table.zig");

pub const page_positions = table.page_positions;

/// All tokens before a page, in 128 bits. Keys and values at a position depend on the tokens up to it and on nothing else.
pub const Digest = u128;

const none = std.math.maxInt(u32);

/// A pool's first bytes are in small pages of the system, so that a short run touches little memory; a long one reads more
/// than small pages have translations at hand (generation at depth 4,096 is 7 % faster in huge ones: 118 tokens/s instead of
/// 110 with qwen2-0.5b in Q4_0, on two cores of a Zen 5).
const small_bytes = 4 << 20;

/// What is known of a page. All zero: nobody holds it and nothing is in it.
const Page = struct {
    /// What stands in the page: `count` tokens, the first of which follows the tokens of `before`. 0: nothing that others may
    /// use; only otherwise is the page in its bucket.
    before: Digest,
    tokens: [page_positions]u32,
    count: u32,
    /// Sequences that hold it.
    holders: u32,
    bucket: Link,
    /// Its place among the kept pages: those with something in them that nobody holds.
    kept: Link,
};

const Link = struct { previous: u32, next: u32 };

/// What the pages of all groups may take of memory together. Whoever is promised pages is promised that they fit.
pub const Budget = struct {
    bytes_max: u64 = std.math.maxInt(u64),
    groups: []KvGroup = &.{},

    const unlimited: Budget = .{};

    /// Bytes of the pages that running sequences were promised.
    pub fn promised(budget: *const Budget) u64 {
        var bytes: u64 = 0;
        for (budget.groups) |*group| bytes += group.reserved * group.page_bytes;
        return bytes;
    }

    /// The same, and of the pages that cost memory beside them.
    pub fn claimed(budget: *const Budget) u64 {
        var bytes: u64 = 0;
        for (budget.groups) |*group| bytes += @max(group.reserved, group.touched.raw) * group.page_bytes;
        return bytes;
    }

    /// Gives pages back to the system that nobody was promised, as far as there are too many: of all groups in turn, since what is kept
    /// in one is of no use without the others'.
    pub fn settle(budget: *Budget) void {
        while (budget.claimed() > budget.bytes_max) {
            var given = false;
            for (budget.groups) |*group| {
                if (group.touched.raw <= group.reserved or budget.claimed() <= budget.bytes_max) continue;
                group.giveBack();
                given = true;
            }
            if (!given) return;
        }
    }
};

pub const KvGroup = struct {
    window: u32,
    page_bytes: u64,
    base: []align(4096) u8,
    page_memory: []align(4096) u8,
    pages: []Page,
    /// Stack of pages with nothing in them: first those that cost no memory, on top of them those that do. Low numbers come first, so
    /// that a short run touches little memory.
    empty: []u32,
    empty_count: u32,
    /// Kept pages give way before others cost memory that it does not have.
    budget: *const Budget = &Budget.unlimited,
    /// Pages that cost memory.
    touched: std.atomic.Value(u32) = .init(0),
    /// Pages below this number were ever used.
    reached: std.atomic.Value(u32) = .init(0),
    /// Kept pages, longest kept to last.
    kept_first: u32 = none,
    kept_last: u32 = none,
    kept_count: u32 = 0,
    /// Pages are kept up to this many, so that memory once touched has a bound.
    kept_max: u32,
    /// First page of each list of pages that begin alike, by `Page.before`.
    buckets: []u32,
    /// Pages promised to running sequences, so that a running one never finds the pool empty.
    reserved: u32 = 0,
    /// page_table[sequence · table_stride + position / 64].
    page_table: []u32,
    table_stride: u32,
    /// Per sequence: pages below this index were given back; pages from `allocated` on are not taken yet.
    released: [program.sequences_max]u32 = @splat(0),
    allocated: [program.sequences_max]u32 = @splat(0),

    pub fn init(allocator: std.mem.Allocator, descriptor: program.KvGroup, batch_max: u32, context_max: u32) error{OutOfMemory}!KvGroup {
        const page_count = descriptor.page_count;
        const stride = std.math.divCeil(u32, context_max, page_positions) catch unreachable;
        const base = try allocations.reserve(descriptor.page_bytes * page_count);
        errdefer allocations.unreserve(base);
        system.preferHugePages(@alignCast(base[@min(small_bytes, base.len)..]));
        const page_memory = try allocations.reserve(@as(u64, page_count) * @sizeOf(Page));
        errdefer allocations.unreserve(page_memory);
        const empty = try allocator.alloc(u32, page_count);
        errdefer allocator.free(empty);
        for (empty, 0..) |*page, index| page.* = page_count - 1 - @as(u32, @intCast(index));
        const buckets = try allocator.alloc(u32, std.math.ceilPowerOfTwoAssert(u32, page_count));
        errdefer allocator.free(buckets);
        @memset(buckets, none);
        const page_table = try allocator.alloc(u32, @as(usize, batch_max) * stride);
        @memset(page_table, 0);
        return .{
            .window = descriptor.window,
            .page_bytes = descriptor.page_bytes,
            .base = base,
            .page_memory = page_memory,
            .pages = @as([*]Page, @ptrCast(page_memory.ptr))[0..page_count],
            .empty = empty,
            .empty_count = page_count,
            .kept_max = descriptor.kept_max,
            .buckets = buckets,
            .page_table = page_table,
            .table_stride = stride,
        };
    }

    /// Bytes that `init` takes: of the pages themselves, of what is known of them, and of lists and tables of them.
    pub fn sizes(descriptor: program.KvGroup, batch_max: u32, context_max: u32) struct { base: u64, pages: u64, lists: u64 } {
        const count: u64 = descriptor.page_count;
        const buckets: u64 = std.math.ceilPowerOfTwoAssert(u32, descriptor.page_count);
        const stride = std.math.divCeil(u64, context_max, page_positions) catch unreachable;
        return .{
            .base = std.mem.alignForward(u64, descriptor.page_bytes * count, 4096),
            .pages = count * @sizeOf(Page),
            .lists = (count + buckets + batch_max * stride) * @sizeOf(u32),
        };
    }

    pub fn deinit(group: *KvGroup, allocator: std.mem.Allocator) void {
        allocator.free(group.page_table);
        allocator.free(group.buckets);
        allocator.free(group.empty);
        allocations.unreserve(group.page_memory);
        allocations.unreserve(group.base);
    }

    /// Pages a sequence of `positions` holds at most at any time, when a step adds at most `step_rows` positions.
    pub fn pagesNeeded(group: *const KvGroup, positions: u32, step_rows: u32) u32 {
        const all = std.math.divCeil(u32, positions, page_positions) catch unreachable;
        if (group.window == 0) return all;
        // The window, the step's own rows, and a partly used page at each end.
        return @min(all, (group.window + step_rows) / page_positions + 2);
    }

    /// The first page that positions from `next` on look at.
    pub fn firstNeeded(group: *const KvGroup, next: u32) u32 {
        if (group.window == 0 or next + 1 <= group.window) return 0;
        return (next + 1 - group.window) / page_positions;
    }

    /// A sequence's entry for its page number `block`.
    pub fn entry(group: *const KvGroup, sequence: u32, block: u32) *u32 {
        assert(block < group.table_stride);
        return &group.page_table[sequence * group.table_stride + block];
    }

    pub fn bytes(group: *const KvGroup, page: u32) []align(64) u8 {
        const first: usize = @intCast(page * group.page_bytes);
        return @alignCast(group.base[first..][0..@intCast(group.page_bytes)]);
    }

    /// Where pages are that were ever used, to the end of the system's huge page.
    pub fn touchedBytes(group: *const KvGroup) []const u8 {
        const used = std.mem.alignForward(u64, group.reached.load(.monotonic) * group.page_bytes, 2 << 20);
        return group.base[0..@intCast(@min(used, group.base.len))];
    }

    /// Makes sure that positions below `end` of `sequence` have pages.
    pub fn ensure(group: *KvGroup, sequence: u32, end: u32) void {
        const needed = std.math.divCeil(u32, end, page_positions) catch unreachable;
        while (group.allocated[sequence] < needed) : (group.allocated[sequence] += 1) {
            group.entry(sequence, group.allocated[sequence]).* = group.take();
        }
    }

    /// The same, with pages in which nothing of others is left.
    pub fn ensureClean(group: *KvGroup, sequence: u32, end: u32) void {
        const first = group.allocated[sequence];
        group.ensure(sequence, end);
        for (first..@max(first, group.allocated[sequence])) |block| @memset(group.bytes(group.entry(sequence, @intCast(block)).*), 0);
    }

    /// Gives `sequence`, which has no pages yet, those that it would hold after `positions`, to be written.
    pub fn place(group: *KvGroup, sequence: u32, positions: u32) void {
        group.released[sequence] = group.firstNeeded(positions);
        group.allocated[sequence] = group.released[sequence];
        group.ensure(sequence, positions);
    }

    /// A page of `sequence`, if it holds one of that number.
    pub fn heldPage(group: *const KvGroup, sequence: u32, block: u32) ?[]align(64) u8 {
        if (block < group.released[sequence] or block >= group.allocated[sequence]) return null;
        return group.bytes(group.entry(sequence, block).*);
    }

    /// Gives back pages that positions from `next` on no longer look at.
    pub fn releaseBehind(group: *KvGroup, sequence: u32, next: u32) void {
        const end = @min(group.firstNeeded(next), group.allocated[sequence]);
        while (group.released[sequence] < end) : (group.released[sequence] += 1) {
            group.release(group.entry(sequence, group.released[sequence]).*, group.kept_max);
        }
    }

    pub fn releaseAll(group: *KvGroup, sequence: u32) void {
        group.releaseEach(sequence, group.kept_max);
    }

    /// The same, and all of them are kept, also beyond the bound. What is released later pushes out as much as comes in.
    pub fn keepAll(group: *KvGroup, sequence: u32) void {
        group.releaseEach(sequence, @intCast(group.pages.len));
    }

    fn releaseEach(group: *KvGroup, sequence: u32, kept_max: u32) void {
        // The last first: what comes after a page is of no use without it.
        var block = group.allocated[sequence];
        while (block > group.released[sequence]) {
            block -= 1;
            group.release(group.entry(sequence, block).*, kept_max);
        }
        group.allocated[sequence] = 0;
        group.released[sequence] = 0;
    }

    pub const Match = struct { page: u32 = none, length: u32 = 0 };

    /// The page behind the tokens of `before` that agrees longest with `tokens`, and how many of them it has.
    pub fn find(group: *const KvGroup, before: Digest, tokens: []const u32) Match {
        var best: Match = .{};
        var index = group.bucket(before).*;
        while (index != none and best.length < tokens.len) : (index = group.pages[index].bucket.next) {
            const page = &group.pages[index];
            if (page.before != before) continue;
            const most = @min(page.count, tokens.len);
            const length: u32 = @intCast(std.mem.findDiff(u32, page.tokens[0..most], tokens[0..most]) orelse most);
            if (length > best.length) best = .{ .page = index, .length = length };
        }
        return best;
    }

    /// Makes a whole page of others the next page of `sequence`.
    pub fn share(group: *KvGroup, sequence: u32, index: u32) void {
        assert(group.pages[index].count == page_positions);
        group.hold(sequence, index);
    }

    /// Makes the first `length` positions of a page those of the next page of `sequence`, which goes on writing in it: a copy,
    /// or the page itself where nobody holds it and nothing more is in it.
    pub fn branch(group: *KvGroup, sequence: u32, from: u32, length: u32) void {
        const page = &group.pages[from];
        assert(length <= page.count);
        if (page.holders == 0 and page.count == length) return group.hold(sequence, from);
        const to = group.take();
        // A kept page may have been the one to give way; what it holds is still there.
        if (to != from) @memcpy(group.bytes(to), group.bytes(from));
        group.entry(sequence, group.allocated[sequence]).* = to;
        group.allocated[sequence] += 1;
    }

    fn hold(group: *KvGroup, sequence: u32, index: u32) void {
        const page = &group.pages[index];
        if (page.holders == 0) group.unlinkKept(page);
        page.holders += 1;
        group.entry(sequence, group.allocated[sequence]).* = index;
        group.allocated[sequence] += 1;
    }

    /// Tells that page `block` of `sequence` holds the keys and values of `tokens`, which follow those of `before`.
    pub fn publish(group: *KvGroup, sequence: u32, block: u32, before: Digest, tokens: []const u32) void {
        assert(block >= group.released[sequence] and block < group.allocated[sequence]);
        const index = group.entry(sequence, block).*;
        const page = &group.pages[index];
        assert(page.holders == 1 and page.count <= tokens.len);
        if (page.count == 0) group.link(index, before);
        @memcpy(page.tokens[page.count..tokens.len], tokens[page.count..]);
        page.count = @intCast(tokens.len);
    }

    /// A page for a sequence to write, that nobody else sees.
    fn take(group: *KvGroup) u32 {
        var fresh = group.empty_count == group.untouched();
        if (fresh and group.kept_count > 0 and !group.mayTouch()) {
            group.forget(group.kept_first);
            fresh = false;
        }
        assert(group.empty_count > 0); // Admission reserved it.
        group.empty_count -= 1;
        const index = group.empty[group.empty_count];
        if (fresh) group.touched.store(group.touched.raw + 1, .monotonic);
        group.reached.store(@max(group.reached.raw, index + 1), .monotonic);
        group.pages[index].holders = 1;
        return index;
    }

    fn untouched(group: *const KvGroup) u32 {
        return @as(u32, @intCast(group.pages.len)) - group.touched.raw;
    }

    /// Whether there is a page that costs no memory yet, and may.
    fn mayTouch(group: *const KvGroup) bool {
        if (group.empty_count == 0) return false;
        return group.touched.raw < group.reserved or group.budget.claimed() +| group.page_bytes <= group.budget.bytes_max;
    }

    /// Gives the memory of a page back to the system that nobody holds: an empty one's, else of that longest kept.
    fn giveBack(group: *KvGroup) void {
        if (group.empty_count == group.untouched()) group.forget(group.kept_first);
        const bottom = group.untouched();
        std.mem.swap(u32, &group.empty[bottom], &group.empty[group.empty_count - 1]);
        const memory = group.bytes(group.empty[bottom]);
        const system_page = std.heap.pageSize();
        const begin = std.mem.alignForward(usize, @intFromPtr(memory.ptr), system_page);
        const end = std.mem.alignBackward(usize, @intFromPtr(memory.ptr) + memory.len, system_page);
        if (end > begin) system.discard(@alignCast(memory[begin - @intFromPtr(memory.ptr) ..][0 .. end - begin]));
        group.touched.store(group.touched.raw - 1, .monotonic);
    }

    fn release(group: *KvGroup, index: u32, kept_max: u32) void {
        const page = &group.pages[index];
        assert(page.holders > 0);
        page.holders -= 1;
        if (page.holders > 0) return;
        group.linkKept(index);
        if (page.count == 0) group.forget(index) else if (group.kept_count > kept_max) group.forget(group.kept_first);
    }

    /// Lets nobody begin with what is in pages now. Sequences that hold some keep them, and must not tell of them again.
    pub fn forgetAll(group: *KvGroup) void {
        for (group.buckets) |*first| {
            while (first.* != none) {
                const page = &group.pages[first.*];
                if (page.holders == 0) {
                    group.forget(first.*);
                } else {
                    group.unlink(page);
                    page.count = 0;
                }
            }
        }
    }

    /// Makes a kept page an empty one.
    fn forget(group: *KvGroup, index: u32) void {
        const page = &group.pages[index];
        assert(page.holders == 0);
        group.unlinkKept(page);
        if (page.count > 0) group.unlink(page);
        page.count = 0;
        group.empty[group.empty_count] = index;
        group.empty_count += 1;
    }

    fn bucket(group: *const KvGroup, before: Digest) *u32 {
        return &group.buckets[@as(u32, @truncate(before)) & @as(u32, @intCast(group.buckets.len - 1))];
    }

    fn link(group: *KvGroup, index: u32, before: Digest) void {
        const first = group.bucket(before);
        group.pages[index].before = before;
        group.pages[index].bucket = .{ .previous = none, .next = first.* };
        if (first.* != none) group.pages[first.*].bucket.previous = index;
        first.* = index;
    }

    fn unlink(group: *KvGroup, page: *Page) void {
        const at = page.bucket;
        if (at.next != none) group.pages[at.next].bucket.previous = at.previous;
        if (at.previous != none) group.pages[at.previous].bucket.next = at.next else group.bucket(page.before).* = at.next;
    }

    fn linkKept(group: *KvGroup, index: u32) void {
        group.pages[index].kept = .{ .previous = group.kept_last, .next = none };
        if (group.kept_last != none) group.pages[group.kept_last].kept.next = index else group.kept_first = index;
        group.kept_last = index;
        group.kept_count += 1;
    }

    fn unlinkKept(group: *KvGroup, page: *Page) void {
        const at = page.kept;
        if (at.next != none) group.pages[at.next].kept.previous = at.previous else group.kept_last = at.previous;
        if (at.previous != none) group.pages[at.previous].kept.next = at.next else group.kept_first = at.next;
        group.kept_count -= 1;
    }
};

test "a windowed group holds few pages however long the sequence" {
    const allocator = std.testing.allocator;
    var group = try KvGroup.init(allocator, .{ .window = 128, .page_count = 6, .page_bytes = 4096, .kept_max = 0 }, 2, 4096);
    defer group.deinit(allocator);
    var next: u32 = 0;
    while (next < 4096) : (next += 64) {
        group.ensure(1, next + 64);
        group.releaseBehind(1, next + 64);
        try std.testing.expect(group.pages.len - group.empty_count <= group.pagesNeeded(4096, 64));
    }
    group.releaseAll(1);
    try std.testing.expectEqual(6, group.empty_count);
}

test "after forgetting nothing is found, and what sequences hold is theirs until they give it back" {
    const allocator = std.testing.allocator;
    var group = try KvGroup.init(allocator, .{ .window = 0, .page_count = 8, .page_bytes = 4096, .kept_max = 8 }, 2, 256);
    defer group.deinit(allocator);
    var texts: [2][page_positions]u32 = .{ @splat(1), @splat(2) };
    for (0..2) |sequence| {
        group.ensure(@intCast(sequence), 64);
        group.publish(@intCast(sequence), 0, 0, &texts[sequence]);
    }
    const held = group.entry(0, 0).*;
    @memset(group.bytes(held), 7);
    group.releaseAll(1);
    try std.testing.expectEqual(1, group.kept_count);

    group.forgetAll();
    for (&texts) |*text| try std.testing.expectEqual(0, group.find(0, text).length);
    try std.testing.expectEqual(0, group.kept_count);
    group.ensure(1, 256);
    for (1..4) |block| try std.testing.expect(group.entry(1, @intCast(block)).* != held);
    try std.testing.expect(std.mem.allEqual(u8, group.bytes(held), 7));
    group.releaseAll(0);
    group.releaseAll(1);
    try std.testing.expectEqual(8, group.empty_count);
}

test "past its budget a group uses no page that costs no memory yet, unless it was promised" {
    const allocator = std.testing.allocator;
    var groups: [1]KvGroup = .{try KvGroup.init(allocator, .{ .window = 0, .page_count = 16, .page_bytes = 4096, .kept_max = 16 }, 2, 1024)};
    const group = &groups[0];
    defer group.deinit(allocator);
    var budget: Budget = .{ .bytes_max = 4 * 4096, .groups = &groups };
    group.budget = &budget;
    var tokens: [page_positions]u32 = @splat(0);
    for (0..20) |round| {
        tokens[0] = @intCast(round);
        const sequence: u32 = @intCast(round % 2);
        group.ensure(sequence, 64 * @as(u32, @intCast(1 + round % 4)));
        group.publish(sequence, 0, 0, &tokens);
        group.releaseAll(sequence);
        try std.testing.expect(group.touched.raw <= 4);
    }
    group.reserved = 8;
    group.ensure(0, 8 * 64);
    try std.testing.expectEqual(8, group.touched.raw);
    group.releaseAll(0);
}

test "groups share one budget: what one was not promised is given back for what another is" {
    const allocator = std.testing.allocator;
    const descriptor: program.KvGroup = .{ .window = 0, .page_count = 8, .page_bytes = 8192, .kept_max = 8 };
    var groups: [2]KvGroup = undefined;
    for (&groups) |*group| group.* = try KvGroup.init(allocator, descriptor, 2, 512);
    defer for (&groups) |*group| group.deinit(allocator);
    var budget: Budget = .{ .bytes_max = 8 * 8192, .groups = &groups };
    for (&groups) |*group| group.budget = &budget;

    // The first group comes to have most of it: one page held, others kept, the rest empty.
    groups[0].reserved = 6;
    groups[0].ensure(0, 64);
    groups[0].ensure(1, 5 * 64);
    const held = groups[0].entry(0, 0).*;
    @memset(groups[0].bytes(held), 7);
    var tokens: [page_positions]u32 = @splat(1);
    for (0..3) |block| {
        tokens[0] = @intCast(block);
        groups[0].publish(1, @intCast(block), 0, &tokens);
    }
    groups[0].releaseAll(1);
    groups[0].reserved = 1;
    try std.testing.expectEqual(6, groups[0].touched.raw);
    try std.testing.expectEqual(3, groups[0].kept_count);

    groups[1].reserved = 5;
    budget.settle();
    // The empty ones went first, and one that was kept is left no more than it must.
    try std.testing.expectEqual(3, groups[0].touched.raw);
    try std.testing.expectEqual(2, groups[0].kept_count);
    groups[1].ensure(0, 5 * 64);
    try std.testing.expectEqual(budget.bytes_max, budget.claimed());
    try std.testing.expect(std.mem.allEqual(u8, groups[0].bytes(held), 7));

    // Nothing that was promised is taken, and all pages are there again once there is memory for them.
    budget.bytes_max = 0;
    budget.settle();
    try std.testing.expectEqual(1, groups[0].touched.raw);
    try std.testing.expectEqual(5, groups[1].touched.raw);
    budget.bytes_max = std.math.maxInt(u64);
    groups[0].ensure(1, 7 * 64);
    try std.testing.expectEqual(0, groups[0].empty_count);
    var seen: [8]bool = @splat(false);
    seen[held] = true;
    for (0..7) |block| {
        const index = groups[0].entry(1, @intCast(block)).*;
        try std.testing.expect(!seen[index]);
        seen[index] = true;
    }
}

test "pages of two sequences differ" {
    const allocator = std.testing.allocator;
    var group = try KvGroup.init(allocator, .{ .window = 0, .page_count = 8, .page_bytes = 4096, .kept_max = 8 }, 2, 256);
    defer group.deinit(allocator);
    group.ensure(0, 200);
    group.ensure(1, 256);
    var seen: [8]bool = @splat(false);
    for (0..2) |sequence| for (0..4) |page| {
        const number = group.page_table[sequence * group.table_stride + page];
        try std.testing.expect(!seen[number]);
        seen[number] = true;
    };
}

test "kept pages have a bound, and the longest kept give way" {
    const allocator = std.testing.allocator;
    var group = try KvGroup.init(allocator, .{ .window = 0, .page_count = 8, .page_bytes = 4096, .kept_max = 3 }, 1, 256);
    defer group.deinit(allocator);
    var tokens: [page_positions]u32 = @splat(0);
    for (0..5) |round| {
        tokens[0] = @intCast(round);
        group.ensure(0, 64);
        group.publish(0, 0, 0, &tokens);
        group.releaseAll(0);
        try std.testing.expectEqual(@min(round + 1, 3), group.kept_count);
    }
    for (0..5) |round| {
        tokens[0] = @intCast(round);
        try std.testing.expectEqual(@as(u32, if (round < 2) 0 else 64), group.find(0, &tokens).length);
    }
    group.ensure(0, 256);
    group.releaseAll(0);
    try std.testing.expectEqual(3, group.kept_count);
}
