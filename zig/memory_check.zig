//! One kernel, once, over operands at fixed addresses: what a tool that watches the machine's own accesses is to watch, beside what
//! the traced kernel tells of them (`zig build memory-check`; test/kernels/memory-operations.test.ts compares the two).
//!
//!   memory_check LEVEL KERNEL FORMAT TOKENS (ordinary|traced|none) [large] [flush] [list]
//!   memory_check LEVEL KERNEL FORMAT TOKENS (forked|simulated) [large] D1=BYTES,WAYS,LINE LL=BYTES,WAYS,LINE
//!   memory_check LEVEL all - - MODE ...
//!   memory_check LEVEL plan PROGRAM WEIGHTS (forked|simulated) D1=BYTES,WAYS,LINE LL=BYTES,WAYS,LINE
//!
//! FORMAT is of the weights (matmul, embed), of keys and values (rope_store, attention), or of what is written (norm, glu, activation, encode,
//! quantize: f32, q8_0 for int8, f16 for what products with 16-bit weights take); others do not look at it. `all` runs every case in turn. `large` gives operands that
//! caches of some hundred KiB do not hold. `flush` goes through a large buffer before, so that no cache holds an operand. `list`
//! prints each access of a traced kernel.
//!
//! For a tool that counts what a whole process does, such as valgrind's cachegrind (test/kernels/cache-simulator.test.ts),
//! `forked` runs a case in a process of its own, and beside it another that does the same but for the kernel: the difference is
//! the kernel's part, exactly. Both begin and end with caches that hold no operand. `simulated` gives what the simulator counts of
//! the traced kernel, without prefetches, which valgrind does not know. Either runs the kernel twice, so that what it left in the
//! caches counts. They print a line `process WHICH ID` for each of the two processes (kernel, rest), and `misses D1 LL`. `plan` does
//! the same with two steps of a program, as the tracer runs them: a prompt, then a token. PROGRAM and WEIGHTS are files, the second
//! one of as many bytes as the program's weights have, which may all be zero.
//!
//! Otherwise prints a line `case KERNEL FORMAT TOKENS`, a line `range NAME ADDRESS BYTES` for each operand (hexadecimal addresses), and for
//! a traced kernel `access KIND ADDRESS BYTES` where asked for, then `sum NAME LOADED STORED LOADS STORES` for each range and for
//! what lies outside all of them. In every mode it writes to the first word of the range `marker`, always the first one, before the
//! kernel and to the second word after it.

const std = @import("std");
const cache = @import("cache.zig");
const cpu = @import("cpu.zig");
const engine_ = @import("engine.zig");
const formats = @import("kernels/format.zig");
const mapping_ = @import("mapping.zig");
const p = @import("program.zig");
const stack_ = @import("stack.zig");
const table = @import("kernels/table.zig");
const trace = @import("trace.zig");
const tracer_ = @import("tracer.zig");
const linux = std.os.linux;
const Format = table.Format;

comptime {
    _ = trace;
}

const Kernel = enum {
    matmul,
    /// With bias, accumulation and soft cap.
    matmul_finish,
    embed,
    norm,
    norm_residual,
    /// LayerNorm with a bias.
    norm_centred,
    add,
    quantize,
    glu,
    activation,
    rope_table,
    rope_store,
    rope_store_neighbours,
    rope,
    /// Two texts.
    encode,
    pool,
    conv,
    /// Two groups, whose outputs share a vector.
    conv_grouped,
    conv_depthwise,
    attention,
    attention_split,
    attention_window,
    attention_merge,
    sample_greedy,
    sample_top_k,
    sample_top_p,
    sample_penalty,
    score,
    screen,
    screen_pick,
    screen_pick_rest,
};

const Case = struct { kernel: Kernel, format: Format, tokens: u32 };

/// Every kind of op, as `all` runs them.
const all_cases = cases: {
    var list: []const Case = &.{};
    for ([_]Format{ .q8_0, .q4_0, .q4_k, .q6_k, .f32, .f16 }) |format| {
        for ([_]u32{ 1, 4, 17 }) |tokens| list = list ++ [_]Case{.{ .kernel = .matmul, .format = format, .tokens = tokens }};
    }
    for ([_]Format{ .q4_1, .q5_k, .q3_k, .iq4_xs, .bf16 }) |format| {
        for ([_]u32{ 1, 9 }) |tokens| list = list ++ [_]Case{.{ .kernel = .matmul, .format = format, .tokens = tokens }};
    }
    for (std.enums.values(Format)) |format| list = list ++ [_]Case{.{ .kernel = .embed, .format = format, .tokens = 2 }};
    list = list ++ [_]Case{.{ .kernel = .matmul_finish, .format = .q8_0, .tokens = 3 }};
    for ([_]Format{ .f32, .q8_0, .f16 }) |written| {
        for ([_]Kernel{ .norm, .norm_residual, .norm_centred, .glu, .activation, .encode }) |kernel| list = list ++ [_]Case{.{ .kernel = kernel, .format = written, .tokens = 2 }};
    }
    for ([_]Format{ .q8_0, .f16 }) |written| list = list ++ [_]Case{.{ .kernel = .quantize, .format = written, .tokens = 2 }};
    for ([_]Format{ .f16, .q8_0 }) |format| {
        for ([_]Kernel{ .rope_store, .rope_store_neighbours }) |kernel| list = list ++ [_]Case{.{ .kernel = kernel, .format = format, .tokens = 2 }};
        list = list ++ [_]Case{.{ .kernel = .attention_split, .format = format, .tokens = 1 }};
        list = list ++ [_]Case{.{ .kernel = .attention_window, .format = format, .tokens = 2 }};
        // As many queries as share what is expanded.
        list = list ++ [_]Case{.{ .kernel = .attention, .format = format, .tokens = if (format == .f16) 5 else 1 }};
    }
    for ([_]Kernel{ .add, .rope_table, .rope, .pool, .conv, .conv_grouped, .conv_depthwise, .attention_merge, .sample_greedy, .sample_top_k, .sample_top_p, .sample_penalty, .score, .screen, .screen_pick, .screen_pick_rest }) |kernel| {
        list = list ++ [_]Case{.{ .kernel = kernel, .format = .f32, .tokens = 2 }};
    }
    break :cases list;
};

