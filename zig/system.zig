//! What differs between operating systems, and nothing else: memory from the system, waiting on an address, reading a file
//! at an offset, a pipe, pinning a thread, the monotonic clock.

const std = @import("std");
const builtin = @import("builtin");
const assert = std.debug.assert;

const os = builtin.os.tag;
const windows = os == .windows;
const linux = std.os.linux;

const kernel32 = struct {
    extern "kernel32" fn VirtualAlloc(?*anyopaque, usize, u32, u32) callconv(.winapi) ?*anyopaque;
    extern "kernel32" fn VirtualFree(*anyopaque, usize, u32) callconv(.winapi) c_int;
    extern "kernel32" fn CreateFileW([*:0]const u16, u32, u32, ?*anyopaque, u32, u32, ?*anyopaque) callconv(.winapi) ?*anyopaque;
    extern "kernel32" fn CloseHandle(*anyopaque) callconv(.winapi) c_int;
    extern "kernel32" fn GetFileSizeEx(*anyopaque, *i64) callconv(.winapi) c_int;
    extern "kernel32" fn CreateFileMappingW(*anyopaque, ?*anyopaque, u32, u32, u32, ?[*:0]const u16) callconv(.winapi) ?*anyopaque;
    extern "kernel32" fn MapViewOfFile(*anyopaque, u32, u32, u32, usize) callconv(.winapi) ?*anyopaque;
    extern "kernel32" fn UnmapViewOfFile(*const anyopaque) callconv(.winapi) c_int;
    extern "kernel32" fn ReadFile(*anyopaque, [*]u8, u32, *u32, *Overlapped) callconv(.winapi) c_int;
    extern "kernel32" fn WriteFile(*anyopaque, [*]const u8, u32, *u32, *Overlapped) callconv(.winapi) c_int;
    extern "kernel32" fn QueryPerformanceCounter(*i64) callconv(.winapi) c_int;
    extern "kernel32" fn QueryPerformanceFrequency(*i64) callconv(.winapi) c_int;
    extern "kernel32" fn GetCurrentThread() callconv(.winapi) *anyopaque;
    extern "kernel32" fn SetThreadAffinityMask(*anyopaque, usize) callconv(.winapi) usize;
    extern "kernel32" fn GetCurrentProcess() callconv(.winapi) *anyopaque;
    extern "kernel32" fn GetProcessAffinityMask(*anyopaque, *usize, *usize) callconv(.winapi) c_int;
    /// In units of 100 ns.
    extern "kernel32" fn GetThreadTimes(*anyopaque, *u64, *u64, *u64, *u64) callconv(.winapi) c_int;
    const Overlapped = extern struct { internal: usize = 0, internal_high: usize = 0, offset: u32, offset_high: u32, event: ?*anyopaque = null };
};

const crt = struct {
    extern "c" fn _pipe(*[2]c_int, c_uint, c_int) c_int;
    extern "c" fn _write(c_int, [*]const u8, c_uint) c_int;
};

/// Zeroed memory straight from the system, page-aligned. `reserve_only`: address space whose pages cost memory when they
/// are first written.
pub fn map(bytes: u64, reserve_only: bool) error{OutOfMemory}![]align(4096) u8 {
    assert(bytes > 0);
    const length: usize = std.math.cast(usize, std.mem.alignForward(u64, bytes, 4096)) orelse return error.OutOfMemory;
    if (windows) {
        const commit_and_reserve = 0x3000;
        const page_readwrite = 0x04;
        const memory = kernel32.VirtualAlloc(null, length, commit_and_reserve, page_readwrite) orelse return error.OutOfMemory;
        return @as([*]align(4096) u8, @ptrCast(@alignCast(memory)))[0..length];
    }
    var flags: std.c.MAP = .{ .TYPE = .PRIVATE, .ANONYMOUS = true };
    if (@hasField(std.c.MAP, "NORESERVE")) flags.NORESERVE = reserve_only;
    const memory = std.c.mmap(null, length, .{ .READ = true, .WRITE = true }, flags, -1, 0);
    if (memory == std.c.MAP_FAILED) return error.OutOfMemory;
    const bytes_mapped = @as([*]align(4096) u8, @ptrCast(@alignCast(memory)))[0..length];
    if (!reserve_only) preferHugePages(bytes_mapped);
    return bytes_mapped;
}

