//! Runs a step's ops once more, beside the engine and with kernels that report every access to memory (trace.zig), to count what
//! they load and store and to feed a simulator of caches (cache.zig). It reads the engine's weights, and has activations, keys and
//! values of its own: nothing that it does is seen by a request. One thread plays all of the engine's, in turns of one claim
//! each, so that the same step gives the same counts on every run.
//!
//! Simulated addresses are those of the program's layout, not those that the system gave: every region begins at a place of its
//! own that never changes, because what a cache does would otherwise depend on where memory happened to be.

const std = @import("std");
const assert = std.debug.assert;
const allocations = @import("allocations.zig");
const cache = @import("cache.zig");
const cpu = @import("cpu.zig");
const executor_ = @import("executor.zig");
const memory = @import("memory.zig");
const p = @import("program.zig");
const pool_ = @import("pool.zig");
const stack_ = @import("stack.zig");
const trace = @import("trace.zig");
const table = @import("kernels/table.zig");

/// In the order of `Traced`'s sums, and of `regions` in profiler/report.ts.
pub const Region = enum(u3) { weights, constants, keys_values, activations, scratch, input, other };

/// Memory that is known by name.
const Range = struct {
    begin: usize,
    bytes: usize,
    region: Region,
    /// What its first byte's address is to the simulator.
    place: u64,
};

/// Weights, copies, constants, arena, groups of pages with a page table each, a thread's scratch and candidates, what the step consists of.
const ranges_max = 5 + 2 * p.kv_groups_max + 2 * pool_.threads_max + 6;
/// Tokens that stand for any: neighbours lie far apart in the vocabulary. A prime.
const token_stride = 4099;
/// Pairs of groups that are sampled of a large product's middle: of 8-bit weights 20 KB a pair and 640 columns, more than a
/// first-level cache in all.
const sampled_grains = 16;

