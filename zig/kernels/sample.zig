//! Drawing a token from a row of logits, and scoring a row: log-probabilities and the best candidates. Runs on one thread;
//! no allocation. It knows no tokenizer and no grammar: what a caller wants excluded has the logit -inf.
//!
//! The definition that everything here is an exact shortcut of:
//! 1. NaN counts as -inf, +inf as the largest float32. The repeat penalty changes the logits of recent tokens.
//! 2. Temperature 0: the largest logit, the lowest id among equals.
//! 3. A token weighs w = e^((logit - largest) / temperature). Sort all tokens by descending logit, lower id first among
//!    equals. Top-k keeps the first k of them; top-p the shortest prefix of those whose weight reaches p times the weight
//!    of them all; min-p keeps the tokens with w at least min-p (the largest has w = 1).
//! 4. Walk the kept tokens in ascending id and take the first at which the running weight exceeds uniform times the total.
//!
//! Nothing is sorted: what top-k and top-p keep ends at one token of that order (the `Cut`), found by selection, and the
//! walk needs only a comparison with it.

const std = @import("std");
const assert = std.debug.assert;
const table = @import("table.zig");
const vec = @import("vec.zig");
const activation = @import("activation.zig");

const F = vec.F;
const lanes = vec.lanes;
const D = @Vector(lanes, f64);
const Candidate = table.Candidate;
const negative_infinity = -std.math.inf(f32);

/// Logits looked at together: 4 KB stay in the first-level cache between the maximum and the sum.
const block = 1024;

inline fn splat(value: f32) F {
    return @splat(value);
}

/// +inf to the largest float32, so that differences from the maximum are not NaN. NaN stays: every comparison with it is
/// false and `activation.expNonPositive` gives it no weight, as -inf.
inline fn finite(x: F) F {
    const most = splat(std.math.floatMax(f32));
    return @select(f32, most < x, most, x);
}

/// The logit that counts: `finite`, and NaN as -inf.
pub inline fn clean(x: f32) f32 {
    return if (x == x) @min(x, std.math.floatMax(f32)) else negative_infinity;
}

/// Logits `at` to `at + lanes - 1`, `finite`; those from `end` on are -inf.
inline fn loadFinite(logits: [*]const f32, at: usize, end: usize) F {
    if (at + lanes <= end) return finite(vec.load(F, logits + at));
    const count = end - @min(at, end);
    const there = std.simd.iota(u32, lanes) < @as(vec.U, @splat(@intCast(count)));
    return finite(@select(f32, there, vec.loadPartial(F, logits + at, count), splat(negative_infinity)));
}

/// The larger of two, `a` where `b` is NaN.
inline fn larger(a: F, b: F) F {
    return @select(f32, b > a, b, a);
}

const Summary = struct {
    /// Lowest id of the largest logit; 0 where all are -inf.
    best: u32,
    /// -inf where all are.
    largest: f32,
    /// log Σ e^logit, in float64; -inf where all logits are.
    log_sum: f64,
};

/// Largest logit, its place and (`with_sum`) the logarithm of the sum, in one pass over memory.
fn summarize(comptime with_sum: bool, logits: [*]const f32, count: usize) Summary {
    var largest: f32 = negative_infinity;
    var largest_block: usize = 0;
    var sum: f64 = 0;
    var start: usize = 0;
    while (start < count) : (start += block) {
        const end = @min(count, start + block);
        var maxima: [4]F = @splat(splat(negative_infinity));
        var at = start;
        while (at + 4 * lanes <= end) : (at += 4 * lanes) {
            inline for (0..4) |index| maxima[index] = larger(maxima[index], vec.load(F, logits + at + index * lanes));
        }
        while (at < end) : (at += lanes) maxima[0] = larger(maxima[0], loadFinite(logits, at, end));
        const maximum = clean(vec.max(larger(larger(maxima[0], maxima[1]), larger(maxima[2], maxima[3]))));
        if (maximum > largest) {
            if (with_sum) sum *= activation.exp(splat(largest - maximum))[0];
            largest = maximum;
            largest_block = start;
        }
        if (!with_sum or largest == negative_infinity) continue;
        var sums: [4]F = @splat(splat(0));
        const base = splat(largest);
        at = start;
        while (at + 4 * lanes <= end) : (at += 4 * lanes) {
            inline for (0..4) |index| sums[index] += activation.expNonPositive(vec.load(F, logits + at + index * lanes) - base);
        }
        while (at < end) : (at += lanes) sums[0] += activation.expNonPositive(loadFinite(logits, at, end) - base);
        sum += vec.sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
    }
    var best: u32 = 0;
    if (largest > negative_infinity) {
        best = @intCast(largest_block);
        while (clean(vec.read(&logits[best])) != largest) best += 1;
    }
    return .{ .best = best, .largest = largest, .log_sum = if (with_sum) @as(f64, largest) + @log(sum) else 0 };
}

