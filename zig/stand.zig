//! A test stand: one kernel over operands that are made up, run by a pool of threads that share its units as an engine's do.
//! Benchmarks and tuning measure kernels on it. It knows no model; the operands' values mean nothing, but are such as the
//! kernels meet: finite, and neither zeros nor denormals.

const std = @import("std");
const assert = std.debug.assert;
const allocations = @import("allocations.zig");
const clock = @import("clock.zig");
const cpu = @import("cpu.zig");
const executor = @import("executor.zig");
const formats = @import("kernels/format.zig");
const p = @import("program.zig");
const pool_ = @import("pool.zig");
const system = @import("system.zig");
const table = @import("kernels/table.zig");

/// Bounds of operands: 1 GiB of weights fit, and products of sizes do not overflow.
const columns_max = 1 << 18;
const rows_max = 1 << 18;
const elements_max = 1 << 28;
const position_max = 1 << 18;
const working_bytes_max = 1 << 33;
/// Units of a peak for each thread, and turns of a unit: tens of µs, so that a thread that comes late holds nobody up.
const peak_units = 16;
const peak_turns = 2000;
/// As an engine's threads wait (src/engine/engine.ts).
const spin_ns = 50_000;
const buffers_max = 16;

/// The arguments that a run's threads share.
const Work = union(enum) {
    matmul: table.MatMul,
    conv: table.Conv,
    attention: table.Attention,
    norm: table.Norm,
    glu: table.Glu,
    encode: table.Encode,
    rope_store: table.RopeStore,
    quantize: table.Quantize,
    embed: table.Embed,
    /// Logits, candidates: one part a draw.
    sample: struct { logits: []f32, candidates: []table.Candidate },
    pack: table.Pack,
    /// One part a piece.
    convert: struct { source: []u8, values: []f32, target: []u8 },
    peak: table.Peak,
};

