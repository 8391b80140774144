//! Emulates AMX's int8 tile instructions for tests, on Linux machines whose CPU has AVX-512 but no tiles: each such
//! instruction raises SIGILL, and the handler does its work and steps over it. Encodings and semantics: Intel 64 and
//! IA-32 Architectures Software Developer's Manual, volume 2, "Intel AMX instruction reference". Slow, and in no library.

const std = @import("std");
const builtin = @import("builtin");
const vec = @import("vec.zig");
const linux = std.os.linux;

/// Makes tile instructions work in this process: by permission where the CPU has tiles, else by emulation. Does nothing at
/// other levels; may be called again.
pub fn prepare() void {
    if (!vec.has_tiles or builtin.os.tag != .linux) return;
    if (ready) return;
    ready = true;
    if (hardware()) return;
    var action: std.posix.Sigaction = .{
        .handler = .{ .sigaction = handle },
        .mask = std.posix.sigemptyset(),
        .flags = linux.SA.SIGINFO,
    };
    std.posix.sigaction(.ILL, &action, null);
}

var ready = false;

/// Whether tests ran on emulated tiles, and how many products those did.
pub var products: u64 = 0;

pub fn hardware() bool {
    var eax: u32 = 7;
    var ecx: u32 = 0;
    var edx: u32 = undefined;
    asm volatile ("cpuid"
        : [eax] "+{eax}" (eax),
          [ecx] "+{ecx}" (ecx),
          [edx] "={edx}" (edx),
        :
        : .{ .ebx = true });
    const amx_tile_and_int8 = 1 << 24 | 1 << 25;
    if (edx & amx_tile_and_int8 != amx_tile_and_int8) return false;
    const arch_req_xcomp_perm = 0x1023;
    const xfeature_xtiledata = 18;
    return linux.syscall2(.arch_prctl, arch_req_xcomp_perm, xfeature_xtiledata) == 0;
}

/// The head of Linux's ucontext on x86-64; registers in the order of <sys/ucontext.h>.
const Context = extern struct {
    flags: u64,
    link: ?*anyopaque,
    stack: [3]u64,
    registers: [23]u64,

    const instruction_pointer = 16;
    /// Places in `registers` by the number an instruction encodes.
    const order = [16]u8{ 13, 14, 12, 11, 15, 10, 9, 8, 0, 1, 2, 3, 4, 5, 6, 7 };

    fn register(context: *const Context, number: usize) u64 {
        return context.registers[order[number]];
    }
};

const Tile = struct { rows: u8 = 0, row_bytes: u16 = 0, data: [16][64]u8 = @splat(@splat(0)) };
threadlocal var tiles: [8]Tile = @splat(.{});

fn handle(_: std.posix.SIG, _: *const linux.siginfo_t, opaque_context: ?*anyopaque) callconv(.c) void {
    const context: *Context = @ptrCast(@alignCast(opaque_context.?));
    const address = context.registers[Context.instruction_pointer];
    const code: [*]const u8 = @ptrFromInt(address);
    if (execute(context, code)) |length| {
        context.registers[Context.instruction_pointer] = address + length;
    } else {
        // Not ours: the default action, a crash, when the instruction runs again.
        var action: std.posix.Sigaction = .{ .handler = .{ .handler = linux.SIG.DFL }, .mask = std.posix.sigemptyset(), .flags = 0 };
        std.posix.sigaction(.ILL, &action, null);
    }
}

/// Executes the tile instruction at `code`; its length, or null where there is none.
fn execute(context: *const Context, code: [*]const u8) ?u64 {
    // C4, then R X B (inverted) and the opcode map, then W, vvvv (inverted), L and the prefix: all in map 2, W = L = 0.
    if (code[0] != 0xc4 or code[1] & 0x1f != 2 or code[2] & 0x84 != 0) return null;
    const prefix: enum(u2) { none, x66, f3, f2 } = @enumFromInt(code[2] & 3);
    const opcode = code[3];
    const modrm = code[4];
    const mode = modrm >> 6;
    const reg: u3 = @truncate(modrm >> 3);
    const rm: u3 = @truncate(modrm);
    if (opcode == 0x49 and mode == 3) {
        if (prefix == .none and modrm == 0xc0) {
            tiles = @splat(.{});
            return 5;
        }
        if (prefix == .f2 and rm == 0) {
            tiles[reg].data = @splat(@splat(0));
            return 5;
        }
        return null;
    }
    if (opcode == 0x5e and mode == 3) {
        const third: u3 = @truncate(~code[2] >> 3);
        product(reg, rm, third, prefix == .f2 or prefix == .f3, prefix == .f2 or prefix == .x66);
        return 5;
    }
    if (mode == 3) return null;
    const memory = operand(context, code) orelse return null;
    if (opcode == 0x49 and prefix == .none and reg == 0) {
        const config: [*]const u8 = @ptrFromInt(memory.address);
        if (config[0] != 1) return null;
        for (&tiles, 0..) |*tile, index| {
            tile.* = .{ .rows = config[48 + index], .row_bytes = std.mem.readInt(u16, config[16 + 2 * index ..][0..2], .little) };
            if (tile.rows > 16 or tile.row_bytes > 64) return null;
        }
        return 4 + memory.length;
    }
    if (opcode == 0x4b and rm == 4) {
        const tile = &tiles[reg];
        if (tile.rows == 0 or tile.row_bytes == 0) return null;
        for (0..tile.rows) |row| {
            const line: [*]u8 = @ptrFromInt(memory.address +% row *% memory.stride);
            if (prefix == .f2) {
                tile.data[row] = @splat(0);
                @memcpy(tile.data[row][0..tile.row_bytes], line);
            } else if (prefix == .f3) {
                @memcpy(line, tile.data[row][0..tile.row_bytes]);
            } else return null;
        }
        return 4 + memory.length;
    }
    return null;
}

