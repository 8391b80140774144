//! Exact screening of an output head: which of its rows can be among the k largest, from a copy with half the bytes. The copy
//! gives each row an estimate and a bound on how far off it is; rows whose upper bound stays below k values that are known
//! cannot be among the k largest, and are never read.
//!
//! The copy. Per row: a code c of 4 bits a column; an 8-bit scale u and a margin m of 4 bits a block of 32 columns; float16 d, f
//! and radius:
//!   ŵ = d · u · (c − 7.5),   and in 32 columns, the fine ones, + f · (e − 7.5) with a second code e.
//! Hidden states have a few columns that are far larger than the rest, and much the same ones whatever the text (for Gemma 3
//! 270M, the 32 of 640 that random tokens show hold 62 % of the energy of 95 states of prose, code and licences). There a copy's
//! error would weigh most: those are the fine ones.
//!
//! The bound, for activations x and the residual r = w − ŵ, with ‖·‖ over a block's columns that are not fine (Cauchy and
//! Schwarz), X = ‖x‖:
//!   |w · x − ŵ · x| ≤ radius · Σ_block (32 − m) · u · X + ½ f · Σ_fine |x|,   radius · (32 − m) · u ≥ ‖r‖ in every block.
//! Whatever is rounded on the way, in the product of the head's own kernel too, is added to it: see `roundings`.
//!
//! A group of 16 rows: blocks of codes as format.zig's 4-bit plane, then the fine codes like one more block; the blocks' u, 16
//! bytes each; their m, two blocks in 16 bytes; d, f and radius of the 16 rows. The groups follow the numbers of the fine columns.

const std = @import("std");
const assert = std.debug.assert;
const prefetch_ = @import("prefetch.zig");
const table = @import("table.zig");
const vec = @import("vec.zig");
const quant = @import("quant.zig");
const layout = @import("format.zig");
const matmul = @import("matmul.zig");
const sample = @import("sample.zig");

const group_rows = table.group_rows;
const block_columns = table.block_columns;
const fine_columns = table.screen_fine_columns;
const quads = layout.quads;
/// Bytes of a block's codes in a group.
const code_bytes = group_rows * block_columns / 2;

const Rows = @Vector(group_rows, f32);
const Ints = vec.Lanes16;
const Block = @Vector(block_columns, f32);
const negative_infinity = -std.math.inf(f32);

/// The middle of the codes 0 to 15, and the largest distance of one from it.
const code_middle = 7.5;

/// `radius` · (32 − m) · u is at least this part of ‖w‖ + ‖ŵ‖ in every block, so that a bound on relative errors can be had from it.
const relative_part = 1.0 / 90.0;

/// The relative error that roundings make in a row's product and in its estimate together: one of 2^-24 for each of the sums'
/// terms, at most one a 16 columns in either, and some for scales, factors and conversions. It is of Σ ‖w‖ ‖x‖ + ‖ŵ‖ ‖x‖.
fn roundings(columns: u32) f32 {
    return @as(f32, @floatFromInt(2 * (columns / 16) + 32)) * 0x1p-24;
}

/// What a margin is taken from.
const margin_steps = 32;

/// Makes up for the roundings of the bound itself.
const safety = 1.0001;

/// Where the parts of a group's copy lie.
const Group = struct {
    codes: [*]u8,
    fine: [*]u8,
    scales: [*]u8,
    margins: [*]u8,
    factors: [*]u8,

    inline fn of(copy: [*]u8, columns: u32, group: usize) Group {
        const blocks = columns / block_columns;
        const codes = copy + table.screen_head_bytes + group * table.screenGroupBytes(columns);
        const fine = codes + @as(usize, blocks) * code_bytes;
        const scales = fine + code_bytes;
        const margins = scales + @as(usize, blocks) * group_rows;
        return .{ .codes = codes, .fine = fine, .scales = scales, .margins = margins, .factors = margins + @as(usize, (blocks + 1) / 2) * group_rows };
    }

    /// 32 − m of a block.
    inline fn margin(group: Group, block: usize) Rows {
        const pair: Ints = vec.load(@Vector(group_rows, u8), group.margins + block / 2 * group_rows);
        const shift: u5 = @intCast(block % 2 * 4);
        return @floatFromInt(@as(Ints, @splat(margin_steps)) - (pair >> @splat(shift) & @as(Ints, @splat(15))));
    }

    const Factor = enum(u32) { d, f, radius };

    inline fn factor(group: Group, comptime which: Factor) Rows {
        return vec.loadF16(group_rows, group.factors + @intFromEnum(which) * 2 * group_rows);
    }
};

