//! Convolutions of images, and of sequences as images of one row: plain, grouped and depthwise, with strides, padding and
//! dilation, in float32.
//!
//!   y[oy][ox][o] = bias[o] + Σ_ky Σ_kx Σ_c w[o][c][ky][kx] · x[oy · stride + ky · dilation − padding][ox · … − …][c]
//!
//! over the channels c of the output's group. An image stands position by position, its channels together; a weight is packed
//! as every other (format.zig), a row an output, its columns in the order of the model files: channel, then the kernel's rows,
//! then its columns. So 16 outputs of one position fill a vector, and an input is loaded into all of its lanes; where each
//! channel is an output of its own (depthwise), 16 neighbouring channels fill it.
//!
//! The arithmetic of an output, whatever the tile or the split: y = bias, then y = fma(w, x, y) over blocks of 16 channels, in a
//! block over ky, kx and c, all ascending; depthwise over kx, then ky. Places beyond the image are left out, or x is 0 there.

const std = @import("std");
const assert = std.debug.assert;
const table = @import("table.zig");
const vec = @import("vec.zig");

const group_rows = table.group_rows;

/// One value for each row of a group of weights: outputs.
const Rows = @Vector(group_rows, f32);

/// Positions of a tile, largest first. Of 7, as the widths of many images are multiples of it, and two groups of outputs, 14
/// sums wait for none: two begin in a cycle and take four or five. With the groups' weights and an input they take 14 + 2 + 1
/// registers of 32 (AVX-512), and the positions' addresses 7 of 16. Others have one group: 12 + 2 + 1 of 16 (AVX2), 24 + 4 + 1 of
/// 32 (NEON), 8 + 4 + 1 of 16 and one for a product (128-bit x86).
const tile_positions = switch (vec.level) {
    .avx512, .avx512_vnni, .amx => [_]u32{ 7, 4, 2, 1 },
    .avx2, .neon, .neon_dotprod, .neon_i8mm => [_]u32{ 6, 4, 2, 1 },
    .x86_64_v2, .scalar => [_]u32{ 2, 1 },
};
const tile_groups = if (vec.lanes == group_rows) 2 else 1;

/// Channels of an input that are gone through at all places of the kernel before the next ones are: a cache line of each position,
/// and with 9 places 18 KB of two groups' weights, which lie together. (One core of an Emerald Rapids, 512 channels of 7 × 7 under 3 × 3:
/// 126 GFLOP/s instead of 74.)
const block_channels = 16;

/// Inputs beside an image.
const zeros: [block_channels]f32 align(64) = @splat(0);

/// See `table.Conv`.
pub fn conv(args: *const table.Conv, begin: u32, end: u32) callconv(.c) void {
    const shape = &args.shape;
    assert(begin <= end and end <= args.row_count * shape.units());
    assert(shape.valid());
    for (begin..end) |unit| {
        const part: Part = .of(shape, @intCast(unit));
        if (shape.depthwise()) depthwise(args, part) else dense(args, part);
    }
}

/// What a unit computes: a block of outputs at neighbouring positions of an image's row.
const Part = struct {
    image: usize,
    row: usize,
    first: usize,
    count: usize,
    output: u32,
    output_end: u32,

    /// A block's weights stay in a second-level cache while the positions go by. Depthwise there are few, and the channels of a
    /// position come from memory together: blocks go by at each stretch of positions.
    fn of(shape: *const table.Convolution, unit: u32) Part {
        const stretches = shape.stretches();
        const blocks = shape.blocks();
        const in_image = unit % shape.units();
        const place = if (shape.depthwise()) in_image / blocks else in_image % (stretches * shape.out_size[0]);
        const block = if (shape.depthwise()) in_image % blocks else in_image / (stretches * shape.out_size[0]);
        const first = place % stretches * table.conv_positions;
        const output = block * table.conv_outputs;
        return .{
            .image = unit / shape.units(),
            .row = place / stretches,
            .first = first,
            .count = @min(table.conv_positions, shape.out_size[1] - first),
            .output = output,
            .output_end = @min(output + table.conv_outputs, shape.outputs),
        };
    }
};