pub const Stand = struct {
    measurement: p.Measurement,
    kernels: *const table.Table,
    pool: pool_.Pool,
    scratch: []align(4096) u8,
    buffers: [buffers_max][]align(4096) u8 = undefined,
    buffer_count: u32 = 0,
    work: Work,
    /// How often the large operand is there, and which copy is next.
    copies: u32 = 1,
    copy: u32 = 0,
    /// The first copy of weights.
    large: Weights = undefined,
    /// The rows of the step, whose sequence is the copy of keys and values.
    step_rows: [*]table.Row = undefined,
    units: pool_.Work = .{},
    merge_units: pool_.Work = .{},
    tuning: table.Tuning = .fixed,
    counted: std.atomic.Value(u64) = .init(0),

    const allocator = allocations.allocator;

    pub fn create(measurement: p.Measurement, level: u32, thread_count: u32) error{ OutOfMemory, Threads, Program }!*Stand {
        if (thread_count == 0 or thread_count > pool_.threads_max) return error.Program;
        if (level >= cpu.levels.len or !cpu.supported(level)) return error.Program;
        if (!valid(measurement)) return error.Program;
        const stand = try allocator.create(Stand);
        errdefer allocator.destroy(stand);
        const heads = if (measurement.kv_head_count == 0) 0 else measurement.head_count / measurement.kv_head_count;
        const scratch_bytes = table.scratchBytes(measurement.columns, measurement.head_width, heads);
        stand.* = .{
            .measurement = measurement,
            .kernels = cpu.levels[level].kernels,
            .pool = .{ .thread_count = thread_count, .context = stand, .thread_begin = threadBegin, .thread_end = threadEnd },
            .scratch = try allocations.map(scratch_bytes * thread_count),
            .work = undefined,
        };
        errdefer stand.free();
        const calibration = clock.Calibration.begin();
        try stand.prepare();
        stand.pool.spin_ticks = @intFromFloat(spin_ns / clock.Calibration.end(calibration).ns_per_tick);
        try stand.pool.start();
        return stand;
    }

    pub fn destroy(stand: *Stand) void {
        stand.pool.stop();
        stand.free();
        allocator.destroy(stand);
    }

    fn free(stand: *Stand) void {
        for (stand.buffers[0..stand.buffer_count]) |buffer| allocations.unmap(buffer);
        allocations.unmap(stand.scratch);
    }

    fn valid(m: p.Measurement) bool {
        if (@intFromEnum(m.kernel) > @intFromEnum(p.MeasuredKernel.conv)) return false;
        if (m.format > @intFromEnum(table.Format.iq4_xs) or m.target_format > @intFromEnum(table.Format.iq4_xs)) return false;
        if (m.rows > rows_max or m.columns > columns_max or m.tokens > table.matmul_tokens_max) return false;
        if (m.position > position_max or m.working_bytes > working_bytes_max) return false;
        if (@as(u64, m.rows) * m.columns > elements_max or @as(u64, m.rows) * m.tokens > elements_max) return false;
        const has_weights = m.rows >= 1 and m.columns >= 1 and m.columns % blockOf(m.format) == 0;
        const positions = @as(u64, m.position) + m.tokens;
        const has_heads = positions * m.head_count * m.head_width <= elements_max and m.head_count >= 1 and m.head_count <= 256 and m.kv_head_count >= 1 and m.head_count % m.kv_head_count == 0 and
            m.head_width >= 16 and m.head_width <= 512 and m.head_width % 32 == 0;
        return switch (m.kernel) {
            .matmul, .embed => has_weights and m.tokens >= 1,
            .pack => has_weights,
            .conv => m.tokens >= 1 and validConvolution(m),
            .attention, .rope_store, .encode => has_heads and m.tokens >= 1,
            .norm, .glu, .activation, .quantize => m.columns >= 1 and m.columns % table.block_columns == 0 and m.tokens >= 1,
            .sample => m.columns >= 1 and m.tokens >= 1,
            .convert => m.tokens >= 1 and m.columns >= 1 and m.columns % blockOf(m.format) == 0 and m.columns % blockOf(m.target_format) == 0,
            .peak_float, .peak_int8, .peak_int16, .peak_bf16 => true,
        };
    }

    fn validConvolution(m: p.Measurement) bool {
        const shape: table.Convolution = .of(m.convolution);
        if (!shape.valid()) return false;
        const x = @as(u64, shape.size[0]) * shape.size[1] * shape.channels;
        const out = @as(u64, shape.out_size[0]) * shape.out_size[1] * shape.outputs;
        return m.rows == shape.outputs and m.columns == shape.weightColumns() and @max(x, out) <= elements_max / m.tokens;
    }

    fn blockOf(format: u32) u32 {
        return switch (@as(table.Format, @enumFromInt(format))) {
            .f32, .f16, .bf16 => 1,
            inline else => |known| formats.descriptor(known).super_columns,
        };
    }

    fn prepare(stand: *Stand) error{OutOfMemory}!void {
        const m = stand.measurement;
        const format: table.Format = @enumFromInt(m.format);
        const tokens: usize = m.tokens;
        const columns: usize = m.columns;
        const stride = std.mem.alignForward(usize, columns, 16);
        const quantized_stride = if (columns % table.block_columns == 0) table.quantizedRowBytes(m.columns) else 0;
        stand.work = switch (m.kernel) {
            .matmul => matmul: {
                const weight = try stand.weights(format);
                const x = try stand.floats(tokens * stride);
                const y_stride = formats.groupCount(m.rows) * table.group_rows;
                const rows: struct { base: [*]const u8, stride: u64 } = if (format == .f32)
                    .{ .base = @ptrCast(x.ptr), .stride = stride * @sizeOf(f32) }
                else rows: {
                    const made_stride = if (format.quantized()) quantized_stride else table.wideRowBytes(m.columns);
                    const made = try stand.bytes(tokens * made_stride);
                    const args: table.Quantize = .{ .form = if (format.quantized()) .int8 else stand.kernels.wide_form, .columns = m.columns, .row_count = m.tokens, .x = x.ptr, .x_stride = stride, .out = made.ptr, .out_stride = made_stride };
                    stand.kernels.quantize(&args, 0, m.tokens);
                    break :rows .{ .base = made.ptr, .stride = made_stride };
                };
                break :matmul .{ .matmul = .{
                    .format = format,
                    .rows = m.rows,
                    .columns = m.columns,
                    .tokens = m.tokens,
                    .weight = weight.weight,
                    .scales = weight.scales,
                    .x = rows.base,
                    .x_stride = rows.stride,
                    .y = (try stand.floats(tokens * y_stride)).ptr,
                    .y_stride = y_stride,
                    .bias = null,
                    .accumulate = 0,
                    .soft_cap = 0,
                    .tuning = &stand.tuning,
                } };
            },
            .conv => conv: {
                const shape: table.Convolution = .of(m.convolution);
                const x_stride = std.mem.alignForward(usize, @as(usize, shape.size[0]) * shape.size[1] * shape.channels, 16);
                const out_stride = std.mem.alignForward(usize, @as(usize, shape.out_size[0]) * shape.out_size[1] * shape.outputs, 16);
                break :conv .{ .conv = .{
                    .shape = shape,
                    .row_count = m.tokens,
                    .weight = @ptrCast(@alignCast((try stand.weights(.f32)).weight)),
                    .x = (try stand.floats(tokens * x_stride)).ptr,
                    .x_stride = x_stride,
                    .bias = (try stand.floats(std.mem.alignForward(usize, m.rows, table.group_rows))).ptr,
                    .out = (try stand.floats(tokens * out_stride)).ptr,
                    .out_stride = out_stride,
                } };
            },
            .embed => embed: {
                const weight = try stand.weights(format);
                const ids = try stand.words(tokens);
                for (ids, 0..) |*id, index| id.* = @intCast(index * 7919 % m.rows);
                break :embed .{ .embed = .{
                    .format = format,
                    .rows = m.rows,
                    .columns = m.columns,
                    .token_count = m.tokens,
                    .weight = weight.weight,
                    .scales = weight.scales,
                    .tokens = ids.ptr,
                    .out = (try stand.floats(tokens * stride)).ptr,
                    .out_stride = stride,
                    .scale = 1,
                } };
            },
            .norm => .{ .norm = .{
                .width = m.columns,
                .row_count = m.tokens,
                .epsilon = 1e-6,
                .x = (try stand.floats(tokens * stride)).ptr,
                .x_stride = stride,
                .weight = (try stand.floats(stride)).ptr,
                .residual = null,
                .residual_stride = 0,
                .out_quantized = (try stand.bytes(tokens * quantized_stride)).ptr,
                .out_quantized_stride = quantized_stride,
            } },
            .glu => .{ .glu = .{
                .activation = .gelu_tanh,
                .width = m.columns,
                .row_count = m.tokens,
                .gate = (try stand.floats(tokens * stride)).ptr,
                .gate_stride = stride,
                .up = (try stand.floats(tokens * stride)).ptr,
                .up_stride = stride,
                .out_quantized = (try stand.bytes(tokens * quantized_stride)).ptr,
                .out_quantized_stride = quantized_stride,
            } },
            .activation => .{ .glu = .{
                .activation = .gelu,
                .width = m.columns,
                .row_count = m.tokens,
                .gate = (try stand.floats(tokens * stride)).ptr,
                .gate_stride = stride,
                .up = null,
                .up_stride = 0,
                .out_form = stand.kernels.wide_form,
                .out_quantized = (try stand.bytes(tokens * table.wideRowBytes(m.columns))).ptr,
                .out_quantized_stride = table.wideRowBytes(m.columns),
            } },
            .encode => encode: {
                const width = m.head_count * m.head_width;
                const block_count = divCeil(m.tokens, table.encode_row_block);
                const blocks: [*]table.EncodeBlock = @ptrCast((try stand.bytes(block_count * @sizeOf(table.EncodeBlock))).ptr);
                for (blocks[0..block_count], 0..) |*block, index| {
                    const first = @as(u32, @intCast(index)) * table.encode_row_block;
                    block.* = .{ .first = first, .count = @min(table.encode_row_block, m.tokens - first), .text = .{ .first = 0, .count = m.tokens } };
                }
                break :encode .{ .encode = .{
                    .head_count = m.head_count,
                    .head_width = m.head_width,
                    .block_count = block_count,
                    .scale = 1 / @sqrt(@as(f32, @floatFromInt(m.head_width))),
                    .blocks = blocks,
                    .q = (try stand.floats(tokens * width)).ptr,
                    .q_stride = width,
                    .k = (try stand.floats(tokens * width)).ptr,
                    .k_stride = width,
                    .v = (try stand.floats(tokens * width)).ptr,
                    .v_stride = width,
                    .out_form = stand.kernels.wide_form,
                    .out_quantized = (try stand.bytes(tokens * table.wideRowBytes(width))).ptr,
                    .out_quantized_stride = table.wideRowBytes(width),
                } };
            },
            .quantize => .{ .quantize = .{
                .columns = m.columns,
                .row_count = m.tokens,
                .x = (try stand.floats(tokens * stride)).ptr,
                .x_stride = stride,
                .out = (try stand.bytes(tokens * quantized_stride)).ptr,
                .out_stride = quantized_stride,
            } },
            .rope_store => .{ .rope_store = .{
                .head_count = m.head_count,
                .kv_head_count = m.kv_head_count,
                .head_width = m.head_width,
                .row_count = m.tokens,
                .style = .halves,
                .pair_count = m.head_width / 2,
                .epsilon = 1e-6,
                .q = (try stand.floats(tokens * m.head_count * m.head_width)).ptr,
                .q_stride = m.head_count * m.head_width,
                .k = (try stand.floats(tokens * m.kv_head_count * m.head_width)).ptr,
                .k_stride = m.kv_head_count * m.head_width,
                .v = (try stand.floats(tokens * m.kv_head_count * m.head_width)).ptr,
                .v_stride = m.kv_head_count * m.head_width,
                .q_norm = null,
                .k_norm = null,
                .table = (try stand.floats(tokens * m.head_width)).ptr,
                .table_stride = m.head_width,
                .rows = try stand.stepRows(),
                .kv = try stand.keysAndValues(),
            } },
            .attention => attention: {
                const width = m.head_count * m.head_width;
                const chunk_count = (m.position + m.tokens - 1) / table.attention_chunk_positions + 1;
                const split = m.tokens <= executor.attention_split_rows;
                break :attention .{
                    .attention = .{
                        .head_count = m.head_count,
                        .kv_head_count = m.kv_head_count,
                        .head_width = m.head_width,
                        .row_count = m.tokens,
                        .window = 0,
                        .scale = 1 / @sqrt(@as(f32, @floatFromInt(m.head_width))),
                        .soft_cap = 0,
                        .split = @intFromBool(split),
                        .chunk_count = chunk_count,
                        .q = (try stand.floats(tokens * width)).ptr,
                        .q_stride = width,
                        .rows = try stand.stepRows(),
                        .kv = try stand.keysAndValues(),
                        .partial = if (split) (try stand.floats(tokens * m.head_count * chunk_count * (m.head_width + 2))).ptr else null,
                        .out_quantized = (try stand.bytes(tokens * table.quantizedRowBytes(width))).ptr,
                        .out_quantized_stride = table.quantizedRowBytes(width),
                        .tuning = &stand.tuning,
                    },
                };
            },
            .sample => .{ .sample = .{
                .logits = try stand.floats(tokens * stride),
                .candidates = @as([*]table.Candidate, @ptrCast((try stand.bytes(tokens * columns * @sizeOf(table.Candidate))).ptr))[0 .. tokens * columns],
            } },
            .pack => pack: {
                const weight = try stand.weights(format);
                const source_bytes = switch (format) {
                    inline else => |known| formats.sourceRowBytes(known, m.columns),
                };
                break :pack .{ .pack = .{
                    .format = format,
                    .rows = m.rows,
                    .columns = m.columns,
                    .source = (try stand.bytes(source_bytes * m.rows)).ptr,
                    .weight = weight.weight,
                    .scales = weight.scales,
                } };
            },
            .convert => convert: {
                // At most four bytes a value.
                const source = try stand.floats(tokens * columns);
                if (format != .f32) fill(std.mem.sliceAsBytes(source), .{ .mask = 0x83ff, .base = 0x2c00 });
                break :convert .{ .convert = .{
                    .source = std.mem.sliceAsBytes(source),
                    .values = try stand.floats(tokens * columns),
                    .target = try stand.bytes(tokens * columns * 4),
                } };
            },
            .peak_float => .{ .peak = .float },
            .peak_int8 => .{ .peak = .int8 },
            .peak_int16 => .{ .peak = .int16 },
            .peak_bf16 => .{ .peak = .bf16 },
        };
    }

    /// Zeroed memory that lives as long as the stand.
    fn bytes(stand: *Stand, count: u64) error{OutOfMemory}![]align(4096) u8 {
        assert(stand.buffer_count < buffers_max);
        const buffer = try allocations.map(@max(count, 1));
        stand.buffers[stand.buffer_count] = buffer;
        stand.buffer_count += 1;
        return buffer;
    }

    fn words(stand: *Stand, count: u64) error{OutOfMemory}![]u32 {
        return @ptrCast((try stand.bytes(count * 4))[0..@intCast(count * 4)]);
    }

    fn floats(stand: *Stand, count: u64) error{OutOfMemory}![]f32 {
        const values: []f32 = @ptrCast(try stand.words(count));
        var random: std.Random.Xoshiro256 = .init(count);
        for (values) |*value| value.* = random.random().float(f32) * 2 - 1;
        return values;
    }

    /// Which bits of every 16 are random, and what the others are.
    const Pattern = struct { mask: u16, base: u16 };
    /// Numbers of magnitude 0.06 to 0.12 as float16; as bfloat16, and as the upper half of float32, 0.008 to 0.03.
    const half_pattern: Pattern = .{ .mask = 0x83ff, .base = 0x2c00 };
    const wide_pattern: Pattern = .{ .mask = 0x80ff, .base = 0x3c00 };

    fn fill(memory: []u8, pattern: Pattern) void {
        var random: std.Random.Xoshiro256 = .init(memory.len);
        const mask = @as(u64, pattern.mask) * 0x0001_0001_0001_0001;
        const base = @as(u64, pattern.base) * 0x0001_0001_0001_0001;
        // Random bytes are made for a megabyte, and repeated.
        const piece = 1 << 20;
        const first: []align(1) u64 = @ptrCast(memory[0 .. @min(piece, memory.len) / 8 * 8]);
        for (first) |*word| word.* = random.next() & mask | base;
        var at: usize = piece;
        while (at < memory.len) : (at += piece) {
            const count = @min(piece, memory.len - at);
            @memcpy(memory[at..][0..count], memory[0..count]);
        }
    }

    const Weights = struct { weight: [*]u8, scales: [*]u8, weight_bytes: usize, scale_bytes: usize };

    fn weights(stand: *Stand, format: table.Format) error{OutOfMemory}!Weights {
        const m = stand.measurement;
        const size = formats.packedBytes(format, m.rows, m.columns);
        stand.copies = @intCast(@max(1, std.math.divCeil(u64, m.working_bytes, size.weight + size.scales) catch unreachable));
        const weight = try stand.bytes(size.weight * stand.copies);
        fill(weight, switch (format) {
            .f16 => half_pattern,
            .f32, .bf16 => wide_pattern,
            else => .{ .mask = 0xffff, .base = 0 },
        });
        const scales = try stand.bytes(size.scales * stand.copies);
        fill(scales, half_pattern);
        stand.large = .{ .weight = weight.ptr, .scales = scales.ptr, .weight_bytes = @intCast(size.weight), .scale_bytes = @intCast(size.scales) };
        return stand.large;
    }

    /// One layer's pages of as many sequences as there are copies.
    fn keysAndValues(stand: *Stand) error{OutOfMemory}!table.KvView {
        const m = stand.measurement;
        const half = @as(u64, m.kv_head_count) * m.head_width * table.page_positions * @sizeOf(f16);
        const pages = (m.position + m.tokens - 1) / table.page_positions + 1;
        stand.copies = @intCast(std.math.clamp(std.math.divCeil(u64, m.working_bytes, 2 * half * pages) catch unreachable, 1, 1 << 16));
        const base = try stand.bytes(2 * half * pages * stand.copies);
        fill(base, half_pattern);
        const page_table = try stand.words(@as(u64, pages) * stand.copies);
        for (page_table, 0..) |*page, index| page.* = @intCast(index);
        return .{ .base = base.ptr, .page_bytes = 2 * half, .page_table = page_table.ptr, .table_stride = pages, .key_offset = 0, .value_offset = half, .key_format = .f16, .value_format = .f16 };
    }

    fn stepRows(stand: *Stand) error{OutOfMemory}![*]table.Row {
        const m = stand.measurement;
        const rows: [*]table.Row = @ptrCast((try stand.words(@as(u64, m.tokens) * 2)).ptr);
        for (rows[0..m.tokens], 0..) |*row, index| row.* = .{ .sequence = 0, .position = m.position + @as(u32, @intCast(index)) };
        stand.step_rows = rows;
        return rows;
    }

    /// What later runs work with. False: it is out of bounds.
    pub fn tune(stand: *Stand, tuning: table.Tuning) bool {
        if (!tuning.valid()) return false;
        stand.tuning = tuning;
        return true;
    }

    /// Runs the kernel `count` times, each time with the next copy of its large operand; ns. The caller is worker 0.
    pub fn run(stand: *Stand, count: u32) u64 {
        stand.kernels.thread_begin();
        defer stand.kernels.thread_end();
        const begin_ns = system.monotonicNs();
        for (0..count) |_| {
            stand.take();
            stand.units.reset(stand.pool.thread_count);
            stand.merge_units.reset(stand.pool.thread_count);
            stand.counted.store(0, .monotonic);
            stand.pool.run(job);
        }
        return system.monotonicNs() - begin_ns;
    }

    fn take(stand: *Stand) void {
        const copy = stand.copy;
        stand.copy = (copy + 1) % stand.copies;
        switch (stand.work) {
            .matmul => |*args| {
                args.weight = stand.large.weight + copy * stand.large.weight_bytes;
                args.scales = stand.large.scales + copy * stand.large.scale_bytes;
            },
            .conv => |*args| args.weight = @ptrCast(@alignCast(stand.large.weight + copy * stand.large.weight_bytes)),
            .attention => |args| for (stand.step_rows[0..args.row_count]) |*row| {
                row.sequence = copy;
            },
            else => {},
        }
    }

    fn job(context: *anyopaque, thread: u32) void {
        const stand: *Stand = @ptrCast(@alignCast(context));
        const kernels = stand.kernels;
        const part = stand.scratch.len / stand.pool.thread_count / 64 * 64;
        const scratch: [*]align(64) u8 = @alignCast(stand.scratch.ptr + thread * part);
        const m = stand.measurement;
        switch (stand.work) {
            .matmul => |*args| stand.share(thread, &stand.units, formats.groupCount(args.rows), args, kernels.matmul, .{scratch}),
            .conv => |*args| stand.share(thread, &stand.units, args.row_count * args.shape.units(), args, kernels.conv, .{}),
            .attention => |*args| {
                const count = if (args.split != 0)
                    args.row_count * args.kv_head_count * args.chunk_count
                else
                    divCeil(args.row_count, table.attention_row_block) * args.kv_head_count;
                stand.share(thread, &stand.units, count, args, kernels.attention, .{scratch});
                if (args.split == 0) return;
                stand.pool.awaitDone(&stand.units, count, pool_.Pool.nothing);
                stand.share(thread, &stand.merge_units, args.row_count, args, kernels.attention_merge, .{scratch});
            },
            .norm => |*args| stand.share(thread, &stand.units, args.row_count, args, kernels.norm, .{}),
            .glu => |*args| stand.share(thread, &stand.units, args.row_count * divCeil(args.width, table.glu_unit_columns), args, kernels.glu, .{}),
            .encode => |*args| stand.share(thread, &stand.units, args.block_count * args.head_count, args, kernels.encode, .{scratch}),
            .rope_store => |*args| stand.share(thread, &stand.units, args.row_count, args, kernels.rope_store, .{}),
            .quantize => |*args| stand.share(thread, &stand.units, args.row_count, args, kernels.quantize, .{}),
            .embed => |*args| stand.share(thread, &stand.units, args.token_count, args, kernels.embed, .{}),
            .pack => |*args| stand.share(thread, &stand.units, formats.groupCount(args.rows), args, kernels.pack, .{}),
            .sample => stand.share(thread, &stand.units, m.tokens, stand, draw, .{}),
            .convert => stand.share(thread, &stand.units, m.tokens, stand, convert, .{}),
            .peak => |kind| stand.share(thread, &stand.units, peak_units * stand.pool.thread_count, stand, peak, .{kind}),
        }
    }

    /// Claims units until none is left, in the executor's measure.
    fn share(stand: *Stand, thread: u32, units: *pool_.Work, count: u32, args: anytype, kernel: anytype, extra: anytype) void {
        const chunk = @max(1, count / (stand.pool.thread_count * 8));
        while (units.claim(thread, stand.pool.thread_count, chunk, count)) |range| {
            @call(.auto, kernel, .{ args, range.begin, range.end } ++ extra);
            stand.pool.finish(units, range.end - range.begin);
        }
    }

    fn divCeil(numerator: u32, denominator: u32) u32 {
        return std.math.divCeil(u32, numerator, denominator) catch unreachable;
    }

    fn draw(stand: *Stand, begin: u32, end: u32) void {
        const columns = stand.measurement.columns;
        const work = stand.work.sample;
        const stride = work.logits.len / stand.measurement.tokens;
        for (begin..end) |index| {
            var args: table.Sample = .{
                .params = .{ .temperature = 0.8, .top_p = 0.95, .min_p = 0, .repeat_penalty = 1, .top_k = 40, .uniform = 0.5 },
                .count = columns,
                .recent_count = 0,
                .logits = work.logits[index * stride ..].ptr,
                .recent = &.{},
                .scratch = work.candidates[index * columns ..].ptr,
                .result = undefined,
            };
            stand.kernels.sample(&args);
            std.mem.doNotOptimizeAway(args.result);
        }
    }

    fn convert(stand: *Stand, begin: u32, end: u32) void {
        const m = stand.measurement;
        const work = stand.work.convert;
        for (begin..end) |index| {
            const args: table.Convert = .{
                .source_format = @enumFromInt(m.format),
                .target_format = @enumFromInt(m.target_format),
                .count = m.columns,
                .source = work.source[index * m.columns * 4 ..].ptr,
                .target = work.target[index * m.columns * 4 ..].ptr,
                .values = work.values[index * m.columns ..].ptr,
            };
            std.mem.doNotOptimizeAway(stand.kernels.convert(&args));
        }
    }

    fn peak(stand: *Stand, begin: u32, end: u32, kind: table.Peak) void {
        for (begin..end) |_| _ = stand.counted.fetchAdd(stand.kernels.peak(kind, peak_turns), .monotonic);
    }

    fn threadBegin(context: *anyopaque, _: u32) void {
        @as(*Stand, @ptrCast(@alignCast(context))).kernels.thread_begin();
    }

    fn threadEnd(context: *anyopaque, _: u32) void {
        @as(*Stand, @ptrCast(@alignCast(context))).kernels.thread_end();
    }
};