// ---------------------------------------------------------------------------------------------------------------------
// Making the copy.

/// A float16 that is not below `value`, as float32.
fn halfAbove(value: f32) f32 {
    const One = @Vector(1, f32);
    const nearest = vec.toF16(@as(One, @splat(value)));
    if (vec.fromF16(nearest)[0] >= value) return vec.fromF16(nearest)[0];
    const bits: @Vector(1, u16) = @bitCast(nearest);
    return vec.fromF16(bits +% @as(@Vector(1, u16), @splat(1)))[0];
}

/// Codes of 0 to 15, as floats, for values in steps of `step`.
inline fn encode(values: Block, step: f32) Block {
    const inverse: f32 = if (step > 0) 1 / step else 0;
    // The larger of NaN and 0 is 0.
    return @floor(@min(@max(values * @as(Block, @splat(inverse)) + @as(Block, @splat(8)), @as(Block, @splat(0))), @as(Block, @splat(15.5))));
}

inline fn decode(codes: Block, step: f32) Block {
    return (codes - @as(Block, @splat(code_middle))) * @as(Block, @splat(step));
}

inline fn squares(values: Block) f32 {
    return vec.sum(values * values);
}

/// The step with the least squared error of some that cut the largest values off.
fn bestStep(values: Block) f32 {
    const largest = vec.max(@abs(values));
    var best: f32 = 0;
    var least = std.math.inf(f32);
    for ([_]f32{ 1, 0.95, 0.9, 0.85 }) |part| {
        const step = largest * part / code_middle;
        const distance = squares(values - decode(encode(values, step), step));
        if (distance < least) {
            best = step;
            least = distance;
        }
    }
    return best;
}

/// `table.ScreenBuild`. Units: groups of 16 rows. `scratch` has room for a group's weights and codes.
pub fn build(args: *const table.ScreenBuild, begin: u32, end: u32, scratch: [*]align(64) u8) callconv(.c) void {
    assert(args.columns % block_columns == 0);
    for (begin..end) |group| buildGroup(args, group, scratch);
}

fn buildGroup(args: *const table.ScreenBuild, group: usize, scratch: [*]align(64) u8) void {
    const columns = args.columns;
    const copy: Group = .of(args.copy, columns, group);
    const first = group * group_rows;
    const rows: u32 = @intCast(@min(group_rows, args.rows - first));
    const values: [*]f32 = @ptrCast(scratch);
    const codes: [*]u8 = scratch + @as(usize, columns) * 4;
    vec.fill(u8, codes[0 .. group_rows * (columns + fine_columns)], 8);
    vec.fill(u8, copy.scales[0 .. columns / block_columns * group_rows], 1);
    vec.fill(u8, copy.margins[0 .. (columns / block_columns + 1) / 2 * group_rows], 0);
    vec.fill(u8, copy.factors[0 .. 3 * 2 * group_rows], 0);
    for (0..rows) |row| {
        const token: u32 = @intCast(first + row);
        const weights: table.Embed = .{
            .format = args.format,
            .rows = args.rows,
            .columns = columns,
            .token_count = 1,
            .weight = args.weight,
            .scales = args.scales,
            .tokens = @ptrCast(&token),
            .out = values,
            .out_stride = columns,
            .scale = 1,
        };
        matmul.embed(&weights, 0, 1);
        buildRow(columns, args.copy, values, codes + row * (columns + fine_columns), copy, row);
    }
    for (0..columns / block_columns + 1) |block| {
        const target = if (block < columns / block_columns) copy.codes + block * code_bytes else copy.fine;
        for (0..quads / 2) |pair| {
            for (0..group_rows) |row| {
                const source = codes + row * (columns + fine_columns) + block * block_columns + pair * 8;
                const low = vec.load(u32, source);
                const high = vec.load(u32, source + 4);
                vec.store(target + pair * layout.quad_bytes + row * 4, low | high << 4);
            }
        }
    }
}