/// Operands' sizes.
const Sizes = struct {
    weight_rows: u32,
    code_rows: u32,
    weight_columns: u32,
    width: u32,
    head_count: u32,
    kv_head_count: u32,
    head_width: u32,
    first_position: u32,
    window: u32,
    pair_count: u32,
    logit_count: u32,
    screen_rows: u32,
    pick_rows: u32,
    /// Rows of kernels that take them one by one, for each token of the case; as many of those that merge attention.
    rows: u32,
    merged_rows: u32,

    /// A part of everything, and some ends that are not whole. Of rows of weights two groups and a part, of which tiles over
    /// float weights take two and one; codes' tiles take one.
    const small: Sizes = .{
        .weight_rows = 40,
        .code_rows = 24,
        .weight_columns = 256,
        .width = 96,
        .head_count = 4,
        .kv_head_count = 2,
        .head_width = 32,
        .first_position = 258,
        .window = 100,
        .pair_count = 21,
        .logit_count = 2100,
        .screen_rows = 72,
        .pick_rows = 630,
        .rows = 1,
        .merged_rows = 1,
    };

    /// More than caches of some ten and some hundred KiB hold, of most operands that are gone through twice.
    const large: Sizes = .{
        .weight_rows = 200,
        .code_rows = 200,
        .weight_columns = 768,
        .width = 1024,
        .head_count = 8,
        .kv_head_count = 2,
        .head_width = 64,
        .first_position = 1500,
        .window = 700,
        .pair_count = 32,
        .logit_count = 30_000,
        .screen_rows = 400,
        .pick_rows = 262_144,
        .rows = 128,
        .merged_rows = 8,
    };
};

var sizes: Sizes = .small;
const screen_keep = 5;

const first_address = 0x20_0000_0000;
const page_bytes = 4096;

const Range = struct { name: []const u8, memory: []align(page_bytes) u8 };

/// Operands of one case, each on pages of its own with a free one behind it.
const Operands = struct {
    ranges: [24]Range = undefined,
    count: usize = 0,
    next: usize = first_address,
    random: u64 = 0x9e3779b97f4a7c15,

    fn bytes(operands: *Operands, name: []const u8, count: usize) []align(64) u8 {
        const length = std.mem.alignForward(usize, @max(count, 1), page_bytes);
        const flags: linux.MAP = .{ .TYPE = .PRIVATE, .ANONYMOUS = true, .FIXED_NOREPLACE = true };
        const result = linux.mmap(@ptrFromInt(operands.next), length, .{ .READ = true, .WRITE = true }, flags, -1, 0);
        if (result != operands.next) fail("cannot map {x}", .{operands.next});
        const memory: [*]align(page_bytes) u8 = @ptrFromInt(operands.next);
        operands.next += length + page_bytes;
        operands.ranges[operands.count] = .{ .name = name, .memory = memory[0..length] };
        operands.count += 1;
        return memory[0..count];
    }

    fn free(operands: *Operands) void {
        for (operands.ranges[0..operands.count]) |range| _ = linux.munmap(range.memory.ptr, range.memory.len);
        operands.count = 0;
        operands.next = first_address;
    }

    fn word(operands: *Operands) u32 {
        operands.random = operands.random *% 6364136223846793005 +% 1442695040888963407;
        return @intCast(operands.random >> 32);
    }

    /// Numbers of -1 to 1.
    fn floats(operands: *Operands, name: []const u8, count: usize) [*]f32 {
        const memory = operands.bytes(name, count * 4);
        const values: []f32 = @ptrCast(memory);
        for (values[0..@min(count, distinct_bytes / 4)]) |*value| value.* = @as(f32, @floatFromInt(operands.word() >> 8)) * 0x1p-23 - 1;
        repeat(memory);
        return values.ptr;
    }

    fn zeros(operands: *Operands, name: []const u8, count: usize) [*]f32 {
        return @ptrCast(operands.bytes(name, count * 4).ptr);
    }

    /// What is random is so for this many bytes, and again after them: whoever watches waits for it.
    const distinct_bytes = 2048;

    fn repeat(memory: []u8) void {
        var at: usize = distinct_bytes;
        while (at < memory.len) : (at += distinct_bytes) {
            const count = @min(distinct_bytes, memory.len - at);
            @memcpy(memory[at..][0..count], memory[0..count]);
        }
    }

    /// As many, each another.
    fn logits(operands: *Operands) [*]f32 {
        const values = operands.zeros("logits", sizes.logit_count);
        for (values[0..sizes.logit_count]) |*value| value.* = @as(f32, @floatFromInt(operands.word() >> 8)) * 0x1p-22;
        return values;
    }

    fn words(operands: *Operands, name: []const u8, count: usize) []u32 {
        return @ptrCast(operands.bytes(name, count * 4));
    }

    /// Float16 of magnitude 0.06 to 0.12; as bfloat16 or float32, tiny numbers that are none of the special ones.
    fn halves(operands: *Operands, name: []const u8, count: usize) []align(64) u8 {
        const memory = operands.bytes(name, count);
        const values: []u16 = @ptrCast(memory[0 .. @min(count, distinct_bytes) / 2 * 2]);
        for (values) |*value| value.* = @intCast(operands.word() >> 16 & 0x83ff | 0x2c00);
        repeat(memory);
        return memory;
    }

    fn rows(operands: *Operands, tokens: u32) [*]table.Row {
        const list: []table.Row = @ptrCast(operands.bytes("rows", tokens * @sizeOf(table.Row)));
        for (list, 0..) |*row, index| row.* = .{ .sequence = 0, .position = sizes.first_position + @as(u32, @intCast(index)) };
        return list.ptr;
    }

    fn keysAndValues(operands: *Operands, format: Format, tokens: u32) table.KvView {
        const half = sizes.kv_head_count * table.kvHeadBytes(format, sizes.head_width);
        const pages = (sizes.first_position + tokens - 1) / table.page_positions + 1;
        const page_table = operands.words("page_table", pages);
        for (page_table, 0..) |*page, index| page.* = @intCast(pages - 1 - index);
        return .{
            .base = operands.halves("kv", pages * 2 * half).ptr,
            .page_bytes = 2 * half,
            .page_table = page_table.ptr,
            .table_stride = pages,
            .key_offset = 0,
            .value_offset = half,
            .key_format = format,
            .value_format = format,
        };
    }
};

