//! When JavaScript's collector has run: JavaScriptCore tells nobody, but it frees memory that was lent to it, at a collection's
//! end, once no object holds it. So each thread that wants to know lends a few bytes which nothing holds: what is called to free
//! them counts and looks at the clock. TypeScript lends them anew after each collection.

const std = @import("std");
const system = @import("system.zig");

/// JavaScript threads that may watch; Bun's main thread and a few Workers.
const watches_max = 64;

/// Numbers as TypeScript reads them from this memory.
pub const Watch = extern struct {
    count: f64 = 0,
    /// When the last one ended, on the monotonic clock.
    ended_ns: f64 = 0,
};

var watches: [watches_max]Watch = @splat(.{});
var taken: std.atomic.Value(u32) = .init(0);

/// One for the calling thread, for good; null: there are no more.
pub fn take() ?*Watch {
    const index = taken.fetchAdd(1, .monotonic);
    return if (index < watches_max) &watches[index] else null;
}

/// What frees the lent memory, which is the watch itself.
pub fn collected(_: ?*anyopaque, watch: *Watch) callconv(.c) void {
    watch.ended_ns = @floatFromInt(system.monotonicNs());
    watch.count += 1;
}

test "a collection is counted and stamped" {
    const watch = take().?;
    const before: f64 = @floatFromInt(system.monotonicNs());
    collected(null, watch);
    try std.testing.expectEqual(1, watch.count);
    try std.testing.expect(watch.ended_ns >= before);
}
