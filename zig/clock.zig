//! Time stamps cheap enough for every op: the CPU's own counter, calibrated once against the monotonic clock.

const std = @import("std");
const builtin = @import("builtin");
const system = @import("system.zig");

const arch = builtin.cpu.arch;

/// The CPU's counter; nanoseconds of the monotonic clock where it has none that a process may read.
pub inline fn ticks() u64 {
    switch (arch) {
        .x86_64 => {
            var low: u32 = undefined;
            var high: u32 = undefined;
            asm volatile ("rdtsc"
                : [low] "={eax}" (low),
                  [high] "={edx}" (high),
            );
            return @as(u64, high) << 32 | low;
        },
        .aarch64 => return asm volatile ("mrs %[out], cntvct_el0"
            : [out] "=r" (-> u64),
        ),
        else => return system.monotonicNs(),
    }
}

/// Two readings of both clocks give the rate. Reading them together takes under 100 ns, so `begin` and `end` 5 ms apart
/// bound the error of the rate by 20 ppm: 20 µs a second.
pub const Calibration = struct {
    base_ticks: u64,
    base_ns: u64,
    ns_per_tick: f64,

    const interval_ns_min = 5 * std.time.ns_per_ms;

    pub const Start = struct { ticks: u64, ns: u64 };

    /// Both clocks at once: of several readings the one that took least, because a thread may lose its CPU in between.
    pub fn begin() Start {
        var best: Start = undefined;
        var best_ns: u64 = std.math.maxInt(u64);
        for (0..8) |_| {
            const before = system.monotonicNs();
            const at = ticks();
            const took_ns = system.monotonicNs() - before;
            if (took_ns < best_ns) {
                best_ns = took_ns;
                best = .{ .ticks = at, .ns = before + took_ns / 2 };
            }
        }
        return best;
    }

    /// Waits until enough time has passed since `begin`.
    pub fn end(start: Start) Calibration {
        while (system.monotonicNs() - start.ns < interval_ns_min) std.atomic.spinLoopHint();
        return soFar(start);
    }

    /// The same without waiting: the less time has passed, the less exact.
    pub fn soFar(start: Start) Calibration {
        const now = begin();
        const elapsed_ns: f64 = @floatFromInt(@max(1, now.ns - start.ns));
        const elapsed_ticks: f64 = @floatFromInt(@max(1, now.ticks -% start.ticks));
        return .{ .base_ticks = now.ticks, .base_ns = now.ns, .ns_per_tick = elapsed_ns / elapsed_ticks };
    }

    /// Nanoseconds of the monotonic clock at `at`, which may lie before the calibration.
    pub fn toNs(calibration: Calibration, at: u64) u64 {
        const delta: i64 = @bitCast(at -% calibration.base_ticks);
        const delta_ns: i64 = @intFromFloat(@as(f64, @floatFromInt(delta)) * calibration.ns_per_tick);
        return calibration.base_ns +% @as(u64, @bitCast(delta_ns));
    }
};

test "ticks convert to the monotonic clock" {
    const calibration = Calibration.end(Calibration.begin());
    const before = system.monotonicNs();
    const at = calibration.toNs(ticks());
    const after = system.monotonicNs();
    // Both clocks bracket the reading however long it took; the rest is the calibration's own error.
    const error_ns_max = 100 * std.time.ns_per_us;
    try std.testing.expect(at + error_ns_max > before);
    try std.testing.expect(at < after + error_ns_max);
}