const Operand = struct { address: u64, stride: u64, length: u64 };

/// The memory operand after four bytes of prefix and opcode; `length` counts ModRM, SIB and displacement.
fn operand(context: *const Context, code: [*]const u8) ?Operand {
    const modrm = code[4];
    const mode = modrm >> 6;
    const rm = modrm & 7;
    const base_high: u8 = if (code[1] & 0x20 == 0) 8 else 0;
    const index_high: u8 = if (code[1] & 0x40 == 0) 8 else 0;
    var length: u64 = 1;
    var address: u64 = 0;
    var stride: u64 = 0;
    var base = rm;
    if (rm == 4) {
        const sib = code[5];
        length += 1;
        base = sib & 7;
        const index = (sib >> 3 & 7) + index_high;
        if (index != 4) stride = context.register(index) << @intCast(sib >> 6);
    }
    const no_base = base == 5 and mode == 0;
    if (no_base and rm != 4) {
        // Relative to the next instruction.
        const displacement: u64 = @bitCast(@as(i64, std.mem.readInt(i32, code[5..9], .little)));
        return .{ .address = context.registers[Context.instruction_pointer] +% 9 +% displacement, .stride = 0, .length = 5 };
    }
    if (!no_base) address = context.register(base + base_high);
    if (mode == 1) {
        address +%= @bitCast(@as(i64, @as(i8, @bitCast(code[4 + length]))));
        length += 1;
    } else if (mode == 2 or no_base) {
        address +%= @bitCast(@as(i64, std.mem.readInt(i32, code[4 + length ..][0..4], .little)));
        length += 4;
    }
    return .{ .address = address, .stride = stride, .length = length };
}

fn product(sum: u3, a: u3, b: u3, a_signed: bool, b_signed: bool) void {
    const quads = tiles[a].row_bytes / 4;
    std.debug.assert(tiles[b].rows == quads and tiles[sum].rows == tiles[a].rows and tiles[sum].row_bytes == tiles[b].row_bytes);
    products += 1;
    for (0..tiles[sum].rows) |row| {
        for (0..tiles[sum].row_bytes / 4) |column| {
            const place = tiles[sum].data[row][column * 4 ..][0..4];
            var total = std.mem.readInt(i32, place, .little);
            for (0..quads) |quad| {
                for (0..4) |index| {
                    const x = tiles[a].data[row][quad * 4 + index];
                    const w = tiles[b].data[quad][column * 4 + index];
                    const x_value: i32 = if (a_signed) @as(i8, @bitCast(x)) else x;
                    const w_value: i32 = if (b_signed) @as(i8, @bitCast(w)) else w;
                    total +%= x_value * w_value;
                }
            }
            std.mem.writeInt(i32, place, total, .little);
        }
    }
}

test "a tile product equals plain sums, for both widths and any stride" {
    if (!vec.has_tiles) return error.SkipZigTest;
    prepare();
    vec.threadBegin();
    defer vec.threadEnd();
    var prng: std.Random.DefaultPrng = .init(31);
    inline for (.{ 16, 32 }) |columns| {
        inline for (.{ 0, 1 }) |parity| {
            const stride = 80;
            var x: [16 * stride]u8 = undefined;
            var codes: [columns * 16]u8 align(64) = undefined;
            prng.random().bytes(&x);
            prng.random().bytes(&codes);
            var sums: vec.TileSums align(64) = undefined;
            vec.tileProduct(columns, parity, &sums, &x, stride, &codes);
            for (0..16) |token| {
                for (0..16) |row| {
                    var expected: i32 = 0;
                    for (0..columns) |column| {
                        const w: i8 = @bitCast(codes[column / 4 * 64 + row * 4 + column % 4]);
                        expected += @as(i32, w) * @as(i8, @bitCast(x[token * stride + column]));
                    }
                    try std.testing.expectEqual(expected, sums[token][row]);
                }
            }
        }
    }
    if (!hardware()) try std.testing.expect(products > 0);
}