/// Outputs of a tile: the lanes of a group of rows, or of two, that belong to one group of channels.
const Lanes = struct {
    output: u32,
    count: u32,

    fn ofGroup(lanes: Lanes, index: u32) Lanes {
        const before = index * group_rows;
        return .{ .output = lanes.output + before, .count = @min(group_rows, lanes.count - before) };
    }
};

fn dense(args: *const table.Conv, part: Part) void {
    const per_group = args.shape.outputs / args.shape.groups;
    var output = part.output;
    while (output < part.output_end) {
        const left = @min((output / per_group + 1) * per_group, part.output_end) - output;
        const lane = output % group_rows;
        if (tile_groups == 2 and lane == 0 and left > group_rows) {
            const lanes: Lanes = .{ .output = output, .count = @min(left, 2 * group_rows) };
            denseTiles(2, args, part, lanes);
            output += lanes.count;
        } else {
            const lanes: Lanes = .{ .output = output, .count = @min(left, group_rows - lane) };
            denseTiles(1, args, part, lanes);
            output += lanes.count;
        }
    }
}

fn denseTiles(comptime groups: u32, args: *const table.Conv, part: Part, lanes: Lanes) void {
    var at: usize = 0;
    inline for (tile_positions) |positions| {
        while (part.count - at >= positions) : (at += positions) denseTile(positions, groups, args, part, part.first + at, lanes);
    }
}

noinline fn denseTile(comptime positions: u32, comptime groups: u32, args: *const table.Conv, part: Part, first: usize, lanes: Lanes) void {
    const shape = &args.shape;
    const channels = shape.groupChannels();
    const taps = shape.kernel[0] * shape.kernel[1];
    const group = lanes.output / group_rows;
    const group_floats = @as(usize, channels) * taps * group_rows;
    const weight = args.weight + group * group_floats;
    const input = lanes.output / (shape.outputs / shape.groups) * channels;
    var sums: [groups][positions]Rows = undefined;
    inline for (0..groups) |index| sums[index] = @splat(bias(args, group + index));
    const stride = @as(usize, taps) * group_rows;
    var channel: u32 = 0;
    // Where there is one place, nothing comes again, and the weights of all channels lie together.
    const block_max = if (taps == 1 and !shape.padded()) channels else block_channels;
    while (channel < channels) : (channel += block_max) {
        const block = @min(block_max, channels - channel);
        var taken: Taps = .of(shape, part.row);
        while (taken.next(args, part.image)) |tap| {
            const x = tap.inputs(positions, shape, first, input + channel);
            const w = weight + channel * stride + tap.index * group_rows;
            for (0..block) |column| {
                var weights: [groups]Rows = undefined;
                inline for (0..groups) |index| weights[index] = vec.load(Rows, w + index * group_floats + column * stride);
                inline for (0..positions) |position| {
                    const value: Rows = @splat(vec.load(f32, x[position] + column));
                    inline for (0..groups) |index| sums[index][position] = vec.mulAdd(weights[index], value, sums[index][position]);
                }
            }
        }
    }
    inline for (0..groups) |index| finish(positions, args, part, first, lanes.ofGroup(index), &sums[index]);
}

fn depthwise(args: *const table.Conv, part: Part) void {
    var at: usize = 0;
    inline for (tile_positions) |positions| {
        while (part.count - at >= positions) : (at += positions) {
            var output = part.output;
            while (output < part.output_end) {
                const lanes: Lanes = .{ .output = output, .count = @min(tile_groups * group_rows, part.output_end - output) };
                if (lanes.count == tile_groups * group_rows) {
                    depthwiseTile(positions, tile_groups, true, args, part, part.first + at, lanes);
                    output += lanes.count;
                } else {
                    const own = lanes.ofGroup(0);
                    if (own.count == group_rows) {
                        depthwiseTile(positions, 1, true, args, part, part.first + at, own);
                    } else depthwiseTile(positions, 1, false, args, part, part.first + at, own);
                    output += own.count;
                }
            }
        }
    }
}