const Mode = enum { ordinary, traced, none, forked, simulated };

/// What is done with a case.
const Run = struct {
    level: usize,
    mode: Mode,
    list: bool = false,
    flushed: []const u8 = &.{},
    /// Of `forked` and `simulated`: D1 and LL.
    caches: [2]cache.LevelGeometry = undefined,
    operands: Operands = .{},
    /// [range, or what is outside them][kind]
    byte_sums: [25][4]u64 = undefined,
    operation_sums: [25][4]u64 = undefined,

    /// Calls the kernel of this name.
    fn call(run: *Run, comptime name: []const u8, arguments: anytype) void {
        const ordinary = @field(cpu.levels[run.level].kernels, name);
        const traced = @field(cpu.levels[run.level].traced, name);
        switch (run.mode) {
            .ordinary, .none => run.mark(ordinary, arguments),
            .traced => run.mark(traced, arguments),
            .forked => run.fork(Call(@TypeOf(ordinary), @TypeOf(arguments)){ .kernel = ordinary, .arguments = arguments }, passes),
            .simulated => run.simulate(ordinary, traced, arguments),
        }
    }

    /// How often `forked` and `simulated` call a kernel.
    const passes = 2;

    fn fork(run: *Run, what: anytype, count: u32) void {
        const stack = fixedStack();
        flushOutput();
        if (forked()) return awaitForked();
        run.flush();
        const which: enum { rest, kernel } = if (forked()) .kernel else .rest;
        if (which == .kernel) for (0..count) |_| stack.call(what);
        run.flush();
        print("process {t} {d}\n", .{ which, linux.getpid() });
        flushOutput();
        awaitForked();
        linux.exit_group(0);
    }

    fn simulate(run: *Run, ordinary: anytype, traced: anytype, arguments: anytype) void {
        const geometry: cache.Geometry = .{ .levels = run.caches ++ .{undefined}, .level_count = 2, .thread_count = 1, .prefetcher = 0 };
        var simulated: Simulated = .{
            .hierarchy = cache.Hierarchy.create(geometry) catch fail("there can be no such caches", .{}),
            .stack = fixedStack(),
        };
        defer simulated.hierarchy.destroy();
        simulated.stack.watch(Call(@TypeOf(ordinary), @TypeOf(arguments)){ .kernel = ordinary, .arguments = arguments });
        trace.sink = &.{ .context = &simulated, .access = Simulated.access };
        for (0..passes) |_| _ = @call(.never_inline, traced, arguments);
        trace.sink = null;
        const counted = simulated.hierarchy.snapshot();
        print("misses {d} {d}\n", .{ counted.levels[0].misses, counted.levels[1].misses });
    }

    fn flush(run: *const Run) void {
        var at: usize = 0;
        while (at < run.flushed.len) : (at += 64) std.mem.doNotOptimizeAway(run.flushed[at]);
    }

    /// Calls a kernel between the marks.
    fn mark(run: *Run, kernel: anytype, arguments: anytype) void {
        const operands = &run.operands;
        const marker: [*]volatile u64 = @ptrCast(operands.ranges[0].memory.ptr);
        for (operands.ranges[0..operands.count]) |range| print("range {s} {x} {d}\n", .{ range.name, @intFromPtr(range.memory.ptr), range.memory.len });
        run.flush();
        run.byte_sums = @splat(@splat(0));
        run.operation_sums = @splat(@splat(0));
        const sink: trace.Sink = .{ .context = run, .access = access };
        if (run.mode == .traced) trace.sink = &sink;
        marker[0] = 1;
        if (run.mode != .none) _ = @call(.never_inline, kernel, arguments);
        marker[1] = 1;
        trace.sink = null;
        if (run.mode != .traced) return;
        for (0..operands.count + 1) |index| {
            const name = if (index < operands.count) operands.ranges[index].name else "other";
            const byte_sums = run.byte_sums[index];
            const operation_sums = run.operation_sums[index];
            print("sum {s} {d} {d} {d} {d}\n", .{ name, byte_sums[0], byte_sums[1], operation_sums[0], operation_sums[1] });
        }
    }

    fn access(context: *anyopaque, address: usize, bytes: u32, operations: u32, kind: trace.Access) void {
        const run: *Run = @ptrCast(@alignCast(context));
        var index: usize = 0;
        while (index < run.operands.count) : (index += 1) {
            const memory = run.operands.ranges[index].memory;
            if (address >= @intFromPtr(memory.ptr) and address < @intFromPtr(memory.ptr) + memory.len) break;
        }
        run.byte_sums[index][@intFromEnum(kind)] += bytes;
        run.operation_sums[index][@intFromEnum(kind)] += operations;
        if (run.list) print("access {t} {x} {d}\n", .{ kind, address, bytes });
    }

    fn case(run: *Run, which: Case) void {
        print("case {t} {t} {d}\n", .{ which.kernel, which.format, which.tokens });
        run.operands = .{};
        defer run.operands.free();
        const operands = &run.operands;
        _ = operands.bytes("marker", 16);
        const tokens = switch (which.kernel) {
            .embed, .norm, .norm_residual, .norm_centred, .glu, .activation, .quantize, .add, .rope_table, .rope_store, .rope_store_neighbours, .rope, .pool => which.tokens * sizes.rows,
            .attention_merge => which.tokens * sizes.merged_rows,
            else => which.tokens,
        };
        switch (which.kernel) {
            .matmul, .matmul_finish => {
                const rows: u32 = if (which.format.quantized()) sizes.code_rows else sizes.weight_rows;
                const size = formats.packedBytes(which.format, rows, sizes.weight_columns);
                const finished = which.kernel == .matmul_finish;
                const x = run.activations(which.format, tokens);
                const y_stride = formats.groupCount(rows) * table.group_rows;
                // Smaller blocks than usual: where they nearly fill the first level, which line leaves it depends on the order in which the
                // compiler has put loads, and on what it spills.
                var tuning: table.Tuning = .fixed;
                tuning.block_bytes = 4096;
                const args: table.MatMul = .{
                    .format = which.format,
                    .rows = rows,
                    .columns = sizes.weight_columns,
                    .tokens = tokens,
                    .weight = operands.halves("weight", size.weight).ptr,
                    .scales = operands.halves("scales", size.scales).ptr,
                    .x = x.ptr,
                    .x_stride = x.len / tokens,
                    .y = operands.zeros("y", tokens * y_stride),
                    .y_stride = y_stride,
                    .bias = if (finished) operands.floats("bias", rows) else null,
                    .accumulate = @intFromBool(finished),
                    .soft_cap = if (finished) 30 else 0,
                    .tuning = &tuning,
                };
                const scratch = operands.bytes("scratch", table.scratchBytes(sizes.weight_columns, 0, 0));
                run.call("matmul", .{ &args, 0, formats.groupCount(rows), scratch.ptr });
            },
            .embed => {
                const size = formats.packedBytes(which.format, sizes.weight_rows, sizes.weight_columns);
                const ids = operands.words("tokens", tokens);
                for (ids, 0..) |*id, index| id.* = @intCast((index * 13 + 5) % sizes.weight_rows);
                const args: table.Embed = .{
                    .format = which.format,
                    .rows = sizes.weight_rows,
                    .columns = sizes.weight_columns,
                    .token_count = tokens,
                    .weight = operands.halves("weight", size.weight).ptr,
                    .scales = operands.halves("scales", size.scales).ptr,
                    .tokens = ids.ptr,
                    .out = operands.zeros("out", tokens * sizes.weight_columns),
                    .out_stride = sizes.weight_columns,
                    .scale = 2,
                };
                run.call("embed", .{ &args, 0, tokens });
            },
            .norm, .norm_residual, .norm_centred => {
                // Int8 is of whole blocks.
                const columns: u32 = if (which.format == .q8_0) sizes.width else sizes.width - 5;
                const args: table.Norm = .{
                    .width = columns,
                    .row_count = tokens,
                    .epsilon = 1e-6,
                    .out_form = run.form(which.format),
                    .centred = @intFromBool(which.kernel == .norm_centred),
                    .x = operands.floats("x", tokens * sizes.width),
                    .x_stride = sizes.width,
                    .weight = operands.floats("weight", sizes.width),
                    .bias = if (which.kernel == .norm_centred) operands.floats("bias", sizes.width) else null,
                    .residual = if (which.kernel == .norm_residual) operands.floats("residual", tokens * sizes.width) else null,
                    .residual_stride = sizes.width,
                    .out = if (which.format == .f32) operands.zeros("out", tokens * sizes.width) else null,
                    .out_stride = sizes.width,
                    .out_quantized = if (which.format == .f32) null else operands.bytes("out_quantized", tokens * 4 * sizes.width).ptr,
                    .out_quantized_stride = 4 * sizes.width,
                };
                run.call("norm", .{ &args, 0, tokens });
            },
            .glu => {
                const columns: u32 = if (which.format == .q8_0) sizes.width else sizes.width - 5;
                const args: table.Glu = .{
                    .activation = .gelu_tanh,
                    .width = columns,
                    .row_count = tokens,
                    .out_form = run.form(which.format),
                    .gate = operands.floats("gate", tokens * sizes.width),
                    .gate_stride = sizes.width,
                    .up = operands.floats("up", tokens * sizes.width),
                    .up_stride = sizes.width,
                    .out = if (which.format == .f32) operands.zeros("out", tokens * sizes.width) else null,
                    .out_stride = sizes.width,
                    .out_quantized = if (which.format == .f32) null else operands.bytes("out_quantized", tokens * 4 * sizes.width).ptr,
                    .out_quantized_stride = 4 * sizes.width,
                };
                run.call("glu", .{ &args, 0, tokens });
            },
            .activation => {
                const columns: u32 = if (which.format == .q8_0) sizes.width else sizes.width - 5;
                const args: table.Glu = .{
                    .activation = .gelu,
                    .width = columns,
                    .row_count = tokens,
                    .out_form = run.form(which.format),
                    .gate = operands.floats("x", tokens * sizes.width),
                    .gate_stride = sizes.width,
                    .up = null,
                    .up_stride = 0,
                    .out = if (which.format == .f32) operands.zeros("out", tokens * sizes.width) else null,
                    .out_stride = sizes.width,
                    .out_quantized = if (which.format == .f32) null else operands.bytes("out_quantized", tokens * 4 * sizes.width).ptr,
                    .out_quantized_stride = 4 * sizes.width,
                };
                run.call("glu", .{ &args, 0, tokens });
            },
            .quantize => {
                const args: table.Quantize = .{
                    .form = run.form(which.format),
                    .columns = if (which.format == .q8_0) sizes.width else sizes.width - 5,
                    .row_count = tokens,
                    .x = operands.floats("x", tokens * sizes.width),
                    .x_stride = sizes.width,
                    .out = operands.bytes("out", tokens * 4 * sizes.width).ptr,
                    .out_stride = 4 * sizes.width,
                };
                run.call("quantize", .{ &args, 0, tokens });
            },
            .add => {
                const args: table.Add = .{
                    .width = sizes.width - 5,
                    .row_count = tokens,
                    .x = operands.floats("x", tokens * sizes.width),
                    .x_stride = sizes.width,
                    .y = operands.floats("y", tokens * sizes.width),
                    .y_stride = sizes.width,
                };
                run.call("add", .{ &args, 0, tokens });
            },
            .rope_table => {
                const args: table.RopeTable = .{
                    .pair_count = sizes.pair_count,
                    .row_count = tokens,
                    .scale = 1,
                    .rows = operands.rows(tokens),
                    .frequencies = operands.floats("frequencies", sizes.pair_count),
                    .out = operands.zeros("out", tokens * 2 * sizes.pair_count),
                    .out_stride = 2 * sizes.pair_count,
                };
                run.call("rope_table", .{ &args, 0, tokens });
            },
            .rope_store, .rope_store_neighbours => {
                const args: table.RopeStore = .{
                    .head_count = sizes.head_count,
                    .kv_head_count = sizes.kv_head_count,
                    .head_width = sizes.head_width,
                    .row_count = tokens,
                    .style = if (which.kernel == .rope_store) .halves else .neighbours,
                    .pair_count = sizes.pair_count,
                    .epsilon = 1e-6,
                    .q = operands.floats("q", tokens * sizes.head_count * sizes.head_width),
                    .q_stride = sizes.head_count * sizes.head_width,
                    .k = operands.floats("k", tokens * sizes.kv_head_count * sizes.head_width),
                    .k_stride = sizes.kv_head_count * sizes.head_width,
                    .v = operands.floats("v", tokens * sizes.kv_head_count * sizes.head_width),
                    .v_stride = sizes.kv_head_count * sizes.head_width,
                    .q_norm = operands.floats("q_norm", sizes.head_width),
                    .k_norm = operands.floats("k_norm", sizes.head_width),
                    .table = operands.floats("table", tokens * 2 * sizes.pair_count),
                    .table_stride = 2 * sizes.pair_count,
                    .rows = operands.rows(tokens),
                    .kv = operands.keysAndValues(which.format, tokens),
                };
                run.call("rope_store", .{ &args, 0, tokens });
            },
            .rope => {
                const args: table.Rope = .{
                    .head_count = sizes.head_count,
                    .kv_head_count = sizes.kv_head_count,
                    .head_width = sizes.head_width,
                    .row_count = tokens,
                    .style = .halves,
                    .pair_count = sizes.head_width / 2,
                    .q = operands.floats("q", tokens * sizes.head_count * sizes.head_width),
                    .q_stride = sizes.head_count * sizes.head_width,
                    .k = operands.floats("k", tokens * sizes.kv_head_count * sizes.head_width),
                    .k_stride = sizes.kv_head_count * sizes.head_width,
                    .table = operands.floats("table", tokens * sizes.head_width),
                    .table_stride = sizes.head_width,
                };
                run.call("rope", .{ &args, 0, tokens });
            },
            .encode => run.encode(which),
            .conv, .conv_grouped, .conv_depthwise => run.convolution(which),
            .pool => {
                // A text for each pooling, and one that goes on.
                const texts: []table.PooledText = @ptrCast(operands.bytes("texts", 4 * @sizeOf(table.PooledText)));
                for (texts, 0..) |*text, index| text.* = .{
                    .first = 0,
                    .count = tokens,
                    .slot = @intCast(index),
                    .position = if (index == 3) 7 else 0,
                    .total = if (index == 3) 100 else tokens,
                    .pooling = @enumFromInt(index % 3),
                    .normalise = @intFromBool(index % 2 == 0),
                };
                const args: table.Pool = .{
                    .width = sizes.width - 5,
                    .text_count = 4,
                    .texts = texts.ptr,
                    .x = operands.floats("x", tokens * sizes.width),
                    .x_stride = sizes.width,
                    .out = operands.zeros("out", 4 * sizes.width),
                    .out_stride = sizes.width,
                };
                run.call("pool", .{ &args, 0, 4 });
            },
            .attention, .attention_split, .attention_window, .attention_merge => run.attention(which, tokens),
            .sample_greedy, .sample_top_k, .sample_top_p, .sample_penalty => {
                const greedy = which.kernel == .sample_greedy;
                const recent = operands.words("recent", 40);
                for (recent) |*token| token.* = operands.word() % sizes.logit_count;
                var args: table.Sample = .{
                    .params = .{
                        .temperature = if (greedy) 0 else 1,
                        .top_p = if (which.kernel == .sample_top_p) 0.9 else 1,
                        .min_p = 0,
                        .repeat_penalty = if (which.kernel == .sample_penalty) 1.1 else 1,
                        .top_k = if (which.kernel == .sample_top_k) 40 else 0,
                        .uniform = 0.6,
                    },
                    .count = sizes.logit_count,
                    .recent_count = 40,
                    .logits = operands.logits(),
                    .recent = recent.ptr,
                    .scratch = @ptrCast(operands.bytes("scratch", sizes.logit_count * @sizeOf(table.Candidate)).ptr),
                    .result = undefined,
                };
                run.call("sample", .{&args});
            },
            .score => {
                var args: table.Score = .{
                    .count = sizes.logit_count,
                    .target = 17,
                    .top_count = 20,
                    .logits = operands.logits(),
                    .top = @ptrCast(operands.bytes("top", 20 * @sizeOf(table.Candidate)).ptr),
                    .scratch = @ptrCast(operands.bytes("scratch", sizes.logit_count * @sizeOf(table.Candidate)).ptr),
                    .target_logprob = undefined,
                };
                run.call("score", .{&args});
            },
            .screen => {
                const group_count = formats.groupCount(sizes.screen_rows);
                const x = run.activations(.q8_0, tokens);
                const copy = operands.halves("copy", table.screen_head_bytes + group_count * table.screenGroupBytes(sizes.weight_columns));
                const fine: [*]u32 = @ptrCast(copy.ptr);
                for (0..table.screen_fine_columns) |index| fine[index] = @intCast(index * 7);
                const args: table.Screen = .{
                    .rows = sizes.screen_rows,
                    .columns = sizes.weight_columns,
                    .tokens = tokens,
                    .copy = copy.ptr,
                    .x = x.ptr,
                    .x_stride = x.len / tokens,
                    .y = operands.zeros("y", tokens * group_count * table.group_rows),
                    .y_stride = group_count * table.group_rows,
                    .groups = operands.zeros("groups", tokens * 2 * group_count),
                    .groups_stride = 2 * group_count,
                };
                const scratch = operands.bytes("scratch", table.scratchBytes(sizes.weight_columns, 0, 0));
                run.call("screen", .{ &args, 0, group_count, scratch.ptr });
            },
            .screen_pick, .screen_pick_rest => {
                const group_count = formats.groupCount(sizes.pick_rows);
                const recent = operands.words("recent", 7);
                for (recent) |*token| token.* = operands.word() % sizes.pick_rows;
                var args: table.ScreenPick = .{
                    .stage = 0,
                    .rows = sizes.pick_rows,
                    .keep = screen_keep,
                    .recent_count = 7,
                    .recent = recent.ptr,
                    .groups = operands.floats("groups", 2 * group_count),
                    .logits = operands.floats("logits", group_count * table.group_rows),
                    .list = operands.words("list", table.screen_list_head + group_count + 7).ptr,
                    .scratch = @ptrCast(operands.bytes("scratch", group_count * table.group_rows * @sizeOf(table.Candidate)).ptr),
                };
                if (which.kernel == .screen_pick_rest) {
                    cpu.levels[run.level].kernels.screen_pick(&args);
                    args.stage = 1;
                }
                run.call("screen_pick", .{&args});
            },
        }
    }

    /// The form that products with weights of a format take.
    fn form(run: *const Run, format: Format) table.Form {
        return if (format == .f16) cpu.levels[run.level].kernels.wide_form else .int8;
    }

    /// Rows of activations in the form that products with weights of a format take.
    fn activations(run: *Run, format: Format, tokens: u32) []align(64) u8 {
        const x = run.operands.floats("source", tokens * sizes.weight_columns);
        if (format == .f32) return @ptrCast(@alignCast(x[0 .. tokens * sizes.weight_columns]));
        const stride: u32 = if (format.quantized()) table.quantizedRowBytes(sizes.weight_columns) else table.wideRowBytes(sizes.weight_columns);
        const rows = run.operands.bytes("x", tokens * stride);
        const args: table.Quantize = .{
            .form = run.form(if (format.quantized()) .q8_0 else .f16),
            .columns = sizes.weight_columns,
            .row_count = tokens,
            .x = x,
            .x_stride = sizes.weight_columns,
            .out = rows.ptr,
            .out_stride = stride,
        };
        cpu.levels[run.level].kernels.quantize(&args, 0, tokens);
        return rows;
    }

    /// A text with as many rows as keys are gone through together and some more, and a short one.
    fn encode(run: *Run, which: Case) void {
        const operands = &run.operands;
        const columns = sizes.head_count * sizes.head_width;
        const long = table.encode_key_block + 5 * sizes.rows;
        const rows = long + 3;
        const block_count = std.math.divCeil(u32, long, table.encode_row_block) catch unreachable;
        const blocks: []table.EncodeBlock = @ptrCast(operands.bytes("blocks", (block_count + 1) * @sizeOf(table.EncodeBlock)));
        for (blocks[0..block_count], 0..) |*block, index| {
            const first: u32 = @intCast(index * table.encode_row_block);
            block.* = .{ .first = first, .count = @min(table.encode_row_block, long - first), .text = .{ .first = 0, .count = long } };
        }
        blocks[block_count] = .{ .first = long, .count = 3, .text = .{ .first = long, .count = 3 } };
        const args: table.Encode = .{
            .head_count = sizes.head_count,
            .head_width = sizes.head_width,
            .block_count = block_count + 1,
            .scale = 0.25,
            .out_form = run.form(which.format),
            .blocks = blocks.ptr,
            .q = operands.floats("q", rows * columns),
            .q_stride = columns,
            .k = operands.floats("k", rows * columns),
            .k_stride = columns,
            .v = operands.floats("v", rows * columns),
            .v_stride = columns,
            .out = if (which.format == .f32) operands.zeros("out", rows * columns) else null,
            .out_stride = columns,
            .out_quantized = if (which.format == .f32) null else operands.bytes("out_quantized", rows * 4 * columns).ptr,
            .out_quantized_stride = 4 * columns,
        };
        const scratch = operands.bytes("scratch", table.scratchBytes(0, sizes.head_width, 0));
        run.call("encode", .{ &args, 0, (block_count + 1) * sizes.head_count, scratch.ptr });
    }

    /// Images of three rows under a kernel of three by three, which reaches beyond them.
    fn convolution(run: *Run, which: Case) void {
        const operands = &run.operands;
        const depthwise = which.kernel == .conv_depthwise;
        const outputs = sizes.weight_rows;
        // Few, so that what is gone through again fits the first level: there the order of loads does not matter.
        const channels = if (depthwise) outputs else 8;
        const groups: u32 = switch (which.kernel) {
            .conv_grouped => 2,
            .conv_depthwise => outputs,
            else => 1,
        };
        const shape: table.Convolution = .of(.{ 3 | 9 << 16, channels | outputs << 16, 3 | 3 << 16, 1 | 1 << 16, 1 | 1 << 16, 1 | 1 << 16, 3 | 9 << 16, groups });
        const weight = formats.packedBytes(.f32, outputs, @intCast(shape.weightColumns())).weight;
        const args: table.Conv = .{
            .shape = shape,
            .row_count = which.tokens,
            .weight = operands.floats("weight", weight / @sizeOf(f32)),
            .x = operands.floats("x", which.tokens * 3 * 9 * channels),
            .x_stride = 3 * 9 * channels,
            .bias = operands.floats("bias", std.mem.alignForward(u32, outputs, table.group_rows)),
            .out = operands.zeros("out", which.tokens * 3 * 9 * outputs),
            .out_stride = 3 * 9 * outputs,
        };
        run.call("conv", .{ &args, 0, which.tokens * shape.units() });
    }

    fn attention(run: *Run, which: Case, tokens: u32) void {
        const operands = &run.operands;
        const columns = sizes.head_count * sizes.head_width;
        const merged = which.kernel == .attention_merge;
        const split = merged or which.kernel == .attention_split;
        const chunk_count = (sizes.first_position + tokens - 1) / table.attention_chunk_positions + 1;
        const kv = operands.keysAndValues(if (merged) .f16 else which.format, tokens);
        const args: table.Attention = .{
            .head_count = sizes.head_count,
            .kv_head_count = sizes.kv_head_count,
            .head_width = sizes.head_width,
            .row_count = tokens,
            .window = if (which.kernel == .attention_window) sizes.window else 0,
            .scale = 0.125,
            .soft_cap = if (which.kernel == .attention_window) 50 else 0,
            .split = @intFromBool(split),
            .chunk_count = chunk_count,
            .q = operands.floats("q", tokens * columns),
            .q_stride = columns,
            .rows = operands.rows(tokens),
            .kv = kv,
            .partial = if (split) operands.zeros("partial", tokens * sizes.head_count * chunk_count * (sizes.head_width + 2)) else null,
            .out = null,
            .out_stride = 0,
            .out_quantized = operands.bytes("out_quantized", tokens * table.quantizedRowBytes(columns)).ptr,
            .out_quantized_stride = table.quantizedRowBytes(columns),
        };
        const scratch = operands.bytes("scratch", table.scratchBytes(0, sizes.head_width, sizes.head_count / sizes.kv_head_count)).ptr;
        const units = if (split)
            tokens * sizes.kv_head_count * chunk_count
        else
            (std.math.divCeil(u32, tokens, table.attention_row_block) catch unreachable) * sizes.kv_head_count;
        if (merged) {
            cpu.levels[run.level].kernels.attention(&args, 0, units, scratch);
            run.call("attention_merge", .{ &args, 0, tokens, scratch });
        } else run.call("attention", .{ &args, 0, units, scratch });
    }
};

