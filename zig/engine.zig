//! The engine: a thread that loads a program's weights and then serves requests. It forms each step from the sequences that
//! are running, runs it, feeds drawn tokens back and writes records, without a round trip to TypeScript per token. Requests
//! come in through slots, records go out through a ring, and a byte in a pipe tells Bun's event loop to look.
//!
//! One thread submits and drains (Bun's main thread); one thread serves (worker 0 of the pool). Nothing here allocates once
//! a program is loaded.

const std = @import("std");
const assert = std.debug.assert;
const allocations = @import("allocations.zig");
const clock = @import("clock.zig");
const cpu = @import("cpu.zig");
const events = @import("events.zig");
const executor_ = @import("executor.zig");
const footprint = @import("footprint.zig");
const lookup = @import("lookup.zig");
const Mapping = @import("mapping.zig").Mapping;
const memory = @import("memory.zig");
const p = @import("program.zig");
const pool_ = @import("pool.zig");
const prefix = @import("prefix.zig");
const source_ = @import("source.zig");
const system = @import("system.zig");
const format = @import("kernels/format.zig");
const table = @import("kernels/table.zig");

const record_capacity = 1 << 14;
/// Bytes of the source file that a thread reads and packs at a time.
const pack_piece_bytes = 512 * 1024;
/// Tokens whose hidden states show a screen which columns are large, and how far apart they are in the vocabulary: a prime.
const screen_sample_rows = 32;
const screen_sample_stride = 4099;

const SlotState = enum(u32) { free, submitted, waiting, running };

const Slot = struct {
    /// Its place among the engine's.
    index: u32 = 0,
    state: std.atomic.Value(u32) = .init(@intFromEnum(SlotState.free)),
    cancelled: std.atomic.Value(u32) = .init(0),
    request: p.Request = undefined,
    /// Prompt and generated tokens; context_max of them.
    tokens: []u32 = &.{},
    /// Order of submission.
    order: u64 = 0,
    /// The rest belongs to the engine thread.
    sequence: u32 = 0,
    token_count: u32 = 0,
    generated: u32 = 0,
    /// Positions whose keys and values are in the cache.
    computed: u32 = 0,
    /// Rows of the step being run, and where its first one is.
    step_rows: u32 = 0,
    step_first_row: u32 = 0,
    step_first_logits: u32 = 0,
    step_logits: u32 = 0,
    /// Which of the step's shares is its own.
    step_share: u32 = 0,
    /// Guessed tokens in the step; they stand in `tokens` from `token_count` on.
    drafted: u32 = 0,
    pace: lookup.Pace = .{},
    published: prefix.Published = .{},
    /// What is in its pages was computed by other kernels than those that run now: others must not begin with it.
    outdated: bool = false,
    /// 1: the pages of a `hold` or `restore` are TypeScript's until it cancels or, by `committed`, says that it has written them.
    held: std.atomic.Value(u32) = .init(0),
    committed: std.atomic.Value(u32) = .init(0),
    reserved_pages: [p.kv_groups_max]u32 = @splat(0),

    fn load(slot: *const Slot) SlotState {
        return @enumFromInt(slot.state.load(.acquire));
    }

    fn store(slot: *Slot, state: SlotState) void {
        slot.state.store(@intFromEnum(state), .release);
    }
};

