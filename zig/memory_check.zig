//! One kernel, once, over operands at fixed addresses: what a tool that watches the machine's own accesses is to watch, beside what
//! the traced kernel tells of them (`zig build memory-check`; test/kernels/memory-operations.test.ts compares the two).
//!
//!   memory_check LEVEL KERNEL FORMAT TOKENS (ordinary|traced|none) [flush] [list]
//!   memory_check LEVEL all - - MODE ...
//!
//! FORMAT is of the weights (matmul, embed), of keys and values (rope_store, attention), or of what is written (norm, glu, quantize:
//! f32, q8_0 for int8, f16 for wide); others do not look at it. `all` runs every case in turn. `flush` goes through a large
//! buffer before, so that no cache holds an operand. `list` prints each access of a traced kernel.
//!
//! Prints a line `case KERNEL FORMAT TOKENS`, a line `range NAME ADDRESS BYTES` for each operand (hexadecimal addresses), and for
//! a traced kernel `access KIND ADDRESS BYTES` where asked for, then `sum NAME LOADED STORED LOADS STORES` for each range and for
//! what lies outside all of them. In every mode it writes to the first word of the range `marker`, always the first one, before the
//! kernel and to the second word after it.

const std = @import("std");
const cpu = @import("cpu.zig");
const formats = @import("kernels/format.zig");
const table = @import("kernels/table.zig");
const trace = @import("trace.zig");
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
    add,
    quantize,
    glu,
    rope_table,
    rope_store,
    rope_store_neighbours,
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
        for ([_]Kernel{ .norm, .norm_residual, .glu }) |kernel| list = list ++ [_]Case{.{ .kernel = kernel, .format = written, .tokens = 2 }};
    }
    for ([_]Format{ .q8_0, .f16 }) |written| list = list ++ [_]Case{.{ .kernel = .quantize, .format = written, .tokens = 2 }};
    for ([_]Format{ .f16, .q8_0 }) |format| {
        for ([_]Kernel{ .rope_store, .rope_store_neighbours }) |kernel| list = list ++ [_]Case{.{ .kernel = kernel, .format = format, .tokens = 2 }};
        list = list ++ [_]Case{.{ .kernel = .attention_split, .format = format, .tokens = 1 }};
        list = list ++ [_]Case{.{ .kernel = .attention_window, .format = format, .tokens = 2 }};
        // As many queries as share what is expanded.
        list = list ++ [_]Case{.{ .kernel = .attention, .format = format, .tokens = if (format == .f16) 5 else 1 }};
    }
    for ([_]Kernel{ .add, .rope_table, .attention_merge, .sample_greedy, .sample_top_k, .sample_top_p, .sample_penalty, .score, .screen, .screen_pick, .screen_pick_rest }) |kernel| {
        list = list ++ [_]Case{.{ .kernel = kernel, .format = .f32, .tokens = 2 }};
    }
    break :cases list;
};

