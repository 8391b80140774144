//! What the library takes from the system and gives back: memory of the C allocator, and memory that is mapped. Every piece is
//! counted with its size; while somebody watches, pieces that come and go are written to a ring with their lifetimes. Address
//! space that is only reserved is counted apart: it costs memory where it is written, and the system knows how much that is.
//! Not counted: threads' stacks, which libc maps, and files that are mapped for reading.
//!
//! Nothing here is on the way of a step, which allocates nothing; so one lock does for all of it.

const std = @import("std");
const assert = std.debug.assert;
const system = @import("system.zig");

/// Live pieces whose beginning is kept. A loaded model has about 60; beyond, lifetimes are lost, and counted so.
const pieces_max = 1024;
const ring_capacity = 1024;

/// All since the library was opened. Bytes are those asked for, of mappings whole pages.
pub const Counts = extern struct {
    count: u64 = 0,
    frees: u64 = 0,
    allocated_bytes: u64 = 0,
    freed_bytes: u64 = 0,
    live_bytes: u64 = 0,
    /// Address space beside it.
    reserved_bytes: u64 = 0,
    /// Changes that were not written to the ring while somebody watched, because it was full.
    lost: u64 = 0,
};

/// A piece that came, or one that went.
pub const Change = extern struct {
    bytes: u64,
    allocated_ns: u64,
    /// 0: it came.
    freed_ns: u64,
    /// Of all pieces, after it.
    live_bytes: u64,
};

const Piece = struct { address: usize, allocated_ns: u64 };

const Book = struct {
    lock: std.atomic.Value(u32) = .init(0),
    counts: Counts = .{},
    pieces: [pieces_max]Piece = undefined,
    piece_count: u32 = 0,
    watched: bool = false,
    changes: [ring_capacity]Change = undefined,
    written: u64 = 0,
    read: u64 = 0,

    fn acquire(book: *Book) void {
        while (book.lock.swap(1, .acquire) != 0) std.Thread.yield() catch {};
    }

    fn release(book: *Book) void {
        book.lock.store(0, .release);
    }

    fn came(book: *Book, address: usize, bytes: u64, now_ns: u64) void {
        book.acquire();
        defer book.release();
        const counts = &book.counts;
        counts.count += 1;
        counts.allocated_bytes += bytes;
        counts.live_bytes += bytes;
        if (book.piece_count < pieces_max) {
            book.pieces[book.piece_count] = .{ .address = address, .allocated_ns = now_ns };
            book.piece_count += 1;
        }
        book.write(.{ .bytes = bytes, .allocated_ns = now_ns, .freed_ns = 0, .live_bytes = counts.live_bytes });
    }

    fn went(book: *Book, address: usize, bytes: u64, now_ns: u64) void {
        book.acquire();
        defer book.release();
        const counts = &book.counts;
        counts.frees += 1;
        counts.freed_bytes += bytes;
        counts.live_bytes -= bytes;
        for (book.pieces[0..book.piece_count]) |*piece| {
            if (piece.address != address) continue;
            const allocated_ns = piece.allocated_ns;
            book.piece_count -= 1;
            piece.* = book.pieces[book.piece_count];
            return book.write(.{ .bytes = bytes, .allocated_ns = allocated_ns, .freed_ns = now_ns, .live_bytes = counts.live_bytes });
        }
        if (book.watched) counts.lost += 1;
    }

    /// A piece that became larger or smaller in its place.
    fn changed(book: *Book, address: usize, before: u64, after: u64, now_ns: u64) void {
        book.went(address, before, now_ns);
        book.came(address, after, now_ns);
    }

    fn write(book: *Book, change: Change) void {
        if (!book.watched) return;
        if (book.written - book.read == ring_capacity) {
            book.counts.lost += 1;
            return;
        }
        book.changes[@intCast(book.written % ring_capacity)] = change;
        book.written += 1;
    }

    fn reserve(book: *Book, bytes: u64) void {
        book.acquire();
        defer book.release();
        book.counts.reserved_bytes += bytes;
    }

    fn unreserve(book: *Book, bytes: u64) void {
        book.acquire();
        defer book.release();
        book.counts.reserved_bytes -= bytes;
    }

    fn watch(book: *Book, watched: bool) void {
        book.acquire();
        defer book.release();
        book.watched = watched;
        book.read = book.written;
    }

    fn drain(book: *Book, out: []Change) usize {
        book.acquire();
        defer book.release();
        const count: usize = @intCast(@min(out.len, book.written - book.read));
        for (out[0..count], 0..) |*change, index| change.* = book.changes[@intCast((book.read + index) % ring_capacity)];
        book.read += count;
        return count;
    }
};

var ledger: Book = .{};

/// Zeroed memory straight from the system, as `system.map` gives it.
pub fn map(bytes: u64) error{OutOfMemory}![]align(4096) u8 {
    const memory = try system.map(bytes, false);
    ledger.came(@intFromPtr(memory.ptr), memory.len, system.monotonicNs());
    return memory;
}

pub fn unmap(memory: []align(4096) u8) void {
    ledger.went(@intFromPtr(memory.ptr), memory.len, system.monotonicNs());
    system.unmap(memory);
}

/// Address space whose pages cost memory when they are first written.
pub fn reserve(bytes: u64) error{OutOfMemory}![]align(4096) u8 {
    const memory = try system.map(bytes, true);
    ledger.reserve(memory.len);
    return memory;
}

pub fn unreserve(memory: []align(4096) u8) void {
    ledger.unreserve(memory.len);
    system.unmap(memory);
}

/// The same for items.
pub fn reserveItems(comptime T: type, count: usize) error{OutOfMemory}![]T {
    const memory = try reserve(@max(1, count * @sizeOf(T)));
    return @as([*]T, @ptrCast(memory.ptr))[0..count];
}

