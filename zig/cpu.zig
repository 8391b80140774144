//! What the CPU can do: its features by name, the instruction-set levels linked into this library, and which of them may
//! run here. A level may run when CPUID says so, the operating system saves its registers (XCR0), and, for AMX, Linux has
//! granted the tiles to this process.

const std = @import("std");
const builtin = @import("builtin");
const options = @import("options");
const p = @import("program.zig");
const table = @import("kernels/table.zig");

const arch = builtin.cpu.arch;

/// Features that users see, by bit. TypeScript mirrors the order in src/engine/cpu.ts.
pub const Feature = enum(u6) {
    sse42,
    avx,
    avx2,
    fma,
    f16c,
    avx512f,
    avx512bw,
    avx512vl,
    avx512dq,
    avx512vnni,
    avx512bf16,
    avx512fp16,
    avxvnni,
    amx_tile,
    amx_int8,
    amx_bf16,
    neon,
    dotprod,
    i8mm,
    bf16,
    invariant_tsc,
};

pub const Features = std.enums.EnumSet(Feature);

const Level = struct {
    name: [:0]const u8,
    needs: []const Feature,
    kernels: *const table.Table,
    /// The same, reporting every access to memory (trace.zig).
    traced: *const table.Table,
};

const v2 = [_]Feature{.sse42};
const v3 = v2 ++ [_]Feature{ .avx, .avx2, .fma, .f16c };
const v4 = v3 ++ [_]Feature{ .avx512f, .avx512bw, .avx512vl, .avx512dq };
const v4_vnni = v4 ++ [_]Feature{ .avx512vnni, .avx512bf16 };
const v4_amx = v4_vnni ++ [_]Feature{ .amx_tile, .amx_int8, .amx_bf16 };

fn needsOf(comptime name: []const u8) []const Feature {
    const known = .{
        .{ "scalar", &[_]Feature{} },
        .{ "x86_64_v2", &v2 },
        .{ "avx2", &v3 },
        .{ "avx512", &v4 },
        .{ "avx512_vnni", &v4_vnni },
        .{ "amx", &v4_amx },
        .{ "neon", &[_]Feature{.neon} },
        .{ "neon_dotprod", &[_]Feature{ .neon, .dotprod } },
        .{ "neon_i8mm", &[_]Feature{ .neon, .dotprod, .i8mm } },
    };
    inline for (known) |entry| if (comptime std.mem.eql(u8, entry[0], name)) return entry[1];
    @compileError("unknown instruction-set level " ++ name);
}

/// The levels in this library, narrowest first.
pub const levels: [options.levels.len]Level = list: {
    var list: [options.levels.len]Level = undefined;
    for (options.levels, &list) |name, *level| {
        level.* = .{
            .name = name[0..name.len] ++ "",
            .needs = needsOf(name),
            .kernels = @extern(*const table.Table, .{ .name = "tinyai_kernels_" ++ name, .visibility = .hidden }),
            .traced = @extern(*const table.Table, .{ .name = "tinyai_kernels_" ++ name ++ "_traced", .visibility = .hidden }),
        };
    }
    break :list list;
};

pub fn supported(level: usize) bool {
    return suffices(features(), level);
}

fn suffices(have: Features, level: usize) bool {
    for (levels[level].needs) |feature| if (!have.contains(feature)) return false;
    return true;
}

/// Whether each family has a level that there is and that may run here.
pub fn runs(by_family: [p.families]u32) bool {
    const have = features();
    for (by_family) |level| if (level >= levels.len or !suffices(have, level)) return false;
    return true;
}

/// The kernels of each family's level, of those that may run here, or with `traced` those that report their accesses.
pub fn kernelsOf(by_family: [p.families]u32, comptime traced: bool) p.Kernels {
    var kernels: p.Kernels = undefined;
    for (&kernels.values, by_family) |*kernel, level| kernel.* = if (traced) levels[level].traced else levels[level].kernels;
    return kernels;
}

/// The widest level that may run here; the first one always may.
pub fn widest() usize {
    var level = levels.len - 1;
    while (level > 0 and !supported(level)) level -= 1;
    return level;
}

/// Detected afresh on every call (a few CPUID instructions): called when a library is opened and when an engine is made.
pub fn features() Features {
    return switch (arch) {
        .x86_64 => x86Features(),
        .aarch64 => aarch64Features(),
        else => .initEmpty(),
    };
}

const Leaf = struct { eax: u32, ebx: u32, ecx: u32, edx: u32 };