/// Codes of one row, whose weights become its residual; scale and factors go to their places in the group.
fn buildRow(columns: u32, head: [*]const u8, values: [*]f32, codes: [*]u8, copy: Group, row: usize) void {
    const blocks = columns / block_columns;
    const steps: [*]align(1) f32 = @ptrCast(codes + columns + fine_columns);
    var largest: f32 = 0;
    for (0..blocks) |block| {
        const step = bestStep(vec.load(Block, values + block * block_columns));
        vec.write(&steps[block], step);
        largest = @max(largest, step);
    }
    const d = halfAbove(largest / 255);
    const ratios = steps;
    for (0..blocks) |block| {
        const place = values + block * block_columns;
        const weights = vec.load(Block, place);
        const ratio: f32 = if (d > 0) vec.read(&steps[block]) / d else 1;
        const u = @min(@max(@round(ratio), 1), 255);
        const chosen = encode(weights, d * u);
        const decoded = decode(chosen, d * u);
        vec.store(codes + block * block_columns, @as(@Vector(block_columns, u8), @intFromFloat(chosen)));
        vec.write(&copy.scales[block * group_rows + row], @intFromFloat(u));
        vec.store(place, weights - decoded);
        vec.write(&ratios[block], (@sqrt(squares(weights)) + @sqrt(squares(decoded))) * relative_part / u);
    }
    var fine: [fine_columns]f32 = undefined;
    for (&fine, 0..) |*value, index| {
        const column = vec.load(u32, head + index * 4);
        value.* = vec.read(&values[column]);
        vec.write(&values[column], 0);
    }
    const f = halfAbove(vec.max(@abs(@as(Block, fine))) / 7.9);
    vec.store(codes + columns, @as(@Vector(block_columns, u8), @intFromFloat(encode(fine, f))));
    var largest_ratio: f32 = 0;
    for (0..blocks) |block| {
        const u: f32 = @floatFromInt(vec.read(&copy.scales[block * group_rows + row]));
        const ratio = larger(vec.read(&ratios[block]), @sqrt(squares(vec.load(Block, values + block * block_columns))) / u) * safety;
        vec.write(&ratios[block], ratio);
        largest_ratio = larger(largest_ratio, ratio);
    }
    const radius = halfAbove(largest_ratio / margin_steps);
    for (0..blocks) |block| {
        // Not a whole step below the ratio: the larger of NaN and 0 is 0.
        const margin = @floor(@min(@max(margin_steps - vec.read(&ratios[block]) / radius * safety, 0), 15));
        const place = &copy.margins[block / 2 * group_rows + row];
        vec.write(place, vec.read(place) | @as(u8, @intFromFloat(margin)) << @intCast(block % 2 * 4));
    }
    const factors = [3]f32{ d, f, radius };
    for (factors, 0..) |factor, index| vec.storeF16(copy.factors + (index * group_rows + row) * 2, @as(@Vector(1, f32), @splat(factor)));
}

/// NaN wins: a row that has one must not be bounded.
fn larger(a: f32, b: f32) f32 {
    return if (b > a or b != b) b else a;
}

// ---------------------------------------------------------------------------------------------------------------------
// Estimates and bounds.

/// What a token's activations are for the screen: a block's numbers, and the fine columns in int8 of their own.
const Probe = struct {
    /// Per block: half of the activations' scale.
    half_scale: [*]f32,
    /// Per block: X, and what covers roundings.
    norm: [*]f32,
    /// Per block: 15 Σ q.
    sums: [*]i32,
    x: [*]const u8,
    fine: [fine_columns]i8 align(4),
    fine_sum: i32,
    fine_half_scale: f32,
    /// What f is multiplied with in the bound.
    fine_bound: f32,

    const bytes_per_block = 12;

    fn init(args: *const table.Screen, token: usize, scratch: [*]align(64) u8) Probe {
        const blocks = args.columns / block_columns;
        const x = args.x + token * args.x_stride;
        const row: quant.Row = .of(x, args.columns);
        const half_scale: [*]f32 = @ptrCast(@alignCast(scratch + token * blocks * bytes_per_block));
        var probe: Probe = .{
            .half_scale = half_scale,
            .norm = half_scale + blocks,
            .sums = @ptrCast(half_scale + 2 * blocks),
            .x = x,
            .fine = undefined,
            .fine_sum = 0,
            .fine_half_scale = 0,
            .fine_bound = 0,
        };
        // Squares of int8 quants over a block are at most 516,128: exact.
        var fine_values: [fine_columns]f32 = undefined;
        for (0..blocks) |block| {
            const q: @Vector(block_columns, i32) = vec.load(@Vector(block_columns, i8), row.quants + block * block_columns);
            const squared = @reduce(.Add, q * q);
            vec.write(&probe.sums[block], squared);
            vec.write(&probe.norm[block], @floatFromInt(squared));
        }
        for (&fine_values, 0..) |*value, index| {
            const column = vec.load(u32, args.copy + index * 4);
            const q: f32 = @floatFromInt(@as(i8, @bitCast(vec.read(&row.quants[column]))));
            value.* = vec.load(f32, row.scales + column / block_columns * 4) * q;
            const norm = &probe.norm[column / block_columns];
            vec.write(norm, vec.read(norm) - q * q);
        }
        const relative = roundings(args.columns) / relative_part;
        for (0..blocks) |block| {
            const scale = vec.load(f32, row.scales + block * 4);
            const all = @sqrt(@as(f32, @floatFromInt(vec.read(&probe.sums[block]))));
            vec.write(&probe.half_scale[block], scale * 0.5);
            vec.write(&probe.norm[block], scale * (@sqrt(vec.read(&probe.norm[block])) + relative * all) * safety);
            vec.write(&probe.sums[block], 15 * (vec.load(i32, row.sums + block * 8) + vec.load(i32, row.sums + block * 8 + 4)));
        }
        const values: Block = fine_values;
        const scale = vec.max(@abs(values)) / 127;
        const inverse: f32 = if (scale >= 0x1p-100) 1 / scale else 0;
        const rounded = vec.roundToInt(values * @as(Block, @splat(inverse)));
        probe.fine = @as(@Vector(fine_columns, i8), @truncate(rounded));
        probe.fine_sum = 15 *% @reduce(.Add, rounded);
        probe.fine_half_scale = scale * 0.5;
        const length = vec.sum(@abs(values));
        const off = vec.sum(@abs(values - @as(Block, @floatFromInt(rounded)) * @as(Block, @splat(scale)))) + 0x1p-20 * length;
        probe.fine_bound = (0.5001 * length + code_middle * off + 2 * code_middle * roundings(args.columns) * length) * safety;
        return probe;
    }
};