noinline fn depthwiseTile(comptime positions: u32, comptime groups: u32, comptime whole: bool, args: *const table.Conv, part: Part, first: usize, lanes: Lanes) void {
    const shape = &args.shape;
    const group = lanes.output / group_rows;
    const group_floats = @as(usize, shape.kernel[0]) * shape.kernel[1] * group_rows;
    const weight = args.weight + group * group_floats;
    var sums: [groups][positions]Rows = undefined;
    inline for (0..groups) |index| sums[index] = @splat(bias(args, group + index));
    const taken: Taps = .of(shape, part.row);
    const image = args.x + part.image * args.x_stride + lanes.output;
    const width: isize = shape.size[1];
    const step: isize = shape.stride[1];
    const row_floats = @as(usize, shape.size[1]) * shape.channels;
    for (0..shape.kernel[1]) |kx| {
        const column = @as(isize, @intCast(first * shape.stride[1] + kx * shape.dilation[1])) - shape.padding[1];
        const inside = column >= 0 and column + step * (positions - 1) < width;
        if (positions == 1 and !inside) continue;
        // Once with a question at each position, once without.
        inline for (.{ true, false }) |all| if (inside == all) for (taken.row..taken.row_end) |ky| {
            const row: usize = @intCast(taken.first + @as(isize, @intCast(ky * shape.dilation[0])));
            const x = image + row * row_floats;
            const w = weight + (ky * shape.kernel[1] + kx) * group_rows;
            inline for (0..groups) |index| {
                const weights = vec.load(Rows, w + index * group_floats);
                inline for (0..positions) |position| {
                    const at = column + step * position;
                    if (all or (at >= 0 and at < width)) {
                        const from = x + @as(usize, @intCast(at)) * shape.channels + index * group_rows;
                        const values = if (whole) vec.load(Rows, from) else vec.loadPartial(Rows, from, lanes.count);
                        sums[index][position] = vec.mulAdd(weights, values, sums[index][position]);
                    }
                }
            }
        };
    }
    inline for (0..groups) |index| finish(positions, args, part, first, lanes.ofGroup(index), &sums[index]);
}

/// The kernel's places, row by row, without the rows that lie beyond the image.
const Taps = struct {
    row: u32,
    row_end: u32,
    column: u32 = 0,
    /// The image's row under the kernel's first one, which may be before its own first.
    first: isize,

    fn of(shape: *const table.Convolution, out_row: usize) Taps {
        const first = @as(isize, @intCast(out_row * shape.stride[0])) - shape.padding[0];
        const step: isize = shape.dilation[0];
        const before = @max(0, @divFloor(-first + step - 1, step));
        const inside = @divFloor(@as(isize, shape.size[0]) - first + step - 1, step);
        return .{ .row = @intCast(@min(before, shape.kernel[0])), .row_end = @intCast(std.math.clamp(inside, 0, shape.kernel[0])), .first = first };
    }

    inline fn next(taps: *Taps, args: *const table.Conv, image: usize) ?Tap {
        const shape = &args.shape;
        if (taps.row >= taps.row_end) return null;
        const row: usize = @intCast(taps.first + @as(isize, taps.row) * shape.dilation[0]);
        const tap: Tap = .{
            .index = taps.row * shape.kernel[1] + taps.column,
            .row = args.x + image * args.x_stride + row * shape.size[1] * shape.channels,
            .shift = @as(isize, taps.column) * shape.dilation[1] - shape.padding[1],
        };
        taps.column += 1;
        if (taps.column == shape.kernel[1]) {
            taps.column = 0;
            taps.row += 1;
        }
        return tap;
    }
};