/// False in the process that is new.
fn forked() bool {
    const child = std.c.fork();
    if (child < 0) fail("cannot fork", .{});
    return child > 0;
}

fn awaitForked() void {
    var status: c_int = 0;
    if (std.c.waitpid(-1, &status, 0) > 0 and status != 0) fail("a process ended with status {d}", .{status});
}

/// The kernels' stack lies at a fixed address as well, before the operands: which sets of a cache it has part of is then known.
fn fixedStack() stack_.Stack {
    const address = first_address - page_bytes - stack_.stack_bytes;
    const flags: linux.MAP = .{ .TYPE = .PRIVATE, .ANONYMOUS = true, .FIXED = true };
    const result = linux.mmap(@ptrFromInt(address), stack_.stack_bytes, .{ .READ = true, .WRITE = true }, flags, -1, 0);
    if (result != address) fail("cannot map {x}", .{address});
    return .{ .memory = @as([*]align(page_bytes) u8, @ptrFromInt(address))[0..stack_.stack_bytes] };
}

fn readFile(path: [*:0]const u8) []align(page_bytes) const u8 {
    const file = std.c.open(path, .{});
    const bytes = std.c.lseek(file, 0, std.c.SEEK.END);
    if (file < 0 or bytes <= 0) fail("cannot read {s}", .{path});
    const memory = std.c.mmap(null, @intCast(bytes), .{ .READ = true }, .{ .TYPE = .PRIVATE }, file, 0);
    return @as([*]align(page_bytes) const u8, @ptrCast(@alignCast(memory)))[0..@intCast(bytes)];
}