inline fn logprobOf(logit: f32, summary: Summary) f32 {
    const value = clean(logit);
    return if (value == negative_infinity) value else @floatCast(value - summary.log_sum);
}

/// Whether `a` stands before `b`: larger first, lower id first among equals. `logprob` holds the cleaned logit here.
inline fn before(a: Candidate, b: Candidate) bool {
    return a.logprob > b.logprob or (a.logprob == b.logprob and a.token < b.token);
}

/// The last kept token of the order; everything up to it is kept.
const Cut = Candidate;
const keep_all: Cut = .{ .token = std.math.maxInt(u32), .logprob = negative_infinity };

/// Appends to `out` (at `length`) every token before `cut` or equal to it, in ascending id; the new length.
fn gather(logits: [*]const f32, begin: usize, end: usize, cut: Cut, out: [*]Candidate, length: usize) usize {
    var total = length;
    const limit = splat(cut.logprob);
    const floor = splat(negative_infinity);
    var at = begin;
    while (at < end) : (at += 4 * lanes) {
        // Most groups of four vectors hold nothing.
        var values: [4]F = undefined;
        inline for (0..4) |index| values[index] = loadFinite(logits, @min(at + index * lanes, end), end);
        const largest = larger(larger(larger(floor, values[0]), larger(floor, values[1])), larger(larger(floor, values[2]), larger(floor, values[3])));
        if (!@reduce(.Or, largest >= limit)) continue;
        const stop = @min(end, at + 4 * lanes);
        for (at..stop) |index| {
            const candidate: Candidate = .{ .token = @intCast(index), .logprob = clean(vec.read(&logits[index])) };
            if (!before(cut, candidate)) {
                vec.write(&out[total], candidate);
                total += 1;
            }
        }
    }
    return total;
}

/// Orders `items` so that `items[rank]` is the one that a full sort would put there, with everything before it on its left:
/// Hoare's selection (1961), pivots drawn from a fixed sequence. Expected time is linear.
pub fn select(items: []Candidate, rank: usize) void {
    assert(rank < items.len);
    var low: usize = 0;
    var high = items.len;
    var state: u64 = 0x9e3779b97f4a7c15;
    while (high - low > 1) {
        const pivot_at = partition(items[low..high], &state) + low;
        if (rank == pivot_at) return;
        if (rank < pivot_at) high = pivot_at else low = pivot_at + 1;
    }
}

/// Sorts by `first`, which has no equals that differ: Williams's heapsort (1964), each element read and written once a step.
pub fn sort(comptime T: type, items: []T, comptime first: fn (T, T) callconv(.@"inline") bool) void {
    var start = items.len / 2;
    var end = items.len;
    while (end > 1) {
        var item: T = undefined;
        if (start > 0) {
            start -= 1;
            item = vec.read(&items[start]);
        } else {
            end -= 1;
            item = vec.read(&items[end]);
            vec.write(&items[end], vec.read(&items[0]));
        }
        // Down from `start`, where there is a hole, to where both below stand before it.
        var hole = start;
        while (2 * hole + 1 < end) {
            var below = 2 * hole + 1;
            var last = vec.read(&items[below]);
            if (below + 1 < end) {
                const other = vec.read(&items[below + 1]);
                if (first(last, other)) {
                    below += 1;
                    last = other;
                }
            }
            if (!first(item, last)) break;
            vec.write(&items[hole], last);
            hole = below;
        }
        vec.write(&items[hole], item);
    }
}

