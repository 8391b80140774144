//! The C ABI: every exported symbol and nothing else. TypeScript's mirror is src/engine/library.ts. Pointers that TypeScript
//! passes are to memory it keeps alive for the length of the call; the engine copies what it keeps.

const std = @import("std");
const allocations = @import("allocations.zig");
const bandwidth = @import("bandwidth.zig");
const collections = @import("collections.zig");
const converter = @import("converter.zig");
const counters_ = @import("counters.zig");
const cpu = @import("cpu.zig");
const footprint = @import("footprint.zig");
const Mapping = @import("mapping.zig").Mapping;
const p = @import("program.zig");
const engine_ = @import("engine.zig");
const pool = @import("pool.zig");
const search_ = @import("search.zig");
const stand_ = @import("stand.zig");
const system = @import("system.zig");
const formats = @import("kernels/format.zig");
const table = @import("kernels/table.zig");
const trace = @import("trace.zig");
const tracer_ = @import("tracer.zig");
const Engine = engine_.Engine;

export fn tinyai_layout_hash() u64 {
    return p.layout_hash;
}

/// The clock that events and records are stamped with, in ns. As a number that TypeScript gets without an allocation: exact
/// until the machine has been up for 104 days, to 2 ns until 208.
export fn tinyai_clock_now() f64 {
    return @floatFromInt(system.monotonicNs());
}

/// What the library took and gave back since it was opened.
export fn tinyai_allocations_read(out: *allocations.Counts) void {
    out.* = allocations.read();
}

/// From now on every change is kept for `tinyai_allocations_drain`, or no longer.
export fn tinyai_allocations_watch(watched: u32) void {
    allocations.watch(watched != 0);
}

export fn tinyai_allocations_drain(out: [*]allocations.Change, capacity: u32) u32 {
    return @intCast(allocations.drain(out[0..capacity]));
}

/// CPU time of the calling thread, in ns; 0: the system does not say.
export fn tinyai_thread_cpu() f64 {
    return @floatFromInt(system.threadCpuNs());
}

/// What tells the calling thread of JavaScript's collections; null: too many threads ask.
export fn tinyai_collections_take() ?*collections.Watch {
    return collections.take();
}

/// `collections.collected`, for memory that JavaScript frees.
export fn tinyai_collections_counter() *const fn (?*anyopaque, *collections.Watch) callconv(.c) void {
    return collections.collected;
}

/// Counts events for threads by the system's ids, from now on; null on failure, with the system's error number in `failure`.
export fn tinyai_counters_open(thread_ids: [*]const u32, thread_count: u32, events: [*]const counters_.Event, event_count: u32, failure: *u32) ?*counters_.Counters {
    failure.* = 0;
    if (thread_count == 0 or thread_count > counters_.threads_max or event_count == 0 or event_count > counters_.events_max) return null;
    return counters_.Counters.open(thread_ids[0..thread_count], events[0..event_count], failure) catch null;
}

/// Which of the events are counted, by bits.
export fn tinyai_counters_given(counters: *counters_.Counters) u32 {
    return counters.given;
}

export fn tinyai_counters_read(counters: *counters_.Counters, out: *counters_.Reading) void {
    out.* = counters.read();
}

export fn tinyai_counters_close(counters: *counters_.Counters) void {
    counters.close();
}

export fn tinyai_cpu_features() u64 {
    return cpu.features().bits.mask;
}

export fn tinyai_level_count() u32 {
    return cpu.levels.len;
}

export fn tinyai_level_name(level: u32) ?[*:0]const u8 {
    return if (level < cpu.levels.len) cpu.levels[level].name.ptr else null;
}

export fn tinyai_level_supported(level: u32) u32 {
    return @intFromBool(level < cpu.levels.len and cpu.supported(level));
}

/// Bytes of a packed matrix into `out`: weights, then scales. 0: no such format. For the test that compares the planner's sum.
export fn tinyai_packed_bytes(format: u32, rows: u32, columns: u32, out: *[2]u64) u32 {
    if (format > @intFromEnum(table.Format.iq4_xs)) return 0;
    const bytes = formats.packedBytes(@enumFromInt(format), rows, columns);
    out.* = .{ bytes.weight, bytes.scales };
    return 1;
}

/// Maps `bytes` of a file from `offset`, a multiple of 64, and begins to bring them into memory; null if the system refuses it
/// or the file is shorter. It is an engine's once that was made with it; else `tinyai_mapping_close` ends it.
export fn tinyai_mapping_open(path: [*:0]const u8, offset: u64, bytes: u64) ?*Mapping {
    return Mapping.open(path, offset, bytes) catch null;
}