pub const Engine = struct {
    allocator: std.mem.Allocator,
    program: []align(4096) u8,
    program_bytes: usize,
    view: p.View,
    config: p.Config,
    /// What holds: the engine thread's.
    settings: p.Settings,
    /// What shall hold from the next step on.
    next_settings: p.Settings,
    next_settings_lock: std.atomic.Value(u32),
    next_settings_version: std.atomic.Value(u32),
    source: ?source_.Source,
    /// The weights region: the mapping's bytes, else memory of the engine's own. Nothing writes to it once it is loaded, and
    /// nothing can write to a mapping.
    weights: []u8,
    mapping: ?*Mapping,
    arena: []align(4096) u8,
    constants: []align(4096) u8,
    copies: []align(4096) u8,
    token_memory: []align(4096) u8,
    executor: executor_.Executor,
    pool: pool_.Pool,
    /// Threads that have memory of their own: as many as ever computed, or shall from the next step on. TypeScript's thread adds to it.
    provided: u32,
    calibration_start: clock.Calibration.Start,
    /// Made when the first events are drained: making it earlier would delay the first token by what its exactness takes.
    time: ?clock.Clock,
    thread: std.Thread,

    stop_flag: std.atomic.Value(u32),
    /// The engine thread has done all it will do; joining it does not wait.
    ended: std.atomic.Value(u32),
    doorbell: std.atomic.Value(u32) align(64),
    packed_bytes: std.atomic.Value(u64),
    load_failure: std.atomic.Value(u32),

    slots: [p.slots_max]Slot,
    order_next: u64,
    sequence_used: [p.sequences_max]bool,

    records: []p.Record,
    /// Written, but not all of them told yet: those of a step are told together, once its events are there.
    records_next: u64,
    records_written: std.atomic.Value(u64) align(64),
    records_read: std.atomic.Value(u64) align(64),
    notified: std.atomic.Value(u32) align(64),
    /// Bumped by TypeScript when it has read records or dumped logits.
    reader_bell: std.atomic.Value(u32) align(64),
    logits_read: std.atomic.Value(u32),
    /// The tensor that the pool is packing.
    load_tensor: u32,
    /// Each group's empty pages when the last records were told, and in the upper half its kept ones: what is neither a sequence holds.
    page_counts: [p.kv_groups_max]std.atomic.Value(u64),
    /// The system's ids of the threads: each writes its own when it begins, and 0 when it ends.
    thread_ids: [pool_.threads_max]std.atomic.Value(u32),
    /// CPU time of threads that have ended.
    ended_cpu_ns: std.atomic.Value(u64),
    /// Where the engine thread might run before it was pinned.
    cpus: system.Cpus,
    /// A thread could not be pinned.
    pin_failed: std.atomic.Value(u32),
    /// What keys and values may take in memory, and the engine thread's copy of it.
    kv_bytes_max: std.atomic.Value(u64),
    kv_budget: memory.Budget,

    pub const Error = error{ OutOfMemory, Program, Open, Threads };

    /// Copies the program, sets all memory aside and starts the engine thread, which begins to load: from the mapping, which
    /// is the engine's from then on, else from the files (`Source.open`).
    pub fn create(program_bytes: []const u8, config: p.Config, settings: p.Settings, source_paths: ?[*:0]const u8, mapping: ?*Mapping) Error!*Engine {
        const allocator = allocations.allocator;
        if (!validSettings(settings)) return error.Program;
        if (!std.math.isPowerOfTwo(config.event_capacity) or config.event_capacity > 1 << 22) return error.Program;

        const engine = try allocator.create(Engine);
        errdefer allocator.destroy(engine);
        const copy = try allocations.map(@max(1, program_bytes.len));
        errdefer allocations.unmap(copy);
        @memcpy(copy[0..program_bytes.len], program_bytes);
        const view = try p.View.init(copy[0..program_bytes.len]);
        const header = view.header;

        engine.* = .{
            .allocator = allocator,
            .program = copy,
            .program_bytes = program_bytes.len,
            .view = view,
            .config = config,
            .settings = settings,
            .next_settings = settings,
            .next_settings_lock = .init(0),
            .next_settings_version = .init(settings.version),
            .source = null,
            .weights = undefined,
            .mapping = mapping,
            .arena = undefined,
            .constants = undefined,
            .copies = undefined,
            .token_memory = undefined,
            .executor = undefined,
            .pool = .{ .thread_count = settings.thread_count },
            .provided = 0,
            .calibration_start = clock.Calibration.begin(),
            .time = null,
            .thread = undefined,
            .stop_flag = .init(0),
            .ended = .init(0),
            .doorbell = .init(0),
            .packed_bytes = .init(0),
            .load_failure = .init(0),
            .slots = @splat(.{}),
            .order_next = 0,
            .sequence_used = @splat(false),
            .records = undefined,
            .records_next = 0,
            .records_written = .init(0),
            .records_read = .init(0),
            .notified = .init(0),
            .reader_bell = .init(0),
            .logits_read = .init(0),
            .load_tensor = 0,
            .page_counts = @splat(.init(0)),
            .thread_ids = @splat(.init(0)),
            .ended_cpu_ns = .init(0),
            .cpus = .{},
            .pin_failed = .init(0),
            .kv_bytes_max = .init(std.math.maxInt(u64)),
            .kv_budget = .{},
        };

        if (source_paths) |paths| engine.source = try source_.Source.open(paths);
        errdefer if (engine.source) |source| source.close();
        if (mapping) |mapped| {
            if (mapped.bytes().len != header.weights_bytes) return error.Program;
            engine.weights = @constCast(mapped.bytes());
        } else engine.weights = try allocations.map(@max(1, header.weights_bytes));
        errdefer if (mapping == null) allocations.unmap(@alignCast(engine.weights));
        // Not in huge pages: a step touches the first rows of each buffer, which is little of it.
        engine.arena = try allocations.reserve(@max(1, header.arena_bytes));
        errdefer allocations.unreserve(engine.arena);
        engine.constants = try allocations.map(@max(1, header.constants_bytes));
        errdefer allocations.unmap(engine.constants);
        @memcpy(engine.constants[0..view.constants.len], view.constants);
        engine.copies = try allocations.map(@max(1, header.copies_bytes));
        errdefer allocations.unmap(engine.copies);
        engine.token_memory = try allocations.reserve(@as(u64, p.slots_max) * header.context_max * 4);
        errdefer allocations.unreserve(engine.token_memory);
        const tokens: [*]u32 = @ptrCast(engine.token_memory.ptr);
        for (&engine.slots, 0..) |*slot, index| {
            slot.index = @intCast(index);
            slot.tokens = (tokens + index * header.context_max)[0..header.context_max];
        }

        engine.records = try allocations.reserveItems(p.Record, record_capacity);
        errdefer allocations.unreserveItems(engine.records);
        try engine.initExecutor();
        errdefer engine.deinitExecutor();
        engine.thread = std.Thread.spawn(.{ .stack_size = 1 << 20 }, serve, .{engine}) catch return error.Threads;
        return engine;
    }

    fn initExecutor(engine: *Engine) Error!void {
        const allocator = engine.allocator;
        const header = engine.view.header;
        const executor = &engine.executor;
        executor.* = .{
            .view = engine.view,
            .kernels = cpu.kernelsOf(engine.settings.levels, false),
            .tuning = &engine.settings.tuning,
            .pool = &engine.pool,
            .tensors = &.{},
            .kv_groups = &.{},
            .work = &.{},
            .scratch = &.{},
            .candidates = &.{},
        };
        errdefer engine.deinitExecutor();
        executor.recorded.enabled.store(engine.config.events_enabled, .monotonic);
        executor.tensors = try allocator.alloc(@TypeOf(executor.tensors[0]), engine.view.tensors.len);
        executor.resolve(engine.weights, engine.constants, engine.arena, engine.copies);
        executor.work = try allocator.alloc(pool_.Work, engine.view.ops.len + 1);
        for (executor.work) |*work| work.* = .{};

        executor.step.draws = try allocator.alloc(executor_.Draw, header.logits_rows_max);

        const kv_groups = try allocator.alloc(memory.KvGroup, engine.view.kv_groups.len);
        executor.kv_groups = kv_groups[0..0];
        errdefer if (executor.kv_groups.len == 0) allocator.free(kv_groups);
        for (engine.view.kv_groups, 0..) |descriptor, index| {
            kv_groups[index] = try memory.KvGroup.init(allocator, descriptor, header.batch_max, header.context_max);
            kv_groups[index].budget = &engine.kv_budget;
            executor.kv_groups = kv_groups[0 .. index + 1];
        }
        engine.kv_budget.groups = kv_groups;

        executor.scratch = try allocator.alloc([]align(4096) u8, pool_.threads_max);
        @memset(executor.scratch, &.{});
        executor.candidates = try allocator.alloc([]table.Candidate, pool_.threads_max);
        @memset(executor.candidates, &.{});
        executor.recorded.rings = try allocator.alloc(events.Ring, pool_.threads_max);
        try engine.provide(engine.settings.thread_count);
        engine.limitCpu(engine.settings.cpu_percent);
    }

    /// Sets memory aside for `thread_count` threads, what each has to itself. It stays when there are fewer of them: what they
    /// have written is drained later, and there may be more again.
    fn provide(engine: *Engine, thread_count: u32) error{OutOfMemory}!void {
        const header = engine.view.header;
        const executor = &engine.executor;
        while (engine.provided < thread_count) : (engine.provided += 1) {
            const scratch = try allocations.map(scratchBytes(header));
            errdefer allocations.unmap(scratch);
            const candidates = try allocations.reserveItems(table.Candidate, candidateCount(header));
            errdefer allocations.unreserveItems(candidates);
            executor.recorded.rings[engine.provided] = events.Ring.init(try allocations.reserveItems(events.Slot, engine.config.event_capacity), @intCast(engine.provided));
            executor.scratch[engine.provided] = scratch;
            executor.candidates[engine.provided] = candidates;
        }
    }

    /// A thread's scratch: for kernels, and for reading, converting and packing weights.
    fn scratchBytes(header: *const p.Header) u64 {
        return @max(
            table.scratchBytes(header.columns_max, header.head_width_max, header.heads_per_kv_head_max),
            3 * @max(pack_piece_bytes, table.group_rows * @as(u64, header.columns_max) * @sizeOf(f32)),
        );
    }

    /// Candidates that a thread has room for.
    fn candidateCount(header: *const p.Header) u32 {
        return std.mem.alignForward(u32, if (header.logits_tensor == p.none) 0 else header.vocabulary, table.group_rows);
    }

    /// What an engine takes for a program, as `create` will take it.
    pub fn planned(view: p.View, program_bytes: u64, thread_count: u32, event_capacity: u32) footprint.Amounts {
        const header = view.header;
        var taken: std.EnumArray(footprint.Part, u64) = .initFill(0);
        taken.set(.weights, header.weights_bytes);
        taken.set(.constants, header.constants_bytes);
        taken.set(.copies, header.copies_bytes);
        taken.set(.program, program_bytes);
        taken.set(.activations, header.arena_bytes);
        taken.set(.tokens, @as(u64, p.slots_max) * header.context_max * @sizeOf(u32));
        for (view.kv_groups) |descriptor| {
            const sizes = memory.KvGroup.sizes(descriptor, header.batch_max, header.context_max);
            taken.getPtr(.keys_and_values).* += sizes.base;
            taken.getPtr(.pages).* += sizes.pages;
            taken.getPtr(.page_lists).* += sizes.lists + @sizeOf(memory.KvGroup);
        }
        taken.set(.scratch, thread_count * std.mem.alignForward(u64, scratchBytes(header), 4096));
        taken.set(.candidates, @as(u64, thread_count) * candidateCount(header) * @sizeOf(table.Candidate));
        taken.set(.events, @as(u64, thread_count) * event_capacity * @sizeOf(events.Slot));
        taken.set(.records, record_capacity * @sizeOf(p.Record));
        taken.set(.engine, @sizeOf(Engine) + view.tensors.len * @sizeOf(executor_.Resolved) +
            (view.ops.len + 1) * @sizeOf(pool_.Work) + @as(u64, header.logits_rows_max) * @sizeOf(executor_.Draw));
        return taken.values;
    }

    /// What this engine has taken, and how much of it is in memory.
    pub fn measure(engine: *const Engine) footprint.Footprint {
        const executor = &engine.executor;
        const header = engine.view.header;
        var sum: footprint.Footprint = .{};
        sum.add(.weights, engine.weights[0..@intCast(header.weights_bytes)]);
        sum.add(.constants, engine.constants[0..@intCast(header.constants_bytes)]);
        sum.add(.copies, engine.copies[0..@intCast(header.copies_bytes)]);
        sum.add(.program, engine.program[0..engine.program_bytes]);
        sum.add(.activations, engine.arena[0..@intCast(header.arena_bytes)]);
        sum.add(.tokens, engine.token_memory);
        for (executor.kv_groups) |*group| {
            sum.add(.keys_and_values, group.base);
            sum.add(.pages, std.mem.sliceAsBytes(group.pages));
            for ([_][]const u32{ group.empty, group.buckets, group.page_table }) |list| sum.add(.page_lists, std.mem.sliceAsBytes(list));
        }
        sum.add(.page_lists, std.mem.sliceAsBytes(executor.kv_groups));
        for (0..engine.provided) |thread| {
            sum.add(.scratch, executor.scratch[thread]);
            sum.add(.candidates, std.mem.sliceAsBytes(executor.candidates[thread]));
            sum.add(.events, std.mem.sliceAsBytes(executor.recorded.rings[thread].slots));
        }
        sum.add(.records, std.mem.sliceAsBytes(engine.records));
        sum.add(.engine, std.mem.asBytes(engine));
        sum.add(.engine, std.mem.sliceAsBytes(executor.tensors));
        sum.add(.engine, std.mem.sliceAsBytes(executor.work));
        sum.add(.engine, std.mem.sliceAsBytes(executor.step.draws));
        return sum;
    }

    fn deinitExecutor(engine: *Engine) void {
        const allocator = engine.allocator;
        const executor = &engine.executor;
        for (0..engine.provided) |thread| {
            allocations.unreserveItems(executor.recorded.rings[thread].slots);
            allocations.unreserveItems(executor.candidates[thread]);
            allocations.unmap(executor.scratch[thread]);
        }
        allocator.free(executor.recorded.rings);
        allocator.free(executor.candidates);
        allocator.free(executor.scratch);
        for (executor.kv_groups) |*group| group.deinit(allocator);
        if (executor.kv_groups.len > 0) allocator.free(executor.kv_groups.ptr[0..engine.view.kv_groups.len]);
        allocator.free(executor.step.draws);
        allocator.free(executor.work);
        allocator.free(executor.tensors);
    }

    /// Asks the engine thread to end after the step it is in. It rings when it has.
    pub fn stop(engine: *Engine) void {
        engine.stop_flag.store(1, .release);
        engine.executor.throttle.limit(0);
        engine.ring();
        _ = engine.reader_bell.fetchAdd(1, .release);
        system.wakeAll(&engine.reader_bell);
    }

    /// Ends the thread and frees everything.
    pub fn destroy(engine: *Engine) void {
        engine.stop();
        engine.thread.join();
        engine.deinitExecutor();
        if (engine.source) |source| source.close();
        allocations.unreserveItems(engine.records);
        allocations.unreserve(engine.token_memory);
        allocations.unmap(engine.copies);
        allocations.unmap(engine.constants);
        allocations.unreserve(engine.arena);
        if (engine.mapping) |mapping| mapping.close() else allocations.unmap(@alignCast(engine.weights));
        allocations.unmap(engine.program);
        engine.allocator.destroy(engine);
    }

    fn validSettings(settings: p.Settings) bool {
        if (settings.thread_count < 1 or settings.thread_count > pool_.threads_max) return false;
        return cpu.runs(settings.levels) and settings.cpu_percent <= 100 * pool_.threads_max and settings.tuning.valid();
    }

    // What TypeScript's thread calls.

    /// What shall hold from the next step on; a limit of CPU time holds at once. `out_of_memory`: there is none for so many threads.
    pub fn configure(engine: *Engine, settings: p.Settings) p.Failure {
        if (!validSettings(settings)) return .program;
        engine.provide(settings.thread_count) catch return .out_of_memory;
        engine.limitCpu(settings.cpu_percent);
        engine.lockSettings();
        engine.next_settings = settings;
        engine.next_settings_version.store(settings.version, .release);
        engine.unlockSettings();
        engine.ring();
        return .none;
    }

    /// No affair of the engine thread's: it holds whether or not the settings that it came with do.
    fn limitCpu(engine: *Engine, cpu_percent: u32) void {
        // More than all threads can use that there ever were limits nothing.
        const percent = if (cpu_percent < 100 * engine.provided) cpu_percent else 0;
        engine.executor.throttle.limit(percent);
        engine.pool.limit(percent != 0);
    }

    /// Keys and values may take `bytes` of memory from the next request on that begins. One that could not be served within that even
    /// alone ends with `no_memory`; what runs goes on.
    pub fn limitKv(engine: *Engine, bytes: u64) void {
        if (engine.kv_bytes_max.swap(bytes, .release) != bytes) engine.ring();
    }

    /// What the engine uses now. Weights count whole, also where the system has taken some of a mapping's pages back.
    pub fn usage(engine: *const Engine) p.Usage {
        const executor = &engine.executor;
        var cpu_ns = engine.ended_cpu_ns.load(.monotonic);
        for (&engine.thread_ids, &executor.cpu_ns) |*id, *told| cpu_ns += system.cpuNsOf(id.load(.acquire)) orelse told.load(.monotonic);
        var kv_bytes: u64 = 0;
        for (executor.kv_groups) |*group| kv_bytes += system.residentBytes(group.touchedBytes());
        const whole = engine.weights.len + engine.program.len + engine.constants.len + engine.copies.len + engine.records.len * @sizeOf(p.Record);
        const thread_bytes = executor.scratch[0].len + executor.candidates[0].len * @sizeOf(table.Candidate);
        var event_bytes: u64 = 0;
        var resident_bytes = system.residentBytes(engine.arena) + system.residentBytes(engine.token_memory);
        for (executor.recorded.rings[0..engine.provided], 0..) |event_ring, thread| {
            resident_bytes += system.residentBytes(executor.scratch[thread]);
            resident_bytes += system.residentBytes(std.mem.sliceAsBytes(executor.candidates[thread]));
            event_bytes += system.residentBytes(std.mem.sliceAsBytes(event_ring.slots));
        }
        return .{
            .cpu_ns = cpu_ns,
            .resident_bytes = whole + resident_bytes + event_bytes,
            // Events are only there while somebody profiles.
            .planned_bytes = whole + engine.arena.len + engine.token_memory.len + engine.provided * thread_bytes + event_bytes,
            .kv_bytes = kv_bytes,
            .thread_bytes = thread_bytes,
        };
    }

    fn lockSettings(engine: *Engine) void {
        while (engine.next_settings_lock.swap(1, .acquire) != 0) std.Thread.yield() catch {};
    }

    fn unlockSettings(engine: *Engine) void {
        engine.next_settings_lock.store(0, .release);
    }

    fn ring(engine: *Engine) void {
        _ = engine.doorbell.fetchAdd(1, .release);
        system.wakeAll(&engine.doorbell);
    }

    /// Hands a request to a free slot. False: every slot is taken, or the request is not one this program can serve.
    pub fn submit(engine: *Engine, slot_index: u32, request: *const p.Request, tokens: []const u32) bool {
        const header = engine.view.header;
        if (slot_index >= p.slots_max) return false;
        const slot = &engine.slots[slot_index];
        if (slot.load() != .free) return false;
        const total = @as(u64, tokens.len) + request.generate_max;
        if (tokens.len == 0 or total > header.context_max) return false;
        if (request.kind == .generate and request.generate_max == 0) return false;
        if (request.stop_token_count > p.stop_tokens_max or request.top_count > p.top_max) return false;
        if (request.draft_max > p.step_rows_max) return false;
        if (!engine.serves(request)) return false;
        for (tokens) |token| if (token >= header.vocabulary) return false;
        if (!engine.everFits(@intCast(total))) return false;
        slot.request = request.*;
        @memcpy(slot.tokens[0..tokens.len], tokens);
        slot.token_count = @intCast(tokens.len);
        slot.generated = 0;
        slot.computed = 0;
        slot.drafted = 0;
        slot.pace = .{};
        slot.published = .{};
        slot.outdated = false;
        slot.held.store(0, .monotonic);
        slot.committed.store(0, .monotonic);
        slot.order = engine.order_next;
        engine.order_next += 1;
        slot.cancelled.store(0, .monotonic);
        slot.store(.submitted);
        engine.ring();
        return true;
    }

    /// Whether the program has what the request asks for.
    fn serves(engine: *const Engine, request: *const p.Request) bool {
        const header = engine.view.header;
        if (@intFromEnum(request.kind) > @intFromEnum(p.RequestKind.embed)) return false;
        return switch (request.kind) {
            .generate, .score => header.logits_tensor != p.none,
            .hold, .restore => header.kv_layer_count > 0,
            .embed => header.embeddings_tensor != p.none and request.generate_max == 0 and request.pooling <= @intFromEnum(table.Pooling.last) and request.normalise <= 1,
        };
    }

    fn everFits(engine: *const Engine, positions: u32) bool {
        for (engine.executor.kv_groups) |*group| {
            if (group.pagesNeeded(positions, engine.view.header.rows_max) > group.pages.len) return false;
        }
        return true;
    }

    pub fn cancel(engine: *Engine, slot_index: u32, request: u32) void {
        if (slot_index >= p.slots_max) return;
        const slot = &engine.slots[slot_index];
        if (slot.load() == .free or slot.request.id != request) return;
        slot.cancelled.store(1, .release);
        engine.ring();
    }

    /// Copies page number `block` of a held request's sequence to `bytes`, or from there. False: there is no such page.
    pub fn copyPage(engine: *Engine, slot_index: u32, request: u32, group_index: u32, block: u32, bytes: []u8, into: bool) bool {
        const slot = engine.heldSlot(slot_index, request) orelse return false;
        if (group_index >= engine.executor.kv_groups.len or (into and slot.request.kind != .restore)) return false;
        const page = engine.executor.kv_groups[group_index].heldPage(slot.sequence, block) orelse return false;
        if (page.len != bytes.len) return false;
        if (into) @memcpy(page, bytes) else @memcpy(bytes, page);
        return true;
    }

    /// Tells that all pages of a `restore` are written.
    pub fn commit(engine: *Engine, slot_index: u32, request: u32) bool {
        const slot = engine.heldSlot(slot_index, request) orelse return false;
        if (slot.request.kind != .restore) return false;
        slot.committed.store(1, .release);
        engine.ring();
        return true;
    }

    /// The slot of a request whose pages are held and which was neither cancelled nor committed.
    fn heldSlot(engine: *Engine, slot_index: u32, request: u32) ?*Slot {
        if (slot_index >= p.slots_max) return null;
        const slot = &engine.slots[slot_index];
        if (slot.held.load(.acquire) == 0 or slot.request.id != request) return null;
        return if (slot.cancelled.load(.monotonic) == 0 and slot.committed.load(.monotonic) == 0) slot else null;
    }

    pub fn drainRecords(engine: *Engine, out: []p.Record) usize {
        engine.notified.store(0, .seq_cst);
        const from = engine.records_read.raw;
        const available = engine.records_written.load(.seq_cst) - from;
        const count: usize = @intCast(@min(available, out.len));
        for (out[0..count], 0..) |*record, index| record.* = engine.records[@intCast((from + index) % record_capacity)];
        engine.records_read.store(from + count, .release);
        if (count > 0) {
            _ = engine.reader_bell.fetchAdd(1, .release);
            system.wakeAll(&engine.reader_bell);
        }
        return count;
    }

    pub fn drainEvents(engine: *Engine, thread: u32, out: []p.Event, detail: u32) events.Ring.Drained {
        if (thread >= engine.provided or engine.executor.recorded.rings[thread].waiting() == 0) return .{ .count = 0, .more = false };
        if (engine.time == null) engine.time = clock.Clock.init(engine.calibration_start);
        const time = &engine.time.?;
        time.follow();
        return engine.executor.recorded.rings[thread].drain(out, time, detail);
    }

    /// Whether steps that begin from now on write events. Those that still wait afterwards are nobody's: their memory is given back.
    pub fn setEvents(engine: *Engine, enabled: bool) void {
        if (enabled) {
            for (engine.executor.recorded.rings[0..engine.provided]) |*event_ring| event_ring.provide();
        }
        engine.executor.enableEvents(enabled);
        if (enabled) return;
        for (engine.executor.recorded.rings[0..engine.provided]) |*event_ring| event_ring.forget();
    }

    pub fn writesEvents(engine: *const Engine) bool {
        return engine.executor.recorded.enabled.load(.monotonic) != 0;
    }

    /// Slots that wait in the ring that is fullest; an event takes one or three. There is memory for those that come next then.
    pub fn eventsWaiting(engine: *Engine) u64 {
        var most: u64 = 0;
        for (engine.executor.recorded.rings[0..engine.provided]) |*event_ring| {
            event_ring.provide();
            most = @max(most, event_ring.waiting());
        }
        return most;
    }

    pub fn eventsLost(engine: *const Engine) u64 {
        var lost: u64 = 0;
        for (engine.executor.recorded.rings[0..engine.provided]) |*event_ring| lost += event_ring.lost.load(.monotonic);
        return lost;
    }

    /// How a group's pages stood when the records drained last were told: in all, empty, kept, and ever taken. False: no such group.
    pub fn readPages(engine: *const Engine, group_index: u32, out: *[4]u32) bool {
        const groups = engine.executor.kv_groups;
        if (group_index >= groups.len) return false;
        const group = &groups[group_index];
        const counts = engine.page_counts[group_index].load(.monotonic);
        out.* = .{ @intCast(group.pages.len), @truncate(counts), @intCast(counts >> 32), group.touched.load(.monotonic) };
        return true;
    }

    /// Copies the vector of the request that the slot had last. It stays until the slot is handed another.
    pub fn readEmbedding(engine: *Engine, slot_index: u32, out: []f32) bool {
        if (slot_index >= p.slots_max or engine.view.header.embeddings_tensor == p.none) return false;
        const values = engine.executor.embedding(slot_index);
        if (engine.slots[slot_index].load() != .free or out.len != values.len) return false;
        @memcpy(out, values);
        return true;
    }

    /// Copies the logits that a `logits` record announced and lets the engine go on.
    pub fn readLogits(engine: *Engine, first: u32, out: []f32, last: bool) bool {
        const vocabulary = engine.view.header.vocabulary;
        const count = out.len / vocabulary;
        if (first + count > engine.executor.step.logits_count) return false;
        for (0..count) |index| {
            @memcpy(out[index * vocabulary ..][0..vocabulary], engine.executor.logits(first + @as(u32, @intCast(index))));
        }
        if (last) {
            engine.logits_read.store(1, .release);
            _ = engine.reader_bell.fetchAdd(1, .release);
            system.wakeAll(&engine.reader_bell);
        }
        return true;
    }

    // What the engine thread does.

    fn stopping(engine: *const Engine) bool {
        return engine.stop_flag.load(.acquire) != 0;
    }

    fn serve(engine: *Engine) void {
        engine.cpus = .ofThread();
        engine.threadBegin(0);
        engine.pool.context = &engine.executor;
        engine.pool.thread_begin = poolThreadBegin;
        engine.pool.thread_end = poolThreadEnd;
        const failure = engine.prepare();
        // How long threads spin need not be exact.
        const ns_per_tick = clock.Calibration.soFar(engine.calibration_start).ns_per_tick;
        engine.pool.spin_ticks = @intFromFloat(@as(f64, @floatFromInt(engine.config.spin_us)) * 1000.0 / ns_per_tick);
        if (failure == .none) {
            engine.write(.{ .kind = .loaded });
            engine.notify();
            engine.loop();
        } else {
            engine.write(.{ .kind = .load_failed, .value = @intFromEnum(failure), .token = engine.load_tensor });
            engine.notify();
        }
        engine.pool.stop();
        engine.threadEnd(0);
        engine.ended.store(1, .release);
        system.ring(engine.config.notify_fd);
    }

    fn threadBegin(engine: *Engine, thread: u32) void {
        engine.thread_ids[thread].store(system.threadId(), .monotonic);
        // A worker begins where the engine thread may run.
        if (engine.settings.affinity[thread] != p.none or engine.settings.affinity[0] != p.none) engine.pin(thread);
        // The events of a thread of the same number that has ended are not followed by this one's.
        engine.executor.skip(thread);
    }

    fn threadEnd(engine: *Engine, thread: u32) void {
        engine.executor.endThread(thread);
        engine.thread_ids[thread].store(0, .release);
        engine.executor.cpu_ns[thread].store(0, .monotonic);
        _ = engine.ended_cpu_ns.fetchAdd(system.threadCpuNs(), .monotonic);
    }

    /// Gives the calling thread the CPU that it is to have, or all that the engine thread began with.
    fn pin(engine: *Engine, thread: u32) void {
        const core = engine.settings.affinity[thread];
        const done = if (core != p.none) system.pinThread(core) else engine.cpus.give();
        if (!done) engine.pin_failed.store(1, .monotonic);
    }

    fn ofExecutor(context: *anyopaque) *Engine {
        const executor: *executor_.Executor = @ptrCast(@alignCast(context));
        return @alignCast(@fieldParentPtr("executor", executor));
    }

    fn poolThreadBegin(context: *anyopaque, thread: u32) void {
        ofExecutor(context).threadBegin(thread);
    }

    fn poolThreadEnd(context: *anyopaque, thread: u32) void {
        ofExecutor(context).threadEnd(thread);
    }

    fn pinJob(context: *anyopaque, thread: u32) void {
        ofExecutor(context).pin(thread);
    }

    /// Starts the workers and brings the weights in.
    fn prepare(engine: *Engine) p.Failure {
        engine.pool.start() catch return .threads;
        if (engine.mapping) |mapping| mapping.awaitPopulated();
        for (engine.view.tensors, 0..) |tensor, index| {
            if (tensor.source_bytes == 0) continue;
            if (engine.source == null) return .open;
            if (engine.stopping()) return .none;
            engine.load_tensor = @intCast(index);
            engine.executor.work[0].reset(engine.pool.thread_count);
            engine.pool.run(packThread);
            const failure: p.Failure = @enumFromInt(engine.load_failure.load(.acquire));
            if (failure != .none) return failure;
        }
        if (engine.executor.hasScreen() and !engine.stopping()) engine.prepareScreen();
        // Whoever asks for the threads of a loaded engine shall find them all.
        engine.pool.awaitBegun();
        return .none;
    }

    /// Makes the copy that screens the head. Which of its columns are fine is learned from a step of tokens that stand for any:
    /// the columns where hidden states are large are the model's, not the text's.
    fn prepareScreen(engine: *Engine) void {
        const executor = &engine.executor;
        const header = engine.view.header;
        const op = for (engine.view.ops) |*op| {
            if (op.kind == .screen) break op;
        } else return;
        const step = &executor.step;
        const rows = @min(screen_sample_rows, header.logits_rows_max, header.context_max);
        step.row_count = rows;
        step.logits_count = rows;
        step.position_max = rows - 1;
        for (0..rows) |index| {
            step.rows[index] = .{ .sequence = 0, .position = @intCast(index) };
            step.tokens[index] = @intCast(index * screen_sample_stride % header.vocabulary);
            step.logits_rows[index] = @intCast(index);
            step.draws[index] = .{ .sampling = null, .recent = &.{}, .target = p.none, .top_count = 0 };
        }
        for (executor.kv_groups) |*group| group.ensure(0, rows);
        executor.run();
        for (executor.kv_groups) |*group| group.releaseAll(0);
        executor.chooseFineColumns(op, rows);
        executor.work[0].reset(engine.pool.thread_count);
        engine.pool.run(copyThread);
    }

    fn copyThread(context: *anyopaque, thread: u32) void {
        ofExecutor(context).executor.buildScreen(thread);
    }

    /// Reads, converts and packs pieces of the tensor being loaded until none is left.
    fn packThread(context: *anyopaque, thread: u32) void {
        const engine = ofExecutor(context);
        const tensor = engine.view.tensors[engine.load_tensor];
        const resolved = engine.executor.tensors[engine.load_tensor];
        const row_bytes: u64 = tensor.source_bytes / tensor.rows;
        const group_bytes = row_bytes * table.group_rows;
        const groups: u32 = std.math.divCeil(u32, tensor.rows, table.group_rows) catch unreachable;
        const piece_groups: u32 = @intCast(@max(1, pack_piece_bytes / group_bytes));
        const work = &engine.executor.work[0];
        // What is read, its values and what they are converted to are not larger than float32.
        const part_bytes = engine.executor.scratch[thread].len / 3 & ~@as(usize, 63);
        const buffer = engine.executor.scratch[thread][0..part_bytes];
        while (engine.load_failure.load(.monotonic) == 0 and !engine.stopping()) {
            _ = engine.executor.throttle.pass(thread);
            const range = work.claim(thread, engine.pool.thread_count, piece_groups, groups) orelse return;
            const row_first = range.begin * table.group_rows;
            const row_count = @min(range.end * table.group_rows, tensor.rows) - row_first;
            const bytes = row_count * row_bytes;
            const piece = if (bytes <= buffer.len) buffer[0..@intCast(bytes)] else {
                engine.load_failure.store(@intFromEnum(p.Failure.program), .release);
                return;
            };
            engine.source.?.readAll(piece, tensor.source_offset + row_first * row_bytes) catch |problem| {
                const failure: p.Failure = switch (problem) {
                    error.Read => .read,
                    error.CutShort => .cut_short,
                };
                engine.load_failure.store(@intFromEnum(failure), .release);
                return;
            };
            var source: [*]const u8 = piece.ptr;
            if (tensor.source_format != tensor.format) {
                const conversion: table.Convert = .{
                    .source_format = @enumFromInt(tensor.source_format),
                    .target_format = @enumFromInt(tensor.format),
                    .count = row_count * tensor.columns,
                    .source = piece.ptr,
                    .target = engine.executor.scratch[thread][part_bytes..].ptr,
                    .values = @ptrCast(@alignCast(engine.executor.scratch[thread][2 * part_bytes ..].ptr)),
                };
                const failure: p.Failure = switch (engine.executor.kernels.get(.other).convert(&conversion)) {
                    .done => .none,
                    .not_finite => .not_finite,
                    .out_of_range => .out_of_range,
                };
                if (failure != .none) {
                    engine.load_failure.store(@intFromEnum(failure), .release);
                    return;
                }
                source = conversion.target;
            }
            const group_sizes = groupSizes(tensor);
            const arguments: table.Pack = .{
                .format = @enumFromInt(tensor.format),
                .rows = row_count,
                .columns = tensor.columns,
                .source = source,
                .weight = resolved.base + group_sizes.weight * range.begin,
                .scales = resolved.scales + group_sizes.scales * range.begin,
            };
            engine.executor.kernels.get(.other).pack(&arguments, 0, std.math.divCeil(u32, row_count, table.group_rows) catch unreachable);
            _ = engine.packed_bytes.fetchAdd(bytes, .monotonic);
        }
    }

    /// Packed bytes of one group of rows: every group of a tensor takes equally many.
    fn groupSizes(tensor: p.Tensor) struct { weight: usize, scales: usize } {
        switch (@as(table.Format, @enumFromInt(tensor.format))) {
            inline else => |known| return .{
                .weight = format.groupBytes(known, tensor.columns),
                .scales = format.groupScaleBytes(known, tensor.columns),
            },
        }
    }

    fn loop(engine: *Engine) void {
        while (!engine.stopping()) {
            const bell = engine.doorbell.load(.acquire);
            const executor = &engine.executor;
            if (!executor.step.traced) executor.skip(0);
            const traced = executor.recorded.enabled.load(.acquire) != 0;
            executor.step.traced = traced;
            // A step begins where the one before ended: telling that one's records is part of it.
            const begin = executor.eventsUntil(0);
            engine.takeSettings();
            engine.admit();
            if (!engine.formStep()) {
                engine.notify();
                if (engine.stopping()) break;
                system.wait(&engine.doorbell, bell, null);
                if (traced) executor.event(0, .idle, p.event_no_op, 0, 0);
                continue;
            }
            executor.run();
            engine.finishStep();
            if (traced) engine.stepEvents(begin);
            engine.notify();
        }
    }

    /// Between two steps: no other thread computes. Settings that are refused change nothing.
    fn takeSettings(engine: *Engine) void {
        if (engine.next_settings_version.load(.acquire) == engine.settings.version) return;
        const before = engine.settings;
        engine.lockSettings();
        engine.settings = engine.next_settings;
        engine.unlockSettings();
        const version = engine.settings.version;
        const failure = engine.takeThreads(&before.affinity);
        if (failure == .none) {
            engine.takeLevels(before.levels);
        } else {
            const refused = engine.settings.affinity;
            engine.settings = before;
            engine.settings.version = version;
            _ = engine.takeThreads(&refused);
        }
        engine.write(.{ .kind = .configured, .value = version, .token = @intFromEnum(failure) });
    }

    /// As many threads as there are to be, on the CPUs that they are to have.
    fn takeThreads(engine: *Engine, before: []const u32) p.Failure {
        engine.pin_failed.store(0, .monotonic);
        engine.pool.resize(engine.settings.thread_count) catch return .threads;
        // Whoever asks for the threads shall find them all.
        engine.pool.awaitBegun();
        if (!std.mem.eql(u32, &engine.settings.affinity, before)) engine.pool.runForEach(pinJob);
        return if (engine.pin_failed.load(.monotonic) == 0) .none else .pin;
    }

    /// Levels differ in the last bits. So that a result does not depend on what was computed before at others, no sequence begins with
    /// that; those that run go on from it.
    fn takeLevels(engine: *Engine, before: [p.families]u32) void {
        engine.executor.kernels = cpu.kernelsOf(engine.settings.levels, false);
        for (engine.view.ops) |op| {
            const family = @intFromEnum(op.kind.family());
            if (engine.settings.levels[family] != before[family]) break;
        } else return;
        for (engine.executor.kv_groups) |*group| group.forgetAll();
        for (&engine.slots) |*slot| {
            const computed = slot.load() == .running and slot.computed > 0;
            // What TypeScript writes for a `restore` was computed before, too.
            if (computed or (slot.load() != .free and slot.request.kind == .restore)) slot.outdated = true;
        }
    }

    /// An event for each sequence of the step, and the step's own, from `begin` to now.
    fn stepEvents(engine: *Engine, begin: u64) void {
        const executor = &engine.executor;
        const step = &executor.step;
        for (step.shares[0..step.sequence_count]) |share| executor.recorded.rings[0].writeWhole(share.event(step.id));
        executor.event(0, .engine, p.event_no_op, 0, 0);
        executor.recorded.rings[0].writeWhole(.{
            .start = begin,
            .end = executor.eventsUntil(0),
            .step = step.id,
            .rows = step.row_count - (step.drafted - step.accepted),
            .op = p.event_no_op,
            .kind = .step,
            .thread = 0,
            .aux = step.sequence_count | step.accepted << 16,
        });
    }

    /// Takes submitted requests in, ends cancelled ones and those that memory's limit leaves no room for, and starts waiting ones in
    /// order while there is room.
    fn admit(engine: *Engine) void {
        for (&engine.slots) |*slot| {
            if (slot.load() == .submitted) slot.store(.waiting);
        }
        // After the requests came: they are judged by what was the limit when they did, or by a later one.
        engine.takeKvLimit();
        for (&engine.slots) |*slot| {
            if (slot.load() == .free or slot.load() == .submitted) continue;
            if (slot.cancelled.load(.acquire) != 0) {
                engine.finish(slot, .cancelled);
            } else if (slot.committed.load(.acquire) != 0) {
                engine.finishRestored(slot);
            } else if (slot.load() == .waiting and !engine.fits(slot)) engine.finish(slot, .no_memory);
        }
        while (true) {
            var first: ?*Slot = null;
            for (&engine.slots) |*slot| {
                if (slot.load() == .waiting and (first == null or slot.order < first.?.order)) first = slot;
            }
            const slot = first orelse return;
            if (!engine.startSequence(slot)) return;
        }
    }

    /// What was kept, and what was never used, makes room for less.
    fn takeKvLimit(engine: *Engine) void {
        const budget = &engine.kv_budget;
        const bytes = engine.kv_bytes_max.load(.acquire);
        if (bytes == budget.bytes_max) return;
        budget.bytes_max = bytes;
        budget.settle();
    }

    /// Pages of the group that the request holds at most at any time.
    fn pagesNeeded(engine: *const Engine, group: *const memory.KvGroup, slot: *const Slot) u32 {
        return group.pagesNeeded(slot.token_count + slot.request.generate_max, engine.view.header.rows_max);
    }

    fn kvBytesNeeded(engine: *const Engine, slot: *const Slot) u64 {
        var bytes: u64 = 0;
        for (engine.executor.kv_groups) |*group| bytes += engine.pagesNeeded(group, slot) * group.page_bytes;
        return bytes;
    }

    /// Whether the limit of memory leaves room for the request, once others have ended.
    fn fits(engine: *const Engine, slot: *const Slot) bool {
        return engine.kvBytesNeeded(slot) <= engine.kv_budget.bytes_max;
    }

    fn startSequence(engine: *Engine, slot: *Slot) bool {
        const header = engine.view.header;
        const sequence: u32 = for (engine.sequence_used[0..header.batch_max], 0..) |used, index| {
            if (!used) break @intCast(index);
        } else return false;
        for (engine.executor.kv_groups) |*group| {
            if (group.reserved + engine.pagesNeeded(group, slot) > group.pages.len) return false;
        }
        if (engine.kv_budget.promised() + engine.kvBytesNeeded(slot) > engine.kv_budget.bytes_max) return false;
        for (engine.executor.kv_groups, 0..) |*group, index| {
            slot.reserved_pages[index] = engine.pagesNeeded(group, slot);
            group.reserved += slot.reserved_pages[index];
        }
        engine.kv_budget.settle();
        engine.sequence_used[sequence] = true;
        slot.sequence = sequence;
        slot.store(.running);
        if (slot.request.kind == .restore) {
            for (engine.executor.kv_groups) |*group| group.place(sequence, slot.token_count);
            engine.hold(slot);
        }
        return true;
    }

    fn hold(engine: *Engine, slot: *Slot) void {
        slot.held.store(1, .release);
        engine.write(.{ .kind = .held, .request = slot.request.id });
    }

    /// What TypeScript has written is what a sequence would have computed.
    fn finishRestored(engine: *Engine, slot: *Slot) void {
        slot.computed = slot.token_count;
        if (!slot.outdated) prefix.publish(engine.executor.kv_groups, slot.sequence, &slot.published, slot.tokens[0..slot.computed]);
        engine.finish(slot, .restored);
    }

    fn finish(engine: *Engine, slot: *Slot, reason: p.Finish) void {
        if (slot.load() == .running) {
            for (engine.executor.kv_groups, 0..) |*group, index| {
                if (reason == .restored) group.keepAll(slot.sequence) else group.releaseAll(slot.sequence);
                group.reserved -= slot.reserved_pages[index];
            }
            // A limit that fell meanwhile had to leave it what it was promised.
            engine.kv_budget.settle();
            engine.sequence_used[slot.sequence] = false;
        }
        const request = slot.request.id;
        slot.held.store(0, .monotonic);
        slot.store(.free);
        engine.write(.{ .kind = .finished, .request = request, .position = slot.computed, .step = engine.executor.step.id, .value = @intFromEnum(reason) });
    }

    /// Fills the executor's step: one row for every sequence that generates and one for each token it guesses, then prompt
    /// rows in order of submission until the step is full; of texts that are computed whole, those that still fit. Rows of one
    /// sequence are neighbours. False: nothing to run.
    fn formStep(engine: *Engine) bool {
        const header = engine.view.header;
        const step = &engine.executor.step;
        step.id += 1;
        step.clear();
        // Guesses leave every running sequence a row of logits.
        var room = header.logits_rows_max;
        for (engine.sequence_used[0..header.batch_max]) |used| room -= @intFromBool(used);
        for (&engine.slots) |*slot| {
            slot.step_rows = 0;
            if (slot.load() != .running or slot.generated == 0) continue;
            slot.drafted = draft(slot, room);
            room -= slot.drafted;
            step.drafted += slot.drafted;
            engine.addRows(slot, 1 + slot.drafted);
        }
        var after: ?u64 = null;
        while (step.row_count < header.rows_max and step.logits_count < header.logits_rows_max) {
            var first: ?*Slot = null;
            for (&engine.slots) |*slot| {
                if (slot.load() != .running or slot.generated > 0 or slot.held.raw != 0) continue;
                if (after) |order| if (slot.order <= order) continue;
                if (first == null or slot.order < first.?.order) first = slot;
            }
            const slot = first orelse break;
            after = slot.order;
            if (slot.computed == 0) engine.takePrefix(slot);
            var rows = slot.token_count - slot.computed;
            if (header.whole_prompts != 0) {
                if (step.row_count == 0 or step.row_count + rows <= header.chunk_positions) engine.addRows(slot, rows);
                continue;
            }
            // Prompts are cut at fixed positions; what is left of one is not cut once more.
            if (rows > header.chunk_positions) rows = header.chunk_positions - slot.computed % header.chunk_positions;
            if (slot.request.chunk_rows > 0) rows = @min(rows, slot.request.chunk_rows);
            rows = @min(rows, header.rows_max - step.row_count);
            if (slot.request.kind == .score) rows = @min(rows, header.logits_rows_max - step.logits_count);
            engine.addRows(slot, rows);
            if (slot.request.dump_logits != 0) break; // Its rows of logits are read before the next step.
        }
        if (step.row_count > 0) return true;
        step.id -= 1; // There is none.
        return false;
    }

    /// Begins with what others have computed of the slot's prompt. It is looked for when the prompt's turn comes, not when it is
    /// admitted: prompts that came together then find what the first of them computed. A score wants every row's logits, a
    /// vector every row's hidden state.
    fn takePrefix(engine: *Engine, slot: *Slot) void {
        if (slot.request.shares_prefix == 0 or slot.request.kind == .score or slot.request.kind == .embed) return;
        const begin = clock.ticks();
        slot.published = prefix.start(engine.executor.kv_groups, slot.sequence, slot.tokens[0..slot.token_count], slot.request.kind == .hold);
        slot.computed = slot.published.positions;
        if (slot.computed == 0) return;
        engine.write(.{ .kind = .reused, .request = slot.request.id, .value = slot.computed });
        const executor = &engine.executor;
        if (!executor.step.traced) return;
        executor.eventUntil(begin, 0, .engine, p.event_no_op, 0, 0);
        executor.event(0, .copy, p.event_no_op, slot.computed, 0);
    }

    /// Writes guesses behind the slot's tokens; how many. All of them may come true, and one token is drawn after them.
    fn draft(slot: *Slot, room: u32) u32 {
        const request = &slot.request;
        if (request.draft_max == 0) return 0;
        const wanted = @min(request.draft_max, room, request.generate_max - slot.generated - 1);
        return lookup.draft(slot.tokens, slot.token_count, request.match_min, slot.pace.next(wanted));
    }

    fn addRows(engine: *Engine, slot: *Slot, rows: u32) void {
        const step = &engine.executor.step;
        assert(rows > 0 and step.row_count + rows <= engine.view.header.rows_max);
        slot.step_rows = rows;
        slot.step_first_row = step.row_count;
        slot.step_first_logits = step.logits_count;
        const end = slot.computed + rows;
        for (engine.executor.kv_groups) |*group| {
            if (slot.request.kind == .hold) group.ensureClean(slot.sequence, end) else group.ensure(slot.sequence, end);
        }
        for (0..rows) |index| {
            const position = slot.computed + @as(u32, @intCast(index));
            step.rows[step.row_count] = .{ .sequence = slot.sequence, .position = position };
            step.tokens[step.row_count] = slot.tokens[position];
            step.position_max = @max(step.position_max, position);
            const wanted = switch (slot.request.kind) {
                .score => true,
                .hold, .embed => false,
                else => position + 1 >= slot.token_count,
            };
            if (wanted) {
                step.logits_rows[step.logits_count] = step.row_count;
                engine.setDraw(slot, &step.draws[step.logits_count], position);
                step.logits_count += 1;
            }
            step.row_count += 1;
        }
        slot.step_logits = step.logits_count - slot.step_first_logits;
        if (engine.view.header.whole_prompts != 0) step.addBlocks(rows);
        const embeds: p.Embeds = .{
            .wanted = slot.request.kind == .embed,
            .pooling = @truncate(slot.request.pooling),
            .normalise = slot.request.normalise != 0,
            .complete = end == slot.token_count,
        };
        step.addText(rows, slot.index, slot.computed, slot.token_count, embeds);
        slot.step_share = step.sequence_count;
        step.shares[slot.step_share] = .{
            .request = slot.request.id,
            .sequence = slot.sequence,
            .rows = rows,
            .position = slot.computed,
            .logits_rows = slot.step_logits,
            .embeds = if (embeds.wanted) embeds else .none,
        };
        step.sequence_count += 1;
    }

    fn setDraw(engine: *Engine, slot: *Slot, draw: *executor_.Draw, position: u32) void {
        const request = &slot.request;
        draw.top_count = @min(request.top_count, engine.view.header.vocabulary);
        draw.target = p.none;
        draw.sampling = null;
        draw.recent = &.{};
        draw.token = p.none;
        draw.logprob = 0;
        if (request.kind == .score) {
            if (position + 1 < slot.token_count) draw.target = slot.tokens[position + 1];
            return;
        }
        // A row of a guess draws as if the guesses up to it had been drawn, and counts only if they are.
        const drawn_count = position + 1;
        const recent_count = @min(request.repeat_last, drawn_count);
        draw.recent = slot.tokens[drawn_count - recent_count .. drawn_count];
        draw.sampling = .{
            .temperature = request.temperature,
            .top_p = request.top_p,
            .min_p = request.min_p,
            .repeat_penalty = request.repeat_penalty,
            .top_k = request.top_k,
            .uniform = uniform(request.seed, slot.generated + (drawn_count - slot.token_count)),
        };
    }

    /// A number in [0, 1) from the seed and the index of the token alone (SplitMix64, Steele et al. 2014), so that a seed
    /// gives the same text whatever runs beside it.
    fn uniform(seed: u64, index: u32) f32 {
        var z = seed +% (@as(u64, index) +% 1) *% 0x9e3779b97f4a7c15;
        z = (z ^ z >> 30) *% 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) *% 0x94d049bb133111eb;
        z ^= z >> 31;
        return @as(f32, @floatFromInt(z >> 40)) * 0x1p-24;
    }

    /// Feeds the step's tokens back, writes its records, gives pages and slots back.
    fn finishStep(engine: *Engine) void {
        const step = &engine.executor.step;
        const now_ns = system.monotonicNs();
        for (&engine.slots) |*slot| {
            if (slot.step_rows == 0 or slot.load() != .running) continue;
            const prompt = slot.generated == 0;
            slot.computed += slot.step_rows - slot.drafted;
            const reason = engine.takeDraws(slot, now_ns);
            if (slot.request.shares_prefix != 0 and !slot.outdated) {
                prefix.publish(engine.executor.kv_groups, slot.sequence, &slot.published, slot.tokens[0..slot.computed]);
            }
            for (engine.executor.kv_groups) |*group| group.releaseBehind(slot.sequence, slot.computed);
            if (prompt and reason != .not_finite and slot.request.kind != .embed) {
                engine.write(.{ .kind = .progress, .request = slot.request.id, .position = slot.computed, .value = slot.step_rows, .step = step.id, .sequences = step.sequence_count, .time_ns = now_ns });
            }
            if (reason) |known| {
                engine.finish(slot, known);
            } else if (slot.request.kind == .hold and slot.computed == slot.token_count) engine.hold(slot);
        }
    }

    /// Writes records of what was drawn or scored in the slot's rows, and goes through guesses that came true. Why the
    /// request ends, if it does.
    fn takeDraws(engine: *Engine, slot: *Slot, now_ns: u64) ?p.Finish {
        const step = &engine.executor.step;
        const request = &slot.request;
        for (slot.step_first_logits..slot.step_first_logits + slot.step_logits, 0..) |index, ahead| {
            const drawn = &step.draws[index];
            if (!std.math.isFinite(drawn.logprob)) return .not_finite;
            // Told by what was asked, not by how the step came to be computed, which depends on what else was in it and on how
            // long the text is: of a text all are told, or none.
            const logprob = if (engine.executor.hasScreen() and drawn.takes() != null) std.math.nan(f32) else drawn.logprob;
            const position = step.rows[step.logits_rows[index]].position + 1;
            for (drawn.top[0..drawn.top_count]) |candidate| {
                engine.write(.{ .kind = .candidate, .request = request.id, .token = candidate.token, .logprob = candidate.logprob, .position = position, .step = step.id });
            }
            const drafted = if (ahead == 0) slot.drafted else 0;
            engine.write(.{ .kind = .token, .request = request.id, .token = drawn.token, .logprob = logprob, .position = position, .value = drafted, .step = step.id, .sequences = step.sequence_count, .time_ns = now_ns });
            if (request.kind == .score) continue;
            const came_true = ahead < slot.drafted and slot.tokens[slot.token_count] == drawn.token;
            if (takeToken(slot, drawn.token)) |reason| return reason;
            if (!came_true) {
                if (slot.drafted > 0) slot.pace.learn(slot.drafted, @intCast(ahead));
                break;
            }
            slot.computed += 1;
            step.accepted += 1;
            step.shares[slot.step_share].accepted += 1;
        }
        if (request.dump_logits != 0) engine.awaitLogitsRead(slot, step.id);
        if (slot.computed < slot.token_count) return null;
        return switch (request.kind) {
            .score => .scored,
            .embed => if (isFinite(engine.executor.embedding(slot.index))) .embedded else .not_finite,
            else => null,
        };
    }

    fn isFinite(values: []const f32) bool {
        for (values) |value| if (!std.math.isFinite(value)) return false;
        return true;
    }

    /// Appends a drawn token to the slot's. Why the request ends with it, if it does.
    fn takeToken(slot: *Slot, token: u32) ?p.Finish {
        const request = &slot.request;
        slot.tokens[slot.token_count] = token;
        slot.generated += 1;
        for (request.stop_tokens[0..request.stop_token_count]) |stop_token| {
            if (token == stop_token) return .stop_token;
        }
        if (slot.generated == request.generate_max) return .length;
        slot.token_count += 1;
        return null;
    }

    fn awaitLogitsRead(engine: *Engine, slot: *Slot, step_id: u32) void {
        engine.logits_read.store(0, .monotonic);
        engine.write(.{ .kind = .logits, .request = slot.request.id, .token = slot.step_first_logits, .value = slot.step_logits, .position = slot.computed, .step = step_id });
        engine.notify();
        while (!engine.stopping() and slot.cancelled.load(.acquire) == 0) {
            const bell = engine.reader_bell.load(.acquire);
            if (engine.logits_read.load(.acquire) != 0) return;
            system.wait(&engine.reader_bell, bell, 100 * std.time.ns_per_ms);
        }
    }

    const RecordFields = struct {
        kind: p.RecordKind,
        request: u32 = 0,
        token: u32 = 0,
        logprob: f32 = 0,
        position: u32 = 0,
        step: u32 = 0,
        value: u32 = 0,
        sequences: u32 = 0,
        time_ns: u64 = 0,
    };

    /// Appends a record, which `notify` tells. When TypeScript has fallen a whole ring behind, generation waits for it: no record is ever lost.
    fn write(engine: *Engine, fields: RecordFields) void {
        const position = engine.records_next;
        while (position - engine.records_read.load(.acquire) == record_capacity) {
            if (engine.stopping()) return;
            const bell = engine.reader_bell.load(.acquire);
            engine.notify();
            if (position - engine.records_read.load(.acquire) < record_capacity) break;
            system.wait(&engine.reader_bell, bell, 100 * std.time.ns_per_ms);
        }
        engine.records[@intCast(position % record_capacity)] = .{
            .kind = fields.kind,
            .request = fields.request,
            .token = fields.token,
            .logprob = fields.logprob,
            .position = fields.position,
            .step = fields.step,
            .value = fields.value,
            .sequences = fields.sequences,
            .time_ns = fields.time_ns,
        };
        engine.records_next = position + 1;
    }

    /// Tells the records written so far, and wakes Bun's event loop, unless it has been woken and has not looked yet.
    fn notify(engine: *Engine) void {
        for (engine.executor.kv_groups, engine.page_counts[0..engine.executor.kv_groups.len]) |*group, *counts| {
            counts.store(group.empty_count | @as(u64, group.kept_count) << 32, .monotonic);
        }
        engine.records_written.store(engine.records_next, .seq_cst);
        if (engine.records_next == engine.records_read.load(.seq_cst)) return;
        if (engine.notified.swap(1, .seq_cst) == 0) system.ring(engine.config.notify_fd);
    }
};