pub const Tracer = struct {
    pool: pool_.Pool,
    tuning: table.Tuning,
    executor: executor_.Executor,
    arena: []align(4096) u8,
    ranges: [ranges_max]Range,
    range_count: usize,
    /// The range of the last access: most are followed by one to the same.
    recent: usize,
    hierarchy: ?*cache.Hierarchy,
    /// The kernels that the engine runs, and the lines of their stack that those of the op being simulated use.
    ordinary: p.Kernels,
    stack: ?stack_.Stack,
    /// Whether accesses go to the simulator.
    simulates: bool,
    /// The thread being played.
    thread: u32,
    /// What was done since the last `settle`, and of the op in all.
    traced: p.Traced,
    total: p.Traced,
    /// The simulator's at the last `settle`.
    counters: cache.Counters,

    const allocator = allocations.allocator;

    pub const Error = error{ OutOfMemory, Program };

    /// A tracer of a program whose weights are in memory; it must be destroyed before they go.
    pub fn create(source: *const executor_.Executor, weights: []u8, constants: []u8, copies: []u8, config: p.TracerConfig) Error!*Tracer {
        if (config.thread_count == 0 or config.thread_count > pool_.threads_max) return error.Program;
        if (config.cache_count > cache.levels_max or config.prefetcher > 1) return error.Program;
        if (!config.tuning.valid() or !cpu.runs(config.levels)) return error.Program;
        const header = source.view.header;
        const tracer = try allocator.create(Tracer);
        errdefer allocator.destroy(tracer);
        tracer.* = .{
            .pool = .{ .thread_count = config.thread_count },
            .tuning = config.tuning,
            .executor = .{
                .view = source.view,
                .kernels = cpu.kernelsOf(config.levels, true),
                .tuning = &tracer.tuning,
                .pool = &tracer.pool,
                .tensors = &.{},
                .kv_groups = &.{},
                .work = &.{},
                .scratch = &.{},
                .candidates = &.{},
                .one_claim = true,
            },
            .arena = &.{},
            .ranges = undefined,
            .range_count = 0,
            .recent = 0,
            .hierarchy = null,
            .ordinary = cpu.kernelsOf(config.levels, false),
            .stack = null,
            .simulates = false,
            .thread = 0,
            .traced = .{},
            .total = .{},
            .counters = .{},
        };
        errdefer tracer.free();
        if (config.cache_count > 0) {
            tracer.hierarchy = cache.Hierarchy.create(geometryOf(config)) catch |problem| switch (problem) {
                error.OutOfMemory => return error.OutOfMemory,
                error.Geometry => return error.Program,
            };
            tracer.stack = try .create();
        }
        tracer.arena = try allocations.reserve(@max(1, header.arena_bytes));
        const executor = &tracer.executor;
        executor.tensors = try allocator.alloc(@TypeOf(executor.tensors[0]), source.tensors.len);
        executor.resolve(weights, constants, tracer.arena, copies);
        executor.work = try allocator.alloc(pool_.Work, source.work.len);
        for (executor.work) |*work| work.* = .{};
        executor.step.draws = try allocator.alloc(executor_.Draw, header.logits_rows_max);
        const groups = try allocator.alloc(memory.KvGroup, source.view.kv_groups.len);
        executor.kv_groups = groups[0..0];
        errdefer if (executor.kv_groups.len == 0) allocator.free(groups);
        for (source.view.kv_groups, 0..) |descriptor, index| {
            groups[index] = try memory.KvGroup.init(allocator, descriptor, header.batch_max, header.context_max);
            executor.kv_groups = groups[0 .. index + 1];
        }
        const scratch = try allocator.alloc([]align(4096) u8, config.thread_count);
        executor.scratch = scratch[0..0];
        errdefer if (executor.scratch.len == 0) allocator.free(scratch);
        for (0..config.thread_count) |index| {
            scratch[index] = try allocations.map(source.scratch[0].len);
            executor.scratch = scratch[0 .. index + 1];
        }
        const candidates = try allocator.alloc([]table.Candidate, config.thread_count);
        executor.candidates = candidates[0..0];
        errdefer if (executor.candidates.len == 0) allocator.free(candidates);
        for (0..config.thread_count) |index| {
            candidates[index] = try allocator.alloc(table.Candidate, source.candidates[0].len);
            executor.candidates = candidates[0 .. index + 1];
        }
        tracer.nameRanges(weights, constants, copies);
        return tracer;
    }

    fn geometryOf(config: p.TracerConfig) cache.Geometry {
        var geometry: cache.Geometry = .{
            .levels = undefined,
            .level_count = config.cache_count,
            .thread_count = config.thread_count,
            .prefetcher = config.prefetcher,
        };
        for (&geometry.levels, config.cache_bytes, config.cache_ways, config.cache_line_bytes, config.cache_shared_by) |*level, bytes, ways, line_bytes, shared_by| {
            level.* = .{ .bytes = bytes, .ways = ways, .line_bytes = line_bytes, .shared_by = shared_by };
        }
        return geometry;
    }

    fn nameRanges(tracer: *Tracer, weights: []u8, constants: []u8, copies: []u8) void {
        const executor = &tracer.executor;
        tracer.name(weights, .weights);
        tracer.name(copies, .weights);
        tracer.name(constants, .constants);
        tracer.name(tracer.arena, .activations);
        for (executor.kv_groups) |*group| {
            tracer.name(group.base, .keys_values);
            tracer.name(std.mem.sliceAsBytes(group.page_table), .input);
        }
        for (executor.scratch) |scratch| tracer.name(scratch, .scratch);
        for (executor.candidates) |list| tracer.name(std.mem.sliceAsBytes(list), .scratch);
        const step = &executor.step;
        tracer.name(std.mem.asBytes(&step.rows), .input);
        tracer.name(std.mem.asBytes(&step.tokens), .input);
        tracer.name(std.mem.asBytes(&step.logits_rows), .input);
        tracer.name(std.mem.sliceAsBytes(step.draws), .input);
        tracer.name(std.mem.asBytes(&step.texts), .input);
        tracer.name(std.mem.asBytes(&step.blocks), .input);
    }

    fn name(tracer: *Tracer, bytes: []const u8, region: Region) void {
        if (bytes.len == 0) return;
        const first = @intFromPtr(bytes.ptr);
        // Each begins on a line: where the small ones lie in theirs changes from one process to the next, and counts shall not.
        const place = placeOf(tracer.range_count);
        tracer.ranges[tracer.range_count] = .{ .begin = first, .bytes = bytes.len, .region = region, .place = place };
        tracer.range_count += 1;
    }

    /// Terabytes apart, and pages apart within a cache's sets, as memory of the system is.
    fn placeOf(range: usize) u64 {
        return (@as(u64, range) + 1) << 40 | @as(u64, range) * 37 << 12;
    }

    pub fn destroy(tracer: *Tracer) void {
        tracer.free();
        allocator.destroy(tracer);
    }

    fn free(tracer: *Tracer) void {
        const executor = &tracer.executor;
        const thread_count = tracer.pool.thread_count;
        for (executor.candidates) |list| allocator.free(list);
        if (executor.candidates.len > 0) allocator.free(executor.candidates.ptr[0..thread_count]);
        for (executor.scratch) |scratch| allocations.unmap(scratch);
        if (executor.scratch.len > 0) allocator.free(executor.scratch.ptr[0..thread_count]);
        for (executor.kv_groups) |*group| group.deinit(allocator);
        if (executor.kv_groups.len > 0) allocator.free(executor.kv_groups.ptr[0..executor.view.kv_groups.len]);
        allocator.free(executor.step.draws);
        allocator.free(executor.work);
        allocator.free(executor.tensors);
        if (tracer.arena.len > 0) allocations.unreserve(tracer.arena);
        if (tracer.hierarchy) |hierarchy| hierarchy.destroy();
        if (tracer.stack) |*stack| stack.destroy();
    }

    /// Sets out a step. False: this program has no such step. What was in the caches stays there, what was in keys and values is
    /// anything: no kernel's accesses depend on it.
    pub fn begin(tracer: *Tracer, shares: []const p.TracedShare, how: p.TracedDraw) bool {
        if (!tracer.fits(shares)) return false;
        const executor = &tracer.executor;
        const header = executor.view.header;
        for (executor.kv_groups) |*group| {
            for (0..header.batch_max) |sequence| group.releaseAll(@intCast(sequence));
            // The same pages for the same step, whatever came before.
            for (group.empty, 0..) |*page, index| page.* = @intCast(group.empty.len - 1 - index);
        }
        const step = &executor.step;
        step.clear();
        step.sequence_count = @intCast(shares.len);
        for (shares, 0..) |share, slot| {
            for (executor.kv_groups) |*group| {
                group.place(share.sequence, share.position);
                group.ensure(share.sequence, share.position + share.rows);
            }
            for (0..share.rows) |index| {
                const row = step.row_count;
                const position = share.position + @as(u32, @intCast(index));
                step.rows[row] = .{ .sequence = share.sequence, .position = position };
                step.tokens[row] = @intCast(@as(u64, position) * token_stride % header.vocabulary);
                step.position_max = @max(step.position_max, position);
                if (index + share.logits_rows >= share.rows) {
                    step.logits_rows[step.logits_count] = row;
                    tracer.setDraw(&step.draws[step.logits_count], how);
                    step.logits_count += 1;
                }
                step.row_count += 1;
            }
            if (header.whole_prompts != 0) step.addBlocks(share.rows);
            const embeds: p.Embeds = @bitCast(@as(u16, @truncate(share.embeds)));
            const end = share.position + share.rows;
            step.addText(share.rows, @intCast(slot), share.position, if (embeds.complete) end else end + 1, embeds);
        }
        step.screened = executor.screens();
        for (executor.work) |*work| work.reset(tracer.pool.thread_count);
        return true;
    }

    fn fits(tracer: *const Tracer, shares: []const p.TracedShare) bool {
        const header = tracer.executor.view.header;
        if (shares.len == 0 or shares.len > header.batch_max) return false;
        var rows: u64 = 0;
        var logits_rows: u64 = 0;
        for (shares, 0..) |share, index| {
            if (share.sequence >= header.batch_max or share.rows == 0 or share.logits_rows > share.rows) return false;
            if (@as(u64, share.position) + share.rows > header.context_max) return false;
            const embeds: p.Embeds = @bitCast(@as(u16, @truncate(share.embeds)));
            if (embeds.wanted and (header.embeddings_tensor == p.none or embeds.pooling > @intFromEnum(table.Pooling.last))) return false;
            if (header.whole_prompts != 0 and share.position > 0) return false;
            for (shares[0..index]) |other| if (other.sequence == share.sequence) return false;
            rows += share.rows;
            logits_rows += share.logits_rows;
        }
        if (rows > @min(header.rows_max, p.step_rows_max) or logits_rows > header.logits_rows_max) return false;
        for (tracer.executor.kv_groups) |*group| {
            var pages: u64 = 0;
            for (shares) |share| pages += group.pagesNeeded(share.position + share.rows, header.rows_max);
            if (pages > group.pages.len) return false;
        }
        return true;
    }

    fn setDraw(_: *const Tracer, draw: *executor_.Draw, how: p.TracedDraw) void {
        const scores = how.scores != 0;
        draw.* = .{
            .sampling = if (scores) null else .{
                .temperature = how.temperature,
                .top_p = how.top_p,
                .min_p = how.min_p,
                .repeat_penalty = how.repeat_penalty,
                .top_k = how.top_k,
                .uniform = 0.5,
            },
            .recent = &.{},
            .target = if (scores) 0 else p.none,
            .top_count = @min(how.top_count, p.top_max),
        };
    }

    pub const Mode = enum(u32) {
        /// Accesses are counted. Of a product, whose pairs of groups read and write alike, the first and the last are run.
        count,
        /// They go through the simulated caches as well, all of them.
        simulate,
        /// The same, but the middle of large products is sampled, and what it did counts as often as it is longer.
        sample,
    };

    /// Runs op number `index` of the step; after the last one, its draws. Ops may be left out, or run again: what they read is then
    /// older, and their accesses are the same. A screen's are not: it must run as a whole.
    pub fn run(tracer: *Tracer, index: u32, mode: Mode) p.Traced {
        const executor = &tracer.executor;
        const ops = executor.view.ops;
        assert(index <= ops.len);
        const told: trace.Sink = .{ .context = tracer, .access = access };
        tracer.traced = .{};
        tracer.total = .{};
        if (tracer.hierarchy) |hierarchy| tracer.counters = hierarchy.snapshot();
        tracer.simulates = mode != .count and tracer.hierarchy != null;
        executor.work[index].reset(tracer.pool.thread_count);
        executor.kernels.get(.matmul).thread_begin();
        if (tracer.simulates) tracer.watchStack(index);
        trace.sink = &told;
        if (index == ops.len) {
            tracer.thread = 0;
            _ = executor.runDraws(0);
            tracer.settle(1);
        } else if (executor.unitCount(&ops[index]) > 0) tracer.runOp(&ops[index], index, mode);
        trace.sink = null;
        executor.kernels.get(.matmul).thread_end();
        return tracer.total;
    }

    /// Runs a claim of op number `index` with the ordinary kernel, to know what it has on its stack. Left out is what goes on
    /// from values that it has written itself, and would do something else the second time: a screen's lists, and draws.
    fn watchStack(tracer: *Tracer, index: u32) void {
        const executor = &tracer.executor;
        const stack = &tracer.stack.?;
        stack.forget();
        if (index == executor.view.ops.len) return;
        const op = &executor.view.ops[index];
        if (op.kind == .screen_pick or op.kind == .screen_product or executor.unitCount(op) == 0) return;
        const traced = executor.kernels;
        executor.kernels = tracer.ordinary;
        if (op.kind == .matmul) executor.one_range = .{ .begin = 0, .end = 1 };
        stack.watch(Claim{ .executor = executor, .op = op, .index = index });
        executor.one_range = null;
        executor.kernels = traced;
        executor.work[index].reset(tracer.pool.thread_count);
    }

    const Claim = struct {
        executor: *executor_.Executor,
        op: *const p.Op,
        index: u32,

        pub fn run(claim: Claim) void {
            _ = claim.executor.runOp(claim.op, claim.index, 0, claim.executor.rowCount(claim.op));
        }
    };

    fn runOp(tracer: *Tracer, op: *const p.Op, index: u32, mode: Mode) void {
        const executor = &tracer.executor;
        const rows = executor.rowCount(op);
        if (op.kind == .matmul and mode != .simulate) return tracer.runParts(op, index, rows, mode);
        defer tracer.settle(1);
        if (op.kind == .gather) tracer.tellGather(op, rows);
        var running = true;
        while (running) {
            running = false;
            for (0..tracer.pool.thread_count) |thread| {
                tracer.thread = @intCast(thread);
                if (executor.runOp(op, index, tracer.thread, rows) > 0) running = true;
            }
        }
    }

    /// A product's pairs of groups are alike but for the last, which may be short. To the caches the first ones are not, which bring
    /// the activations in.
    fn runParts(tracer: *Tracer, op: *const p.Op, index: u32, rows: u32, mode: Mode) void {
        const grains = std.math.divCeil(u32, tracer.executor.unitCount(op), executor_.Executor.grainOf(op)) catch unreachable;
        const head: u32 = if (mode == .count) 0 else 2;
        const sampled: u32 = if (mode == .count) 1 else sampled_grains;
        if (grains <= head + sampled + 1) {
            tracer.runRange(op, index, rows, 0, grains, 1);
            return;
        }
        const middle = grains - head - 1;
        if (head > 0) tracer.runRange(op, index, rows, 0, head, 1);
        tracer.runRange(op, index, rows, head, head + sampled, @as(f64, @floatFromInt(middle)) / @as(f64, @floatFromInt(sampled)));
        tracer.runRange(op, index, rows, grains - 1, grains, 1);
    }

    /// Grains `begin` to `end` of a product, dealt out to the threads; what they did counts `times` times.
    fn runRange(tracer: *Tracer, op: *const p.Op, index: u32, rows: u32, from: u32, end: u32, times: f64) void {
        defer tracer.executor.one_range = null;
        for (from..end) |grain| {
            tracer.thread = @intCast(grain % tracer.pool.thread_count);
            tracer.executor.one_range = .{ .begin = @intCast(grain), .end = @intCast(grain + 1) };
            _ = tracer.executor.runOp(op, index, tracer.thread, rows);
        }
        tracer.settle(times);
    }

    /// Adds what was counted since the last time to the op's sums, `times` times.
    fn settle(tracer: *Tracer, times: f64) void {
        if (tracer.simulates) {
            const now = tracer.hierarchy.?.snapshot();
            tracer.addCounters(now.since(tracer.counters));
            tracer.counters = now;
        }
        inline for (@typeInfo(p.Traced).@"struct".fields) |field| {
            const part = @field(tracer.traced, field.name);
            const sum = &@field(tracer.total, field.name);
            if (field.type == u64) sum.* += multiple(part, times) else for (sum, part) |*to, from| to.* += multiple(from, times);
        }
        tracer.traced = .{};
    }

    fn multiple(amount: u64, times: f64) u64 {
        // Sums of an op stay far below 2^53.
        return @intFromFloat(@round(@as(f64, @floatFromInt(amount)) * times));
    }

    /// The one op that is no kernel's: the executor copies its rows.
    fn tellGather(tracer: *Tracer, op: *const p.Op, rows: u32) void {
        const out = tracer.executor.at(op, 0).?;
        const x = tracer.executor.at(op, 1).?;
        const register_bytes = 16;
        const bytes = x.columns * @sizeOf(f32);
        const operations = std.math.divCeil(u32, bytes, register_bytes) catch unreachable;
        tracer.thread = 0;
        for (tracer.executor.step.logits_rows[0..rows], 0..) |row, slot| {
            access(tracer, @intFromPtr(x.base + row * x.stride), bytes, operations, .load);
            access(tracer, @intFromPtr(out.base + slot * out.stride), bytes, operations, .store);
        }
    }

    fn access(context: *anyopaque, address: usize, bytes: u32, operations: u32, kind: trace.Access) void {
        const tracer: *Tracer = @ptrCast(@alignCast(context));
        const range = tracer.rangeOf(address);
        const region = @intFromEnum(if (range) |known| known.region else Region.other);
        switch (kind) {
            .load => {
                tracer.traced.loads[region] += operations;
                tracer.traced.bytes_read[region] += bytes;
            },
            .store => {
                tracer.traced.stores[region] += operations;
                tracer.traced.bytes_written[region] += bytes;
            },
            .prefetch, .prefetch_far => {},
        }
        if (!tracer.simulates) return;
        // Constants of the code: where in their page they lie does not change.
        const place = if (range) |known| known.place + (address - known.begin) else address & 4095;
        const hierarchy = tracer.hierarchy.?;
        hierarchy.access(tracer.thread, place, bytes, switch (kind) {
            .load => .load,
            .store => .store,
            .prefetch => .prefetch,
            .prefetch_far => .prefetch_far,
        });
        if (tracer.stack.?.next()) |line| hierarchy.keep(tracer.thread, placeOf(ranges_max + tracer.thread) + line);
    }

    fn rangeOf(tracer: *Tracer, address: usize) ?*const Range {
        const last = &tracer.ranges[tracer.recent];
        if (address -% last.begin < last.bytes) return last;
        for (tracer.ranges[0..tracer.range_count], 0..) |*range, index| {
            if (address -% range.begin >= range.bytes) continue;
            tracer.recent = index;
            return range;
        }
        return null;
    }

    fn addCounters(tracer: *Tracer, counters: cache.Counters) void {
        const traced = &tracer.traced;
        for (counters.levels, &traced.accesses, &traced.misses, &traced.prefetched) |level, *accesses, *misses, *prefetched| {
            accesses.* = level.accesses;
            misses.* = level.misses;
            prefetched.* = level.prefetched;
        }
        traced.memory_lines = counters.memory_lines;
        traced.write_backs = counters.write_backs;
    }

    /// Empties the simulated caches.
    pub fn forget(tracer: *Tracer) void {
        if (tracer.hierarchy) |hierarchy| hierarchy.reset();
    }
};