fn sortBest(items: []Candidate) void {
    sort(Candidate, items, before);
}

/// Splits `items` around a pivot: those before it on its left. The pivot's place.
fn partition(items: []Candidate, state: *u64) usize {
    state.* = state.* *% 6364136223846793005 +% 1442695040888963407;
    const last = items.len - 1;
    const middle: usize = @intCast((state.* >> 32) * items.len >> 32);
    const pivot = vec.read(&items[middle]);
    vec.write(&items[middle], vec.read(&items[last]));
    var place: usize = 0;
    for (0..last) |index| {
        // Without a branch on the comparison, which a random pivot makes unpredictable.
        const item = vec.read(&items[index]);
        vec.write(&items[index], vec.read(&items[place]));
        vec.write(&items[place], item);
        place += @intFromBool(before(item, pivot));
    }
    vec.write(&items[last], vec.read(&items[place]));
    vec.write(&items[place], pivot);
    return place;
}

/// The `keep` first tokens of the order, 1 <= keep <= count, unsorted at the start of `scratch` (of `count` elements);
/// `scratch[keep - 1]` is the last of them.
pub fn selectBest(logits: [*]const f32, count: usize, keep: usize, scratch: [*]Candidate) void {
    assert(keep >= 1 and keep <= count);
    // Collect tokens not worse than the worst of the best so far; when many came together, reduce them to `keep`.
    var cut: Cut = keep_all;
    var length: usize = 0;
    var at: usize = 0;
    const room = 2 * keep + block;
    while (at < count) {
        // The cut's own id is lower than every later one, so that equals of later ids are left out.
        const end = @min(count, at + block);
        length = gather(logits, at, end, cut, scratch, length);
        at = end;
        if (length > room) {
            select(scratch[0..length], keep - 1);
            length = keep;
            cut = vec.read(&scratch[keep - 1]);
        }
    }
    select(scratch[0..length], keep - 1);
}

/// Weights of step 3.
const Weights = struct {
    largest: f32,
    /// 1 / temperature, finite, so that 0 times it is 0.
    inverse: f32,

    inline fn of(weights: Weights, logits: F) F {
        return activation.expNonPositive((logits - splat(weights.largest)) * splat(weights.inverse));
    }

    inline fn one(weights: Weights, logit: f32) f32 {
        return weights.of(splat(logit))[0];
    }

    /// The summed weight of some candidates, in float64.
    fn total(weights: Weights, items: []const Candidate) f64 {
        var sums: D = @splat(0);
        var at: usize = 0;
        while (at < items.len) : (at += lanes) {
            var logits: [lanes]f32 = @splat(negative_infinity);
            for (items[at..@min(items.len, at + lanes)], 0..) |*item, lane| logits[lane] = vec.read(&item.logprob);
            sums += @as(D, @floatCast(weights.of(logits)));
        }
        return vec.sum(sums);
    }
};

/// The last token of the shortest prefix (in order) of `items` whose weight reaches `target`; the last of all where none
/// does. Selection by weight: the side of the pivot that does not hold the cut is settled by its sum.
fn selectWeight(items: []Candidate, weights: Weights, target: f64) Cut {
    assert(items.len > 0);
    var low: usize = 0;
    var high = items.len;
    var reached: f64 = 0; // The weight of items[0..low].
    var state: u64 = 0x9e3779b97f4a7c15;
    while (high - low > 1) {
        const pivot_at = partition(items[low..high], &state) + low;
        const left = reached + weights.total(items[low..pivot_at]);
        if (pivot_at > low and left >= target) {
            high = pivot_at;
            continue;
        }
        const with_pivot = left + weights.one(vec.read(&items[pivot_at].logprob));
        if (with_pivot >= target or pivot_at + 1 == high) return vec.read(&items[pivot_at]);
        reached = with_pivot;
        low = pivot_at + 1;
    }
    return vec.read(&items[low]);
}

