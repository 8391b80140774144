//! Runs a program's ops over the rows of one step, on every thread of the pool. It resolves a program's tensors to memory
//! once, turns ops into kernel arguments, hands out their units, waits for the units that the next op needs, and writes events. It
//! knows what an op computes on, not what a model is.

const std = @import("std");
const assert = std.debug.assert;
const clock = @import("clock.zig");
const events = @import("events.zig");
const memory = @import("memory.zig");
const p = @import("program.zig");
const pool_ = @import("pool.zig");
const system = @import("system.zig");
const Throttle = @import("throttle.zig").Throttle;
const format = @import("kernels/format.zig");
const table = @import("kernels/table.zig");

/// Up to this many rows, attention is split over the context's chunks as well, because rows alone would not keep the
/// threads busy. The plan sizes the partial results for this many rows.
pub const attention_split_rows = 16;
/// Every text of a step has a block that may be short.
const encode_blocks_max = p.step_rows_max / table.encode_row_block + p.sequences_max;

/// A tensor's memory.
pub const Resolved = struct {
    base: [*]u8,
    scales: [*]u8,
    stride: u64,
    format: u32,
    rows: u32,
    columns: u32,
    /// Of a weight, bytes of each group of rows.
    group_bytes: usize,
    group_scale_bytes: usize,

    fn floats(resolved: Resolved) [*]f32 {
        return @ptrCast(@alignCast(resolved.base));
    }

    fn floatStride(resolved: Resolved) u64 {
        return resolved.stride / @sizeOf(f32);
    }

    fn weightFormat(resolved: Resolved) table.Format {
        return @enumFromInt(resolved.format);
    }
};

/// What a step works on; the engine fills it before every run.
pub const Step = struct {
    id: u32 = 0,
    /// Whether this step writes events: decided once, so that a step is recorded whole or not at all.
    traced: bool = false,
    row_count: u32 = 0,
    logits_count: u32 = 0,
    sequence_count: u32 = 0,
    /// Rows of guessed tokens, and, once the step is finished, how many of them came true.
    drafted: u32 = 0,
    accepted: u32 = 0,
    position_max: u32 = 0,
    /// Whether only those logits are computed that its draws may take.
    screened: bool = false,
    rows: [p.step_rows_max]table.Row = undefined,
    tokens: [p.step_rows_max]u32 = undefined,
    /// Step rows that ask for logits, ascending.
    logits_rows: [p.step_rows_max]u32 = undefined,
    /// What is asked of each row of logits, and the answer; as many as a step may have.
    draws: []Draw = &.{},
    /// What each sequence has of it, in order of their rows.
    shares: [p.sequences_max]p.Share = undefined,
    /// The sequences whose vector is wanted.
    text_count: u32 = 0,
    texts: [p.sequences_max]table.PooledText = undefined,
    /// Where texts are computed whole, rows that are computed together.
    block_count: u32 = 0,
    blocks: [encode_blocks_max]table.EncodeBlock = undefined,

    /// Starts over.
    pub fn clear(step: *Step) void {
        step.row_count = 0;
        step.logits_count = 0;
        step.sequence_count = 0;
        step.drafted = 0;
        step.accepted = 0;
        step.position_max = 0;
        step.text_count = 0;
        step.block_count = 0;
    }

    /// The last `rows` of the step are a whole text.
    pub fn addBlocks(step: *Step, rows: u32) void {
        const text: table.Span = .{ .first = step.row_count - rows, .count = rows };
        var first = text.first;
        while (first < step.row_count) : (first += table.encode_row_block) {
            const count = @min(table.encode_row_block, step.row_count - first);
            step.blocks[step.block_count] = .{ .first = first, .count = count, .text = text };
            step.block_count += 1;
        }
    }

    /// The last `rows` of the step are of a text of `total` rows whose vector may be wanted.
    pub fn addText(step: *Step, rows: u32, slot: u32, position: u32, total: u32, embeds: p.Embeds) void {
        if (!embeds.wanted) return;
        step.texts[step.text_count] = .{
            .first = step.row_count - rows,
            .count = rows,
            .slot = slot,
            .position = position,
            .total = total,
            .pooling = @enumFromInt(embeds.pooling),
            .normalise = @intFromBool(embeds.normalise),
        };
        step.text_count += 1;
    }
};

/// What to do with one row of logits.
pub const Draw = struct {
    /// Draw a token with these parameters.
    sampling: ?table.Sampling,
    recent: []const u32,
    /// Log-probability of this token, or `program.none`.
    target: u32,
    top_count: u32,
    token: u32 = 0,
    /// In a screened step the token's logit.
    logprob: f32 = 0,
    top: [p.top_max]table.Candidate = undefined,

    /// How many of the largest logits the draw can take; null: it wants all of them.
    fn keeps(draw: *const Draw) ?u32 {
        const count = draw.takes() orelse return null;
        return if (draw.penalised().len > table.screen_recent_max) null else count;
    }

    /// The same by what was asked for alone, however many tokens there are to penalise: it holds for all of a request's draws.
    pub fn takes(draw: *const Draw) ?u32 {
        const parameters = draw.sampling orelse return null;
        if (draw.target != p.none or draw.top_count > 0) return null;
        if (!(parameters.temperature > 0)) return 1;
        return if (parameters.top_k >= 1 and parameters.top_k <= table.screen_keep_max) parameters.top_k else null;
    }

    /// Tokens whose logits the repeat penalty changes.
    fn penalised(draw: *const Draw) []const u32 {
        return if (draw.sampling.?.repeat_penalty == 1) &.{} else draw.recent;
    }
};

