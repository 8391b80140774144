//! Prefix reuse: a sequence begins with the pages of the longest prefix of its prompt that any sequence, running or finished,
//! has computed and that is still there. Whole pages are shared; a page of which only the first positions agree is copied,
//! since the two sequences go on differently in it. (Where the other has ended at that very position, its page is taken over.)
//!
//! The keys and values of a position have the same bits whoever computed them: they depend on the tokens up to it, and not on
//! how a prompt was cut into steps, whether the token was given or drawn, or what ran beside it. So the output is the same with
//! reuse and without.
//!
//! Layers with a window gave back the pages behind it, and what was kept of those may have gone since. A prefix can only end
//! where every group still has the pages that its next position looks at.

const std = @import("std");
const assert = std.debug.assert;
const program = @import("program.zig");
const memory = @import("memory.zig");
const KvGroup = memory.KvGroup;
const page_positions = memory.page_positions;

/// Copying a page costs about what computing this many positions does; fewer are computed. (For Gemma 3 270M 1.2 MB, which take
/// 0.14 ms, and 0.8 ms where the system must first give the memory; a position of a prompt takes 1.2 ms: two cores of a Zen 3.)
const copied_positions_min = 2;

/// How far a sequence's pages are known to others.
pub const Published = struct {
    positions: u32 = 0,
    /// Of the whole pages among them.
    before: memory.Digest = 0,
};

/// Gives `sequence`, which has no pages yet, those of the longest prefix that is there. At least the last of `tokens` stays
/// to be computed. `positions` of the result: how many need not be. `whole_pages_only`: no page is copied.
pub fn start(groups: []KvGroup, sequence: u32, tokens: []const u32, whole_pages_only: bool) Published {
    const most: u32 = @intCast(tokens.len - 1);
    var best: Published = .{};
    // Per group, the first page of those that are there without a gap. They are noted in the page table as they are found.
    var there: [program.kv_groups_max]u32 = @splat(0);
    var before: memory.Digest = 0;
    var block: u32 = 0;
    search: while (block * page_positions < most) : (block += 1) {
        const first = block * page_positions;
        const own = tokens[first..@min(most, first + page_positions)];
        var lengths: [program.kv_groups_max]u32 = undefined;
        var common: u32 = @intCast(own.len);
        for (groups, lengths[0..groups.len]) |*group, *length| {
            const match = group.find(before, own);
            group.entry(sequence, block).* = match.page;
            length.* = match.length;
            common = @min(common, match.length);
        }
        const whole = common == page_positions;
        const after = if (own.len == page_positions) extend(before, own) else before;
        if (whole or (common >= copied_positions_min and !whole_pages_only)) {
            const next = first + common;
            for (groups, there[0..groups.len]) |*group, from| {
                if (from > group.firstNeeded(next)) break;
            } else best = .{ .positions = next, .before = if (whole) after else before };
        }
        for (groups, there[0..groups.len], lengths[0..groups.len]) |*group, *from, length| {
            if (length == page_positions) continue;
            if (group.window == 0) break :search;
            from.* = block + 1;
        }
        before = after;
    }

    const whole_pages = best.positions / page_positions;
    const copied = best.positions % page_positions;
    for (groups) |*group| {
        const from = group.firstNeeded(best.positions);
        group.released[sequence] = from;
        group.allocated[sequence] = from;
        for (from..whole_pages) |index| group.share(sequence, group.entry(sequence, @intCast(index)).*);
        if (copied > 0) group.branch(sequence, group.entry(sequence, whole_pages).*, copied);
    }
    return best;
}

/// Lets others begin with what `sequence` has computed: the keys and values of `tokens`.
pub fn publish(groups: []KvGroup, sequence: u32, published: *Published, tokens: []const u32) void {
    while (published.positions < tokens.len) {
        const block = published.positions / page_positions;
        const first = block * page_positions;
        const end = @min(tokens.len, first + page_positions);
        for (groups) |*group| {
            // What was restored has no pages behind a window.
            if (block >= group.released[sequence]) group.publish(sequence, block, published.before, tokens[first..end]);
        }
        if (end == first + page_positions) published.before = extend(published.before, tokens[first..end]);
        published.positions = @intCast(end);
    }
}

/// The digest after another page of tokens: 128 bits of BLAKE3, so that two different texts never share one.
fn extend(before: memory.Digest, tokens: []const u32) memory.Digest {
    assert(tokens.len == page_positions);
    var hash: std.crypto.hash.Blake3 = .init(.{});
    hash.update(std.mem.asBytes(&before));
    hash.update(std.mem.sliceAsBytes(tokens));
    var digest: memory.Digest = undefined;
    hash.final(std.mem.asBytes(&digest));
    return digest;
}

/// What stands for a position's keys and values in the tests: a hash of the tokens up to it.
fn expectedValue(tokens: []const u32, position: u32) u64 {
    return std.hash.Wyhash.hash(7, std.mem.sliceAsBytes(tokens[0 .. position + 1]));
}