/// The cut of top-p over all logits. Only tokens near the largest are looked at, more of them until they weigh enough.
fn cutByWeight(logits: [*]const f32, count: usize, weights: Weights, top_p: f32, scratch: [*]Candidate) Cut {
    var sum: f64 = 0;
    var start: usize = 0;
    while (start < count) : (start += block) sum += blockWeight(logits, start, @min(count, start + block), weights, keep_all, 0);
    const target = sum * top_p;
    // e^-6 of the largest, then e^-12, and so on: a few hundred tokens for an ordinary model's first step.
    var depth: f32 = 6;
    while (true) : (depth *= 2) {
        const floor = weights.largest - depth / weights.inverse;
        const everything = depth > 200 or !(floor > negative_infinity);
        const cut: Cut = if (everything) keep_all else .{ .token = std.math.maxInt(u32), .logprob = floor };
        const length = gather(logits, 0, count, cut, scratch, 0);
        if (everything or weights.total(scratch[0..length]) >= target) {
            return selectWeight(scratch[0..length], weights, target);
        }
    }
}

/// The weight of the tokens in [begin, end) (at most `block`) that `cut` and `min_p` keep.
inline fn blockWeight(logits: [*]const f32, begin: usize, end: usize, weights: Weights, cut: Cut, min_p: f32) f64 {
    var sums: D = @splat(0);
    const limit = splat(cut.logprob);
    var at = begin;
    while (at < end) : (at += lanes) {
        const values = loadFinite(logits, at, end);
        var kept = values > limit;
        const equal = values == limit;
        if (!@reduce(.Or, values >= limit)) continue;
        if (cut.token < std.math.maxInt(u32) and @reduce(.Or, equal)) {
            const ids = std.simd.iota(u32, lanes) + @as(vec.U, @splat(@intCast(at)));
            kept = @select(bool, equal, ids <= @as(vec.U, @splat(cut.token)), kept);
        } else {
            kept = values >= limit;
        }
        const weight = weights.of(values);
        const counted = @select(f32, weight >= splat(min_p), weight, splat(0));
        sums += @as(D, @floatCast(@select(f32, kept, counted, splat(0))));
    }
    return vec.sum(sums);
}

inline fn keptWeight(logit: f32, token: usize, weights: Weights, cut: Cut, min_p: f32) f32 {
    const candidate: Candidate = .{ .token = @intCast(token), .logprob = clean(logit) };
    if (before(cut, candidate)) return 0;
    const weight = weights.one(candidate.logprob);
    return if (weight >= min_p) weight else 0;
}

/// Step 4. `scratch` keeps one float64 a block.
fn draw(logits: [*]const f32, count: usize, weights: Weights, cut: Cut, min_p: f32, uniform: f32, scratch: [*]Candidate) u32 {
    comptime assert(@sizeOf(Candidate) == @sizeOf(f64));
    const sums: [*]align(@alignOf(Candidate)) f64 = @ptrCast(scratch);
    const block_count = (count + block - 1) / block;
    var total: f64 = 0;
    var last_block: usize = 0; // The last that weighs anything.
    for (0..block_count) |index| {
        const start = index * block;
        const weight = blockWeight(logits, start, @min(count, start + block), weights, cut, min_p);
        vec.write(&sums[index], weight);
        total += weight;
        if (weight > 0) last_block = index;
    }
    const target = total * uniform;
    var running: f64 = 0;
    var index: usize = 0;
    while (index < last_block) : (index += 1) {
        const next = running + vec.read(&sums[index]);
        if (next > target) break;
        running = next;
    }
    // Rounding may leave the running weight just short of the target: then the last token that weighs anything, here or in
    // a later block, is drawn.
    var last: u32 = 0;
    while (index <= last_block) : (index += 1) {
        const start = index * block;
        for (start..@min(count, start + block)) |token| {
            const weight = keptWeight(vec.read(&logits[token]), token, weights, cut, min_p);
            if (weight == 0) continue;
            running += weight;
            last = @intCast(token);
            if (running > target) return last;
        }
    }
    return last;
}