/// A place of the kernel over a row of the image.
const Tap = struct {
    index: usize,
    row: [*]const f32,
    /// Columns from `stride` times the output's.
    shift: isize,

    /// The inputs of neighbouring outputs, from one of their channels on; zeros beside the image.
    inline fn inputs(tap: Tap, comptime count: u32, shape: *const table.Convolution, first: usize, channel: usize) [count][*]const f32 {
        const width: isize = shape.size[1];
        const step: isize = shape.stride[1];
        const column = @as(isize, @intCast(first * shape.stride[1])) + tap.shift;
        const channels: isize = shape.channels;
        var pointers: [count][*]const f32 = undefined;
        if (column >= 0 and column + step * (count - 1) < width) {
            const from = tap.row + @as(usize, @intCast(column * channels)) + channel;
            inline for (0..count) |index| pointers[index] = from + index * @as(usize, @intCast(step * channels));
            return pointers;
        }
        inline for (0..count) |index| {
            const at = column + step * @as(isize, index);
            const inside = at >= 0 and at < width;
            pointers[index] = if (inside) tap.row + @as(usize, @intCast(at * channels)) + channel else &zeros;
        }
        return pointers;
    }
};

/// Constants are padded with zeros to whole vectors.
inline fn bias(args: *const table.Conv, group: usize) Rows {
    return if (args.bias) |values| vec.load(Rows, values + group * group_rows) else @splat(0);
}