/// Asks for huge pages where the system gives them, for what is read end to end once a token. Each comes whole when it is
/// first written.
pub fn preferHugePages(memory: []align(4096) u8) void {
    if (os == .linux and memory.len >= 2 << 20) _ = std.c.madvise(@ptrCast(memory.ptr), memory.len, linux.MADV.HUGEPAGE);
}

pub fn unmap(memory: []align(4096) u8) void {
    if (windows) {
        const release = 0x8000;
        _ = kernel32.VirtualFree(memory.ptr, 0, release);
    } else {
        _ = std.c.munmap(@ptrCast(@alignCast(memory.ptr)), memory.len);
    }
}

/// Sleeps until `wake` on the same address, a spurious wake-up, or at once if `address` no longer holds `expected`.
pub fn wait(address: *const std.atomic.Value(u32), expected: u32, timeout_ns: ?u64) void {
    switch (os) {
        .linux => {
            const timeout: linux.timespec = if (timeout_ns) |ns| .{ .sec = @intCast(ns / std.time.ns_per_s), .nsec = @intCast(ns % std.time.ns_per_s) } else undefined;
            _ = linux.futex_4arg(&address.raw, .{ .cmd = .WAIT, .private = true }, expected, if (timeout_ns != null) &timeout else null);
        },
        .macos => {
            const timeout_us: u32 = if (timeout_ns) |ns| @intCast(@max(1, @min(ns / 1000, std.math.maxInt(u32)))) else 0;
            _ = std.c.__ulock_wait(.{ .op = .COMPARE_AND_WAIT, .NO_ERRNO = true }, &address.raw, expected, timeout_us);
        },
        .windows => {
            const relative: i64 = if (timeout_ns) |ns| -@as(i64, @intCast(ns / 100)) else 0;
            _ = std.os.windows.ntdll.RtlWaitOnAddress(&address.raw, &expected, 4, if (timeout_ns != null) &relative else null);
        },
        else => @compileError("no futex for this system"),
    }
}

pub fn wakeAll(address: *const std.atomic.Value(u32)) void {
    switch (os) {
        .linux => _ = linux.futex_3arg(&address.raw, .{ .cmd = .WAKE, .private = true }, std.math.maxInt(i32)),
        .macos => _ = std.c.__ulock_wake(.{ .op = .COMPARE_AND_WAIT, .NO_ERRNO = true, .WAKE_ALL = true }, &address.raw, 0),
        .windows => std.os.windows.ntdll.RtlWakeAddressAll(&address.raw),
        else => @compileError("no futex for this system"),
    }
}