/// Steps of a whole program, on one thread.
fn plan(run: *Run, program_path: [*:0]const u8, weights_path: [*:0]const u8) !void {
    const program = readFile(program_path);
    const mapping: *mapping_.Mapping = try .open(weights_path, 0, (try p.View.init(program)).header.weights_bytes);
    const config: p.Config = .{
        .spin_us = 0,
        .event_capacity = 2,
        .events_enabled = 0,
        .notify_fd = -1,
    };
    const settings: p.Settings = .{
        .version = 0,
        .thread_count = 1,
        .levels = @splat(@intCast(run.level)),
        .cpu_percent = 0,
        .affinity = @splat(p.none),
        .tuning = .fixed,
    };
    const engine: *engine_.Engine = try .create(program, config, settings, null, mapping);
    const caches = run.caches;
    const tracer: *tracer_.Tracer = try .create(&engine.executor, engine.weights, engine.constants, engine.copies, .{
        .thread_count = 1,
        .cache_count = if (run.mode == .simulated) 2 else 0,
        .prefetcher = 0,
        .cache_bytes = .{ caches[0].bytes, caches[1].bytes, 0 },
        .cache_ways = .{ caches[0].ways, caches[1].ways, 0 },
        .cache_line_bytes = .{ caches[0].line_bytes, caches[1].line_bytes, 0 },
        .cache_shared_by = .{ 1, 1, 1 },
        .levels = settings.levels,
        .tuning = settings.tuning,
    });
    if (run.mode == .forked) tracer.executor.kernels = tracer.ordinary;
    const prompt = 100;
    for ([_]p.TracedShare{
        .{ .sequence = 0, .position = 0, .rows = prompt, .logits_rows = 1 },
        .{ .sequence = 0, .position = prompt, .rows = 1, .logits_rows = 1 },
    }) |share| {
        print("case plan rows {d}\n", .{share.rows});
        if (!tracer.begin(&.{share}, .{ .temperature = 1, .top_p = 1, .min_p = 0, .repeat_penalty = 1, .top_k = 40, .top_count = 0, .scores = 0 })) fail("the program has no such step", .{});
        tracer.forget();
        const step: Step = .{ .tracer = tracer };
        if (run.mode == .forked) {
            run.fork(step, 1);
        } else {
            const misses = step.misses();
            print("misses {d} {d}\n", .{ misses[0], misses[1] });
        }
    }
}