/// The smallest measurement of a kernel that has something of everything.
fn small(kernel: p.MeasuredKernel, format: table.Format) p.Measurement {
    return .{
        .kernel = kernel,
        .format = @intFromEnum(format),
        .target_format = @intFromEnum(table.Format.q4_k),
        .rows = 40,
        .columns = 256,
        .tokens = 3,
        .head_count = 4,
        .kv_head_count = 2,
        .head_width = 32,
        .position = 300,
        .convolution = .{ 5 | 9 << 16, 64 | 40 << 16, 2 | 2 << 16, 1 | 1 << 16, 1 | 1 << 16, 1 | 1 << 16, 5 | 9 << 16, 1 },
        .working_bytes = 100_000,
    };
}

test "every kernel runs at every level that this CPU has, on one thread and on more" {
    for (0..cpu.levels.len) |level| {
        if (!cpu.supported(level)) continue;
        for (std.enums.values(p.MeasuredKernel)) |kernel| {
            for ([_]u32{ 1, 3 }) |thread_count| {
                const measurement = small(kernel, if (kernel == .convert) .f32 else .q4_k);
                const stand = try Stand.create(measurement, @intCast(level), thread_count);
                defer stand.destroy();
                try std.testing.expect(stand.run(3) > 0);
            }
        }
    }
}