/// A file opened for positioned reading or writing. Reads, and not a mapping, bring a user's file in: one that another program
/// cuts short ends a read early, which is an error message; under a mapping it would be a bus error.
pub const File = struct {
    handle: if (windows) *anyopaque else c_int,

    pub const Access = enum { read, write };

    /// The file must be there.
    pub fn open(path: [*:0]const u8, access: Access) error{Open}!File {
        if (windows) {
            var wide: [32768:0]u16 = undefined;
            const length = std.unicode.utf8ToUtf16Le(&wide, std.mem.span(path)) catch return error.Open;
            wide[length] = 0;
            const generic: u32 = switch (access) {
                .read => 0x8000_0000,
                .write => 0x4000_0000,
            };
            const share_all = 7;
            const open_existing = 3;
            const handle = kernel32.CreateFileW(&wide, generic, share_all, null, open_existing, 0, null) orelse return error.Open;
            if (@intFromPtr(handle) == std.math.maxInt(usize)) return error.Open;
            return .{ .handle = handle };
        }
        const handle = std.c.open(path, .{ .ACCMODE = if (access == .read) .RDONLY else .WRONLY, .CLOEXEC = true });
        if (handle < 0) return error.Open;
        return .{ .handle = handle };
    }

    pub fn size(file: File) error{Open}!u64 {
        if (windows) {
            var bytes: i64 = 0;
            if (kernel32.GetFileSizeEx(file.handle, &bytes) == 0) return error.Open;
            return @intCast(bytes);
        }
        const end = std.c.lseek(file.handle, 0, std.c.SEEK.END);
        if (end < 0) return error.Open;
        return @intCast(end);
    }

    pub fn close(file: File) void {
        if (windows) _ = kernel32.CloseHandle(file.handle) else _ = std.c.close(file.handle);
    }

    /// Fills `buffer` from `offset`.
    pub fn readAll(file: File, buffer: []u8, offset: u64) error{ Read, CutShort }!void {
        var done: usize = 0;
        while (done < buffer.len) {
            const rest = buffer[done..];
            const position = offset + done;
            const count: usize = if (windows) count: {
                var read: u32 = 0;
                var overlapped: kernel32.Overlapped = .{ .offset = @truncate(position), .offset_high = @truncate(position >> 32) };
                if (kernel32.ReadFile(file.handle, rest.ptr, @intCast(@min(rest.len, 1 << 30)), &read, &overlapped) == 0) return error.Read;
                break :count read;
            } else count: {
                const read = std.c.pread(file.handle, rest.ptr, @min(rest.len, 1 << 30), @intCast(position));
                if (read < 0) {
                    if (std.c.errno(read) == .INTR) continue;
                    return error.Read;
                }
                break :count @intCast(read);
            };
            if (count == 0) return error.CutShort;
            done += count;
        }
    }

    /// Writes all of `bytes` from `offset` on.
    pub fn writeAll(file: File, bytes: []const u8, offset: u64) error{Write}!void {
        var done: usize = 0;
        while (done < bytes.len) {
            const rest = bytes[done..];
            const position = offset + done;
            const count: usize = if (windows) count: {
                var written: u32 = 0;
                var overlapped: kernel32.Overlapped = .{ .offset = @truncate(position), .offset_high = @truncate(position >> 32) };
                if (kernel32.WriteFile(file.handle, rest.ptr, @intCast(@min(rest.len, 1 << 30)), &written, &overlapped) == 0) return error.Write;
                break :count written;
            } else count: {
                const written = std.c.pwrite(file.handle, rest.ptr, @min(rest.len, 1 << 30), @intCast(position));
                if (written < 0) {
                    if (std.c.errno(written) == .INTR) continue;
                    return error.Write;
                }
                break :count @intCast(written);
            };
            if (count == 0) return error.Write;
            done += count;
        }
    }
};

/// A part of a file as read-only memory. It must not be cut short while it is mapped: a read beyond its end is a bus error.
pub const View = struct {
    bytes: []align(4096) const u8,
    /// The address space that the view lies in.
    reserved: []align(4096) u8,

    /// Systems map from multiples of their page, Windows of 64 KiB.
    pub const granularity = 1 << 16;

    pub fn init(file: File, offset: u64, length: usize) error{ OutOfMemory, Open, CutShort }!View {
        assert(length > 0 and offset % granularity == 0);
        if (try file.size() < offset + length) return error.CutShort;
        if (windows) {
            const page_readonly = 0x02;
            const file_map_read = 0x04;
            const section = kernel32.CreateFileMappingW(file.handle, null, page_readonly, 0, 0, null) orelse return error.Open;
            // The view keeps the section.
            defer _ = kernel32.CloseHandle(section);
            const memory = kernel32.MapViewOfFile(section, file_map_read, @truncate(offset >> 32), @truncate(offset), length) orelse return error.OutOfMemory;
            const view = @as([*]align(4096) u8, @ptrCast(@alignCast(memory)))[0..length];
            return .{ .bytes = view, .reserved = view };
        }
        // Where the page cache holds huge pages, they are mapped as such if addresses and places in the file agree modulo
        // their size: 512 times fewer entries to fill in (0.3 ms instead of 50 for 240 MB) and to look up.
        const huge = 2 << 20;
        const reserved = try map(std.mem.alignForward(usize, length, 4096) + huge, true);
        errdefer unmap(reserved);
        const skew: usize = @intCast(offset % huge);
        const begin = std.mem.alignForward(usize, @intFromPtr(reserved.ptr) - skew, huge) + skew;
        const memory = std.c.mmap(@ptrFromInt(begin), length, .{ .READ = true }, .{ .TYPE = .SHARED, .FIXED = true }, file.handle, @intCast(offset));
        if (memory == std.c.MAP_FAILED) return error.OutOfMemory;
        if (os == .linux) _ = linux.madvise(@ptrFromInt(begin), length, linux.MADV.HUGEPAGE);
        return .{ .bytes = @as([*]align(4096) const u8, @ptrCast(@alignCast(memory)))[0..length], .reserved = reserved };
    }

    pub fn deinit(view: View) void {
        if (windows) {
            _ = kernel32.UnmapViewOfFile(view.bytes.ptr);
        } else unmap(view.reserved);
    }
};