const Step = struct {
    tracer: *tracer_.Tracer,

    pub fn run(step: Step) void {
        _ = step.misses();
    }

    /// Of all ops and the draws. In the last level, what a prefetch brings is what would be missed without.
    fn misses(step: Step) [2]u64 {
        var sums: [2]u64 = .{ 0, 0 };
        for (0..step.tracer.executor.view.ops.len + 1) |index| {
            const traced = step.tracer.run(@intCast(index), .simulate);
            sums[0] += traced.misses[0];
            sums[1] += traced.memory_lines;
        }
        return sums;
    }
};

fn Call(comptime Kernel_: type, comptime Arguments: type) type {
    return struct {
        kernel: Kernel_,
        arguments: Arguments,

        /// The arguments lie on the same stack, as they do when the executor calls.
        pub fn run(call: @This()) void {
            var first = call.arguments[0].*;
            var arguments = call.arguments;
            arguments[0] = &first;
            _ = @call(.never_inline, call.kernel, arguments);
        }
    };
}

/// Simulated caches, and the stack that a kernel uses.
const Simulated = struct {
    hierarchy: *cache.Hierarchy,
    stack: stack_.Stack,

    fn access(context: *anyopaque, address: usize, bytes: u32, _: u32, kind: trace.Access) void {
        const simulated: *Simulated = @ptrCast(@alignCast(context));
        const hierarchy = simulated.hierarchy;
        switch (kind) {
            .load => hierarchy.access(0, address, bytes, .load),
            .store => hierarchy.access(0, address, bytes, .store),
            .prefetch, .prefetch_far => return,
        }
        if (simulated.stack.next()) |line| hierarchy.keep(0, @intFromPtr(simulated.stack.top()) - stack_.Stack.watched_bytes + line);
    }
};

