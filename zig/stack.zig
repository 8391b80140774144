//! What a kernel keeps for itself: the cache lines of its stack, where its locals are and what did not fit the registers, and those
//! of its constants. The simulated caches are told of them beside the operands, which have less of the first level for them:
//! without, products of some tokens missed there up to a sixth less often than under valgrind's cachegrind.
//!
//! Lines of the stack are found by running the ordinary kernel on a stack of its own that is full of a pattern: where the pattern
//! is gone, it wrote. That stack begins on a page, so that the same code gives the same lines on every run. How often and
//! in which order a kernel uses them nobody knows without reading its machine code. They take turns, one for every few accesses
//! to operands: so they stay in the first level, as they do in a machine (test/kernels/cache-simulator.test.ts).

const std = @import("std");
const builtin = @import("builtin");
const allocations = @import("allocations.zig");

const line_bytes = 64;
/// As much as a thread of the pool has.
pub const stack_bytes = 1 << 20;
/// Constants of the code cannot be found in this way. By valgrind's lackey, kernels at avx2 and below read 6 to 20 lines of them,
/// about half of them all the time.
const constant_lines = 8;
const pattern = 0x9d1c_65e0_3b7a_f284;

pub const Stack = struct {
    memory: []align(4096) u8,
    /// Lines that the call wrote last, from the top of the stack: 0 is the first one below it.
    lines: [watched_bytes / line_bytes]u16 = undefined,
    count: u32 = 0,
    turn: u32 = 0,
    accesses: u32 = 0,

    /// Accesses to operands for one to a line: few of them to the stack, for each costs the simulator as much as any other, but
    /// enough to keep fifty lines. With 16, norms whose rows all lie in the same sets missed 13 % too often.
    const accesses_per_turn = 8;
    /// What is looked at, from the top: more than any kernel writes.
    pub const watched_bytes = 32 << 10;

    pub fn create() error{OutOfMemory}!Stack {
        return .{ .memory = try allocations.map(stack_bytes) };
    }

    pub fn destroy(stack: *Stack) void {
        allocations.unmap(stack.memory);
    }

    pub fn top(stack: *const Stack) [*]u8 {
        return stack.memory.ptr + stack_bytes;
    }

    /// Runs `what.run()` on this stack.
    pub fn call(stack: *const Stack, what: anytype) void {
        const Entry = struct {
            fn run(context: *anyopaque) callconv(convention) void {
                const called: *@TypeOf(what) = @ptrCast(@alignCast(context));
                called.run();
            }
        };
        var copy = what;
        callOn(stack.top(), &Entry.run, &copy);
    }

    /// The same, and keeps which lines it wrote.
    pub fn watch(stack: *Stack, what: anytype) void {
        const watched: []u64 = @ptrCast(stack.memory[stack_bytes - watched_bytes ..]);
        @memset(watched, pattern);
        stack.call(what);
        stack.forget();
        const words = line_bytes / @sizeOf(u64);
        for (0..watched.len / words) |line| {
            const end = watched.len - line * words;
            if (std.mem.allEqual(u64, watched[end - words .. end], pattern)) continue;
            stack.lines[stack.count] = @intCast(line);
            stack.count += 1;
        }
    }

    /// No lines are known.
    pub fn forget(stack: *Stack) void {
        stack.count = 0;
        stack.turn = 0;
        stack.accesses = 0;
    }

    /// After each access to operands: the line whose turn it is, if it is one's, in bytes from `top() - watched_bytes`. The
    /// constants are taken to lie above the stack.
    pub inline fn next(stack: *Stack) ?u64 {
        if (stack.count == 0) return null;
        stack.accesses += 1;
        if (stack.accesses % accesses_per_turn != 0) return null;
        stack.turn = if (stack.turn + 1 < stack.count + constant_lines) stack.turn + 1 else 0;
        const turn = stack.turn;
        return if (turn < stack.count) watched_bytes - (@as(u64, stack.lines[turn]) + 1) * line_bytes else watched_bytes + (turn - stack.count) * line_bytes;
    }
};

/// The same on every system, so that one piece of assembly does.
const convention: std.builtin.CallingConvention = switch (builtin.cpu.arch) {
    .x86_64 => .{ .x86_64_sysv = .{} },
    else => .c,
};