/// Brings mapped pages into memory. What cannot be had comes when it is first read.
pub fn populate(bytes: []align(4096) const u8) void {
    if (os == .linux) {
        const populate_read = 22; // Since Linux 5.14.
        if (linux.errno(linux.madvise(@constCast(bytes.ptr), bytes.len, populate_read)) == .SUCCESS) return;
    }
    var at: usize = 0;
    while (at < bytes.len) : (at += 4096) std.mem.doNotOptimizeAway(@as(*const volatile u8, &bytes[at]).*);
}

/// Takes mapped pages out of this process's memory; they stay in the system's, and come back when they are read.
pub fn unload(bytes: []align(4096) const u8) void {
    if (os == .linux) _ = linux.madvise(@constCast(bytes.ptr), bytes.len, linux.MADV.DONTNEED);
}

/// Gives memory back that is the process's own: it is zeros when it is next read, where the system does so. Its place stays taken.
pub fn discard(bytes: []align(4096) u8) void {
    if (os == .linux) _ = linux.madvise(bytes.ptr, bytes.len, linux.MADV.DONTNEED);
}

/// Has memory that is the process's own in memory before it is written: whoever writes it then does not wait for each page. Does nothing
/// where the system cannot, or refuses.
pub fn provide(bytes: []align(4096) u8) void {
    const populate_write = 23; // Since Linux 5.14.
    if (os == .linux) _ = linux.madvise(bytes.ptr, bytes.len, populate_write);
}

/// Whether the system tells what is in memory, and what CPU time other threads have used.
pub const tells_resident = os == .linux;
pub const tells_cpu = os == .linux;

/// How much of `memory` is in memory, in whole pages; all of it where the system does not say.
pub fn residentBytes(memory: []const u8) u64 {
    if (!tells_resident or memory.len == 0) return memory.len;
    const page = std.heap.pageSize();
    const end = std.mem.alignForward(usize, @intFromPtr(memory.ptr) + memory.len, page);
    var states: [4096]u8 = undefined;
    var at = std.mem.alignBackward(usize, @intFromPtr(memory.ptr), page);
    var pages: u64 = 0;
    while (at < end) {
        const bytes = @min(end - at, states.len * page);
        if (linux.errno(linux.mincore(@ptrFromInt(at), bytes, &states)) != .SUCCESS) return memory.len;
        for (states[0 .. bytes / page]) |state| pages += state & 1;
        at += bytes;
    }
    return pages * page;
}

/// A pipe's reading and writing end.
pub fn openPipe() error{Pipe}![2]c_int {
    var ends: [2]c_int = undefined;
    if (windows) {
        const binary = 0x8000;
        if (crt._pipe(&ends, 4096, binary) != 0) return error.Pipe;
    } else if (os == .linux) {
        if (linux.errno(linux.pipe2(&ends, .{ .CLOEXEC = true })) != .SUCCESS) return error.Pipe;
    } else {
        if (std.c.pipe(&ends) != 0) return error.Pipe;
    }
    return ends;
}

/// Writes a byte to a pipe, which wakes whoever reads it.
pub fn ring(write_end: c_int) void {
    const byte = [1]u8{1};
    if (windows) {
        _ = crt._write(write_end, &byte, 1);
    } else {
        while (std.c.write(write_end, &byte, 1) < 0) {
            if (std.c.errno(-1) != .INTR) break;
        }
    }
}

/// Pins the calling thread to one logical CPU; systems without such a call ignore it.
pub fn pinThread(cpu: u32) bool {
    switch (os) {
        .linux => {
            var set: linux.cpu_set_t = @splat(0);
            const bits = @bitSizeOf(usize);
            if (cpu / bits >= set.len) return false;
            set[cpu / bits] = @as(usize, 1) << @intCast(cpu % bits);
            linux.sched_setaffinity(0, &set) catch return false;
            return true;
        },
        .windows => return cpu < 64 and kernel32.SetThreadAffinityMask(kernel32.GetCurrentThread(), @as(usize, 1) << @intCast(cpu)) != 0,
        else => return false,
    }
}