/// What each event is written with, in lines that nothing else changes.
const Recorded = struct {
    /// One a thread.
    rings: []events.Ring align(64) = &.{},
    /// When events were last switched on: none begins before that.
    since: std.atomic.Value(u64) = .init(0),
    enabled: std.atomic.Value(u32) = .init(0),
};

pub const Executor = struct {
    view: p.View,
    kernels: p.Kernels,
    /// Per thread, whose products it is set up for.
    ready_for: [pool_.threads_max]?*const table.Table = @splat(null),
    tuning: *const table.Tuning,
    pool: *pool_.Pool,
    tensors: []Resolved,
    kv_groups: []memory.KvGroup,
    /// One for each op, and one for the draws.
    work: []pool_.Work,
    /// Per thread.
    scratch: [][]align(4096) u8,
    candidates: [][]table.Candidate,
    recorded: Recorded = .{},
    /// Whether `runOp` ends after one claim: one thread then runs for all in turns, in the same order each time (tracer.zig).
    one_claim: bool = false,
    /// If given, all that `runOp` runs of a product, in grains.
    one_range: ?pool_.Work.Range = null,
    throttle: Throttle = .{},
    /// CPU time of each thread up to its last step, where the system does not tell it to others.
    cpu_ns: [pool_.threads_max]std.atomic.Value(u64) = @splat(.init(0)),
    step: Step = .{},

    pub fn resolve(executor: *Executor, weights: []u8, constants: []u8, arena: []u8, copies: []u8) void {
        for (executor.view.tensors, executor.tensors) |tensor, *resolved| {
            const region = switch (tensor.region) {
                .weights => weights,
                .constants => constants,
                .arena => arena,
                .copies => copies,
            };
            resolved.* = .{
                .base = region.ptr + @as(usize, @intCast(tensor.offset)),
                .scales = region.ptr + @as(usize, @intCast(tensor.scales_offset)),
                .stride = tensor.stride,
                .format = tensor.format,
                .rows = tensor.rows,
                .columns = tensor.columns,
                .group_bytes = 0,
                .group_scale_bytes = 0,
            };
            if (tensor.region == .weights) {
                const bytes = format.packedBytes(resolved.weightFormat(), tensor.rows, tensor.columns);
                const groups = divCeil(tensor.rows, table.group_rows);
                resolved.group_bytes = bytes.weight / groups;
                resolved.group_scale_bytes = bytes.scales / groups;
            }
        }
    }

    /// Called on TypeScript's thread; the next step writes events, or does not.
    pub fn enableEvents(executor: *Executor, enabled: bool) void {
        const recorded = &executor.recorded;
        if (enabled and recorded.enabled.raw == 0) recorded.since.store(clock.ticks(), .monotonic);
        recorded.enabled.store(@intFromBool(enabled), .release);
    }

    /// Runs the step that the engine has formed. Called on the engine thread.
    pub fn run(executor: *Executor) void {
        assert(executor.step.row_count > 0);
        executor.step.screened = executor.screens();
        for (executor.work) |*work| work.reset(executor.pool.thread_count);
        executor.pool.run(runThread);
        if (executor.step.traced) executor.event(0, .barrier, p.event_no_op, 0, 0);
    }

    /// Whether there is a screen, every draw of the step can do with it, and they are so few that it saves more than it costs: up to
    /// three draws of the largest logit, or one among several, which leaves more groups. (Gemma's head in batches on a Zen 5:
    /// three of the largest come 1.2 times as fast, four 0.95 times; one of 50 1.1 times, two 0.92 times.)
    pub fn screens(executor: *const Executor) bool {
        const step = &executor.step;
        if (!executor.hasScreen() or step.logits_count == 0 or step.logits_count > table.screen_tokens_max) return false;
        for (step.draws[0..step.logits_count]) |*request| {
            const keep = request.keeps() orelse return false;
            if (keep > 1 and step.logits_count > 1) return false;
        }
        return true;
    }

    pub fn hasScreen(executor: *const Executor) bool {
        return executor.view.header.copies_bytes > 0;
    }

    fn runThread(context: *anyopaque, thread: u32) void {
        const executor: *Executor = @ptrCast(@alignCast(context));
        executor.beginThread(thread);
        executor.runOps(thread);
        if (!system.tells_cpu) executor.cpu_ns[thread].store(system.threadCpuNs(), .monotonic);
    }

    /// Sets the thread up for the products that it is to run, of whatever level these are by now. Called by the thread itself.
    fn beginThread(executor: *Executor, thread: u32) void {
        const products = executor.kernels.get(.matmul);
        if (executor.ready_for[thread] == products) return;
        executor.endThread(thread);
        products.thread_begin();
        executor.ready_for[thread] = products;
    }

    /// What a thread does last.
    pub fn endThread(executor: *Executor, thread: u32) void {
        if (executor.ready_for[thread]) |products| products.thread_end();
        executor.ready_for[thread] = null;
    }

    fn runOps(executor: *Executor, thread: u32) void {
        const traced = executor.step.traced;
        if (traced) executor.event(thread, if (thread == 0) .engine else .idle, p.event_no_op, 0, 0);
        var group_first: usize = 0;
        var fetching: Fetching = .{ .executor = executor, .thread = thread };
        for (executor.view.ops, 0..) |*op, index| {
            const rows = executor.rowCount(op);
            const units = if (executor.unitCount(op) == 0) 0 else executor.runOp(op, index, thread, rows);
            // What takes no longer than its event would has none, and its time is in the thread's next one: half of all events, which
            // cost as much as all others.
            if (traced and units > 0) executor.event(thread, .work, @intCast(index), executor.costRows(op, rows), units);
            if (op.flags & p.flag_joins_next != 0) continue;
            fetching.after(index);
            var waited = false;
            for (executor.view.ops[group_first .. index + 1], group_first..) |*member, at_index| {
                const unit_count = executor.unitCount(member);
                if (executor.work[at_index].isDone(unit_count)) continue;
                executor.pool.awaitDone(&executor.work[at_index], unit_count, &fetching);
                waited = true;
            }
            group_first = index + 1;
            if (traced and waited) executor.event(thread, .barrier, @intCast(index), rows, 0);
            if (executor.throttle.pass(thread) and traced) executor.event(thread, .idle, p.event_no_op, 0, 0);
        }
        const drawn = executor.runDraws(thread);
        if (traced) executor.event(thread, .sampling, p.event_no_op, executor.step.logits_count, drawn) else executor.skip(thread);
    }

    /// What a thread that waits does: it asks for the weights that it will begin the next product with, into its own second-level
    /// cache. Small ops, most of them on one thread, would otherwise leave the memory idle for a tenth of a token.
    const Fetching = struct {
        executor: *const Executor,
        thread: u32,
        /// The product whose weights are asked for; the number of ops: none is left.
        op: usize = 0,
        /// Lines of scales and of codes that remain, and from one to the next.
        scales: Lines = .{},
        codes: Lines = .{},
        line_bytes: usize = 64,

        const Lines = struct {
            at: [*]const u8 = undefined,
            count: usize = 0,
        };

        /// Steps of more rows compute longer than they wait.
        const rows_max = 32;
        /// Small beside any second-level cache, and more than memory gives while a thread waits.
        const bytes_max = 128 * 1024;
        const lines_a_step = 4;

        /// Sets out for the first product after op `index`, unless that is begun already.
        fn after(fetching: *Fetching, index: usize) void {
            const executor = fetching.executor;
            if (fetching.op > index) return;
            fetching.op = for (executor.view.ops[index + 1 ..], index + 1..) |*op, at_index| {
                if (op.kind == .matmul) break at_index;
            } else executor.view.ops.len;
            fetching.scales = .{};
            fetching.codes = .{};
            if (fetching.op == executor.view.ops.len or executor.tuning.ahead == 0) return;
            fetching.line_bytes = executor.tuning.line_bytes;
            const op = &executor.view.ops[fetching.op];
            const rows = executor.rowCount(op);
            if (rows == 0 or rows > rows_max) return;
            const weight = executor.at(op, 2).?;
            const unit_count = executor.unitCount(op);
            const grain = grainOf(op);
            const grains = pool_.Work.ownSegment(fetching.thread, executor.pool.thread_count, divCeil(unit_count, grain));
            const first = grains.begin * grain;
            const own = @min(grains.end * grain, unit_count) -| first;
            const groups = @min(own, bytes_max / (weight.group_bytes + weight.group_scale_bytes) + 1);
            fetching.scales = .{ .at = weight.scales + first * weight.group_scale_bytes, .count = groups * weight.group_scale_bytes / fetching.line_bytes };
            fetching.codes = .{ .at = weight.base + first * weight.group_bytes, .count = groups * weight.group_bytes / fetching.line_bytes };
        }

        pub fn step(fetching: *Fetching) bool {
            const lines = if (fetching.scales.count >= lines_a_step) &fetching.scales else &fetching.codes;
            if (lines.count < lines_a_step) return false;
            for (0..lines_a_step) |line| @prefetch(lines.at + line * fetching.line_bytes, .{ .rw = .read, .locality = 2, .cache = .data });
            lines.at += lines_a_step * fetching.line_bytes;
            lines.count -= lines_a_step;
            return true;
        }
    };

    /// What an op's cost is counted by: rows, for attention the positions that all rows look at together, and for the product of a
    /// screened step the groups that it was left.
    fn costRows(executor: *const Executor, op: *const p.Op, rows: u32) u32 {
        if (op.kind == .screen_product) return executor.unitCount(op);
        if (op.kind == .encode) {
            var positions: u32 = 0;
            for (executor.step.blocks[0..executor.step.block_count]) |block| positions +|= block.count * block.text.count;
            return positions;
        }
        if (op.kind != .attention) return rows;
        const window = op.u[3];
        var positions: u32 = 0;
        for (executor.step.rows[0..rows]) |row| {
            const visible = row.position + 1;
            positions +|= if (window == 0) visible else @min(visible, window);
        }
        return positions;
    }

    /// Writes an event from where the thread's last one ended to now, so that they leave no gap between them.
    pub fn event(executor: *Executor, thread: u32, kind: p.EventKind, op: u16, rows: u32, aux: u32) void {
        executor.eventUntil(clock.ticks(), thread, kind, op, rows, aux);
    }

    pub fn eventUntil(executor: *Executor, end: u64, thread: u32, kind: p.EventKind, op: u16, rows: u32, aux: u32) void {
        executor.ringOf(thread).writeUntil(end, executor.step.id, kind, op, rows, aux);
    }

    /// Where the thread's next event begins.
    pub fn eventsUntil(executor: *const Executor, thread: u32) u64 {
        return executor.ringOf(thread).until();
    }

    /// The thread's ring, of which no event begins before they were switched on. For the thread itself.
    fn ringOf(executor: *const Executor, thread: u32) *events.Ring {
        const ring = &executor.recorded.rings[thread];
        const since = executor.recorded.since.load(.monotonic);
        if (ring.until() < since) ring.skipTo(since);
        return ring;
    }

    /// The thread's next event begins now: what it did until now is in none.
    pub fn skip(executor: *Executor, thread: u32) void {
        executor.recorded.rings[thread].skipTo(clock.ticks());
    }

    pub fn rowCount(executor: *const Executor, op: *const p.Op) u32 {
        return switch (op.kind) {
            .screen, .screen_pick, .screen_product => if (executor.step.screened) executor.step.logits_count else 0,
            .pool => executor.step.text_count,
            else => if (op.flags & p.flag_unscreened != 0 and executor.step.screened)
                0
            else if (op.flags & p.flag_embeds != 0 and executor.step.text_count == 0)
                0
            else if (op.flags & p.flag_logits_rows != 0) executor.step.logits_count else executor.step.row_count,
        };
    }

    /// Units that an op has in this step, as its kernel counts them.
    pub fn unitCount(executor: *const Executor, op: *const p.Op) u32 {
        const rows = executor.rowCount(op);
        if (rows == 0) return 0;
        return switch (op.kind) {
            .embed, .norm, .add, .quantize, .rope_table, .rope_store, .screen_pick, .rope, .pool => rows,
            .screen_product => executor.chosenCount(op, rows),
            .matmul, .screen => divCeil(executor.at(op, 2).?.rows, table.group_rows),
            .glu, .activation => rows * divCeil(executor.at(op, 2).?.columns, table.glu_unit_columns),
            .encode => executor.step.block_count * op.u[0],
            .conv => rows * table.Convolution.of(op.u).units(),
            .attention => if (isSplit(rows))
                rows * op.u[1] * executor.chunkCount()
            else
                divCeil(rows, table.attention_row_block) * op.u[1],
            .attention_merge => if (isSplit(rows)) rows else 0,
            .gather => 1,
        };
    }

    /// The groups of one token that a stage of `screen_pick` chose.
    fn chosen(executor: *const Executor, op: *const p.Op, token: u32) []const u32 {
        const resolved = executor.at(op, 3).?;
        const list: [*]const u32 = @ptrCast(resolved.floats() + token * resolved.floatStride());
        const groups = list + table.screen_list_head;
        return if (op.u[0] == 0) groups[0..list[0]] else groups[list[0]..list[1]];
    }

    fn chosenCount(executor: *const Executor, op: *const p.Op, rows: u32) u32 {
        var count: u32 = 0;
        for (0..rows) |token| count += @intCast(executor.chosen(op, @intCast(token)).len);
        return count;
    }

    fn isSplit(rows: u32) bool {
        return rows <= attention_split_rows;
    }

    fn chunkCount(executor: *const Executor) u32 {
        return executor.step.position_max / table.attention_chunk_positions + 1;
    }

    fn divCeil(numerator: u32, denominator: u32) u32 {
        return std.math.divCeil(u32, numerator, denominator) catch unreachable;
    }

    /// Claims units until none is left; returns how many this thread ran.
    fn share(executor: *Executor, op: *const p.Op, index: usize, thread: u32, arguments: anytype, kernel: anytype, extra: anytype) u32 {
        const unit_count = executor.unitCount(op);
        const grain = grainOf(op);
        const grain_count = divCeil(unit_count, grain);
        if (executor.one_range) |range| {
            const begin = range.begin * grain;
            const end = @min(range.end * grain, unit_count);
            @call(.auto, kernel, .{ arguments, begin, end } ++ extra);
            return end - begin;
        }
        // Eight claims a thread: late threads lose at most an eighth of their part, and claims stay rare beside the work.
        const chunk = @max(1, grain_count / (executor.pool.thread_count * 8));
        const work = &executor.work[index];
        var done: u32 = 0;
        while (work.claim(thread, executor.pool.thread_count, chunk, grain_count)) |range| {
            const begin = range.begin * grain;
            const end = @min(range.end * grain, unit_count);
            @call(.auto, kernel, .{ arguments, begin, end } ++ extra);
            executor.pool.finish(work, end - begin);
            done += end - begin;
            if (executor.one_claim) break;
        }
        return done;
    }

    /// Units that are claimed together: a product's tile has up to two groups, and what it reads must not depend on who claimed
    /// them.
    pub fn grainOf(op: *const p.Op) u32 {
        return if (op.kind == .matmul) 2 else 1;
    }

    pub fn at(executor: *const Executor, op: *const p.Op, slot: usize) ?Resolved {
        const index = op.tensors[slot];
        return if (index == p.none) null else executor.tensors[index];
    }

    fn floatsAt(executor: *const Executor, op: *const p.Op, slot: usize) ?[*]f32 {
        return if (executor.at(op, slot)) |resolved| resolved.floats() else null;
    }

    pub fn runOp(executor: *Executor, op: *const p.Op, index: usize, thread: u32, rows: u32) u32 {
        const kernels = executor.kernels.get(op.kind.family());
        const scratch: [*]align(64) u8 = executor.scratch[thread].ptr;
        switch (op.kind) {
            .embed => {
                const out = executor.at(op, 0).?;
                const weight = executor.at(op, 1).?;
                const positions = executor.at(op, 2);
                const arguments: table.Embed = .{
                    .format = weight.weightFormat(),
                    .rows = weight.rows,
                    .columns = weight.columns,
                    .token_count = rows,
                    .weight = weight.base,
                    .scales = weight.scales,
                    .tokens = &executor.step.tokens,
                    .out = out.floats(),
                    .out_stride = out.floatStride(),
                    .scale = op.f[0],
                    .positions = if (positions) |added| added.floats() else null,
                    .positions_stride = if (positions) |added| if (added.columns == weight.columns) 0 else weight.columns else 0,
                    .rows_at = if (positions == null) null else &executor.step.rows,
                };
                return executor.share(op, index, thread, &arguments, kernels.embed, .{});
            },
            .norm => {
                const x = executor.at(op, 2).?;
                const residual = executor.at(op, 4);
                var arguments: table.Norm = .{
                    .width = x.columns,
                    .row_count = rows,
                    .epsilon = op.f[0],
                    .centred = op.u[0],
                    .x = x.floats(),
                    .x_stride = x.floatStride(),
                    .weight = executor.floatsAt(op, 3).?,
                    .bias = executor.floatsAt(op, 5),
                    .residual = if (residual) |r| r.floats() else null,
                    .residual_stride = if (residual) |r| r.floatStride() else 0,
                };
                executor.setOutputs(op, &arguments);
                return executor.share(op, index, thread, &arguments, kernels.norm, .{});
            },
            .add => {
                const x = executor.at(op, 0).?;
                const y = executor.at(op, 1).?;
                const arguments: table.Add = .{
                    .width = x.columns,
                    .row_count = rows,
                    .x = x.floats(),
                    .x_stride = x.floatStride(),
                    .y = y.floats(),
                    .y_stride = y.floatStride(),
                };
                return executor.share(op, index, thread, &arguments, kernels.add, .{});
            },
            .quantize => {
                const out = executor.at(op, 0).?;
                const x = executor.at(op, 1).?;
                const arguments: table.Quantize = .{
                    .form = executor.formOf(out),
                    .columns = x.columns,
                    .row_count = rows,
                    .x = x.floats(),
                    .x_stride = x.floatStride(),
                    .out = out.base,
                    .out_stride = out.stride,
                };
                return executor.share(op, index, thread, &arguments, kernels.quantize, .{});
            },
            .matmul => {
                const y = executor.at(op, 0).?;
                const x = executor.at(op, 1).?;
                const weight = executor.at(op, 2).?;
                const arguments: table.MatMul = .{
                    .format = weight.weightFormat(),
                    .rows = weight.rows,
                    .columns = weight.columns,
                    .tokens = rows,
                    .weight = weight.base,
                    .scales = weight.scales,
                    .x = x.base,
                    .x_stride = x.stride,
                    .y = y.floats(),
                    .y_stride = y.floatStride(),
                    .bias = executor.floatsAt(op, 3),
                    .accumulate = op.u[0],
                    .soft_cap = op.f[0],
                    .tuning = executor.tuning,
                };
                return executor.share(op, index, thread, Product{ .kernel = kernels.matmul, .arguments = &arguments }, Product.run, .{scratch});
            },
            .glu, .activation => {
                const gate = executor.at(op, 2).?;
                const up = executor.at(op, 3);
                var arguments: table.Glu = .{
                    .activation = @enumFromInt(op.u[0]),
                    .width = gate.columns,
                    .row_count = rows,
                    .gate = gate.floats(),
                    .gate_stride = gate.floatStride(),
                    .up = if (up) |u| u.floats() else null,
                    .up_stride = if (up) |u| u.floatStride() else 0,
                };
                executor.setOutputs(op, &arguments);
                return executor.share(op, index, thread, &arguments, kernels.glu, .{});
            },
            .rope_table => {
                const out = executor.at(op, 0).?;
                const frequencies = executor.at(op, 1).?;
                const arguments: table.RopeTable = .{
                    .pair_count = frequencies.columns,
                    .row_count = rows,
                    .scale = op.f[0],
                    .rows = &executor.step.rows,
                    .frequencies = frequencies.floats(),
                    .out = out.floats(),
                    .out_stride = out.floatStride(),
                };
                return executor.share(op, index, thread, &arguments, kernels.rope_table, .{});
            },
            .rope_store => {
                const q = executor.at(op, 0).?;
                const k = executor.at(op, 1).?;
                const v = executor.at(op, 2).?;
                const rope = executor.at(op, 3).?;
                const arguments: table.RopeStore = .{
                    .head_count = op.u[0],
                    .kv_head_count = op.u[1],
                    .head_width = op.u[2],
                    .row_count = rows,
                    .style = @enumFromInt(op.u[3]),
                    .pair_count = op.u[4],
                    .epsilon = op.f[0],
                    .q = q.floats(),
                    .q_stride = q.floatStride(),
                    .k = k.floats(),
                    .k_stride = k.floatStride(),
                    .v = v.floats(),
                    .v_stride = v.floatStride(),
                    .q_norm = executor.floatsAt(op, 4),
                    .k_norm = executor.floatsAt(op, 5),
                    .table = rope.floats(),
                    .table_stride = rope.floatStride(),
                    .rows = &executor.step.rows,
                    .kv = executor.kvView(op.u[5]),
                };
                return executor.share(op, index, thread, &arguments, kernels.rope_store, .{});
            },
            .rope => {
                const q = executor.at(op, 0).?;
                const k = executor.at(op, 1).?;
                const rope = executor.at(op, 2).?;
                const arguments: table.Rope = .{
                    .head_count = op.u[0],
                    .kv_head_count = op.u[1],
                    .head_width = op.u[2],
                    .row_count = rows,
                    .style = @enumFromInt(op.u[3]),
                    .pair_count = op.u[4],
                    .q = q.floats(),
                    .q_stride = q.floatStride(),
                    .k = k.floats(),
                    .k_stride = k.floatStride(),
                    .table = rope.floats(),
                    .table_stride = rope.floatStride(),
                };
                return executor.share(op, index, thread, &arguments, kernels.rope, .{});
            },
            .encode => {
                const q = executor.at(op, 2).?;
                const k = executor.at(op, 3).?;
                const v = executor.at(op, 4).?;
                var arguments: table.Encode = .{
                    .head_count = op.u[0],
                    .head_width = op.u[1],
                    .block_count = executor.step.block_count,
                    .scale = op.f[0],
                    .blocks = &executor.step.blocks,
                    .q = q.floats(),
                    .q_stride = q.floatStride(),
                    .k = k.floats(),
                    .k_stride = k.floatStride(),
                    .v = v.floats(),
                    .v_stride = v.floatStride(),
                };
                executor.setOutputs(op, &arguments);
                return executor.share(op, index, thread, &arguments, kernels.encode, .{scratch});
            },
            .pool => {
                const out = executor.at(op, 0).?;
                const x = executor.at(op, 1).?;
                const arguments: table.Pool = .{
                    .width = x.columns,
                    .text_count = rows,
                    .texts = &executor.step.texts,
                    .x = x.floats(),
                    .x_stride = x.floatStride(),
                    .out = out.floats(),
                    .out_stride = out.floatStride(),
                };
                return executor.share(op, index, thread, &arguments, kernels.pool, .{});
            },
            .conv => {
                const out = executor.at(op, 0).?;
                const x = executor.at(op, 1).?;
                const arguments: table.Conv = .{
                    .shape = .of(op.u),
                    .row_count = rows,
                    .weight = executor.floatsAt(op, 2).?,
                    .x = x.floats(),
                    .x_stride = x.floatStride(),
                    .bias = executor.floatsAt(op, 3),
                    .out = out.floats(),
                    .out_stride = out.floatStride(),
                };
                return executor.share(op, index, thread, &arguments, kernels.conv, .{});
            },
            .attention => {
                const arguments = executor.attentionArguments(op, rows);
                return executor.share(op, index, thread, &arguments, kernels.attention, .{scratch});
            },
            .attention_merge => {
                const arguments = executor.attentionArguments(op, rows);
                return executor.share(op, index, thread, &arguments, kernels.attention_merge, .{scratch});
            },
            .screen => {
                const y = executor.at(op, 0).?;
                const x = executor.at(op, 1).?;
                const weight = executor.at(op, 2).?;
                const groups = executor.at(op, 4).?;
                const arguments: table.Screen = .{
                    .rows = weight.rows,
                    .columns = weight.columns,
                    .tokens = rows,
                    .copy = executor.at(op, 3).?.base,
                    .x = x.base,
                    .x_stride = x.stride,
                    .y = y.floats(),
                    .y_stride = y.floatStride(),
                    .groups = groups.floats(),
                    .groups_stride = groups.floatStride(),
                    .tuning = executor.tuning,
                };
                return executor.share(op, index, thread, &arguments, kernels.screen, .{scratch});
            },
            .screen_pick => return executor.share(op, index, thread, Screening{ .executor = executor, .op = op, .thread = thread }, Screening.pick, .{}),
            .screen_product => return executor.share(op, index, thread, Screening{ .executor = executor, .op = op, .thread = thread }, Screening.product, .{}),
            .gather => {
                const out = executor.at(op, 0).?;
                const x = executor.at(op, 1).?;
                const work = &executor.work[index];
                if (work.claim(thread, executor.pool.thread_count, 1, 1) == null) return 0;
                for (executor.step.logits_rows[0..rows], 0..) |row, slot| {
                    const from = x.floats() + row * x.floatStride();
                    const to = out.floats() + slot * out.floatStride();
                    @memcpy(to[0..x.columns], from[0..x.columns]);
                }
                executor.pool.finish(work, 1);
                return 1;
            },
        }
    }

    /// A product of any number of rows: a kernel takes `matmul_tokens_max` at a time.
    const Product = struct {
        kernel: *const fn (*const table.MatMul, begin: u32, end: u32, scratch: [*]align(64) u8) callconv(.c) void,
        arguments: *const table.MatMul,

        fn run(product: Product, begin: u32, end: u32, scratch: [*]align(64) u8) void {
            var arguments = product.arguments.*;
            var left = arguments.tokens;
            while (left > 0) {
                arguments.tokens = @min(left, table.matmul_tokens_max);
                product.kernel(&arguments, begin, end, scratch);
                arguments.x += arguments.tokens * arguments.x_stride;
                arguments.y += arguments.tokens * arguments.y_stride;
                left -= arguments.tokens;
            }
        }
    };

    /// The ops of a screen whose units are not one kernel's.
    const Screening = struct {
        executor: *Executor,
        op: *const p.Op,
        thread: u32,

        /// Units: tokens.
        fn pick(screening: Screening, begin: u32, end: u32) void {
            const executor = screening.executor;
            const y = executor.at(screening.op, 0).?;
            const groups = executor.at(screening.op, 1).?;
            const list = executor.at(screening.op, 2).?;
            for (begin..end) |token| {
                const request = &executor.step.draws[token];
                const arguments: table.ScreenPick = .{
                    .stage = screening.op.u[0],
                    .rows = executor.view.header.vocabulary,
                    .keep = request.keeps().?,
                    .recent_count = @intCast(request.penalised().len),
                    .recent = request.penalised().ptr,
                    .groups = groups.floats() + token * groups.floatStride(),
                    .logits = y.floats() + token * y.floatStride(),
                    .list = @ptrCast(list.floats() + token * list.floatStride()),
                    .scratch = executor.candidates[screening.thread].ptr,
                };
                executor.kernels.get(screening.op.kind.family()).screen_pick(&arguments);
            }
        }

        /// Units: chosen groups, token after token.
        fn product(screening: Screening, begin: u32, end: u32) void {
            const executor = screening.executor;
            const y = executor.at(screening.op, 0).?;
            const x = executor.at(screening.op, 1).?;
            const weight = executor.at(screening.op, 2).?;
            var first: u32 = 0;
            for (0..executor.step.logits_count) |token| {
                const groups = executor.chosen(screening.op, @intCast(token));
                const from = @max(begin, first) - first;
                const to = @min(end -| first, groups.len);
                first += @intCast(groups.len);
                if (from >= to) continue;
                const arguments: table.MatMul = .{
                    .format = weight.weightFormat(),
                    .rows = weight.rows,
                    .columns = weight.columns,
                    .tokens = 1,
                    .weight = weight.base,
                    .scales = weight.scales,
                    .x = x.base + token * x.stride,
                    .x_stride = x.stride,
                    .y = y.floats() + token * y.floatStride(),
                    .y_stride = y.floatStride(),
                    .bias = null,
                    .accumulate = 0,
                    .soft_cap = 0,
                    .tuning = executor.tuning,
                };
                const kernels = executor.kernels.get(screening.op.kind.family());
                for (groups[from..to]) |group| kernels.matmul(&arguments, group, group + 1, executor.scratch[screening.thread].ptr);
            }
        }
    };

    fn attentionArguments(executor: *Executor, op: *const p.Op, rows: u32) table.Attention {
        const q = executor.at(op, 2).?;
        var arguments: table.Attention = .{
            .head_count = op.u[0],
            .kv_head_count = op.u[1],
            .head_width = op.u[2],
            .row_count = rows,
            .window = op.u[3],
            .scale = op.f[0],
            .soft_cap = op.f[1],
            .split = @intFromBool(isSplit(rows)),
            .chunk_count = executor.chunkCount(),
            .q = q.floats(),
            .q_stride = q.floatStride(),
            .rows = &executor.step.rows,
            .kv = executor.kvView(op.u[4]),
            .partial = executor.floatsAt(op, 3),
            .tuning = executor.tuning,
        };
        executor.setOutputs(op, &arguments);
        return arguments;
    }

    /// An op's first two tensors are where it writes: float32, the form that products take, or both.
    fn setOutputs(executor: *const Executor, op: *const p.Op, arguments: anytype) void {
        if (executor.at(op, 0)) |out| {
            arguments.out = out.floats();
            arguments.out_stride = out.floatStride();
        }
        if (executor.at(op, 1)) |out| {
            arguments.out_form = executor.formOf(out);
            arguments.out_quantized = out.base;
            arguments.out_quantized_stride = out.stride;
        }
    }

    /// What the products that read them take rows of activations as.
    fn formOf(executor: *const Executor, rows: Resolved) table.Form {
        return if (rows.format == p.int8_rows) .int8 else executor.kernels.get(.matmul).wide_form;
    }

    fn kvView(executor: *Executor, layer: u32) table.KvView {
        const descriptor = executor.view.kv_layers[layer];
        const group = &executor.kv_groups[descriptor.group];
        return .{
            .base = group.base.ptr,
            .page_bytes = group.page_bytes,
            .page_table = group.page_table.ptr,
            .table_stride = group.table_stride,
            .key_offset = descriptor.key_offset,
            .value_offset = descriptor.value_offset,
            .key_format = @enumFromInt(descriptor.key_format),
            .value_format = @enumFromInt(descriptor.value_format),
        };
    }

    /// Writes the columns that are largest in the head's inputs of the last step, each row counted alike, where the copy names its
    /// fine columns.
    pub fn chooseFineColumns(executor: *Executor, op: *const p.Op, rows: u32) void {
        const x = executor.at(op, 1).?;
        const columns = executor.at(op, 2).?.columns;
        const shares: []f32 = @as([*]f32, @ptrCast(executor.scratch[0].ptr))[0..columns];
        @memset(shares, 0);
        for (0..rows) |row| {
            const base = x.base + row * x.stride;
            const scales: [*]const f32 = @ptrCast(@alignCast(base + columns));
            var total: f32 = 1e-30;
            for (0..2) |pass| {
                for (0..columns) |column| {
                    const q: f32 = @floatFromInt(@as(i8, @bitCast(base[column])));
                    const value = q * scales[column / table.block_columns];
                    if (pass == 0) total += value * value else shares[column] += value * value / total;
                }
            }
        }
        const fine: [*]u32 = @ptrCast(@alignCast(executor.at(op, 3).?.base));
        for (0..table.screen_fine_columns) |index| {
            var largest: usize = 0;
            for (shares, 0..) |share_, column| {
                if (share_ > shares[largest] or shares[largest] < 0) largest = column;
            }
            fine[index] = @intCast(largest);
            shares[largest] = -1;
        }
        std.mem.sort(u32, fine[0..table.screen_fine_columns], {}, std.sort.asc(u32));
    }

    /// Makes the groups of a screen's copy until none is left.
    pub fn buildScreen(executor: *Executor, thread: u32) void {
        const op = for (executor.view.ops) |*op| {
            if (op.kind == .screen) break op;
        } else return;
        const weight = executor.at(op, 2).?;
        const arguments: table.ScreenBuild = .{
            .format = weight.weightFormat(),
            .rows = weight.rows,
            .columns = weight.columns,
            .weight = weight.base,
            .scales = weight.scales,
            .copy = executor.at(op, 3).?.base,
        };
        const group_count = divCeil(weight.rows, table.group_rows);
        const work = &executor.work[0];
        while (work.claim(thread, executor.pool.thread_count, 64, group_count)) |range| {
            executor.kernels.get(.matmul).screen_build(&arguments, range.begin, range.end, executor.scratch[thread].ptr);
            _ = executor.throttle.pass(thread);
        }
    }

    /// The row of logits number `index` of the last step.
    pub fn logits(executor: *const Executor, index: u32) []f32 {
        const tensor = executor.tensors[executor.view.header.logits_tensor];
        return (tensor.floats() + index * tensor.floatStride())[0..executor.view.header.vocabulary];
    }

    /// The vector of the slot's text, once it is complete.
    pub fn embedding(executor: *const Executor, slot: usize) []f32 {
        const tensor = executor.tensors[executor.view.header.embeddings_tensor];
        return (tensor.floats() + slot * tensor.floatStride())[0..tensor.columns];
    }

    pub fn runDraws(executor: *Executor, thread: u32) u32 {
        const work = &executor.work[executor.view.ops.len];
        var done: u32 = 0;
        // A single draw is the engine thread's, so that its time is seen where it is spent.
        if (thread != 0 and executor.step.logits_count == 1) return 0;
        while (work.claim(thread, executor.pool.thread_count, 1, executor.step.logits_count)) |range| : (done += 1) {
            executor.draw(&executor.step.draws[range.begin], range.begin, executor.candidates[thread]);
        }
        return done;
    }

    fn draw(executor: *Executor, request: *Draw, index: u32, candidates: []table.Candidate) void {
        const row = executor.logits(index);
        if (request.target != p.none or request.top_count > 0) {
            var score: table.Score = .{
                .count = @intCast(row.len),
                .target = if (request.target == p.none) 0 else request.target,
                .top_count = request.top_count,
                .logits = row.ptr,
                .top = &request.top,
                .scratch = candidates.ptr,
                .target_logprob = 0,
            };
            executor.kernels.get(.other).score(&score);
            request.token = request.target;
            request.logprob = score.target_logprob;
        }
        if (request.sampling) |parameters| {
            var sample: table.Sample = .{
                .params = parameters,
                .count = @intCast(row.len),
                .recent_count = @intCast(request.recent.len),
                .screened = @intFromBool(executor.step.screened),
                .logits = row.ptr,
                .recent = request.recent.ptr,
                .scratch = candidates.ptr,
                .result = .{ .token = 0, .logprob = 0 },
            };
            executor.kernels.get(.other).sample(&sample);
            assert(sample.result.token < row.len);
            request.token = sample.result.token;
            request.logprob = sample.result.logprob;
        }
    }
};

