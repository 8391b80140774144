//! What traced kernels report. A level's traced table (cpu.zig) has the same kernels as the ordinary one, which tell of every
//! access to memory that is not their own stack, before they make it. They tell it to the thread's `sink`, if it has one.

const std = @import("std");

pub const Access = enum(u32) {
    load,
    store,
    /// Into the first-level cache.
    prefetch,
    /// Into the second-level cache.
    prefetch_far,
};

/// Who wants to know.
pub const Sink = struct {
    context: *anyopaque,
    /// `bytes` from `address` on, in `operations` machine loads or stores of the level's registers; more than one where the
    /// access is wider than they are, or where its elements go one by one.
    access: *const fn (context: *anyopaque, address: usize, bytes: u32, operations: u32, kind: Access) void,
};

/// Told of what traced kernels do on this thread.
pub threadlocal var sink: ?*const Sink = null;

fn report(address: usize, bytes: u32, operations: u32, kind: u32) callconv(.c) void {
    const told = sink orelse return;
    told.access(told.context, address, bytes, operations, @enumFromInt(kind));
}

comptime {
    @export(&report, .{ .name = "tinyai_trace_access", .visibility = .hidden });
}

// ---------------------------------------------------------------------------------------------------------------------

const cache = @import("cache.zig");
const cpu = @import("cpu.zig");
const formats = @import("kernels/format.zig");
const p = @import("program.zig");
const table = @import("kernels/table.zig");
const Stand = @import("stand.zig").Stand;

/// Sums of a thread's accesses, by kind.
const Totals = struct {
    bytes: [4]u64 = @splat(0),
    operations: [4]u64 = @splat(0),

    fn add(context: *anyopaque, _: usize, bytes: u32, operations: u32, kind: Access) void {
        const totals: *Totals = @ptrCast(@alignCast(context));
        totals.bytes[@intFromEnum(kind)] += bytes;
        totals.operations[@intFromEnum(kind)] += operations;
    }

    /// What `kernel` does.
    fn of(kernel: anytype, arguments: anytype) Totals {
        var totals: Totals = .{};
        const told: Sink = .{ .context = &totals, .access = add };
        sink = &told;
        defer sink = null;
        _ = @call(.auto, kernel, arguments);
        return totals;
    }

    fn expect(totals: Totals, kind: Access, bytes: u64, operations: u64) !void {
        try std.testing.expectEqual(bytes, totals.bytes[@intFromEnum(kind)]);
        try std.testing.expectEqual(operations, totals.operations[@intFromEnum(kind)]);
    }
};

/// Float32 values of a level's registers.
fn lanesOf(level: []const u8) usize {
    if (std.mem.eql(u8, level, "scalar")) return 1;
    if (std.mem.eql(u8, level, "avx2")) return 8;
    return if (std.mem.startsWith(u8, level, "avx512") or std.mem.eql(u8, level, "amx")) 16 else 4;
}

/// Loads, or stores, that a row of float32 takes: whole registers, and the rest in halves of one.
fn rowOperations(lanes: usize, width: usize) usize {
    return width / lanes + @popCount(width % lanes);
}

fn randomRow(random: std.Random, count: usize) ![]f32 {
    const values = try std.testing.allocator.alloc(f32, count);
    for (values) |*value| value.* = random.floatNorm(f32);
    return values;
}

test "traced kernels write the bits of the ordinary ones, and tell of loads and stores" {
    const Case = struct { kernel: p.MeasuredKernel, formats: []const table.Format };
    const cases = [_]Case{
        .{ .kernel = .matmul, .formats = std.enums.values(table.Format) },
        .{ .kernel = .conv, .formats = &.{.f32} },
        .{ .kernel = .embed, .formats = std.enums.values(table.Format) },
        .{ .kernel = .pack, .formats = std.enums.values(table.Format) },
        .{ .kernel = .convert, .formats = &.{ .f32, .q4_0, .q6_k } },
        .{ .kernel = .attention, .formats = &.{ .f16, .q8_0 } },
        .{ .kernel = .rope_store, .formats = &.{ .f16, .q8_0 } },
        .{ .kernel = .norm, .formats = &.{.f32} },
        .{ .kernel = .glu, .formats = &.{.f32} },
        .{ .kernel = .quantize, .formats = &.{.f32} },
        .{ .kernel = .sample, .formats = &.{.f32} },
    };
    const level: u32 = @intCast(cpu.widest());
    for (cases) |case| for (case.formats) |format| for ([_]u32{ 1, 3, 17 }) |tokens| {
        const measurement: p.Measurement = .{
            .kernel = case.kernel,
            .format = @intFromEnum(format),
            .target_format = @intFromEnum(table.Format.q4_k),
            .rows = 40,
            .columns = 256,
            .tokens = tokens,
            .head_count = 4,
            .kv_head_count = 2,
            .head_width = 32,
            .position = 300,
            .convolution = .{ 5 | 9 << 16, 64 | 40 << 16, 2 | 2 << 16, 1 | 1 << 16, 1 | 1 << 16, 1 | 1 << 16, 5 | 9 << 16, 1 },
            .working_bytes = 1,
        };
        const ordinary = try Stand.create(measurement, level, 1);
        defer ordinary.destroy();
        const traced = try Stand.create(measurement, level, 1);
        defer traced.destroy();
        traced.kernels = cpu.levels[level].traced;
        _ = ordinary.run(1);
        const totals: Totals = .of(Stand.run, .{ traced, 1 });
        try std.testing.expect(totals.bytes[0] > 0 and totals.bytes[1] > 0);
        for (ordinary.buffers[0..ordinary.buffer_count], traced.buffers[0..traced.buffer_count]) |expected, found| {
            try std.testing.expectEqualSlices(u8, expected, found);
        }
    };
}