/// Twice Σ (c − 7.5) · q over a block, exactly; `sum` is 15 Σ q.
inline fn doubled(codes: [*]const u8, x: [*]const u8, sum: i32) Ints {
    var isum: Ints = @splat(0);
    var pairs: vec.Pairs = @splat(0);
    inline for (0..quads / 2) |pair| {
        const bytes = vec.load(vec.Bytes, codes + pair * layout.quad_bytes);
        inline for (0..2) |half| {
            const four = vec.load(i32, x + (pair * 2 + half) * 4);
            const code = vec.bitField(bytes, half * 4, 0, 15);
            // Eight pairs of products are at most 8 · 2 · 15 · 127 = 30,480.
            if (vec.has_pairs) pairs = vec.dotPairs(pairs, code, four) else isum = vec.dot(isum, code, four, 15);
        }
    }
    if (vec.has_pairs) isum = vec.addPairs(isum, pairs);
    return isum + isum - @as(Ints, @splat(sum));
}

/// Tokens that are screened together at most.
const tokens_max = table.screen_tokens_max;

/// `table.Screen`. Units: groups of 16 rows.
pub fn screen(args: *const table.Screen, begin: u32, end: u32, scratch: [*]align(64) u8) callconv(.c) void {
    @setEvalBranchQuota(100_000); // Unrolled quads and quarters of vectors.
    assert(end <= layout.groupCount(args.rows) and args.tokens <= tokens_max);
    const group_count = layout.groupCount(args.rows);
    const ahead_bytes = table.screenGroupBytes(args.columns) / (args.columns / block_columns);
    const prefetch: prefetch_.Prefetch = .of(args.tuning.packed_distance, args.tuning.packed_lines, args.tuning.line_bytes);
    var probes: [tokens_max]Probe = undefined;
    for (0..args.tokens) |token| probes[token] = .init(args, token, scratch);
    for (begin..end) |group| {
        const copy: Group = .of(@constCast(args.copy), args.columns, group);
        for (probes[0..args.tokens], 0..) |*probe, token| {
            var sums: Rows = @splat(0);
            var spread: Rows = @splat(0);
            for (0..args.columns / block_columns) |block| {
                const codes = copy.codes + block * code_bytes;
                if (token == 0) prefetch.ask(copy.codes + block * ahead_bytes, prefetch_lines);
                const u: Rows = @floatFromInt(@as(Ints, vec.load(@Vector(group_rows, u8), copy.scales + block * group_rows)));
                const products: Rows = @floatFromInt(doubled(codes, probe.x + block * block_columns, vec.read(&probe.sums[block])));
                sums = vec.mulAdd(products, u * @as(Rows, @splat(vec.read(&probe.half_scale[block]))), sums);
                spread = vec.mulAdd(u * copy.margin(block), @as(Rows, @splat(vec.read(&probe.norm[block]))), spread);
            }
            const f = copy.factor(.f);
            const fine: Rows = @floatFromInt(doubled(copy.fine, @ptrCast(&probe.fine), probe.fine_sum));
            const estimate = copy.factor(.d) * sums + f * (fine * @as(Rows, @splat(probe.fine_half_scale)));
            // Products too small for a float32 are lost beside a bound that is not.
            const bound = copy.factor(.radius) * spread + f * @as(Rows, @splat(probe.fine_bound)) + @as(Rows, @splat(0x1p-100));
            const valid = std.simd.iota(u32, group_rows) < @as(@Vector(group_rows, u32), @splat(@intCast(@min(group_rows, args.rows - group * group_rows))));
            const least: Rows = @splat(negative_infinity);
            const sum = estimate + bound;
            // What is not a number is not bounded.
            const upper = @select(f32, sum == sum, @max(sum, @as(Rows, @splat(-std.math.floatMax(f32)))), @as(Rows, @splat(std.math.inf(f32))));
            const groups = args.groups + token * args.groups_stride;
            vec.write(&groups[group], vec.max(@select(f32, valid, @select(f32, estimate == estimate, estimate, least), least)));
            vec.write(&groups[group_count + group], vec.max(@select(f32, valid, upper, least)));
            vec.store(args.y + token * args.y_stride + group * group_rows, least);
        }
    }
}