export fn tinyai_mapping_bytes(mapping: *Mapping) [*]const u8 {
    return mapping.bytes().ptr;
}

/// Waits until all of it is in memory.
export fn tinyai_mapping_await(mapping: *Mapping) void {
    mapping.awaitPopulated();
}

/// Takes its pages out of this process's memory until they are read again.
export fn tinyai_mapping_release(mapping: *Mapping) void {
    mapping.release();
}

export fn tinyai_mapping_close(mapping: *Mapping) void {
    mapping.close();
}

/// `tinyai_mapping_close` as JavaScriptCore calls it for memory that nobody holds any more.
export fn tinyai_mapping_closer() *const fn (?*anyopaque, *Mapping) callconv(.c) void {
    return closeMapping;
}

fn closeMapping(_: ?*anyopaque, mapping: *Mapping) callconv(.c) void {
    mapping.close();
}

/// A pipe for engines to ring: the reading and the writing end. 0: the system refused one.
export fn tinyai_pipe_open(ends: *[2]c_int) u32 {
    ends.* = system.openPipe() catch return 0;
    return 1;
}

/// Rings as an engine does.
export fn tinyai_pipe_ring(write_end: c_int) void {
    system.ring(write_end);
}

/// 1 once the engine thread has ended after `tinyai_engine_stop`; it rings then.
export fn tinyai_engine_ended(engine: *Engine) u32 {
    return engine.ended.load(.acquire);
}

/// Makes an engine; null on failure, with a `program.Failure` in `failure`.
export fn tinyai_engine_create(program: [*]const u8, program_bytes: u64, config: *const p.Config, settings: *const p.Settings, source_paths: ?[*:0]const u8, mapping: ?*Mapping, failure: *u32) ?*Engine {
    const engine = Engine.create(program[0..@intCast(program_bytes)], config.*, settings.*, source_paths, mapping) catch |problem| {
        failure.* = @intFromEnum(@as(p.Failure, switch (problem) {
            error.OutOfMemory => .out_of_memory,
            error.Program => .program,
            error.Open => .open,
            error.Threads => .threads,
        }));
        return null;
    };
    failure.* = 0;
    // After the engine's threads have started, which would inherit it.
    system.preferShortTurns();
    return engine;
}

/// What an engine of this program would take, by `footprint.Part`. 0: the program is none, or there is no memory to look at it.
export fn tinyai_program_memory(program: [*]const u8, program_bytes: u64, thread_count: u32, event_capacity: u32, taken: *footprint.Amounts) u32 {
    // Its structs want to be aligned.
    const copy = allocations.map(@max(1, program_bytes)) catch return 0;
    defer allocations.unmap(copy);
    const bytes = copy[0..@intCast(program_bytes)];
    @memcpy(bytes, program);
    const view = p.View.init(bytes) catch return 0;
    taken.* = Engine.planned(view, program_bytes, thread_count, event_capacity);
    return 1;
}

/// What a loaded engine has taken, by `footprint.Part`, and how much of it is in memory.
export fn tinyai_engine_memory(engine: *const Engine, taken: *footprint.Amounts, resident: *footprint.Amounts) void {
    const sum = engine.measure();
    taken.* = sum.taken;
    resident.* = sum.resident;
}

/// The settings hold from the engine's next step on, and a `configured` record says so; else a `program.Failure`.
export fn tinyai_engine_configure(engine: *Engine, settings: *const p.Settings) u32 {
    return @intFromEnum(engine.configure(settings.*));
}

/// What keys and values may take in memory, from the next request on that begins.
export fn tinyai_engine_limit_kv(engine: *Engine, bytes: u64) void {
    engine.limitKv(bytes);
}

/// What the engine uses now.
export fn tinyai_engine_usage(engine: *Engine, out: *p.Usage) void {
    out.* = engine.usage();
}

/// The weights region, `weights_bytes` of the program long, for reading once the engine has loaded.
export fn tinyai_engine_weights(engine: *Engine) [*]const u8 {
    return engine.weights.ptr;
}

export fn tinyai_engine_stop(engine: *Engine) void {
    engine.stop();
}

export fn tinyai_engine_destroy(engine: *Engine) void {
    engine.destroy();
}