test "add, norm, quantize, the rope table and convolutions load and store what can be counted by hand" {
    const width = 75;
    const row_count = 3;
    const columns = 96;
    var prng: std.Random.DefaultPrng = .init(8);
    const allocator = std.testing.allocator;
    const x = try randomRow(prng.random(), row_count * columns);
    defer allocator.free(x);
    const y = try randomRow(prng.random(), row_count * columns);
    defer allocator.free(y);
    const out = try allocator.alignedAlloc(u8, .@"64", row_count * 2 * columns * 4);
    defer allocator.free(out);
    const weight = try randomRow(prng.random(), 3 * 16 * 16);
    defer allocator.free(weight);
    const rows = try allocator.alloc(table.Row, row_count);
    defer allocator.free(rows);
    for (rows, 0..) |*row, position| row.* = .{ .sequence = 0, .position = @intCast(position) };
    for (cpu.levels, 0..) |level, index| {
        if (!cpu.supported(index)) continue;
        const lanes = lanesOf(level.name);
        const row_operations = row_count * rowOperations(lanes, width);
        const row_bytes = row_count * width * 4;

        const add: table.Add = .{ .width = width, .row_count = row_count, .x = x.ptr, .x_stride = columns, .y = y.ptr, .y_stride = columns };
        const added: Totals = .of(level.traced.add, .{ &add, 0, row_count });
        // What is left of a row goes one by one.
        const add_operations = row_count * (width / lanes + width % lanes);
        try added.expect(.load, 2 * row_bytes, 2 * add_operations);
        try added.expect(.store, row_bytes, add_operations);

        const norm: table.Norm = .{
            .width = width,
            .row_count = row_count,
            .epsilon = 1e-6,
            .x = x.ptr,
            .x_stride = columns,
            .weight = y.ptr,
            .residual = null,
            .residual_stride = 0,
            .out = @ptrCast(out.ptr),
            .out_stride = columns,
            .out_quantized = null,
            .out_quantized_stride = 0,
        };
        // The row twice, and the weight.
        const normed: Totals = .of(level.traced.norm, .{ &norm, 0, row_count });
        try normed.expect(.load, 3 * row_bytes, 3 * row_operations);
        try normed.expect(.store, row_bytes, row_operations);

        const quantize: table.Quantize = .{ .columns = columns, .row_count = row_count, .x = x.ptr, .x_stride = columns, .out = out.ptr, .out_stride = 2 * columns * 4 };
        // A block is 32 values; its quants, scale and two sums.
        const blocks = row_count * columns / 32;
        const register_bytes = @max(16, lanes * 4);
        const quantized: Totals = .of(level.traced.quantize, .{ &quantize, 0, row_count });
        try quantized.expect(.load, blocks * 128, blocks * 128 / register_bytes);
        try quantized.expect(.store, blocks * (32 + 4 + 8), blocks * (@max(1, 32 / register_bytes) + 3));

        const rope: table.RopeTable = .{ .pair_count = width, .row_count = row_count, .scale = 1, .rows = rows.ptr, .frequencies = y.ptr, .out = @ptrCast(out.ptr), .out_stride = 2 * columns };
        // A position a row, and the frequencies; cosines and sines.
        const turned: Totals = .of(level.traced.rope_table, .{ &rope, 0, row_count });
        try turned.expect(.load, row_bytes + row_count * 4, row_operations + row_count);
        try turned.expect(.store, 2 * row_bytes, 2 * row_operations);

        // A kernel of three rows over one column of five, with one beyond either end: 13 places in all. Where each channel is an
        // output by itself, it is loaded with its neighbours; else alone.
        for ([_]u32{ 1, 16 }) |groups| {
            const conv: table.Conv = .{
                .shape = .of(.{ 5 | 1 << 16, 16 | 16 << 16, 3 | 1 << 16, 1 | 1 << 16, 1 | 1 << 16, 1, 5 | 1 << 16, groups }),
                .row_count = 1,
                .weight = @ptrCast(weight.ptr),
                .x = x.ptr,
                .x_stride = 0,
                .bias = y.ptr,
                .out = @ptrCast(out.ptr),
                .out_stride = 0,
            };
            const convolved: Totals = .of(level.traced.conv, .{ &conv, 0, conv.shape.units() });
            const of_vector = 64 / register_bytes;
            if (groups == 1) {
                try convolved.expect(.load, 13 * 16 * (64 + 4) + 5 * 64, 13 * 16 * (of_vector + 1) + 5 * of_vector);
            } else try convolved.expect(.load, 13 * (64 + 64) + 5 * 64, 13 * 2 * of_vector + 5 * of_vector);
            try convolved.expect(.store, 5 * 64, 5 * of_vector);
        }
    }
}