/// Steps 2 to 4.
fn choose(args: *const table.Sample, summary: Summary) u32 {
    const params = &args.params;
    if (!(params.temperature > 0) or summary.largest == negative_infinity) return summary.best;
    const count: usize = args.count;
    const weights: Weights = .{
        .largest = summary.largest,
        .inverse = @max(@min(1 / params.temperature, std.math.floatMax(f32)), std.math.floatMin(f32)),
    };
    const nucleus = params.top_p < 1;
    var cut = keep_all;
    if (params.top_k > 0 and params.top_k < count) {
        selectBest(args.logits, count, params.top_k, args.scratch);
        cut = vec.read(&args.scratch[params.top_k - 1]);
        if (nucleus) {
            const items = args.scratch[0..params.top_k];
            // In an order that does not depend on the tokens which are left out, and so neither do the sums.
            sortBest(items);
            cut = selectWeight(items, weights, weights.total(items) * params.top_p);
        }
    } else if (nucleus) {
        cut = cutByWeight(args.logits, count, weights, params.top_p, args.scratch);
    }
    return draw(args.logits, count, weights, cut, @min(params.min_p, 1), params.uniform, args.scratch);
}

/// Tokens the repeat penalty looks at, at most: the last ones of a longer list. Their logits are kept in 16 KB of stack.
pub const recent_max = 4096;

/// See `table.Sample` and the head of this file. Recent tokens past `count` are ignored, and all but the last
/// `recent_max`. Where every logit is -inf, token 0 with log-probability -inf.
pub fn sample(args: *table.Sample) callconv(.c) void {
    assert(args.count > 0);
    const logits = args.logits;
    const screened = args.screened != 0;
    const summary = if (screened) summarize(false, logits, args.count) else summarize(true, logits, args.count);
    if (args.params.repeat_penalty == 1 or args.recent_count == 0) {
        const token = choose(args, summary);
        const own = vec.read(&logits[token]);
        args.result = .{ .token = token, .logprob = if (screened) clean(own) else logprobOf(own, summary) };
        return;
    }
    // From copies, so that a token listed twice is punished once, and the drawn token's own logit is still known.
    const skipped = args.recent_count -| recent_max;
    const recent = args.recent[skipped..args.recent_count];
    var kept: [recent_max]f32 = undefined;
    for (recent, 0..) |*place, index| {
        const token = vec.read(place);
        kept[index] = if (token < args.count) clean(vec.read(&logits[token])) else 0;
    }
    for (recent, 0..) |*place, index| {
        const token = vec.read(place);
        if (token >= args.count) continue;
        const logit = kept[index];
        vec.write(&logits[token], clean(if (logit > 0) logit / args.params.repeat_penalty else logit * args.params.repeat_penalty));
    }
    const token = choose(args, summarize(false, logits, args.count));
    const own = for (recent, 0..) |*candidate, index| {
        if (vec.read(candidate) == token) break kept[index];
    } else vec.read(&logits[token]);
    args.result = .{ .token = token, .logprob = if (screened) clean(own) else logprobOf(own, summary) };
}

/// See `table.Score`. At most `count` candidates are written.
pub fn score(args: *table.Score) callconv(.c) void {
    assert(args.count > 0 and args.target < args.count);
    const summary = summarize(true, args.logits, args.count);
    args.target_logprob = logprobOf(vec.read(&args.logits[args.target]), summary);
    const keep = @min(args.top_count, args.count);
    if (keep == 0) return;
    selectBest(args.logits, args.count, keep, args.scratch);
    const best = args.scratch[0..keep];
    sortBest(best);
    for (best, args.top) |*place, *out| {
        const candidate = vec.read(place);
        vec.write(out, .{ .token = candidate.token, .logprob = logprobOf(candidate.logprob, summary) });
    }
}

// ---------------------------------------------------------------------------------------------------------------------

const Naive = struct { token: u32, logprob: f64, margin: f64 };

