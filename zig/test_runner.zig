//! Runs a binary's tests one after the other and ends with one line that a script can add up:
//! `zig tests <name>: <n> passed, <n> failed, <n> skipped`. The name is the first argument. Two more, `part` and `parts`, make it
//! run every `parts`-th test from number `part` on, counted from 0: under an emulator, processes share a binary's tests. Without
//! tests it fails.

const std = @import("std");
const builtin = @import("builtin");

pub fn main(init: std.process.Init.Minimal) u8 {
    var argument_buffer: [8192]u8 = undefined;
    var fixed: std.heap.FixedBufferAllocator = .init(&argument_buffer);
    const arguments = init.args.toSlice(fixed.allocator()) catch @panic("arguments too long");
    const name = if (arguments.len > 1) arguments[1] else "unnamed";
    const part, const parts = if (arguments.len > 3) .{ number(arguments[2]), number(arguments[3]) } else .{ 0, 1 };

    var passed: usize = 0;
    var failed: usize = 0;
    var skipped: usize = 0;
    for (builtin.test_functions, 0..) |test_function, index| {
        if (index % parts != part) continue;
        std.testing.allocator_instance = .{};
        std.testing.io_instance = .init(std.testing.allocator, .{ .argv0 = .init(init.args), .environ = init.environ });
        std.testing.environ = init.environ;
        const result = test_function.func();
        std.testing.io_instance.deinit();
        const leaked = std.testing.allocator_instance.deinit() == .leak;
        if (result) {
            if (leaked) {
                failed += 1;
                std.debug.print("FAIL {s}: memory leaked\n", .{test_function.name});
            } else passed += 1;
        } else |err| switch (err) {
            error.SkipZigTest => {
                skipped += 1;
                std.debug.print("skipped {s}\n", .{test_function.name});
            },
            else => {
                failed += 1;
                std.debug.print("FAIL {s}: {t}\n", .{ test_function.name, err });
                if (@errorReturnTrace()) |trace| std.debug.dumpErrorReturnTrace(trace);
            },
        }
    }
    std.debug.print("zig tests {s}: {d} passed, {d} failed, {d} skipped\n", .{ name, passed, failed, skipped });
    return if (failed != 0 or builtin.test_functions.len == 0) 1 else 0;
}

fn number(argument: []const u8) usize {
    return std.fmt.parseInt(usize, argument, 10) catch @panic("part and parts are whole numbers");
}