/// A block asks for its part of a group's bytes, as far ahead as for other 4-bit weights in matmul.zig: 17 % faster than asking for
/// the codes alone (Zen 5).
const prefetch_lines = code_bytes / 64 + 1;

// ---------------------------------------------------------------------------------------------------------------------
// Choosing groups.

/// `table.ScreenPick`. Runs on one thread.
pub fn pick(args: *const table.ScreenPick) callconv(.c) void {
    if (args.stage == 0) pickLikely(args) else pickPossible(args);
}

/// Groups that are computed first: more than hold the largest values, for the estimates' order is not theirs.
fn likelyCount(keep: u32, group_count: u32) u32 {
    return @min(group_count, keep + keep / 2 + 15);
}

/// Groups with the best estimates, and those of recent tokens, whose logits the penalty changes: ascending, each once.
fn pickLikely(args: *const table.ScreenPick) void {
    const group_count = layout.groupCount(args.rows);
    const wanted = likelyCount(args.keep, group_count);
    sample.selectBest(args.groups, group_count, wanted, args.scratch);
    const list = args.list + table.screen_list_head;
    for (args.scratch[0..wanted], list) |*candidate, *group| vec.write(group, vec.read(&candidate.token));
    var length: u32 = wanted;
    for (args.recent[0..args.recent_count]) |*recent| {
        const token = vec.read(recent);
        if (token >= args.rows) continue;
        vec.write(&list[length], token / group_rows);
        length += 1;
    }
    sample.sort(u32, list[0..length], isLess);
    var kept: u32 = 0;
    var last: u32 = std.math.maxInt(u32);
    for (list[0..length]) |*place| {
        const group = vec.read(place);
        if (group == last) continue;
        last = group;
        vec.write(&list[kept], group);
        kept += 1;
    }
    vec.write(&args.list[0], kept);
    vec.write(&args.list[1], kept);
}

inline fn isLess(a: u32, b: u32) bool {
    return a < b;
}

/// The first place of an ascending list that holds `group` or more.
fn lowerBound(list: []const u32, group: u32) usize {
    var low: usize = 0;
    var high = list.len;
    while (low < high) {
        const middle = low + (high - low) / 2;
        if (vec.read(&list[middle]) < group) low = middle + 1 else high = middle;
    }
    return low;
}

/// Groups whose upper bounds reach the `keep`-th largest of the logits that are known. Recent tokens' do not count as
/// known, since the penalty is yet to come; they are computed themselves.
fn pickPossible(args: *const table.ScreenPick) void {
    const group_count = layout.groupCount(args.rows);
    const list = args.list + table.screen_list_head;
    var length: u32 = vec.read(&args.list[0]);
    const known = args.scratch[0 .. length * group_rows];
    const upper = args.groups + group_count;
    for (list[0..length], 0..) |*chosen, index| {
        const group: usize = vec.read(chosen);
        vec.write(&upper[group], negative_infinity);
        for (known[index * group_rows ..][0..group_rows], group * group_rows..) |*candidate, token| {
            const logit = if (token < args.rows) sample.clean(vec.read(&args.logits[token])) else negative_infinity;
            vec.write(candidate, .{ .token = @intCast(token), .logprob = logit });
        }
    }
    for (args.recent[0..args.recent_count]) |*recent| {
        const token = vec.read(recent);
        if (token >= args.rows) continue;
        const index = lowerBound(list[0..length], token / group_rows);
        vec.write(&known[index * group_rows + token % group_rows].logprob, negative_infinity);
    }
    var threshold = negative_infinity;
    if (args.keep <= known.len) {
        sample.select(known, args.keep - 1);
        threshold = vec.read(&known[args.keep - 1].logprob);
    }
    for (upper[0..group_count], 0..) |*place, group| {
        const bound = vec.read(place);
        // Without a branch, which nothing could predict.
        vec.write(&list[length], @intCast(group));
        length += @intFromBool(bound != negative_infinity and bound >= threshold);
    }
    vec.write(&args.list[1], length);
}