test "runs go through the copies of weights, and of keys and values, and begin again" {
    const weights = try Stand.create(small(.matmul, .q8_0), 0, 1);
    defer weights.destroy();
    // 48 rows of 256 bytes, and 8 scales of two bytes each.
    try std.testing.expectEqual(100_000 / (48 * 256 + 48 * 16) + 1, weights.copies);
    const first = weights.large.weight;
    for (0..2) |_| {
        for (0..weights.copies) |copy| {
            _ = weights.run(1);
            try std.testing.expectEqual(first + copy * 48 * 256, weights.work.matmul.weight);
        }
    }
    const cache = try Stand.create(small(.attention, .f32), 0, 1);
    defer cache.destroy();
    // Five pages of 64 positions, two heads of 32 values, keys and values of two bytes.
    try std.testing.expectEqual(100_000 / (5 * 64 * 2 * 32 * 4) + 1, cache.copies);
    for ([_]u32{ 0, 1, 0 }) |sequence| {
        _ = cache.run(1);
        try std.testing.expectEqual(sequence, cache.work.attention.rows[2].sequence);
    }
}

test "products on the stand are of what it made up: finite, and not all the same" {
    for (std.enums.values(table.Format)) |format| {
        const stand = try Stand.create(small(.matmul, format), 0, 1);
        defer stand.destroy();
        _ = stand.run(1);
        const args = stand.work.matmul;
        var distinct: u32 = 0;
        for (0..args.tokens) |token| for (0..args.rows) |row| {
            const value = args.y[token * args.y_stride + row];
            try std.testing.expect(std.math.isFinite(value));
            if (value != args.y[0]) distinct += 1;
        };
        try std.testing.expect(distinct > args.rows);
    }
}

