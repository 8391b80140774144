//! Converts tensors from one file into another: threads of their own claim pieces of values, each reads its piece, converts
//! it, and writes it to its place. What a piece becomes depends on its values alone, so that neither the number of threads
//! nor their order shows in the file. The last thread to end rings, and `destroy` then does not wait.

const std = @import("std");
const assert = std.debug.assert;
const allocations = @import("allocations.zig");
const cpu = @import("cpu.zig");
const formats = @import("kernels/format.zig");
const p = @import("program.zig");
const system = @import("system.zig");
const table = @import("kernels/table.zig");

pub const threads_max = 64;
/// Values of a claim, a multiple of every block: as float32 and in both formats they fit a second-level cache of 512 KB, and
/// take milliseconds, in which a cancelled converter ends.
const piece_values = 32 * 1024;
/// Bytes a value takes at most in a file.
const value_bytes_max = 4;

pub const Converter = struct {
    conversions: []const p.Conversion,
    convert: *const fn (*const table.Convert) callconv(.c) table.Converted,
    source: system.File,
    target: system.File,
    notify_fd: c_int,
    /// The threads' memory, one part each: bytes read, values, bytes to be written.
    memory: []align(4096) u8,
    threads: [threads_max]std.Thread = undefined,
    spawned: u32 = 0,
    /// Pieces claimed, counted over all conversions.
    claimed: std.atomic.Value(u64) align(64) = .init(0),
    /// Values converted.
    done: std.atomic.Value(u64) align(64) = .init(0),
    stopping: std.atomic.Value(u32) = .init(0),
    /// The first failure: a `p.Failure`, and above it the conversion's index.
    failure: std.atomic.Value(u64) = .init(0),
    running: std.atomic.Value(u32),
    ended: std.atomic.Value(u32) = .init(0),

    const part_bytes = 3 * piece_values * value_bytes_max;
    const allocator = allocations.allocator;

    /// Opens both files, which must be there, and starts the threads. `conversions` are copied.
    pub fn create(
        conversions: []const p.Conversion,
        source_path: [*:0]const u8,
        target_path: [*:0]const u8,
        thread_count: u32,
        level: u32,
        notify_fd: c_int,
    ) error{ OutOfMemory, Open, Threads, Program }!*Converter {
        if (thread_count == 0 or thread_count > threads_max) return error.Program;
        if (level >= cpu.levels.len or !cpu.supported(level)) return error.Program;
        for (conversions) |conversion| if (!valid(conversion)) return error.Program;
        const converter = try allocator.create(Converter);
        errdefer allocator.destroy(converter);
        const copied = try allocator.dupe(p.Conversion, conversions);
        errdefer allocator.free(copied);
        const memory = try allocations.map(@as(u64, thread_count) * part_bytes);
        errdefer allocations.unmap(memory);
        const source: system.File = try .open(source_path, .read);
        errdefer source.close();
        const target: system.File = try .open(target_path, .write);
        errdefer target.close();
        converter.* = .{
            .conversions = copied,
            .convert = cpu.levels[level].kernels.convert,
            .source = source,
            .target = target,
            .notify_fd = notify_fd,
            .memory = memory,
            .running = .init(thread_count),
        };
        while (converter.spawned < thread_count) : (converter.spawned += 1) {
            converter.threads[converter.spawned] = std.Thread.spawn(.{ .stack_size = 1 << 20 }, run, .{ converter, converter.spawned }) catch {
                converter.stopping.store(1, .monotonic);
                for (converter.threads[0..converter.spawned]) |thread| thread.join();
                return error.Threads;
            };
        }
        return converter;
    }

    fn valid(conversion: p.Conversion) bool {
        const last = @intFromEnum(table.Format.iq4_xs);
        if (conversion.source_format > last or conversion.target_format > last) return false;
        const source: table.Format = @enumFromInt(conversion.source_format);
        const target: table.Format = @enumFromInt(conversion.target_format);
        const end = 1 << 53; // No file is larger.
        if (conversion.source_offset > end or conversion.target_offset > end) return false;
        if (conversion.value_count == 0 or conversion.value_count > end) return false;
        return conversion.value_count % blockOf(source).values == 0 and conversion.value_count % blockOf(target).values == 0;
    }

    /// Asks the threads to end after their piece.
    pub fn stop(converter: *Converter) void {
        converter.stopping.store(1, .monotonic);
    }

    /// Only after `ended`.
    pub fn destroy(converter: *Converter) void {
        for (converter.threads[0..converter.spawned]) |thread| thread.join();
        converter.target.close();
        converter.source.close();
        allocations.unmap(converter.memory);
        allocator.free(converter.conversions);
        allocator.destroy(converter);
    }

    fn run(converter: *Converter, thread: u32) void {
        converter.work(converter.memory[thread * part_bytes ..][0..part_bytes]);
        if (converter.running.fetchSub(1, .acq_rel) != 1) return;
        converter.ended.store(1, .release);
        system.ring(converter.notify_fd);
    }

    fn work(converter: *Converter, memory: []u8) void {
        var index: usize = 0;
        // The number, over all conversions, of the first piece of the one at `index`.
        var first: u64 = 0;
        while (converter.stopping.load(.monotonic) == 0) {
            const claimed = converter.claimed.fetchAdd(1, .monotonic);
            while (index < converter.conversions.len) : (index += 1) {
                const pieces = std.math.divCeil(u64, converter.conversions[index].value_count, piece_values) catch unreachable;
                if (claimed < first + pieces) break;
                first += pieces;
            } else return;
            const conversion = converter.conversions[index];
            const begin = (claimed - first) * piece_values;
            const count = @min(piece_values, conversion.value_count - begin);
            converter.piece(conversion, begin, @intCast(count), memory) catch |problem| {
                const failure: p.Failure = switch (problem) {
                    error.Read => .read,
                    error.CutShort => .cut_short,
                    error.Write => .write,
                    error.NotFinite => .not_finite,
                    error.OutOfRange => .out_of_range,
                };
                _ = converter.failure.cmpxchgStrong(0, @intFromEnum(failure) | @as(u64, index) << 32, .release, .monotonic);
                return converter.stop();
            };
            _ = converter.done.fetchAdd(count, .monotonic);
        }
    }

    fn piece(converter: *const Converter, conversion: p.Conversion, begin: u64, count: u32, memory: []u8) error{ Read, CutShort, Write, NotFinite, OutOfRange }!void {
        const source_format: table.Format = @enumFromInt(conversion.source_format);
        const target_format: table.Format = @enumFromInt(conversion.target_format);
        const third = piece_values * value_bytes_max;
        const read = memory[0..@intCast(bytesOf(source_format, count))];
        const written = memory[2 * third ..][0..@intCast(bytesOf(target_format, count))];
        try converter.source.readAll(read, conversion.source_offset + bytesOf(source_format, begin));
        const target_offset = conversion.target_offset + bytesOf(target_format, begin);
        if (source_format == target_format) return converter.target.writeAll(read, target_offset);
        const args: table.Convert = .{
            .source_format = source_format,
            .target_format = target_format,
            .count = count,
            .source = read.ptr,
            .target = written.ptr,
            .values = @ptrCast(@alignCast(memory[third..].ptr)),
        };
        switch (converter.convert(&args)) {
            .done => try converter.target.writeAll(written, target_offset),
            .not_finite => return error.NotFinite,
            .out_of_range => return error.OutOfRange,
        }
    }
};

const Block = struct { values: u32, bytes: u32 };

fn blockOf(format: table.Format) Block {
    return switch (format) {
        inline .f32, .f16, .bf16 => |float| .{ .values = 1, .bytes = @intCast(formats.sourceRowBytes(float, 1)) },
        inline else => |known| .{ .values = formats.descriptor(known).super_columns, .bytes = formats.descriptor(known).source_bytes },
    };
}

fn bytesOf(format: table.Format, values: u64) u64 {
    const block = blockOf(format);
    assert(values % block.values == 0);
    return values / block.values * block.bytes;
}

comptime {
    assert(piece_values % 256 == 0);
}