/// The system's id of one of the engine's threads; 0: there is no such thread yet or any more, or the system has no ids.
export fn tinyai_engine_thread_id(engine: *Engine, thread: u32) u32 {
    return if (thread < pool.threads_max) engine.thread_ids[thread].load(.monotonic) else 0;
}

/// Bytes of the source file packed so far.
export fn tinyai_engine_packed_bytes(engine: *Engine) u64 {
    return engine.packed_bytes.load(.monotonic);
}

export fn tinyai_engine_submit(engine: *Engine, slot: u32, request: *const p.Request, tokens: [*]const u32, token_count: u32) u32 {
    return @intFromBool(engine.submit(slot, request, tokens[0..token_count]));
}

export fn tinyai_engine_cancel(engine: *Engine, slot: u32, request: u32) void {
    engine.cancel(slot, request);
}

/// Page `block` of group `group` of a held request: from the engine to `bytes`, or with `into` the other way. 0: no such page.
export fn tinyai_engine_copy_page(engine: *Engine, slot: u32, request: u32, group: u32, block: u32, bytes: [*]u8, byte_count: u64, into: u32) u32 {
    return @intFromBool(engine.copyPage(slot, request, group, block, bytes[0..@intCast(byte_count)], into != 0));
}

/// The pages of a request to restore are written. 0: there is no such request.
export fn tinyai_engine_commit(engine: *Engine, slot: u32, request: u32) u32 {
    return @intFromBool(engine.commit(slot, request));
}

/// How many there were, at most 65,535, and in the upper half how many slots of events wait, in units of 256: while events are written,
/// whoever has records also looks at the rings, and gets memory for the next events. Of what is in no cache, as little as can be is asked.
export fn tinyai_engine_drain_records(engine: *Engine, out: [*]p.Record, capacity: u32) u32 {
    const count: u32 = @intCast(engine.drainRecords(out[0..@min(capacity, std.math.maxInt(u16))]));
    const waiting = if (engine.writesEvents()) engine.eventsWaiting() else 0;
    return count | @as(u32, @intCast(@min(waiting >> 8, std.math.maxInt(u16)))) << 16;
}

/// Looks at up to `capacity` slots of a thread's ring, at most 65,535. How many events there were, and in the upper half 1 if more wait.
/// Of steps whose number `detail` (1 or more) does not divide only they themselves and their shares are handed over.
export fn tinyai_engine_drain_events(engine: *Engine, thread: u32, out: [*]p.Event, capacity: u32, detail: u32) u32 {
    const drained = engine.drainEvents(thread, out[0..@min(capacity, std.math.maxInt(u16))], detail);
    return @as(u32, @intCast(drained.count)) | @as(u32, @intFromBool(drained.more)) << 16;
}

/// How the pages of group `group` stood when the records drained last were told: in all, empty, kept, and ever taken. 0: no such group.
export fn tinyai_engine_read_pages(engine: *Engine, group: u32, out: *[4]u32) u32 {
    return @intFromBool(engine.readPages(group, out));
}

/// Events that wait in the ring that is fullest.
export fn tinyai_engine_events_waiting(engine: *Engine) u32 {
    return @intCast(engine.eventsWaiting());
}

export fn tinyai_engine_events_lost(engine: *Engine) u64 {
    return engine.eventsLost();
}

export fn tinyai_engine_set_events(engine: *Engine, enabled: u32) void {
    engine.setEvents(enabled != 0);
}

/// `count` rows of logits from row `first`; `last` lets the engine go on. 0: there are not so many.
export fn tinyai_engine_read_logits(engine: *Engine, first: u32, count: u32, out: [*]f32, last: u32) u32 {
    const length = @as(usize, count) * engine.view.header.vocabulary;
    return @intFromBool(engine.readLogits(first, out[0..length], last != 0));
}

/// The vector of the request that the slot had last, of `length` values. 0: it has none, or another length.
export fn tinyai_engine_read_embedding(engine: *Engine, slot: u32, out: [*]f32, length: u32) u32 {
    return @intFromBool(engine.readEmbedding(slot, out[0..length]));
}

/// Makes a tracer beside an engine that has loaded; null on failure, with a `program.Failure` in `failure`. It must be destroyed
/// before the engine, and is one thread's.
export fn tinyai_tracer_create(engine: *Engine, config: *const p.TracerConfig, failure: *u32) ?*tracer_.Tracer {
    failure.* = 0;
    return tracer_.Tracer.create(&engine.executor, engine.weights, engine.constants, engine.copies, config.*) catch |problem| {
        failure.* = @intFromEnum(@as(p.Failure, switch (problem) {
            error.OutOfMemory => .out_of_memory,
            error.Program => .program,
        }));
        return null;
    };
}