/// The definition at the head of this file, with a full stable sort. `margin` says how far, relative to the total, the
/// nearest comparison of running weights was from tipping over: below 1e-9 the order of summation may decide.
fn naive(allocator: std.mem.Allocator, original: []const f32, params: table.Sampling, recent: []const u32) !Naive {
    const logits = try allocator.dupe(f32, original);
    defer allocator.free(logits);
    for (logits) |*logit| {
        if (std.math.isNan(logit.*)) logit.* = negative_infinity;
        if (logit.* == std.math.inf(f32)) logit.* = std.math.floatMax(f32);
    }
    const cleaned = try allocator.dupe(f32, logits);
    defer allocator.free(cleaned);
    var largest: f64 = negative_infinity;
    for (logits) |logit| largest = @max(largest, logit);
    var sum: f64 = 0;
    for (logits) |logit| sum += @exp(@as(f64, logit) - largest);
    const log_sum = largest + @log(sum);
    if (params.repeat_penalty != 1) {
        for (logits, 0..) |*logit, token| {
            if (std.mem.indexOfScalar(u32, recent, @intCast(token)) == null) continue;
            logit.* = if (logit.* > 0) logit.* / params.repeat_penalty else logit.* * params.repeat_penalty;
            if (logit.* == std.math.inf(f32)) logit.* = std.math.floatMax(f32);
        }
    }
    const order = try allocator.alloc(Candidate, logits.len);
    defer allocator.free(order);
    for (order, logits, 0..) |*item, logit, token| item.* = .{ .token = @intCast(token), .logprob = logit };
    std.sort.block(Candidate, order, {}, struct {
        fn descending(_: void, a: Candidate, b: Candidate) bool {
            return a.logprob > b.logprob;
        }
    }.descending);
    const best = order[0];
    if (params.temperature <= 0 or best.logprob == negative_infinity) {
        const token = if (best.logprob == negative_infinity) 0 else best.token;
        return .{ .token = token, .logprob = if (cleaned[token] == negative_infinity) negative_infinity else cleaned[token] - log_sum, .margin = 1 };
    }
    const kept = try allocator.alloc(f64, logits.len);
    defer allocator.free(kept);
    @memset(kept, 0);
    var length = logits.len;
    if (params.top_k > 0) length = @min(length, params.top_k);
    const weights = try allocator.alloc(f64, length);
    defer allocator.free(weights);
    var total: f64 = 0;
    for (weights, order[0..length]) |*weight, item| {
        const inverse = @max(@min(1 / params.temperature, std.math.floatMax(f32)), std.math.floatMin(f32));
        weight.* = activation.exp(splat((item.logprob - best.logprob) * inverse))[0];
        total += weight.*;
    }
    var margin: f64 = 1;
    var running: f64 = 0;
    for (weights, order[0..length]) |weight, item| {
        if (weight >= params.min_p) kept[item.token] = weight;
        running += weight;
        if (params.top_p >= 1) continue;
        const distance = @abs(running - total * params.top_p) / total;
        if (distance > 0) margin = @min(margin, distance);
        if (running >= total * params.top_p) break;
    }
    total = 0;
    for (kept) |weight| total += weight;
    running = 0;
    var drawn: u32 = 0;
    for (kept, 0..) |weight, token| {
        if (weight == 0) continue;
        drawn = @intCast(token);
        running += weight;
        const distance = @abs(running - total * params.uniform) / total;
        if (distance > 0 and token + 1 < kept.len) margin = @min(margin, distance);
        if (running > total * params.uniform) break;
    }
    return .{ .token = drawn, .logprob = cleaned[drawn] - log_sum, .margin = margin };
}

const plain: table.Sampling = .{ .temperature = 1, .top_p = 1, .min_p = 0, .repeat_penalty = 1, .top_k = 0, .uniform = 0 };

fn run(logits: []f32, params: table.Sampling, recent: []const u32, scratch: []Candidate) Candidate {
    var args: table.Sample = .{
        .params = params,
        .count = @intCast(logits.len),
        .recent_count = @intCast(recent.len),
        .logits = logits.ptr,
        .recent = recent.ptr,
        .scratch = scratch.ptr,
        .result = undefined,
    };
    sample(&args);
    return args.result;
}