fn cpuid(leaf: u32, subleaf: u32) Leaf {
    var eax: u32 = undefined;
    var ebx: u32 = undefined;
    var ecx: u32 = undefined;
    var edx: u32 = undefined;
    asm volatile ("cpuid"
        : [eax] "={eax}" (eax),
          [ebx] "={ebx}" (ebx),
          [ecx] "={ecx}" (ecx),
          [edx] "={edx}" (edx),
        : [leaf] "{eax}" (leaf),
          [subleaf] "{ecx}" (subleaf),
    );
    return .{ .eax = eax, .ebx = ebx, .ecx = ecx, .edx = edx };
}

fn xcr0() u64 {
    var low: u32 = undefined;
    var high: u32 = undefined;
    asm volatile ("xgetbv"
        : [low] "={eax}" (low),
          [high] "={edx}" (high),
        : [index] "{ecx}" (@as(u32, 0)),
    );
    return @as(u64, high) << 32 | low;
}

fn bit(word: u64, index: u6) bool {
    return word >> index & 1 != 0;
}

fn x86Features() Features {
    var set: Features = .initEmpty();
    const leaf_max = cpuid(0, 0).eax;
    const one = cpuid(1, 0);
    set.setPresent(.sse42, bit(one.ecx, 20) and bit(one.ecx, 23));
    if (cpuid(0x8000_0000, 0).eax >= 0x8000_0007) set.setPresent(.invariant_tsc, bit(cpuid(0x8000_0007, 0).edx, 8));
    const osxsave = bit(one.ecx, 27);
    if (leaf_max < 7 or !osxsave) return set;
    const saved = xcr0();
    const seven = cpuid(7, 0);
    const seven_one = if (seven.eax >= 1) cpuid(7, 1) else Leaf{ .eax = 0, .ebx = 0, .ecx = 0, .edx = 0 };
    const ymm = saved & 0x6 == 0x6;
    const zmm = saved & 0xe6 == 0xe6;
    const tiles = saved & 0x60000 == 0x60000;
    set.setPresent(.avx, ymm and bit(one.ecx, 28));
    set.setPresent(.fma, ymm and bit(one.ecx, 12));
    set.setPresent(.f16c, ymm and bit(one.ecx, 29));
    set.setPresent(.avx2, ymm and bit(seven.ebx, 5) and bit(seven.ebx, 3) and bit(seven.ebx, 8));
    set.setPresent(.avxvnni, ymm and bit(seven_one.eax, 4));
    set.setPresent(.avx512f, zmm and bit(seven.ebx, 16));
    set.setPresent(.avx512dq, zmm and bit(seven.ebx, 17));
    set.setPresent(.avx512bw, zmm and bit(seven.ebx, 30) and bit(seven.ebx, 28));
    set.setPresent(.avx512vl, zmm and bit(seven.ebx, 31));
    set.setPresent(.avx512vnni, zmm and bit(seven.ecx, 11));
    set.setPresent(.avx512bf16, zmm and bit(seven_one.eax, 5));
    set.setPresent(.avx512fp16, zmm and bit(seven.edx, 23));
    if (tiles and bit(seven.edx, 24) and tilesGranted()) {
        set.insert(.amx_tile);
        set.setPresent(.amx_int8, bit(seven.edx, 25));
        set.setPresent(.amx_bf16, bit(seven.edx, 22));
    }
    return set;
}

/// Asks Linux for the tile registers; threads started afterwards have them too.
fn tilesGranted() bool {
    if (builtin.os.tag != .linux or arch != .x86_64) return false;
    const arch_req_xcomp_perm = 0x1023;
    const xfeature_xtiledata = 18;
    return std.os.linux.syscall2(.arch_prctl, arch_req_xcomp_perm, xfeature_xtiledata) == 0;
}

fn aarch64Features() Features {
    var set: Features = .initEmpty();
    set.insert(.neon);
    set.insert(.invariant_tsc);
    switch (builtin.os.tag) {
        .linux => {
            const hwcap = std.os.linux.getauxval(16);
            const hwcap2 = std.os.linux.getauxval(26);
            set.setPresent(.dotprod, bit(hwcap, 20));
            set.setPresent(.i8mm, bit(hwcap2, 13));
            set.setPresent(.bf16, bit(hwcap2, 14));
        },
        .macos => {
            set.setPresent(.dotprod, sysctlFlag("hw.optional.arm.FEAT_DotProd"));
            set.setPresent(.i8mm, sysctlFlag("hw.optional.arm.FEAT_I8MM"));
            set.setPresent(.bf16, sysctlFlag("hw.optional.arm.FEAT_BF16"));
        },
        else => {},
    }
    return set;
}

fn sysctlFlag(name: [*:0]const u8) bool {
    var value: c_int = 0;
    var length: usize = @sizeOf(c_int);
    return std.c.sysctlbyname(name, &value, &length, null, 0) == 0 and value != 0;
}