/// The logical CPUs that a thread may run on.
pub const Cpus = struct {
    set: if (os == .linux) linux.cpu_set_t else usize = if (os == .linux) @splat(0) else 0,

    /// Those of the calling thread.
    pub fn ofThread() Cpus {
        var cpus: Cpus = .{};
        switch (os) {
            .linux => _ = linux.sched_getaffinity(0, @sizeOf(linux.cpu_set_t), &cpus.set),
            .windows => {
                var all: usize = 0;
                _ = kernel32.GetProcessAffinityMask(kernel32.GetCurrentProcess(), &cpus.set, &all);
            },
            else => {},
        }
        return cpus;
    }

    /// Lets the calling thread run on them.
    pub fn give(cpus: *const Cpus) bool {
        switch (os) {
            .linux => linux.sched_setaffinity(0, &cpus.set) catch return false,
            .windows => return kernel32.SetThreadAffinityMask(kernel32.GetCurrentThread(), cpus.set) != 0,
            else => {},
        }
        return true;
    }
};

/// Asks for short turns on the CPU for the calling thread, so that it is let in soon when it has something to do. For Bun's
/// own thread beside busy workers. Linux 6.12 and later take a hint for ordinary threads; others ignore it.
pub fn preferShortTurns() void {
    if (os != .linux) return;
    const Attributes = extern struct {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime_ns: u64,
        deadline_ns: u64,
        period_ns: u64,
    };
    const ordinary = 0; // SCHED_OTHER
    var attributes: Attributes = undefined;
    if (linux.errno(linux.syscall4(.sched_getattr, 0, @intFromPtr(&attributes), @sizeOf(Attributes), 0)) != .SUCCESS) return;
    if (attributes.policy != ordinary) return; // Somebody has made a choice of their own.
    attributes.size = @sizeOf(Attributes);
    const reset_on_fork = 1; // Threads and processes started later have none of it.
    attributes.flags |= reset_on_fork;
    attributes.runtime_ns = 100 * std.time.ns_per_us;
    _ = linux.syscall3(.sched_setattr, 0, @intFromPtr(&attributes), 0);
}

/// What the system knows the calling thread by; 0 where that is of no use.
pub fn threadId() u32 {
    return if (os == .linux) @intCast(linux.gettid()) else 0;
}

/// CPU time of the calling thread, in ns; 0 where the system does not say.
pub fn threadCpuNs() u64 {
    if (windows) {
        var times: [4]u64 = @splat(0);
        if (kernel32.GetThreadTimes(kernel32.GetCurrentThread(), &times[0], &times[1], &times[2], &times[3]) == 0) return 0;
        return (times[2] + times[3]) * 100;
    }
    return clockNs(.THREAD_CPUTIME_ID) orelse 0;
}

/// CPU time of another thread of this process by its `threadId`, in ns; null: it has ended, or the system does not say.
pub fn cpuNsOf(thread_id: u32) ?u64 {
    if (!tells_cpu or thread_id == 0) return null;
    // A thread's own clock: CPUCLOCK_PERTHREAD_MASK and CPUCLOCK_SCHED beside the inverted id.
    const id = ~thread_id << 3 | 6;
    var time: linux.timespec = undefined;
    if (linux.errno(linux.syscall2(.clock_gettime, id, @intFromPtr(&time))) != .SUCCESS) return null;
    return @as(u64, @intCast(time.sec)) * std.time.ns_per_s + @as(u64, @intCast(time.nsec));
}

fn clockNs(id: std.c.clockid_t) ?u64 {
    var time: std.c.timespec = undefined;
    if (std.c.clock_gettime(id, &time) != 0) return null;
    return @as(u64, @intCast(time.sec)) * std.time.ns_per_s + @as(u64, @intCast(time.nsec));
}

/// The monotonic clock, in ns.
pub fn monotonicNs() u64 {
    if (windows) {
        var count: i64 = 0;
        var frequency: i64 = 1;
        _ = kernel32.QueryPerformanceCounter(&count);
        _ = kernel32.QueryPerformanceFrequency(&frequency);
        return @intCast(@divTrunc(@as(i128, count) * std.time.ns_per_s, frequency));
    }
    return clockNs(.MONOTONIC).?;
}