// ---------------------------------------------------------------------------------------------------------------------

const testing = std.testing;
const pack = @import("pack.zig");
const reference = @import("reference.zig");

/// A head, its copy, tokens' activations and what a screened step has.
const Case = struct {
    sample: pack.Sample,
    tokens: u32,
    x: []align(64) u8,
    x_stride: u64,
    copy: []align(64) u8,
    logits: []f32,
    logits_stride: usize,
    groups: []f32,
    groups_stride: usize,
    lists: []u32,
    lists_stride: usize,
    candidates: []table.Candidate,
    scratch: []align(64) u8,

    fn make(weights: pack.Sample, tokens: u32, random: std.Random) !Case {
        const group_count = layout.groupCount(weights.rows);
        const columns = weights.columns;
        const stride = table.quantizedRowBytes(columns);
        const case: Case = .{
            .sample = weights,
            .tokens = tokens,
            .x = try testing.allocator.alignedAlloc(u8, .@"64", tokens * stride),
            .x_stride = stride,
            .copy = try testing.allocator.alignedAlloc(u8, .@"64", table.screen_head_bytes + group_count * table.screenGroupBytes(columns)),
            .logits = try testing.allocator.alloc(f32, tokens * group_count * group_rows),
            .logits_stride = group_count * group_rows,
            .groups = try testing.allocator.alloc(f32, tokens * 2 * group_count),
            .groups_stride = 2 * group_count,
            .lists = try testing.allocator.alloc(u32, tokens * (table.screen_list_head + group_count + table.screen_recent_max)),
            .lists_stride = table.screen_list_head + group_count + table.screen_recent_max,
            .candidates = try testing.allocator.alloc(table.Candidate, group_count * group_rows),
            .scratch = try testing.allocator.alignedAlloc(u8, .@"64", @max(table.scratchBytes(columns, 0, 0), columns * group_rows * 4 + 65536)),
        };
        const values = try testing.allocator.alloc(f32, columns);
        defer testing.allocator.free(values);
        for (0..tokens) |token| {
            for (values, 0..) |*value, column| {
                // Some columns are far larger than the rest.
                value.* = random.floatNorm(f32) * @as(f32, if (column % 37 == 5) 20 else 1);
            }
            quant.quantizeRow(columns, values.ptr, case.x[token * stride ..].ptr);
        }
        // Any columns do; here some that are large and some that are not.
        const fine: [*]align(1) u32 = @ptrCast(case.copy.ptr);
        for (0..fine_columns) |index| fine[index] = @intCast((index * 37 + 5) % columns);
        var seen: [4096]bool = @splat(false);
        for (0..fine_columns) |index| {
            while (seen[fine[index]]) fine[index] = (fine[index] + 1) % columns;
            seen[fine[index]] = true;
        }
        const args: table.ScreenBuild = .{
            .format = weights.format,
            .rows = weights.rows,
            .columns = columns,
            .weight = weights.weight.ptr,
            .scales = weights.scales.ptr,
            .copy = case.copy.ptr,
        };
        build(&args, 0, group_count, case.scratch.ptr);
        return case;
    }

    fn free(case: Case) void {
        case.sample.free();
        testing.allocator.free(case.x);
        testing.allocator.free(case.copy);
        testing.allocator.free(case.logits);
        testing.allocator.free(case.groups);
        testing.allocator.free(case.lists);
        testing.allocator.free(case.candidates);
        testing.allocator.free(case.scratch);
    }

    fn product(case: Case, token: usize, begin: u32, end: u32, y: []f32) void {
        const args: table.MatMul = .{
            .format = case.sample.format,
            .rows = case.sample.rows,
            .columns = case.sample.columns,
            .tokens = 1,
            .weight = case.sample.weight.ptr,
            .scales = case.sample.scales.ptr,
            .x = case.x[token * case.x_stride ..].ptr,
            .x_stride = case.x_stride,
            .y = y.ptr,
            .y_stride = y.len,
            .bias = null,
            .accumulate = 0,
            .soft_cap = 0,
        };
        matmul.matmul(&args, begin, end, case.scratch.ptr);
    }

    /// Estimates and bounds, in two pieces.
    fn estimate(case: Case) void {
        const group_count = layout.groupCount(case.sample.rows);
        const args: table.Screen = .{
            .rows = case.sample.rows,
            .columns = case.sample.columns,
            .tokens = case.tokens,
            .copy = case.copy.ptr,
            .x = case.x.ptr,
            .x_stride = case.x_stride,
            .y = case.logits.ptr,
            .y_stride = case.logits_stride,
            .groups = case.groups.ptr,
            .groups_stride = case.groups_stride,
        };
        screen(&args, 0, group_count / 2, case.scratch.ptr);
        screen(&args, group_count / 2, group_count, case.scratch.ptr);
    }

    /// The screened logits of one token; how many groups were computed.
    fn choose(case: Case, token: usize, keep: u32, recent: []const u32) u32 {
        const list = case.lists[token * case.lists_stride ..];
        const logits = case.logits[token * case.logits_stride ..][0..case.logits_stride];
        for (0..2) |stage| {
            const args: table.ScreenPick = .{
                .stage = @intCast(stage),
                .rows = case.sample.rows,
                .keep = keep,
                .recent_count = @intCast(recent.len),
                .recent = recent.ptr,
                .groups = case.groups[token * case.groups_stride ..].ptr,
                .logits = logits.ptr,
                .list = list.ptr,
                .scratch = case.candidates.ptr,
            };
            pick(&args);
            for (list[table.screen_list_head..][if (stage == 0) 0 else list[0]..list[stage]]) |group| case.product(token, group, group + 1, logits);
        }
        return list[1];
    }
};