test "sampling equals the definition with a full sort, over thousands of random cases" {
    const allocator = std.testing.allocator;
    var prng = std.Random.DefaultPrng.init(7);
    const random = prng.random();
    const scratch = try allocator.alloc(Candidate, 5000);
    defer allocator.free(scratch);
    const buffer = try allocator.alloc(f32, 5000);
    defer allocator.free(buffer);
    var compared: usize = 0;
    var changed: usize = 0;
    for (0..4000) |case| {
        const count = switch (case % 4) {
            0 => random.intRangeAtMost(usize, 1, 20),
            1 => random.intRangeAtMost(usize, 20, 300),
            2 => random.intRangeAtMost(usize, 1000, 1100),
            else => random.intRangeAtMost(usize, 1, if (case % 20 == 3) 5000 else 600),
        };
        const logits = buffer[0..count];
        const spread: f32 = ([_]f32{ 0, 0.3, 2, 10, 1e30 })[random.uintLessThan(usize, 5)];
        const coarse = random.boolean(); // Many equal logits.
        for (logits) |*logit| {
            logit.* = random.floatNorm(f32) * spread;
            if (coarse) logit.* = @round(logit.*);
            switch (random.uintLessThan(u32, 200)) {
                0 => logit.* = std.math.nan(f32),
                1, 2 => logit.* = negative_infinity,
                3 => if (random.uintLessThan(u32, 20) == 0) {
                    logit.* = std.math.inf(f32);
                },
                else => {},
            }
        }
        var recent: [12]u32 = undefined;
        for (&recent) |*token| token.* = random.uintLessThan(u32, @intCast(count + 2));
        const params: table.Sampling = .{
            .temperature = ([_]f32{ 0, 0.1, 0.7, 1, 1.5, 100, 1e-30, 1e38 })[random.uintLessThan(usize, 8)],
            .top_p = ([_]f32{ 1, 1, 0, 0.1, 0.5, 0.9, 0.95, 0.99 })[random.uintLessThan(usize, 8)],
            .min_p = ([_]f32{ 0, 0, 0.05, 0.5, 1, 2 })[random.uintLessThan(usize, 6)],
            .repeat_penalty = ([_]f32{ 1, 1.1, 2, 0.5 })[random.uintLessThan(usize, 4)],
            .top_k = ([_]u32{ 0, 0, 1, 2, 40, 100, 1_000_000 })[random.uintLessThan(usize, 7)],
            .uniform = if (case % 10 == 0) 0 else if (case % 10 == 1) 0.99999994 else random.float(f32),
        };
        var clamped = params;
        clamped.min_p = @min(1, params.min_p);
        const want = try naive(allocator, logits, clamped, &recent);
        const got = run(logits, params, &recent, scratch);
        try std.testing.expect(got.token < count);
        if (want.margin < 1e-9) continue;
        compared += 1;
        changed += @intFromBool(got.token != 0);
        try std.testing.expectEqual(want.token, got.token);
        if (want.logprob == negative_infinity) {
            try std.testing.expectEqual(negative_infinity, got.logprob);
        } else {
            try std.testing.expectApproxEqAbs(want.logprob, got.logprob, 1e-5 + 1e-6 * @abs(want.logprob));
        }
    }
    try std.testing.expect(compared > 3500);
    try std.testing.expect(changed > 2000);
}

test "frequencies of drawn tokens are the probabilities" {
    var scratch: [8]Candidate = undefined;
    const probabilities = [8]f64{ 0.3, 0.05, 0.2, 0.1, 0, 0.15, 0.15, 0.05 };
    var counts: [8]f64 = @splat(0);
    const draws = 4000;
    for (0..draws) |index| {
        var logits: [8]f32 = undefined;
        for (&logits, probabilities) |*logit, p| logit.* = @floatCast(@log(p));
        var params = plain;
        params.uniform = (@as(f32, @floatFromInt(index)) + 0.5) / draws;
        counts[run(&logits, params, &.{}, &scratch).token] += 1;
    }
    for (counts, probabilities) |c, p| try std.testing.expectApproxEqAbs(p, c / draws, 1.0 / @as(f64, draws));
}

test "a large vocabulary of equal, ascending or descending logits is cut exactly" {
    const allocator = std.testing.allocator;
    const count = 50_000;
    const scratch = try allocator.alloc(Candidate, count);
    defer allocator.free(scratch);
    const logits = try allocator.alloc(f32, count);
    defer allocator.free(logits);
    for (0..3) |shape| {
        for ([_]f32{ 0, 0.5, 0.999999 }) |uniform| {
            for ([_]u32{ 0, 50, 30_000 }) |top_k| {
                for (logits, 0..) |*logit, index| logit.* = switch (shape) {
                    0 => -3,
                    1 => @as(f32, @floatFromInt(index)) * 1e-3,
                    else => @as(f32, @floatFromInt(index)) * -1e-3,
                };
                var params = plain;
                params.uniform = uniform;
                params.top_k = top_k;
                params.top_p = 0.75;
                const want = try naive(allocator, logits, params, &.{});
                try std.testing.expectEqual(want.token, run(logits, params, &.{}, scratch).token);
            }
        }
    }
}