test "a waiting thread asks for what it begins the next product with, a line at a time, or for nothing" {
    const testing = std.testing;
    const executor = try testing.allocator.create(Executor);
    defer testing.allocator.destroy(executor);
    var pool: pool_.Pool = .{ .thread_count = 2 };
    var tuning: table.Tuning = .fixed;
    const norm: p.Op = .{ .kind = .norm, .flags = 0, .layer = 0, .tensors = @splat(p.none), .u = @splat(0), .f = @splat(0) };
    var product = norm;
    product.kind = .matmul;
    product.tensors[2] = 0;
    const ops = [_]p.Op{ norm, product, norm };
    // 64 groups, of which this thread has the second half. It is asked for and never read.
    const group_bytes = 16 * 640;
    const scale_bytes = 640;
    var memory_: [64]u8 = undefined;
    var tensors = [_]Resolved{.{ .base = &memory_, .scales = &memory_, .stride = 0, .format = @intFromEnum(table.Format.q8_0), .rows = 64 * 16, .columns = 640, .group_bytes = group_bytes, .group_scale_bytes = scale_bytes }};
    executor.tuning = &tuning;
    executor.pool = &pool;
    executor.tensors = &tensors;
    executor.view.ops = &ops;
    executor.step.row_count = 1;
    const groups = Executor.Fetching.bytes_max / (group_bytes + scale_bytes) + 1;
    for ([_]u32{ 64, 32, 128, 256, 0 }) |line_bytes| {
        tuning.ahead = @intFromBool(line_bytes > 0);
        if (line_bytes > 0) tuning.line_bytes = line_bytes;
        var fetching: Executor.Fetching = .{ .executor = executor, .thread = 1 };
        fetching.after(0);
        const codes = @intFromPtr(fetching.codes.at);
        var lines: usize = 0;
        while (fetching.step()) lines += Executor.Fetching.lines_a_step;
        if (line_bytes == 0) {
            try testing.expectEqual(0, lines);
            continue;
        }
        try testing.expectEqual(@intFromPtr(&memory_) + 32 * group_bytes, codes);
        const whole = groups * group_bytes / line_bytes / Executor.Fetching.lines_a_step + groups * scale_bytes / line_bytes / Executor.Fetching.lines_a_step;
        try testing.expectEqual(whole * Executor.Fetching.lines_a_step, lines);
        try testing.expect(@intFromPtr(fetching.codes.at) <= codes + groups * group_bytes);
        // Past the last product there is none.
        fetching.after(1);
        try testing.expect(!fetching.step());
    }
}