var output: [1 << 16]u8 = undefined;
var output_length: usize = 0;

/// In large pieces: a traced kernel may print millions of lines.
fn print(comptime format: []const u8, arguments: anytype) void {
    if (output.len - output_length < 256) flushOutput();
    const text = std.fmt.bufPrint(output[output_length..], format, arguments) catch unreachable;
    output_length += text.len;
}

fn flushOutput() void {
    var at: usize = 0;
    while (at < output_length) {
        const written: isize = @bitCast(linux.write(1, output[at..].ptr, output_length - at));
        if (written <= 0) break;
        at += @intCast(written);
    }
    output_length = 0;
}

fn fail(comptime format: []const u8, arguments: anytype) noreturn {
    std.debug.print("memory_check: " ++ format ++ "\n", arguments);
    std.process.exit(2);
}

fn parse(comptime T: type, text: []const u8) T {
    return std.meta.stringToEnum(T, text) orelse fail("'{s}' is none of the {s}s that there are", .{ text, @typeName(T) });
}

const flush_bytes = 256 << 20;

fn readOnlyZeros(bytes: usize) []const u8 {
    const flags: linux.MAP = .{ .TYPE = .PRIVATE, .ANONYMOUS = true, .POPULATE = true };
    const address = linux.mmap(null, bytes, .{ .READ = true }, flags, -1, 0);
    if (@as(isize, @bitCast(address)) < 0) fail("cannot map {d} bytes", .{bytes});
    return @as([*]const u8, @ptrFromInt(address))[0..bytes];
}