/// What a row of weights may be, besides what the sample has.
const Row = enum { as_is, zero, equal, one_hot, huge, tiny };

/// A Q8_0 head with rows of every kind.
fn adversarial(rows: u32, columns: u32, random: std.Random) !pack.Sample {
    const weights: pack.Sample = try .make(.q8_0, rows, columns, .random, random);
    const row_bytes = reference.rowBytes(.q8_0, columns);
    for (0..rows) |row| {
        const bytes = weights.source[row * row_bytes ..][0..row_bytes];
        const kind: Row = @enumFromInt(random.uintLessThan(u8, 6));
        for (0..columns / 32) |block| {
            const place = bytes[block * 34 ..][0..34];
            switch (kind) {
                .as_is => {},
                .zero => @memset(place, 0),
                .equal => if (row > 0) @memcpy(place, weights.source[block * 34 ..][0..34]),
                .one_hot => {
                    @memset(place[2..], 0);
                    if (block == 0) place[2 + row % 32] = 127;
                },
                .huge => vec.store(place.ptr, @as(u16, 0x7bff)),
                .tiny => vec.store(place.ptr, @as(u16, 1)),
            }
        }
    }
    const args: table.Pack = .{ .format = .q8_0, .rows = rows, .columns = columns, .source = weights.source.ptr, .weight = weights.weight.ptr, .scales = weights.scales.ptr };
    pack.pack(&args, 0, layout.groupCount(rows));
    return weights;
}

const test_formats = [_]table.Format{ .q8_0, .q6_k };

test "a row's bound bounds its product, in double precision and as the kernel rounds it" {
    var prng: std.Random.DefaultPrng = .init(31);
    const random = prng.random();
    for (0..240) |round| {
        const format = test_formats[round % 2];
        const columns: u32 = if (format == .q6_k) 512 else ([_]u32{ 32, 96, 640 })[round / 2 % 3];
        // A group of one row tells that row's bound.
        const weights: pack.Sample = if (format == .q8_0 and round % 4 == 0)
            try adversarial(1, columns, random)
        else
            try .make(format, 1, columns, std.enums.values(reference.Fill)[round / 4 % std.enums.values(reference.Fill).len], random);
        const case: Case = try .make(weights, 2, random);
        defer case.free();
        case.estimate();
        for (0..2) |token| {
            var computed: [16]f32 = undefined;
            case.product(token, 0, 1, &computed);
            const parts: quant.Row = .of(case.x[token * case.x_stride ..].ptr, columns);
            var exact: f64 = 0;
            for (0..columns) |column| {
                const q: i8 = @bitCast(parts.quants[column]);
                exact += reference.exact(format, weights.row(0), column) * @as(f64, vec.load(f32, parts.scales + column / 32 * 4)) * @as(f64, @floatFromInt(q));
            }
            const estimated: f64 = case.groups[token * case.groups_stride];
            const upper: f64 = case.groups[token * case.groups_stride + 1];
            if (!std.math.isFinite(upper)) continue;
            const bound = upper - estimated;
            try testing.expect(@abs(exact - estimated) <= bound);
            try testing.expect(@abs(computed[0] - estimated) <= bound);
        }
    }
}