inline fn finish(comptime positions: u32, args: *const table.Conv, part: Part, first: usize, lanes: Lanes, sums: *const [positions]Rows) void {
    const shape = &args.shape;
    const row = args.out + part.image * args.out_stride + part.row * shape.out_size[1] * shape.outputs;
    const out = row + first * shape.outputs + lanes.output;
    if (lanes.count == group_rows) {
        inline for (sums, 0..) |values, position| vec.store(out + position * shape.outputs, values);
    } else {
        const lane = lanes.output % group_rows;
        inline for (sums, 0..) |values, position| {
            // The first lane's value first.
            var elements: [2 * group_rows]f32 = @splat(0);
            elements[0..group_rows].* = values;
            vec.storePartial(out + position * shape.outputs, @as(Rows, elements[lane..][0..group_rows].*), lanes.count);
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------

const testing = std.testing;
const pack = @import("pack.zig");

const Case = struct {
    size: [2]u32,
    channels: u32,
    outputs: u32,
    kernel: [2]u32,
    stride: [2]u32 = .{ 1, 1 },
    dilation: [2]u32 = .{ 1, 1 },
    /// Before and behind, above and left alike.
    padding: [2]u32 = .{ 0, 0 },
    groups: u32 = 1,
    images: u32 = 1,
    bias: bool = true,

    fn outSize(case: Case) [2]u32 {
        var out: [2]u32 = undefined;
        for (&out, case.size, case.kernel, case.stride, case.dilation, case.padding) |*to, size, kernel, stride, dilation, padding| {
            to.* = (size + 2 * padding - (kernel - 1) * dilation - 1) / stride + 1;
        }
        return out;
    }

    fn shape(case: Case) table.Convolution {
        const pair = struct {
            fn pair(both: [2]u32) u32 {
                return both[0] | both[1] << 16;
            }
        }.pair;
        return .of(.{
            pair(case.size),
            pair(.{ case.channels, case.outputs }),
            pair(case.kernel),
            pair(case.stride),
            pair(case.dilation),
            pair(case.padding),
            pair(case.outSize()),
            case.groups,
        });
    }
};

/// Random operands of a case, and room for its outputs with a float of some other value around every image.
const Operands = struct {
    args: table.Conv,
    x: []f32,
    weight: []f32,
    packed_weight: []align(64) u8,
    bias: []f32,
    out: []f32,

    const untouched = 99;

    fn init(case: Case, random: std.Random) !Operands {
        const shape = case.shape();
        const columns: u32 = @intCast(shape.weightColumns());
        const width = case.size[0] * case.size[1] * case.channels;
        const out_width = case.outSize()[0] * case.outSize()[1] * case.outputs;
        const allocator = testing.allocator;
        const groups = std.math.divCeil(u32, case.outputs, group_rows) catch unreachable;
        var operands: Operands = .{
            .args = undefined,
            .x = try allocator.alloc(f32, case.images * (width + 1)),
            .weight = try allocator.alloc(f32, case.outputs * columns),
            .packed_weight = try allocator.alignedAlloc(u8, .@"64", groups * group_rows * columns * 4),
            .bias = try allocator.alloc(f32, groups * group_rows),
            .out = try allocator.alloc(f32, case.images * (out_width + 1)),
        };
        for ([_][]f32{ operands.x, operands.weight, operands.bias }) |values| {
            for (values) |*value| value.* = random.floatNorm(f32);
        }
        @memset(operands.out, untouched);
        const packing: table.Pack = .{
            .format = .f32,
            .rows = case.outputs,
            .columns = columns,
            .source = @ptrCast(operands.weight.ptr),
            .weight = operands.packed_weight.ptr,
            .scales = operands.packed_weight.ptr,
        };
        pack.pack(&packing, 0, groups);
        operands.args = .{
            .shape = shape,
            .row_count = case.images,
            .weight = @ptrCast(operands.packed_weight.ptr),
            .x = operands.x.ptr,
            .x_stride = width + 1,
            .bias = if (case.bias) operands.bias.ptr else null,
            .out = operands.out.ptr,
            .out_stride = out_width + 1,
        };
        return operands;
    }

    fn deinit(operands: Operands) void {
        const allocator = testing.allocator;
        for ([_][]f32{ operands.x, operands.weight, operands.bias, operands.out }) |values| allocator.free(values);
        allocator.free(operands.packed_weight);
    }

    fn units(operands: *const Operands) u32 {
        return operands.args.row_count * operands.args.shape.units();
    }
};

/// The output, and how much its sum can be off.
fn reference(case: Case, operands: *const Operands, image: usize, y: u32, x: u32, output: u32) struct { value: f64, bound: f64 } {
    const channels = case.channels / case.groups;
    const group = output / (case.outputs / case.groups);
    var value: f64 = if (case.bias) operands.bias[output] else 0;
    var magnitude = @abs(value);
    var terms: f64 = 1;
    for (0..channels) |channel| for (0..case.kernel[0]) |ky| for (0..case.kernel[1]) |kx| {
        const row = @as(i64, y) * case.stride[0] + @as(i64, @intCast(ky)) * case.dilation[0] - case.padding[0];
        const column = @as(i64, x) * case.stride[1] + @as(i64, @intCast(kx)) * case.dilation[1] - case.padding[1];
        if (row < 0 or row >= case.size[0] or column < 0 or column >= case.size[1]) continue;
        const position: usize = @intCast(row * case.size[1] + column);
        const input: f64 = operands.x[image * operands.args.x_stride + position * case.channels + group * channels + channel];
        const weight: f64 = operands.weight[((output * channels + channel) * case.kernel[0] + ky) * case.kernel[1] + kx];
        value += weight * input;
        magnitude += @abs(weight * input);
        terms += 1;
    };
    return .{ .value = value, .bound = 2 * terms * magnitude * 0x1p-24 };
}

fn check(case: Case, random: std.Random) !void {
    errdefer std.debug.print("{any}\n", .{case});
    const operands: Operands = try .init(case, random);
    defer operands.deinit();
    conv(&operands.args, 0, operands.units());
    const height, const width = case.outSize();
    const pixels = height * width;
    for (0..case.images) |image| {
        const out = operands.out[image * operands.args.out_stride ..];
        for (0..pixels) |pixel| for (0..case.outputs) |output| {
            const y: u32 = @intCast(pixel / width);
            const x: u32 = @intCast(pixel % width);
            const expected = reference(case, &operands, image, y, x, @intCast(output));
            try testing.expectApproxEqAbs(expected.value, out[pixel * case.outputs + output], expected.bound);
        };
        try testing.expectEqual(@as(f32, Operands.untouched), out[pixels * case.outputs]);
    }
    // The same bits unit by unit, the last one first.
    const all = try testing.allocator.dupe(f32, operands.out);
    defer testing.allocator.free(all);
    @memset(operands.out, Operands.untouched);
    var unit = operands.units();
    while (unit > 0) : (unit -= 1) conv(&operands.args, unit - 1, unit);
    try testing.expectEqualSlices(u32, @ptrCast(all), @ptrCast(operands.out));
}

test "convolutions agree with double precision at their edges, and have the same bits however they are split" {
    var prng: std.Random.DefaultPrng = .init(41);
    for ([_]Case{
        // Sequences.
        .{ .size = .{ 1, 1 }, .channels = 1, .outputs = 1, .kernel = .{ 1, 1 } },
        .{ .size = .{ 1, 130 }, .channels = 5, .outputs = 20, .kernel = .{ 1, 3 }, .padding = .{ 0, 1 } },
        .{ .size = .{ 1, 61 }, .channels = 8, .outputs = 33, .kernel = .{ 1, 3 }, .stride = .{ 1, 2 }, .padding = .{ 0, 1 }, .images = 2 },
        // Strides beyond the kernel, and a kernel beyond the image.
        .{ .size = .{ 9, 23 }, .channels = 3, .outputs = 17, .kernel = .{ 2, 2 }, .stride = .{ 3, 5 } },
        .{ .size = .{ 2, 3 }, .channels = 2, .outputs = 4, .kernel = .{ 5, 7 }, .padding = .{ 2, 3 } },
        .{ .size = .{ 1, 2 }, .channels = 18, .outputs = 18, .kernel = .{ 3, 5 }, .padding = .{ 3, 4 }, .groups = 18 },
        // Dilation.
        .{ .size = .{ 12, 17 }, .channels = 4, .outputs = 48, .kernel = .{ 3, 3 }, .dilation = .{ 2, 4 }, .padding = .{ 2, 4 } },
        .{ .size = .{ 11, 9 }, .channels = 16, .outputs = 16, .kernel = .{ 3, 3 }, .dilation = .{ 4, 3 }, .padding = .{ 5, 3 }, .groups = 16, .bias = false },
        // One column.
        .{ .size = .{ 31, 1 }, .channels = 7, .outputs = 31, .kernel = .{ 5, 1 }, .stride = .{ 2, 1 }, .padding = .{ 1, 0 } },
        // Single positions.
        .{ .size = .{ 7, 9 }, .channels = 40, .outputs = 70, .kernel = .{ 1, 1 } },
        .{ .size = .{ 7, 9 }, .channels = 6, .outputs = 16, .kernel = .{ 1, 1 }, .stride = .{ 2, 2 } },
        .{ .size = .{ 5, 5 }, .channels = 3, .outputs = 2, .kernel = .{ 1, 1 }, .padding = .{ 1, 2 } },
        // Groups of whole and of broken vectors.
        .{ .size = .{ 6, 15 }, .channels = 8, .outputs = 96, .kernel = .{ 3, 3 }, .padding = .{ 1, 1 }, .groups = 2 },
        .{ .size = .{ 5, 8 }, .channels = 12, .outputs = 42, .kernel = .{ 3, 2 }, .groups = 3 },
        .{ .size = .{ 4, 9 }, .channels = 10, .outputs = 20, .kernel = .{ 3, 3 }, .padding = .{ 1, 1 }, .groups = 10 },
        // Depthwise.
        .{ .size = .{ 14, 14 }, .channels = 32, .outputs = 32, .kernel = .{ 3, 3 }, .padding = .{ 1, 1 }, .groups = 32, .images = 2 },
        .{ .size = .{ 15, 60 }, .channels = 72, .outputs = 72, .kernel = .{ 5, 5 }, .stride = .{ 2, 2 }, .padding = .{ 2, 2 }, .groups = 72 },
        .{ .size = .{ 3, 4 }, .channels = 1, .outputs = 1, .kernel = .{ 2, 2 }, .padding = .{ 1, 1 } },
    }) |case| try check(case, prng.random());
}

test "convolutions of random shapes agree with double precision" {
    var prng: std.Random.DefaultPrng = .init(42);
    const random = prng.random();
    for (0..60) |_| {
        var case: Case = .{
            .size = .{ random.intRangeAtMost(u32, 1, 12), random.intRangeAtMost(u32, 1, 20) },
            .channels = undefined,
            .outputs = undefined,
            .kernel = .{ random.intRangeAtMost(u32, 1, 4), random.intRangeAtMost(u32, 1, 4) },
            .stride = .{ random.intRangeAtMost(u32, 1, 3), random.intRangeAtMost(u32, 1, 3) },
            .dilation = .{ random.intRangeAtMost(u32, 1, 2), random.intRangeAtMost(u32, 1, 3) },
            .groups = random.intRangeAtMost(u32, 1, 5),
            .images = random.intRangeAtMost(u32, 1, 2),
            .bias = random.boolean(),
        };
        case.channels = case.groups * random.intRangeAtMost(u32, 1, 6);
        case.outputs = case.groups * random.intRangeAtMost(u32, 1, 24);
        if (random.boolean()) {
            case.groups = random.intRangeAtMost(u32, 1, 50);
            case.channels = case.groups;
            case.outputs = case.groups;
        }
        for (&case.padding, case.size, case.kernel, case.dilation) |*padding, size, kernel, dilation| {
            const reach = (kernel - 1) * dilation + 1;
            padding.* = random.intRangeAtMost(u32, 0, 2) + (if (reach > size) reach - size else 0);
        }
        try check(case, random);
    }
}

test "what lies beside the image counts as zero, and what is no number stays one" {
    var prng: std.Random.DefaultPrng = .init(43);
    const case: Case = .{ .size = .{ 1, 9 }, .channels = 16, .outputs = 16, .kernel = .{ 1, 3 }, .padding = .{ 0, 1 } };
    for ([_]u32{ 1, 16 }) |groups| {
        var grouped = case;
        grouped.groups = groups;
        const operands: Operands = try .init(grouped, prng.random());
        defer operands.deinit();
        for (operands.x[4 * 16 ..][0..16]) |*value| value.* = std.math.nan(f32);
        conv(&operands.args, 0, operands.units());
        for (0..9) |position| for (0..16) |output| {
            const value = operands.out[position * 16 + output];
            try testing.expectEqual(position >= 3 and position <= 5, std.math.isNan(value));
        };
    }
}

test "a convolution has bounds" {
    const good: Case = .{ .size = .{ 4, 5 }, .channels = 6, .outputs = 9, .kernel = .{ 2, 3 }, .groups = 3 };
    try testing.expect(good.shape().valid());
    try testing.expectEqual(@as(u64, 2 * 2 * 3), good.shape().weightColumns());
    for (0..7) |index| {
        var bad = good.shape();
        switch (index) {
            0 => bad.groups = 2,
            1 => bad.groups = 0,
            2 => bad.stride[1] = 0,
            3 => bad.dilation[0] = 0,
            4 => bad.kernel[1] = 0,
            5 => bad.out_size[0] = 0,
            else => bad.size[1] = 0,
        }
        try testing.expect(!bad.valid());
    }
    // Beyond what counts of units hold.
    const large: Case = .{ .size = .{ 65535, 65535 }, .channels = 65535, .outputs = 65535, .kernel = .{ 1, 1 } };
    try testing.expect(!large.shape().valid());
}