/// Calls `run(context)` with the stack pointer at `top`.
noinline fn callOn(top: [*]u8, run: *const fn (*anyopaque) callconv(convention) void, context: *anyopaque) void {
    @setEvalBranchQuota(10_000); // Names of registers.
    switch (builtin.cpu.arch) {
        .x86_64 => {
            comptime var clobbers: std.builtin.assembly.Clobbers = .{ .memory = true, .cc = true, .rax = true, .rcx = true, .rdx = true, .rsi = true, .r8 = true, .r9 = true, .r10 = true, .r11 = true, .r12 = true };
            inline for (0..16) |register| @field(clobbers, std.fmt.comptimePrint("xmm{d}", .{register})) = true;
            _ = asm volatile (
                \\movq %%rsp, %%r12
                \\movq %[top], %%rsp
                \\callq *%[run]
                \\movq %%r12, %%rsp
                : [changed] "={rdi}" (-> *anyopaque),
                : [top] "r" (top),
                  [run] "r" (run),
                  [context] "{rdi}" (context),
                : clobbers);
        },
        .aarch64 => {
            comptime var clobbers: std.builtin.assembly.Clobbers = .{ .memory = true, .x19 = true, .x30 = true };
            inline for (1..18) |register| @field(clobbers, std.fmt.comptimePrint("x{d}", .{register})) = true;
            inline for (0..32) |register| @field(clobbers, std.fmt.comptimePrint("v{d}", .{register})) = true;
            _ = asm volatile (
                \\mov x19, sp
                \\mov sp, %[top]
                \\blr %[run]
                \\mov sp, x19
                : [changed] "={x0}" (-> *anyopaque),
                : [top] "r" (top),
                  [run] "r" (run),
                  [context] "{x0}" (context),
                : clobbers);
        },
        else => @compileError("the stack of this architecture is not known"),
    }
}

// ---------------------------------------------------------------------------------------------------------------------

const Probe = struct {
    lines: []const u16,

    /// Writes these lines of its own locals, counted from the top of the stack on.
    noinline fn run(probe: *const Probe) void {
        @setRuntimeSafety(false); // Which fills what is undefined.
        var locals: [64 * line_bytes]u8 align(4096) = undefined;
        const last: [*]volatile u8 = &locals;
        for (probe.lines) |line| last[locals.len - (@as(usize, line) + 1) * line_bytes + 5] = 1;
    }
};

test "of a call's stack, lines that it wrote are told, the same each time, and no others" {
    var stack: Stack = try .create();
    defer stack.destroy();
    var first: [3]u16 = undefined;
    for (0..3) |_| {
        stack.watch(Probe{ .lines = &.{} });
        const frame = stack.count;
        try std.testing.expect(frame >= 1 and frame < 64);
        // Locals begin a page below the top, where the frame's own lines are.
        stack.watch(Probe{ .lines = &.{ 3, 17, 40 } });
        try std.testing.expectEqual(frame + 3, stack.count);
        const wrote = stack.lines[frame..][0..3].*;
        try std.testing.expectEqual(14, wrote[1] - wrote[0]);
        try std.testing.expectEqual(23, wrote[2] - wrote[1]);
        if (first[0] != wrote[0]) first = wrote;
        try std.testing.expectEqual(first, wrote);
    }
}

test "lines take turns" {
    var stack: Stack = try .create();
    defer stack.destroy();
    try std.testing.expectEqual(null, stack.next());
    stack.watch(Probe{ .lines = &.{ 1, 2, 3, 4 } });
    var told: [64]u64 = undefined;
    var count: usize = 0;
    while (count < told.len) if (stack.next()) |place| {
        try std.testing.expect(place % line_bytes == 0 and place < Stack.watched_bytes + constant_lines * line_bytes);
        told[count] = place;
        count += 1;
    };
    const turns = stack.count + constant_lines;
    for (turns..told.len) |index| try std.testing.expectEqual(told[index - turns], told[index]);
    for (1..turns) |index| try std.testing.expect(std.mem.indexOfScalar(u64, told[0..index], told[index]) == null);
    stack.forget();
    try std.testing.expectEqual(null, stack.next());
}