/// Sets out a step of these shares. 0: the program has no such step.
export fn tinyai_tracer_begin(tracer: *tracer_.Tracer, shares: [*]const p.TracedShare, share_count: u32, draw: *const p.TracedDraw) u32 {
    return @intFromBool(tracer.begin(shares[0..share_count], draw.*));
}

/// Runs ops `first` to `end` of the step, its draws being the one after the last op, and writes what each did. `mode` is a
/// `Tracer.Mode`. 0: there are not so many ops, or no such mode.
export fn tinyai_tracer_run(tracer: *tracer_.Tracer, first: u32, end: u32, mode: u32, out: [*]p.Traced) u32 {
    if (first > end or end > tracer.executor.view.ops.len + 1 or mode > @intFromEnum(tracer_.Tracer.Mode.sample)) return 0;
    for (first..end, 0..) |index, place| out[place] = tracer.run(@intCast(index), @enumFromInt(mode));
    return 1;
}

/// Empties the simulated caches.
export fn tinyai_tracer_forget(tracer: *tracer_.Tracer) void {
    tracer.forget();
}

export fn tinyai_tracer_destroy(tracer: *tracer_.Tracer) void {
    tracer.destroy();
}

/// Sets memory aside, `bytes` for each thread, whose traffic is to be measured with a level's vectors; null: the system refuses it
/// or the threads, or the numbers are out of bounds.
export fn tinyai_bandwidth_create(bytes: u64, level: u32, thread_count: u32) ?*bandwidth.Meter {
    if (bytes == 0 or bytes > 1 << 40 or thread_count == 0 or thread_count > pool.threads_max) return null;
    if (level >= cpu.levels.len or !cpu.supported(level)) return null;
    return bandwidth.Meter.create(bytes, level, thread_count) catch null;
}

/// Moves `total_bytes` or a little more, each thread going over `working_bytes` of its own again and again: what was moved, and
/// how long that took. The caller is one of the threads. 0: a number is out of bounds.
export fn tinyai_bandwidth_measure(meter: *bandwidth.Meter, traffic: u32, working_bytes: u64, total_bytes: u64, out: *bandwidth.Meter.Moved) u32 {
    if (traffic > @intFromEnum(table.Traffic.copy)) return 0;
    out.* = meter.measure(@enumFromInt(traffic), working_bytes, total_bytes) orelse return 0;
    return 1;
}

export fn tinyai_bandwidth_destroy(meter: *bandwidth.Meter) void {
    meter.destroy();
}

/// Makes the operands of one kernel, and threads that run it; null on failure, with a `program.Failure` in `failure`.
export fn tinyai_stand_create(measurement: *const p.Measurement, level: u32, thread_count: u32, failure: *u32) ?*stand_.Stand {
    failure.* = 0;
    return stand_.Stand.create(measurement.*, level, thread_count) catch |problem| {
        failure.* = @intFromEnum(@as(p.Failure, switch (problem) {
            error.OutOfMemory => .out_of_memory,
            error.Threads => .threads,
            error.Program => .program,
        }));
        return null;
    };
}

/// What the stand's later runs are tuned to. 0: it is out of bounds.
export fn tinyai_stand_tune(stand: *stand_.Stand, tuning: *const table.Tuning) u32 {
    return @intFromBool(stand.tune(tuning.*));
}

/// Runs the kernel `count` times and returns how long that took, in ns. The caller is one of the threads.
export fn tinyai_stand_run(stand: *stand_.Stand, count: u32) u64 {
    return stand.run(count);
}

/// What a peak has counted in the last of the runs; 0 where the level has no such instructions.
export fn tinyai_stand_counted(stand: *stand_.Stand) u64 {
    return stand.counted.load(.monotonic);
}

export fn tinyai_stand_destroy(stand: *stand_.Stand) void {
    stand.destroy();
}