test "the largest logits are those of the whole product, bit for bit, and the others are left out" {
    var prng: std.Random.DefaultPrng = .init(32);
    const random = prng.random();
    for (0..60) |round| {
        const format = test_formats[round % 2];
        const columns: u32 = if (format == .q6_k) 256 else ([_]u32{ 64, 640 })[round / 2 % 2];
        const rows = ([_]u32{ 5, 200, 3001 })[round % 3];
        const weights: pack.Sample = if (format == .q8_0 and round % 4 == 0)
            try adversarial(rows, columns, random)
        else
            try .make(format, rows, columns, std.enums.values(reference.Fill)[round / 4 % std.enums.values(reference.Fill).len], random);
        const case: Case = try .make(weights, 3, random);
        defer case.free();
        const group_count = layout.groupCount(rows);
        const whole = try testing.allocator.alloc(f32, case.logits_stride);
        defer testing.allocator.free(whole);
        const order = try testing.allocator.alloc(table.Candidate, rows);
        defer testing.allocator.free(order);
        var recent: [20]u32 = undefined;
        for (&recent) |*token| token.* = random.uintLessThan(u32, rows + 2);
        for ([_]u32{ 1, 7, 50, 256 }) |keep| {
            for ([_]usize{ 0, recent.len }) |recent_count| {
                case.estimate();
                for (0..3) |token| {
                    case.product(token, 0, group_count, whole);
                    const computed = case.choose(token, keep, recent[0..recent_count]);
                    try testing.expect(computed <= group_count);
                    const logits = case.logits[token * case.logits_stride ..][0..rows];
                    for (logits, whole[0..rows]) |screened, full| {
                        if (screened != negative_infinity) try testing.expectEqual(@as(u32, @bitCast(full)), @as(u32, @bitCast(screened)));
                    }
                    for (recent[0..recent_count]) |row| {
                        if (row < rows) try testing.expectEqual(whole[row], logits[row]);
                    }
                    for (order, whole[0..rows], 0..) |*item, logit, row| item.* = .{ .token = @intCast(row), .logprob = sample.clean(logit) };
                    const kept = @min(keep, rows);
                    sample.select(order, kept - 1);
                    for (order[0..kept]) |item| try testing.expectEqual(whole[item.token], logits[item.token]);
                    // Equals of the last one are there too: which of them is kept is not the screen's to say.
                    for (whole[0..rows], logits) |full, screened| {
                        if (sample.clean(full) == order[kept - 1].logprob) try testing.expectEqual(full, screened);
                    }
                }
            }
        }
    }
}

test "a head with one large row per token is screened down to few groups" {
    var prng: std.Random.DefaultPrng = .init(33);
    const random = prng.random();
    const weights: pack.Sample = try .make(.q8_0, 8000, 640, .random, random);
    const row_bytes = reference.rowBytes(.q8_0, 640);
    const case: Case = try .make(weights, 1, random);
    // Rows of equal length; one of them points where the activations do.
    const parts: quant.Row = .of(case.x.ptr, 640);
    for (0..8000) |row| {
        for (0..20) |block| {
            const place = weights.source[row * row_bytes + block * 34 ..][0..34];
            vec.store(place.ptr, @as(u16, 0x1400));
            for (place[2..], 0..) |*code, column| {
                code.* = if (row == 4321) parts.quants[block * 32 + column] else random.int(u8);
            }
        }
    }
    const args: table.Pack = .{ .format = .q8_0, .rows = 8000, .columns = 640, .source = weights.source.ptr, .weight = weights.weight.ptr, .scales = weights.scales.ptr };
    pack.pack(&args, 0, 500);
    const building: table.ScreenBuild = .{ .format = .q8_0, .rows = 8000, .columns = 640, .weight = weights.weight.ptr, .scales = weights.scales.ptr, .copy = case.copy.ptr };
    build(&building, 0, 500, case.scratch.ptr);
    defer case.free();
    case.estimate();
    try testing.expect(case.choose(0, 1, &.{}) < 50);
    try testing.expect(case.logits[4321] > 0);
}