/// As valgrind takes it: BYTES,WAYS,LINE.
fn parseCache(text: []const u8) cache.LevelGeometry {
    var numbers: [3]u32 = undefined;
    var words = std.mem.splitScalar(u8, text, ',');
    for (&numbers) |*number| number.* = std.fmt.parseInt(u32, words.next() orelse "", 10) catch fail("a cache is BYTES,WAYS,LINE, not '{s}'", .{text});
    return .{ .bytes = numbers[0], .ways = numbers[1], .line_bytes = numbers[2], .shared_by = 1 };
}

pub fn main(init: std.process.Init.Minimal) u8 {
    var argument_buffer: [8192]u8 = undefined;
    var fixed: std.heap.FixedBufferAllocator = .init(&argument_buffer);
    const arguments = init.args.toSlice(fixed.allocator()) catch fail("too many arguments", .{});
    if (arguments.len < 6) fail("LEVEL KERNEL FORMAT TOKENS MODE ...: see the head of zig/memory_check.zig", .{});
    const level = for (cpu.levels, 0..) |level, index| {
        if (std.mem.eql(u8, level.name, arguments[1])) break index;
    } else fail("there is no level '{s}'", .{arguments[1]});
    var run: Run = .{ .level = level, .mode = parse(Mode, arguments[5]) };
    var cache_count: u32 = 0;
    for (arguments[6..]) |word| {
        if (std.mem.eql(u8, word, "list")) {
            run.list = true;
        } else if (std.mem.eql(u8, word, "large")) {
            sizes = .large;
        } else if (std.mem.eql(u8, word, "flush")) {
            run.flushed = readOnlyZeros(flush_bytes);
        } else if (std.mem.startsWith(u8, word, "D1=") or std.mem.startsWith(u8, word, "LL=")) {
            run.caches[@intFromBool(word[0] == 'L')] = parseCache(word[3..]);
            cache_count += 1;
        } else fail("what is '{s}'?", .{word});
    }
    if (run.mode == .forked or run.mode == .simulated) {
        if (cache_count != 2) fail("{t} needs D1 and LL", .{run.mode});
        // As much as the last level holds is enough where the line used longest ago goes first.
        run.flushed = readOnlyZeros(2 * @as(usize, @intCast(run.caches[1].bytes)));
    }
    defer flushOutput();
    if (std.mem.eql(u8, arguments[2], "plan")) {
        if (run.mode != .forked and run.mode != .simulated) fail("a plan is forked or simulated", .{});
        plan(&run, arguments[3], arguments[4]) catch |problem| fail("{s}: {t}", .{ arguments[3], problem });
        return 0;
    }
    if (std.mem.eql(u8, arguments[2], "all")) {
        for (all_cases) |which| run.case(which);
        return 0;
    }
    const tokens = std.fmt.parseInt(u32, arguments[4], 10) catch 0;
    if (tokens == 0 or tokens > 64) fail("tokens are 1 to 64", .{});
    run.case(.{ .kernel = parse(Kernel, arguments[2]), .format = parse(Format, arguments[3]), .tokens = tokens });
    return 0;
}