/// Starts threads that convert tensors from one file into another; null on failure, with a `program.Failure` in `failure`.
/// The last thread to end rings.
export fn tinyai_converter_create(
    conversions: [*]const p.Conversion,
    conversion_count: u32,
    source_path: [*:0]const u8,
    target_path: [*:0]const u8,
    thread_count: u32,
    level: u32,
    notify_fd: c_int,
    failure: *u32,
) ?*converter.Converter {
    failure.* = 0;
    return converter.Converter.create(conversions[0..conversion_count], source_path, target_path, thread_count, level, notify_fd) catch |problem| {
        failure.* = @intFromEnum(@as(p.Failure, switch (problem) {
            error.OutOfMemory => .out_of_memory,
            error.Open => .open,
            error.Threads => .threads,
            error.Program => .program,
        }));
        return null;
    };
}

/// Asks the threads to end soon.
export fn tinyai_converter_stop(running: *converter.Converter) void {
    running.stop();
}

/// Values converted so far.
export fn tinyai_converter_done(running: *converter.Converter) u64 {
    return running.done.load(.monotonic);
}

/// 1 once all threads have ended.
export fn tinyai_converter_ended(running: *converter.Converter) u32 {
    return running.ended.load(.acquire);
}

/// Why it ended early: a `program.Failure`, and in the upper half the conversion's index. 0: it did not fail.
export fn tinyai_converter_failure(running: *converter.Converter) u64 {
    return running.failure.load(.acquire);
}

/// Only once it has ended.
export fn tinyai_converter_destroy(running: *converter.Converter) void {
    running.destroy();
}

/// Makes room for vectors, or maps them from `offset` of a file where `path` is given; null on failure, with a `program.Failure`
/// in `failure`.
export fn tinyai_vectors_create(row_count: u64, columns: u32, path: ?[*:0]const u8, offset: u64, failure: *u32) ?*search_.Vectors {
    failure.* = 0;
    const made = if (path) |file| search_.Vectors.open(file, offset, row_count, columns) else search_.Vectors.create(row_count, columns);
    return made catch |problem| {
        failure.* = @intFromEnum(@as(p.Failure, switch (problem) {
            error.OutOfMemory => .out_of_memory,
            error.Open => .open,
            error.CutShort => .cut_short,
            error.Program => .program,
        }));
        return null;
    };
}

/// The rows, one after the other; those of a file only for reading.
export fn tinyai_vectors_rows(vectors: *search_.Vectors) [*]const f32 {
    return vectors.rows;
}

/// Only while nothing searches them.
export fn tinyai_vectors_destroy(vectors: *search_.Vectors) void {
    vectors.destroy();
}

/// Begins a search; null on failure, with a `program.Failure` in `failure`. Its last thread rings; with none it has ended already.
export fn tinyai_search_create(
    vectors: *search_.Vectors,
    queries: [*]const f32,
    query_count: u32,
    keep: u32,
    level: u32,
    thread_count: u32,
    notify_fd: c_int,
    failure: *u32,
) ?*search_.Search {
    failure.* = 0;
    const length = @as(usize, query_count) * vectors.columns;
    return search_.Search.create(vectors, queries[0..length], keep, level, thread_count, notify_fd) catch |problem| {
        failure.* = @intFromEnum(@as(p.Failure, switch (problem) {
            error.OutOfMemory => .out_of_memory,
            error.Threads => .threads,
            error.Program => .program,
        }));
        return null;
    };
}

/// Asks the threads to end soon.
export fn tinyai_search_stop(search: *search_.Search) void {
    search.stop();
}

/// 1 once all threads have ended.
export fn tinyai_search_ended(search: *search_.Search) u32 {
    return search.ended.load(.acquire);
}

/// Rows and scores of each query, the best first, as many as were asked for or there are. Only once it has ended.
export fn tinyai_search_read(search: *search_.Search, rows: [*]u32, scores: [*]f32) void {
    const length = @as(usize, search.args.query_count) * search.foundCount();
    search.read(rows[0..length], scores[0..length]);
}

/// Only once it has ended.
export fn tinyai_search_destroy(search: *search_.Search) void {
    search.destroy();
}

comptime {
    // Defines what traced kernels call.
    _ = trace;
}

test {
    _ = allocations;
    _ = bandwidth;
    _ = collections;
    _ = @import("cache.zig");
    _ = converter;
    _ = counters_;
    _ = @import("clock.zig");
    _ = @import("events.zig");
    _ = footprint;
    _ = @import("executor.zig");
    _ = @import("lookup.zig");
    _ = @import("memory.zig");
    _ = pool;
    _ = @import("prefix.zig");
    _ = search_;
    _ = @import("source.zig");
    _ = @import("stack.zig");
    _ = @import("throttle.zig");
    _ = @import("program.zig");
    _ = trace;
    _ = stand_;
    _ = engine_;
}