const Fuzz = struct {
    const context = 512;
    const sequences = 6;
    const step_rows = 100;

    const Sequence = struct {
        running: bool = false,
        tokens: [context]u32 = undefined,
        count: u32 = 0,
        computed: u32 = 0,
        published: Published = .{},
        reserved: [3]u32 = undefined,
    };

    groups: [3]KvGroup,
    running: [sequences]Sequence = @splat(.{}),
    reused: u64 = 0,

    fn values(group: *const KvGroup, page: u32) *[page_positions]u64 {
        return @ptrCast(group.bytes(page).ptr);
    }

    fn begin(fuzz: *Fuzz, number: u32, tokens: []const u32) !void {
        for (&fuzz.groups) |*group| {
            if (group.reserved + group.pagesNeeded(@intCast(tokens.len), step_rows) > group.pages.len) return;
        }
        const sequence = &fuzz.running[number];
        sequence.* = .{ .running = true, .count = @intCast(tokens.len) };
        for (&fuzz.groups, &sequence.reserved) |*group, *reserved| {
            reserved.* = group.pagesNeeded(sequence.count, step_rows);
            group.reserved += reserved.*;
        }
        @memcpy(sequence.tokens[0..tokens.len], tokens);
        sequence.published = start(&fuzz.groups, number, tokens, number == 0);
        sequence.computed = sequence.published.positions;
        fuzz.reused += sequence.computed;
        try std.testing.expect(sequence.computed < tokens.len);
        try fuzz.check(number);
    }

    /// Everything that the sequence's next position looks at is what it would have computed itself.
    fn check(fuzz: *Fuzz, number: u32) !void {
        const sequence = &fuzz.running[number];
        for (&fuzz.groups) |*group| {
            const first = if (group.window == 0) 0 else sequence.computed + 1 -| group.window;
            for (first..sequence.computed) |position| {
                const page = group.entry(number, @intCast(position / page_positions)).*;
                try std.testing.expect(group.pages[page].holders > 0);
                const expected = expectedValue(&sequence.tokens, @intCast(position));
                try std.testing.expectEqual(expected, values(group, page)[position % page_positions]);
            }
        }
    }

    fn step(fuzz: *Fuzz, number: u32, random: std.Random) !void {
        const sequence = &fuzz.running[number];
        const rows = @min(1 + random.uintLessThan(u32, step_rows), sequence.count - sequence.computed);
        // The last rows may be guesses that do not come true.
        const kept = if (random.boolean()) rows else 1 + random.uintLessThan(u32, rows);
        for (&fuzz.groups) |*group| {
            group.ensure(number, sequence.computed + rows);
            for (sequence.computed..sequence.computed + rows) |position| {
                const page = group.entry(number, @intCast(position / page_positions)).*;
                const expected = expectedValue(&sequence.tokens, @intCast(position));
                values(group, page)[position % page_positions] = if (position < sequence.computed + kept) expected else 1;
            }
        }
        sequence.computed += kept;
        publish(&fuzz.groups, number, &sequence.published, sequence.tokens[0..sequence.computed]);
        for (&fuzz.groups) |*group| group.releaseBehind(number, sequence.computed);
        try fuzz.check(number);
        if (sequence.computed == sequence.count) fuzz.end(number);
    }

    fn end(fuzz: *Fuzz, number: u32) void {
        const sequence = &fuzz.running[number];
        for (&fuzz.groups, sequence.reserved) |*group, reserved| {
            group.releaseAll(number);
            group.reserved -= reserved;
        }
        sequence.running = false;
    }

    /// Every page is held, kept or empty, and as many sequences hold it as it says.
    fn account(fuzz: *Fuzz) !void {
        for (&fuzz.groups) |*group| {
            var holders: u32 = 0;
            var held: u32 = 0;
            for (group.pages) |page| {
                holders += page.holders;
                held += @intFromBool(page.holders > 0);
            }
            var entries: u32 = 0;
            for (0..sequences) |number| entries += group.allocated[number] - group.released[number];
            try std.testing.expectEqual(entries, holders);
            try std.testing.expectEqual(group.pages.len, held + group.kept_count + group.empty_count);
            try std.testing.expect(group.kept_count <= group.kept_max);
            try std.testing.expect(held <= group.reserved);
        }
    }
};

test "sequences that begin with others' pages find in them what they would have computed, and no page is lost" {
    const allocator = std.testing.allocator;
    var prng: std.Random.DefaultPrng = .init(11);
    const random = prng.random();
    for ([_]u32{ 0, 3, 40 }) |kept_max| {
        var fuzz: Fuzz = .{ .groups = undefined };
        // Few pages, so that kept ones must give way; windows shorter and longer than a page.
        for (&fuzz.groups, [_]u32{ 0, 70, 20 }) |*group, window| {
            group.* = try .init(allocator, .{ .window = window, .page_count = 20, .page_bytes = 4096, .kept_max = kept_max }, Fuzz.sequences, Fuzz.context);
        }
        defer for (&fuzz.groups) |*group| group.deinit(allocator);
        var texts: [5][Fuzz.context]u32 = undefined;
        for (&texts) |*text| for (text) |*token| {
            token.* = random.uintLessThan(u32, 3);
        };
        for (0..4000) |_| {
            const number = random.uintLessThan(u32, Fuzz.sequences);
            if (!fuzz.running[number].running) {
                // A prefix of one text, and then one of another.
                var tokens: [Fuzz.context]u32 = texts[random.uintLessThan(usize, texts.len)];
                const length = 1 + random.uintLessThan(usize, tokens.len);
                const common = random.uintLessThan(usize, length);
                @memcpy(tokens[common..length], texts[random.uintLessThan(usize, texts.len)][0 .. length - common]);
                try fuzz.begin(number, tokens[0..length]);
            } else if (random.uintLessThan(u32, 20) == 0) {
                fuzz.end(number);
            } else try fuzz.step(number, random);
            try fuzz.account();
        }
        for (0..Fuzz.sequences) |number| if (fuzz.running[number].running) fuzz.end(@intCast(number));
        for (&fuzz.groups) |*group| {
            try std.testing.expectEqual(0, group.reserved);
            try std.testing.expectEqual(group.pages.len, group.kept_count + group.empty_count);
        }
        try std.testing.expect(fuzz.reused > 1000);
    }
}