pub fn unreserveItems(items: anytype) void {
    // Also of an empty list, which has a page.
    const begin: [*]align(4096) u8 = @ptrCast(@alignCast(items.ptr));
    unreserve(begin[0..std.mem.alignForward(usize, @max(1, std.mem.sliceAsBytes(items).len), 4096)]);
}

/// The C allocator, counted.
pub const allocator: std.mem.Allocator = .{
    .ptr = undefined,
    .vtable = &.{ .alloc = alloc, .resize = resize, .remap = remap, .free = free },
};

const under = std.heap.c_allocator;

fn alloc(_: *anyopaque, length: usize, alignment: std.mem.Alignment, return_address: usize) ?[*]u8 {
    const memory = under.rawAlloc(length, alignment, return_address) orelse return null;
    ledger.came(@intFromPtr(memory), length, system.monotonicNs());
    return memory;
}

fn resize(_: *anyopaque, memory: []u8, alignment: std.mem.Alignment, length: usize, return_address: usize) bool {
    if (!under.rawResize(memory, alignment, length, return_address)) return false;
    ledger.changed(@intFromPtr(memory.ptr), memory.len, length, system.monotonicNs());
    return true;
}

/// Never in another place: the callers allocate anew and copy.
fn remap(context: *anyopaque, memory: []u8, alignment: std.mem.Alignment, length: usize, return_address: usize) ?[*]u8 {
    return if (resize(context, memory, alignment, length, return_address)) memory.ptr else null;
}

fn free(_: *anyopaque, memory: []u8, alignment: std.mem.Alignment, return_address: usize) void {
    ledger.went(@intFromPtr(memory.ptr), memory.len, system.monotonicNs());
    under.rawFree(memory, alignment, return_address);
}

pub fn read() Counts {
    ledger.acquire();
    defer ledger.release();
    return ledger.counts;
}

/// From now on changes are written to the ring, or no longer; what was in it is dropped.
pub fn watch(watched: bool) void {
    ledger.watch(watched);
}

/// Moves up to `out.len` changes to `out`, oldest first.
pub fn drain(out: []Change) usize {
    return ledger.drain(out);
}

test "sums, lifetimes and what is live are those of a list kept beside it" {
    const shadow = try std.testing.allocator.create(Book);
    defer std.testing.allocator.destroy(shadow);
    shadow.* = .{};
    var random: std.Random.DefaultPrng = .init(7);
    var sizes: [64]u64 = @splat(0);
    var began: [64]u64 = @splat(0);
    var expected: Counts = .{};
    shadow.watch(true);
    for (1..2000) |now| {
        const index = random.random().uintLessThan(usize, sizes.len);
        var out: [4]Change = undefined;
        if (sizes[index] == 0) {
            sizes[index] = random.random().intRangeAtMost(u64, 1, 1 << 30);
            began[index] = now;
            expected.count += 1;
            expected.allocated_bytes += sizes[index];
            expected.live_bytes += sizes[index];
            shadow.came(index, sizes[index], now);
            try std.testing.expectEqual(1, shadow.drain(&out));
            try std.testing.expectEqual(Change{ .bytes = sizes[index], .allocated_ns = now, .freed_ns = 0, .live_bytes = expected.live_bytes }, out[0]);
        } else {
            expected.frees += 1;
            expected.freed_bytes += sizes[index];
            expected.live_bytes -= sizes[index];
            shadow.went(index, sizes[index], now);
            try std.testing.expectEqual(1, shadow.drain(&out));
            try std.testing.expectEqual(Change{ .bytes = sizes[index], .allocated_ns = began[index], .freed_ns = now, .live_bytes = expected.live_bytes }, out[0]);
            sizes[index] = 0;
        }
        try std.testing.expectEqual(expected, shadow.counts);
    }
}

test "a full ring and a full list count what they lose, and sums stay right" {
    const shadow = try std.testing.allocator.create(Book);
    defer std.testing.allocator.destroy(shadow);
    shadow.* = .{};
    for (0..pieces_max + 5) |index| shadow.came(index, 10, index);
    try std.testing.expectEqual(0, shadow.counts.lost); // Nobody watched.
    shadow.watch(true);
    for (0..pieces_max + 5) |index| shadow.went(index, 10, 5000);
    // Five had found no place in the list; the others fill the ring.
    try std.testing.expectEqual(5, shadow.counts.lost);
    shadow.came(1, 3, 6000);
    try std.testing.expectEqual(6, shadow.counts.lost);
    try std.testing.expectEqual(3, shadow.counts.live_bytes);
    try std.testing.expectEqual(pieces_max + 5, shadow.counts.frees);
    var out: [ring_capacity + 1]Change = undefined;
    try std.testing.expectEqual(ring_capacity, shadow.drain(&out));
    try std.testing.expectEqual(0, shadow.drain(&out));
}

test "memory of either kind is counted while it is there, address space apart" {
    const before = read();
    const heap = try allocator.alloc(u8, 100);
    const mapped = try map(5000);
    const reserved = try reserve(1 << 20);
    const between = read();
    try std.testing.expectEqual(before.count + 2, between.count);
    try std.testing.expectEqual(before.live_bytes + 100 + 8192, between.live_bytes);
    try std.testing.expectEqual(before.reserved_bytes + (1 << 20), between.reserved_bytes);
    unreserve(reserved);
    unmap(mapped);
    allocator.free(heap);
    const after = read();
    try std.testing.expectEqual(before.live_bytes, after.live_bytes);
    try std.testing.expectEqual(before.reserved_bytes, after.reserved_bytes);
    try std.testing.expectEqual(before.frees + 2, after.frees);
}
