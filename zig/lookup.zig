//! Prompt lookup: the tokens that may come next, guessed from the sequence itself (Saxena 2023). Where its last tokens stood
//! before, what followed them then is taken to follow them now. Text that quotes, corrects or lists is full of that. A guess
//! costs a row of the step and never changes what is drawn: the engine keeps a guessed token only if it draws it as well.

const std = @import("std");
const assert = std.debug.assert;

/// Longer agreement says no more; a match of this length ends the search.
const match_max = 16;
/// Positions looked back to, so that a guess costs microseconds however long the sequence is.
const reach = 1 << 15;

const lanes = 16;
const Block = @Vector(lanes, u32);
const Mask = std.meta.Int(.unsigned, lanes);

/// Guesses up to `draft_max` tokens after the first `count` of `tokens` and writes them there; how many. Where the last
/// `match_min` tokens or more stood before, the longest such place counts, the latest among equals.
pub fn draft(tokens: []u32, count: u32, match_min: u32, draft_max: u32) u32 {
    assert(count >= 1 and count + draft_max <= tokens.len);
    if (draft_max == 0) return 0;
    const from = longestMatch(tokens[0..count], @max(1, match_min)) orelse return 0;
    // One by one: where the match is nearer than the draft is long, the text repeats, and so does the draft.
    for (0..draft_max) |index| tokens[count + index] = tokens[from + index];
    return draft_max;
}

/// Where the text goes on after the best earlier place of its last tokens.
fn longestMatch(tokens: []const u32, match_min: u32) ?usize {
    const last = tokens.len - 1;
    const first = last -| reach;
    const wanted: Block = @splat(tokens[last]);
    var best: usize = 0;
    var place: usize = 0;
    var end = last;
    while (end > first) {
        const begin = @max(first, end -| lanes);
        var found: Mask = 0;
        if (end - begin == lanes) {
            found = @bitCast(@as(Block, tokens[begin..][0..lanes].*) == wanted);
        } else for (tokens[begin..end], 0..) |token, index| {
            found |= @as(Mask, @intFromBool(token == tokens[last])) << @intCast(index);
        }
        while (found != 0) {
            const bit: u4 = @intCast(lanes - 1 - @clz(found));
            found &= ~(@as(Mask, 1) << bit);
            const length = agreement(tokens, begin + bit);
            if (length <= best) continue;
            best = length;
            place = begin + bit + 1;
            if (best == match_max) return place;
        }
        end = begin;
    }
    return if (best >= match_min) place else null;
}

/// How many tokens up to `at` are those up to the last one.
fn agreement(tokens: []const u32, at: usize) usize {
    const last = tokens.len - 1;
    const most = @min(match_max, at + 1);
    for (1..most) |back| if (tokens[at - back] != tokens[last - back]) return back;
    return most;
}

/// How many tokens a sequence may guess in its next step. Guesses that come true double it, guesses that do not shorten it,
/// and steps without guesses follow those of which none came true: 1, 2, 4, ... of them, so that text that does not repeat
/// loses little.
pub const Pace = struct {
    const length_first = 2;
    const failures_max = 6;

    length: u32 = length_first,
    failures: u3 = 0,
    pause: u32 = 0,

    /// For the step being formed; at most `draft_max`.
    pub fn next(pace: *Pace, draft_max: u32) u32 {
        if (pace.pause > 0) {
            pace.pause -= 1;
            return 0;
        }
        return @min(pace.length, draft_max);
    }

    /// What became of the last step's guesses, one at least.
    pub fn learn(pace: *Pace, drafted: u32, accepted: u32) void {
        assert(drafted > 0 and accepted <= drafted);
        if (accepted == 0) {
            pace.pause = @as(u32, 1) << pace.failures;
            pace.failures = @min(pace.failures + 1, failures_max);
            pace.length = @max(1, pace.length / 2);
            return;
        }
        pace.failures = 0;
        pace.length = if (accepted == drafted) @max(pace.length, 2 * drafted) else accepted + 1;
    }
};

fn expectDraft(comptime text: []const u8, match_min: u32, comptime drafted: []const u8) !void {
    var tokens: [text.len + 8]u32 = undefined;
    for (text, 0..) |letter, index| tokens[index] = letter;
    const count = draft(&tokens, text.len, match_min, drafted.len);
    try std.testing.expectEqual(drafted.len, count);
    for (drafted, 0..) |letter, index| try std.testing.expectEqual(letter, tokens[text.len + index]);
}

test "the longest match wins, then the latest" {
    try expectDraft("abcd xbce abc", 2, "d xb");
    try expectDraft("xbcd ybce zbc", 2, "e zb");
    try expectDraft("a long text before it, abcd, and another that is as long; abc", 2, "d, and a");
}

test "a draft that reaches the end of the text repeats it" {
    try expectDraft("-ababab", 2, "ababab");
    try expectDraft("-aaa", 2, "aaaaaaaa");
}

test "too short a match is none" {
    var tokens = [_]u32{ 1, 2, 3, 4, 2, 0, 0 };
    try std.testing.expectEqual(0, draft(&tokens, 5, 2, 2));
    try std.testing.expectEqual(2, draft(&tokens, 5, 1, 2));
    try std.testing.expectEqualSlices(u32, &.{ 3, 4 }, tokens[5..]);
    try std.testing.expectEqual(0, draft(&tokens, 1, 1, 2));
    try std.testing.expectEqual(0, draft(&tokens, 5, 1, 0));
}

test "the search agrees with a plain one on random texts" {
    var prng: std.Random.DefaultPrng = .init(5);
    const random = prng.random();
    var tokens: [200]u32 = undefined;
    for (0..2000) |_| {
        const count = 1 + random.uintLessThan(usize, tokens.len);
        for (tokens[0..count]) |*token| token.* = random.uintLessThan(u32, 3);
        const match_min = 1 + random.uintLessThan(u32, 4);
        var best: usize = 0;
        var expected: ?usize = null;
        for (1..count) |place| {
            const most = @min(match_max, place);
            var length: usize = 0;
            while (length < most and tokens[place - 1 - length] == tokens[count - 1 - length]) length += 1;
            if (length >= match_min and length >= best) {
                best = length;
                expected = place;
            }
        }
        try std.testing.expectEqual(expected, longestMatch(tokens[0..count], match_min));
    }
}

test "guesses that never come true become rare, and come back when one does" {
    var pace: Pace = .{};
    var guessed: u32 = 0;
    for (0..1000) |_| {
        const length = pace.next(8);
        guessed += length;
        if (length > 0) pace.learn(length, 0);
    }
    try std.testing.expect(guessed < 30);
    while (pace.next(8) == 0) {}
    pace.learn(1, 1);
    try std.testing.expectEqual(2, pace.next(8));
    pace.learn(2, 2);
    pace.learn(4, 4);
    try std.testing.expectEqual(8, pace.next(8));
    pace.learn(8, 3);
    try std.testing.expectEqual(4, pace.next(8));
}