test "peaks are counted: as many units as there are, whoever runs them" {
    const stand = try Stand.create(small(.peak_float, .f32), 0, 2);
    defer stand.destroy();
    _ = stand.run(1);
    const counted = stand.counted.raw;
    try std.testing.expect(counted > 0 and counted % (2 * peak_units * peak_turns) == 0);
    _ = stand.run(5);
    try std.testing.expectEqual(counted, stand.counted.raw);
}

test "what is out of bounds is refused" {
    const good = small(.matmul, .q4_k);
    for (0..10) |index| {
        var bad = good;
        switch (index) {
            0 => bad.format = 15,
            1 => bad.columns = 128,
            2 => bad.columns = 0,
            3 => bad.rows = 0,
            4 => bad.tokens = 0,
            5 => bad.tokens = table.matmul_tokens_max + 1,
            6 => bad.rows = rows_max + 1,
            7 => bad.working_bytes = working_bytes_max + 1,
            8 => {
                bad.kernel = .attention;
                bad.kv_head_count = 3;
            },
            else => {
                bad.kernel = .attention;
                bad.position = position_max;
                bad.head_width = 512;
                bad.head_count = 256;
            },
        }
        try std.testing.expectError(error.Program, Stand.create(bad, 0, 1));
    }
    try std.testing.expectError(error.Program, Stand.create(good, 0, 0));
    try std.testing.expectError(error.Program, Stand.create(good, 0, pool_.threads_max + 1));
    try std.testing.expectError(error.Program, Stand.create(good, cpu.levels.len, 1));
}
