//! Asking for memory before it is read, as a `table.Tuning` says: into the second-level cache only, for lines asked for into the
//! first one wait in its fill buffers beside those being read, which costs a fifth of the bandwidth (Zen 4). What is asked for may
//! lie past the end of the data. Lines of 64 bytes, which nearly all machines have, are asked for by straight code.

const table = @import("table.zig");
const vec = @import("vec.zig");

/// Bytes of the lines that straight code asks for.
pub const usual_line = 64;

/// Bytes of a line that is asked for where no distance says what; 0: nothing is.
pub inline fn aheadLine(tuning: *const table.Tuning) u32 {
    return if (tuning.ahead != 0) tuning.line_bytes else 0;
}

/// The lines that begin in `bytes` bytes, at once.
pub inline fn askAll(from: [*]const u8, bytes: usize, line_bytes: u32) void {
    const end = @intFromPtr(from) +% bytes;
    // A line that began before is asked for with what is before.
    var at = (@intFromPtr(from) +% (line_bytes - 1)) & ~@as(usize, line_bytes - 1);
    while (at < end) : (at += line_bytes) vec.prefetchFar(@ptrFromInt(at), 0);
}

/// How the weights of a few tokens' product are asked for, a distance ahead. Blocks of 8-bit codes go by as fast as memory gives
/// them: a line each keeps the processor's own prefetching on its way, and where more gets in between depends on the machine. Codes
/// that are decoded first leave it behind.
pub const Prefetch = struct {
    distance: u32,
    lines: enum { none, first, all, other },
    line_bytes: u32,

    pub inline fn of(distance: u32, lines: u32, line_bytes: u32) Prefetch {
        const ahead: table.Ahead = @enumFromInt(lines);
        return .{
            .distance = distance,
            .lines = switch (ahead) {
                .none => .none,
                .first => .first,
                .all => if (line_bytes == usual_line) .all else .other,
            },
            .line_bytes = line_bytes,
        };
    }

    /// With the `lines` usual lines at `block`, which are being multiplied.
    pub inline fn ask(prefetch: Prefetch, block: [*]const u8, comptime lines: comptime_int) void {
        const from: [*]const u8 = @ptrFromInt(@intFromPtr(block) +% prefetch.distance);
        switch (prefetch.lines) {
            .none => {},
            .first => vec.prefetchFar(from, 0),
            .all => inline for (0..lines) |line| vec.prefetchFar(from, line * usual_line),
            .other => askAll(from, lines * usual_line, prefetch.line_bytes),
        }
    }
};