test "nothing but NaN or -inf still gives a token" {
    var scratch: [100]Candidate = undefined;
    for ([_]f32{ std.math.nan(f32), negative_infinity }) |value| {
        for ([_]f32{ 0, 1 }) |temperature| {
            for ([_]u32{ 0, 5 }) |top_k| {
                var logits: [100]f32 = @splat(value);
                var params = plain;
                params.temperature = temperature;
                params.top_k = top_k;
                params.top_p = 0.9;
                params.repeat_penalty = 1.3;
                const result = run(&logits, params, &.{ 1, 2 }, &scratch);
                try std.testing.expectEqual(@as(u32, 0), result.token);
                try std.testing.expectEqual(negative_infinity, result.logprob);
            }
        }
    }
}

test "the repeat penalty counts a token once, and the log-probability is that before it" {
    var scratch: [3]Candidate = undefined;
    var logits = [3]f32{ 1, 1.5, -1 };
    var params = plain;
    params.temperature = 0;
    params.repeat_penalty = 1.4;
    // 1.5 / 1.4 = 1.07 stays ahead of 1; divided twice it would not.
    const result = run(&logits, params, &.{ 1, 1, 9 }, &scratch);
    try std.testing.expectEqual(@as(u32, 1), result.token);
    const want = 1.5 - @log(@exp(1.0) + @exp(1.5) + @exp(-1.0));
    try std.testing.expectApproxEqAbs(@as(f32, want), result.logprob, 1e-6);
}

test "score gives log-probabilities in descending order, lower id first among equals" {
    const allocator = std.testing.allocator;
    var prng = std.Random.DefaultPrng.init(8);
    const random = prng.random();
    for ([_]u32{ 1, 2, 17, 1023, 1024, 1025, 40_000 }) |count| {
        const logits = try allocator.alloc(f32, count);
        defer allocator.free(logits);
        const scratch = try allocator.alloc(Candidate, count);
        defer allocator.free(scratch);
        for (logits) |*logit| logit.* = @round(random.floatNorm(f32) * 8) / 4;
        if (count > 5) logits[3] = std.math.nan(f32);
        var top: [60]Candidate = undefined;
        for ([_]u32{ 0, 1, 5, 60 }) |top_count| {
            var args: table.Score = .{
                .count = count,
                .target = count / 2,
                .top_count = @min(top_count, count),
                .logits = logits.ptr,
                .top = &top,
                .scratch = scratch.ptr,
                .target_logprob = undefined,
            };
            score(&args);
            var sum: f64 = 0;
            for (logits) |logit| sum += if (std.math.isNan(logit)) 0 else @exp(@as(f64, logit));
            try std.testing.expectApproxEqAbs(logits[count / 2] - @log(sum), args.target_logprob, 2e-6);
            var used: std.AutoHashMapUnmanaged(u32, void) = .empty;
            defer used.deinit(allocator);
            for (top[0..args.top_count]) |candidate| {
                // The plain way: the largest that is not used, the first of equals.
                var best: ?u32 = null;
                for (logits, 0..) |logit, token| {
                    if (std.math.isNan(logit) or used.contains(@intCast(token))) continue;
                    if (best == null or logit > logits[best.?]) best = @intCast(token);
                }
                if (best == null) best = 3;
                try used.put(allocator, best.?, {});
                try std.testing.expectEqual(best.?, candidate.token);
                if (std.math.isNan(logits[best.?])) {
                    try std.testing.expectEqual(negative_infinity, candidate.logprob);
                } else {
                    try std.testing.expectApproxEqAbs(logits[best.?] - @log(sum), candidate.logprob, 2e-6);
                }
            }
        }
    }
}