/// Feeds simulated caches with what a kernel does, but for prefetches.
const Feeder = struct {
    hierarchy: *cache.Hierarchy,

    fn access(context: *anyopaque, address: usize, bytes: u32, _: u32, kind: Access) void {
        const feeder: *Feeder = @ptrCast(@alignCast(context));
        switch (kind) {
            .load => feeder.hierarchy.access(0, address, bytes, .load),
            .store => feeder.hierarchy.access(0, address, bytes, .store),
            .prefetch, .prefetch_far => {},
        }
    }

    /// Misses of the first and of the last level.
    fn misses(feeder: *Feeder, kernel: anytype, arguments: anytype) [2]u64 {
        const told: Sink = .{ .context = feeder, .access = access };
        sink = &told;
        defer sink = null;
        const before = feeder.hierarchy.snapshot();
        _ = @call(.auto, kernel, arguments);
        const counted = feeder.hierarchy.snapshot().since(before);
        return .{ counted.levels[0].misses, counted.levels[1].misses };
    }
};

test "caches fed by a kernel miss as often as its operands have lines, at every level" {
    const lines = 64;
    const hierarchy = try cache.Hierarchy.create(.{
        .levels = .{
            .{ .bytes = 16 << 10, .ways = 8, .line_bytes = lines, .shared_by = 1 },
            .{ .bytes = 1 << 20, .ways = 16, .line_bytes = lines, .shared_by = 1 },
            undefined,
        },
        .level_count = 2,
        .thread_count = 1,
        .prefetcher = 0,
    });
    defer hierarchy.destroy();
    var feeder: Feeder = .{ .hierarchy = hierarchy };
    const allocator = std.testing.allocator;
    // Operands lie behind each other, so that they are spread over all sets evenly.
    const memory = try allocator.alignedAlloc(u8, .fromByteUnits(4096), 256 << 10);
    defer allocator.free(memory);
    @memset(memory, 0);
    for (cpu.levels, 0..) |level, index| {
        if (!cpu.supported(index)) continue;
        level.traced.thread_begin();
        defer level.traced.thread_end();

        // A row of twice what the first level holds is gone through twice, beside the weight and what is written.
        hierarchy.reset();
        const width = 8192;
        const row_lines = width * 4 / lines;
        const floats: [*]f32 = @ptrCast(memory.ptr);
        const norm: table.Norm = .{
            .width = width,
            .row_count = 1,
            .epsilon = 1e-6,
            .x = floats,
            .x_stride = width,
            .weight = floats + width,
            .residual = null,
            .residual_stride = 0,
            .out = floats + 2 * width,
            .out_stride = width,
            .out_quantized = null,
            .out_quantized_stride = 0,
        };
        try std.testing.expectEqual([2]u64{ 4 * row_lines, 3 * row_lines }, feeder.misses(level.traced.norm, .{ &norm, 0, 1 }));
        try std.testing.expectEqual([2]u64{ 4 * row_lines, 0 }, feeder.misses(level.traced.norm, .{ &norm, 0, 1 }));

        // Weights go by, and are gone when they come again; the activations, which each group needs, stay.
        hierarchy.reset();
        const rows = 128;
        const columns = 512;
        const size = formats.packedBytes(.q4_0, rows, columns);
        const x_bytes = table.quantizedRowBytes(columns);
        const weight = memory.ptr + x_bytes;
        const scales = weight + size.weight;
        const y = scales + size.scales;
        const product: table.MatMul = .{
            .format = .q4_0,
            .rows = rows,
            .columns = columns,
            .tokens = 1,
            .weight = weight,
            .scales = scales,
            .x = memory.ptr,
            .x_stride = x_bytes,
            .y = @ptrCast(@alignCast(y)),
            .y_stride = rows,
            .bias = null,
            .accumulate = 0,
            .soft_cap = 0,
        };
        const scratch: [*]align(64) u8 = @alignCast(y + rows * 4);
        const passing = (size.weight + size.scales + rows * 4) / lines;
        const arguments = .{ &product, 0, rows / table.group_rows, scratch };
        try std.testing.expectEqual([2]u64{ passing + x_bytes / lines, passing + x_bytes / lines }, feeder.misses(level.traced.matmul, arguments));
        try std.testing.expectEqual([2]u64{ passing, 0 }, feeder.misses(level.traced.matmul, arguments));
    }
}