/// Operands' sizes: a part of everything, and some ends that are not whole.
/// Two groups and a part, of which tiles over float weights take two and one.
const weight_rows = 40;
/// Codes' tiles take one.
const code_rows = 24;
const weight_columns = 256;
const width = 96;
const head_count = 4;
const kv_head_count = 2;
const head_width = 32;
const first_position = 258;
const window = 100;
const pair_count = 21;
const logit_count = 2100;
const screen_rows = 72;
const pick_rows = 630;
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
        const values = operands.zeros("logits", logit_count);
        for (values[0..logit_count]) |*value| value.* = @as(f32, @floatFromInt(operands.word() >> 8)) * 0x1p-22;
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
        for (list, 0..) |*row, index| row.* = .{ .sequence = 0, .position = first_position + @as(u32, @intCast(index)) };
        return list.ptr;
    }

    fn keysAndValues(operands: *Operands, format: Format, tokens: u32) table.KvView {
        const half = kv_head_count * table.kvHeadBytes(format, head_width);
        const pages = (first_position + tokens - 1) / table.page_positions + 1;
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

const Mode = enum { ordinary, traced, none };

/// What is done with a case.
const Run = struct {
    level: usize,
    mode: Mode,
    list: bool,
    flushed: []const u8,
    operands: Operands = .{},
    /// [range, or what is outside them][kind]
    byte_sums: [25][4]u64 = undefined,
    operation_sums: [25][4]u64 = undefined,

    fn kernels(run: *const Run) *const table.Table {
        return if (run.mode == .traced) cpu.levels[run.level].traced else cpu.levels[run.level].kernels;
    }

    /// Calls a kernel between the marks.
    fn call(run: *Run, kernel: anytype, arguments: anytype) void {
        const operands = &run.operands;
        const marker: [*]volatile u64 = @ptrCast(operands.ranges[0].memory.ptr);
        for (operands.ranges[0..operands.count]) |range| print("range {s} {x} {d}\n", .{ range.name, @intFromPtr(range.memory.ptr), range.memory.len });
        var at: usize = 0;
        while (at < run.flushed.len) : (at += 64) std.mem.doNotOptimizeAway(run.flushed[at]);
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
        const k = run.kernels();
        const tokens = which.tokens;
        switch (which.kernel) {
            .matmul, .matmul_finish => {
                const rows: u32 = if (which.format.quantized()) code_rows else weight_rows;
                const size = formats.packedBytes(which.format, rows, weight_columns);
                const finished = which.kernel == .matmul_finish;
                const x = run.activations(which.format, tokens);
                const y_stride = formats.groupCount(rows) * table.group_rows;
                const args: table.MatMul = .{
                    .format = which.format,
                    .rows = rows,
                    .columns = weight_columns,
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
                };
                const scratch = operands.bytes("scratch", table.scratchBytes(weight_columns, 0, 0));
                run.call(k.matmul, .{ &args, 0, formats.groupCount(rows), scratch.ptr });
            },
            .embed => {
                const size = formats.packedBytes(which.format, weight_rows, weight_columns);
                const ids = operands.words("tokens", tokens);
                for (ids, 0..) |*id, index| id.* = @intCast(index * 13 + 5);
                const args: table.Embed = .{
                    .format = which.format,
                    .rows = weight_rows,
                    .columns = weight_columns,
                    .token_count = tokens,
                    .weight = operands.halves("weight", size.weight).ptr,
                    .scales = operands.halves("scales", size.scales).ptr,
                    .tokens = ids.ptr,
                    .out = operands.zeros("out", tokens * weight_columns),
                    .out_stride = weight_columns,
                    .scale = 2,
                };
                run.call(k.embed, .{ &args, 0, tokens });
            },
            .norm, .norm_residual => {
                // Int8 is of whole blocks.
                const columns: u32 = if (which.format == .q8_0) width else width - 5;
                const args: table.Norm = .{
                    .width = columns,
                    .row_count = tokens,
                    .epsilon = 1e-6,
                    .out_form = form(which.format),
                    .x = operands.floats("x", tokens * width),
                    .x_stride = width,
                    .weight = operands.floats("weight", width),
                    .residual = if (which.kernel == .norm_residual) operands.floats("residual", tokens * width) else null,
                    .residual_stride = width,
                    .out = if (which.format == .f32) operands.zeros("out", tokens * width) else null,
                    .out_stride = width,
                    .out_quantized = if (which.format == .f32) null else operands.bytes("out_quantized", tokens * 4 * width).ptr,
                    .out_quantized_stride = 4 * width,
                };
                run.call(k.norm, .{ &args, 0, tokens });
            },
            .glu => {
                const columns: u32 = if (which.format == .q8_0) width else width - 5;
                const args: table.Glu = .{
                    .activation = .gelu_tanh,
                    .width = columns,
                    .row_count = tokens,
                    .out_form = form(which.format),
                    .gate = operands.floats("gate", tokens * width),
                    .gate_stride = width,
                    .up = operands.floats("up", tokens * width),
                    .up_stride = width,
                    .out = if (which.format == .f32) operands.zeros("out", tokens * width) else null,
                    .out_stride = width,
                    .out_quantized = if (which.format == .f32) null else operands.bytes("out_quantized", tokens * 4 * width).ptr,
                    .out_quantized_stride = 4 * width,
                };
                run.call(k.glu, .{ &args, 0, tokens });
            },
            .quantize => {
                const args: table.Quantize = .{
                    .form = form(which.format),
                    .columns = if (which.format == .q8_0) width else width - 5,
                    .row_count = tokens,
                    .x = operands.floats("x", tokens * width),
                    .x_stride = width,
                    .out = operands.bytes("out", tokens * 4 * width).ptr,
                    .out_stride = 4 * width,
                };
                run.call(k.quantize, .{ &args, 0, tokens });
            },
            .add => {
                const args: table.Add = .{
                    .width = width - 5,
                    .row_count = tokens,
                    .x = operands.floats("x", tokens * width),
                    .x_stride = width,
                    .y = operands.floats("y", tokens * width),
                    .y_stride = width,
                };
                run.call(k.add, .{ &args, 0, tokens });
            },
            .rope_table => {
                const args: table.RopeTable = .{
                    .pair_count = pair_count,
                    .row_count = tokens,
                    .scale = 1,
                    .rows = operands.rows(tokens),
                    .frequencies = operands.floats("frequencies", pair_count),
                    .out = operands.zeros("out", tokens * 2 * pair_count),
                    .out_stride = 2 * pair_count,
                };
                run.call(k.rope_table, .{ &args, 0, tokens });
            },
            .rope_store, .rope_store_neighbours => {
                const args: table.RopeStore = .{
                    .head_count = head_count,
                    .kv_head_count = kv_head_count,
                    .head_width = head_width,
                    .row_count = tokens,
                    .style = if (which.kernel == .rope_store) .halves else .neighbours,
                    .pair_count = pair_count,
                    .epsilon = 1e-6,
                    .q = operands.floats("q", tokens * head_count * head_width),
                    .q_stride = head_count * head_width,
                    .k = operands.floats("k", tokens * kv_head_count * head_width),
                    .k_stride = kv_head_count * head_width,
                    .v = operands.floats("v", tokens * kv_head_count * head_width),
                    .v_stride = kv_head_count * head_width,
                    .q_norm = operands.floats("q_norm", head_width),
                    .k_norm = operands.floats("k_norm", head_width),
                    .table = operands.floats("table", tokens * 2 * pair_count),
                    .table_stride = 2 * pair_count,
                    .rows = operands.rows(tokens),
                    .kv = operands.keysAndValues(which.format, tokens),
                };
                run.call(k.rope_store, .{ &args, 0, tokens });
            },
            .attention, .attention_split, .attention_window, .attention_merge => run.attention(which),
            .sample_greedy, .sample_top_k, .sample_top_p, .sample_penalty => {
                const greedy = which.kernel == .sample_greedy;
                const recent = operands.words("recent", 40);
                for (recent) |*token| token.* = operands.word() % logit_count;
                var args: table.Sample = .{
                    .params = .{
                        .temperature = if (greedy) 0 else 1,
                        .top_p = if (which.kernel == .sample_top_p) 0.9 else 1,
                        .min_p = 0,
                        .repeat_penalty = if (which.kernel == .sample_penalty) 1.1 else 1,
                        .top_k = if (which.kernel == .sample_top_k) 40 else 0,
                        .uniform = 0.6,
                    },
                    .count = logit_count,
                    .recent_count = 40,
                    .logits = operands.logits(),
                    .recent = recent.ptr,
                    .scratch = @ptrCast(operands.bytes("scratch", logit_count * @sizeOf(table.Candidate)).ptr),
                    .result = undefined,
                };
                run.call(k.sample, .{&args});
            },
            .score => {
                var args: table.Score = .{
                    .count = logit_count,
                    .target = 17,
                    .top_count = 20,
                    .logits = operands.logits(),
                    .top = @ptrCast(operands.bytes("top", 20 * @sizeOf(table.Candidate)).ptr),
                    .scratch = @ptrCast(operands.bytes("scratch", logit_count * @sizeOf(table.Candidate)).ptr),
                    .target_logprob = undefined,
                };
                run.call(k.score, .{&args});
            },
            .screen => {
                const group_count = formats.groupCount(screen_rows);
                const x = run.activations(.q8_0, tokens);
                const copy = operands.halves("copy", table.screen_head_bytes + group_count * table.screenGroupBytes(weight_columns));
                const fine: [*]u32 = @ptrCast(copy.ptr);
                for (0..table.screen_fine_columns) |index| fine[index] = @intCast(index * 7);
                const args: table.Screen = .{
                    .rows = screen_rows,
                    .columns = weight_columns,
                    .tokens = tokens,
                    .copy = copy.ptr,
                    .x = x.ptr,
                    .x_stride = x.len / tokens,
                    .y = operands.zeros("y", tokens * group_count * table.group_rows),
                    .y_stride = group_count * table.group_rows,
                    .groups = operands.zeros("groups", tokens * 2 * group_count),
                    .groups_stride = 2 * group_count,
                };
                const scratch = operands.bytes("scratch", table.scratchBytes(weight_columns, 0, 0));
                run.call(k.screen, .{ &args, 0, group_count, scratch.ptr });
            },
            .screen_pick, .screen_pick_rest => {
                const group_count = formats.groupCount(pick_rows);
                const recent = operands.words("recent", 7);
                for (recent) |*token| token.* = operands.word() % pick_rows;
                var args: table.ScreenPick = .{
                    .stage = 0,
                    .rows = pick_rows,
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
                run.call(k.screen_pick, .{&args});
            },
        }
    }

    /// Rows of activations in the form that products with weights of a format take.
    fn activations(run: *Run, format: Format, tokens: u32) []align(64) u8 {
        const x = run.operands.floats("source", tokens * weight_columns);
        if (format == .f32) return @ptrCast(@alignCast(x[0 .. tokens * weight_columns]));
        const stride: u32 = if (format.quantized()) table.quantizedRowBytes(weight_columns) else table.wideRowBytes(weight_columns);
        const rows = run.operands.bytes("x", tokens * stride);
        const args: table.Quantize = .{
            .form = form(if (format.quantized()) .q8_0 else .f16),
            .columns = weight_columns,
            .row_count = tokens,
            .x = x,
            .x_stride = weight_columns,
            .out = rows.ptr,
            .out_stride = stride,
        };
        cpu.levels[run.level].kernels.quantize(&args, 0, tokens);
        return rows;
    }

    fn attention(run: *Run, which: Case) void {
        const operands = &run.operands;
        const tokens = which.tokens;
        const columns = head_count * head_width;
        const merged = which.kernel == .attention_merge;
        const split = merged or which.kernel == .attention_split;
        const chunk_count = (first_position + tokens - 1) / table.attention_chunk_positions + 1;
        const kv = operands.keysAndValues(if (merged) .f16 else which.format, tokens);
        const args: table.Attention = .{
            .head_count = head_count,
            .kv_head_count = kv_head_count,
            .head_width = head_width,
            .row_count = tokens,
            .window = if (which.kernel == .attention_window) window else 0,
            .scale = 0.125,
            .soft_cap = if (which.kernel == .attention_window) 50 else 0,
            .split = @intFromBool(split),
            .chunk_count = chunk_count,
            .q = operands.floats("q", tokens * columns),
            .q_stride = columns,
            .rows = operands.rows(tokens),
            .kv = kv,
            .partial = if (split) operands.zeros("partial", tokens * head_count * chunk_count * (head_width + 2)) else null,
            .out = null,
            .out_stride = 0,
            .out_quantized = operands.bytes("out_quantized", tokens * table.quantizedRowBytes(columns)).ptr,
            .out_quantized_stride = table.quantizedRowBytes(columns),
        };
        const scratch = operands.bytes("scratch", table.scratchBytes(0, head_width, head_count / kv_head_count)).ptr;
        const units = if (split)
            tokens * kv_head_count * chunk_count
        else
            (std.math.divCeil(u32, tokens, table.attention_row_block) catch unreachable) * kv_head_count;
        if (merged) {
            cpu.levels[run.level].kernels.attention(&args, 0, units, scratch);
            run.call(run.kernels().attention_merge, .{ &args, 0, tokens, scratch });
        } else run.call(run.kernels().attention, .{ &args, 0, units, scratch });
    }
};

fn form(format: Format) table.Form {
    return if (format == .f16) .wide else .int8;
}

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

pub fn main(init: std.process.Init.Minimal) u8 {
    var argument_buffer: [8192]u8 = undefined;
    var fixed: std.heap.FixedBufferAllocator = .init(&argument_buffer);
    const arguments = init.args.toSlice(fixed.allocator()) catch fail("too many arguments", .{});
    if (arguments.len < 6) fail("LEVEL KERNEL FORMAT TOKENS (ordinary|traced|none) [flush] [list]", .{});
    const level = for (cpu.levels, 0..) |level, index| {
        if (std.mem.eql(u8, level.name, arguments[1])) break index;
    } else fail("there is no level '{s}'", .{arguments[1]});
    var run: Run = .{ .level = level, .mode = parse(Mode, arguments[5]), .list = false, .flushed = &.{} };
    for (arguments[6..]) |word| {
        if (std.mem.eql(u8, word, "list")) {
            run.list = true;
        } else if (std.mem.eql(u8, word, "flush")) {
            const flags: linux.MAP = .{ .TYPE = .PRIVATE, .ANONYMOUS = true, .POPULATE = true };
            const address = linux.mmap(null, flush_bytes, .{ .READ = true }, flags, -1, 0);
            run.flushed = @as([*]const u8, @ptrFromInt(address))[0..flush_bytes];
        } else fail("what is '{s}'?", .{word});
    }
    defer flushOutput();
    if (std.mem.eql(u8, arguments[2], "all")) {
        for (all_cases) |which| run.case(which);
        return 0;
    }
    const tokens = std.fmt.parseInt(u32, arguments[4], 10) catch 0;
    if (tokens == 0 or tokens > 64) fail("tokens are 1 to 64", .{});
    run.case(.{ .kernel = parse(Kernel, arguments[2]), .format = parse(Format, arguments[3]), .tokens = tokens });
    return 0;
}
