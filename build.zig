//! Builds TinyAI's shared library: the data plane (`zig/tinyai.zig`, for the architecture's baseline CPU) and the kernels
//! once per instruction-set level, all in one file.
//!
//!   zig build                    the library for this machine, in zig-out/lib
//!   zig build test               Zig's tests, at every level that can run here (best with --error-style minimal)
//!   zig build levels             the levels' objects with their symbols, in zig-out/levels, for a look at the assembly
//!   zig build memory-check       a program that runs one kernel for tools that watch memory, in zig-out/bin
//!   zig build -Dall              the library for every supported system, in zig-out/<system>
//!   zig build -Dlevels=a,b       only these levels (faster while working on a kernel)

const std = @import("std");

const Level = struct {
    name: []const u8,
    arch: std.Target.Cpu.Arch,
    model: *const std.Target.Cpu.Model,
    add: std.Target.Cpu.Feature.Set = .empty,
    sub: std.Target.Cpu.Feature.Set = .empty,
    /// What this machine must have to run the level's tests without an emulator.
    needs: std.Target.Cpu.Feature.Set,
    /// qemu-user's CPU model that has the level's instructions and not the next one's; null: qemu lacks them.
    qemu_cpu: ?[]const u8,
    /// Features of that model that qemu would warn it cannot emulate; none that a program sees.
    qemu_without: []const u8 = "",
};

const x86 = std.Target.x86.featureSet;
const arm = std.Target.aarch64.featureSet;
/// The model x86_64_v4 is tuned for the first CPUs with AVX-512, which slowed down under 512-bit instructions. The
/// kernels are written for whole registers.
const wide = x86(&.{.prefer_256_bit});

/// Narrowest first; the library picks the last one that the CPU has.
const levels = [_]Level{
    .{ .name = "scalar", .arch = .x86_64, .model = &std.Target.x86.cpu.x86_64, .needs = .empty, .qemu_cpu = "Nehalem" },
    .{ .name = "x86_64_v2", .arch = .x86_64, .model = &std.Target.x86.cpu.x86_64_v2, .needs = x86(&.{ .sse4_2, .popcnt }), .qemu_cpu = "Nehalem" },
    .{ .name = "avx2", .arch = .x86_64, .model = &std.Target.x86.cpu.x86_64_v3, .needs = x86(&.{ .avx2, .fma, .f16c, .bmi2 }), .qemu_cpu = "Haswell", .qemu_without = ",-pcid,-x2apic,-tsc-deadline,-hle,-invpcid,-rtm" },
    .{
        .name = "avx512",
        .arch = .x86_64,
        .model = &std.Target.x86.cpu.x86_64_v4,
        .sub = wide,
        .needs = x86(&.{ .avx512f, .avx512bw, .avx512vl, .avx512dq }),
        .qemu_cpu = null,
    },
    .{
        .name = "avx512_vnni",
        .arch = .x86_64,
        .model = &std.Target.x86.cpu.x86_64_v4,
        .add = x86(&.{ .avx512vnni, .avx512bf16 }),
        .sub = wide,
        .needs = x86(&.{ .avx512f, .avx512bw, .avx512vl, .avx512dq, .avx512vnni, .avx512bf16 }),
        .qemu_cpu = null,
    },
    .{
        .name = "amx",
        .arch = .x86_64,
        .model = &std.Target.x86.cpu.x86_64_v4,
        .add = x86(&.{ .avx512vnni, .avx512bf16, .amx_tile, .amx_int8, .amx_bf16 }),
        .sub = wide,
        // The tests emulate the tile instructions where the CPU has none.
        .needs = x86(&.{ .avx512f, .avx512bw, .avx512vl, .avx512dq, .avx512vnni, .avx512bf16 }),
        .qemu_cpu = null,
    },
    .{ .name = "neon", .arch = .aarch64, .model = &std.Target.aarch64.cpu.generic, .needs = .empty, .qemu_cpu = "cortex-a53" },
    .{
        .name = "neon_dotprod",
        .arch = .aarch64,
        .model = &std.Target.aarch64.cpu.generic,
        .add = arm(&.{.dotprod}),
        .needs = arm(&.{.dotprod}),
        .qemu_cpu = "max",
    },
    .{
        .name = "neon_i8mm",
        .arch = .aarch64,
        .model = &std.Target.aarch64.cpu.generic,
        .add = arm(&.{ .dotprod, .i8mm }),
        .needs = arm(&.{ .dotprod, .i8mm }),
        .qemu_cpu = "max",
    },
};

const System = struct {
    /// As npm and Node name it; the folder in zig-out and the platform package are called so.
    name: []const u8,
    arch: std.Target.Cpu.Arch,
    os: std.Target.Os.Tag,
    /// Without a C library, so that a machine without the architecture's can run it: tests under an emulator.
    freestanding: bool = false,
};

const systems = [_]System{
    .{ .name = "linux-x64", .arch = .x86_64, .os = .linux },
    .{ .name = "linux-arm64", .arch = .aarch64, .os = .linux },
    .{ .name = "darwin-x64", .arch = .x86_64, .os = .macos },
    .{ .name = "darwin-arm64", .arch = .aarch64, .os = .macos },
    .{ .name = "win32-x64", .arch = .x86_64, .os = .windows },
};

/// What a missing qemu means to `zig build test`.
const Qemu = enum { auto, require, off };

pub fn build(b: *std.Build) void {
    const optimize = b.option(std.builtin.OptimizeMode, "optimize", "How the library is optimized (default ReleaseFast)") orelse .ReleaseFast;
    const all = b.option(bool, "all", "Build for every supported system instead of this one") orelse false;
    const wanted = b.option([]const u8, "levels", "Comma-separated instruction-set levels to build (default all)");
    const qemu = b.option(Qemu, "qemu", "Tests of foreign levels under qemu-user: auto (default), require, off") orelse .auto;
    if (wanted) |list| checkLevels(list);

    const host: System = .{ .name = "", .arch = b.graph.host.result.cpu.arch, .os = b.graph.host.result.os.tag };
    if (all) {
        for (systems) |system| {
            const library = addLibrary(b, system, optimize, wanted);
            const install = b.addInstallArtifact(library, .{ .dest_dir = .{ .override = .{ .custom = system.name } }, .implib_dir = .disabled, .pdb_dir = .disabled });
            b.getInstallStep().dependOn(&install.step);
        }
    } else {
        const library = addLibrary(b, host, optimize, wanted);
        b.getInstallStep().dependOn(&b.addInstallArtifact(library, .{ .implib_dir = .disabled, .pdb_dir = .disabled }).step);
    }

    addLevelsStep(b, wanted, optimize);
    addMemoryCheckStep(b, host, optimize);
    addTestStep(b, host, optimize, wanted, qemu);
}

fn checkLevels(list: []const u8) void {
    var names = std.mem.splitScalar(u8, list, ',');
    next: while (names.next()) |name| {
        for (levels) |level| if (std.mem.eql(u8, level.name, name)) continue :next;
        std.process.fatal("-Dlevels: there is no level '{s}'; see `levels` in build.zig", .{name});
    }
}

fn isWanted(level: Level, wanted: ?[]const u8) bool {
    var names = std.mem.splitScalar(u8, wanted orelse return true, ',');
    while (names.next()) |name| if (std.mem.eql(u8, level.name, name)) return true;
    return false;
}

fn baseline(arch: std.Target.Cpu.Arch) *const std.Target.Cpu.Model {
    return switch (arch) {
        .x86_64 => &std.Target.x86.cpu.x86_64,
        .aarch64 => &std.Target.aarch64.cpu.generic,
        else => std.process.fatal("TinyAI has no kernels for {t}", .{arch}),
    };
}

fn resolve(b: *std.Build, system: System, level: ?Level) std.Build.ResolvedTarget {
    return b.resolveTargetQuery(.{
        .cpu_arch = system.arch,
        .cpu_model = .{ .explicit = if (level) |l| l.model else baseline(system.arch) },
        .cpu_features_add = if (level) |l| l.add else .empty,
        .cpu_features_sub = if (level) |l| l.sub else .empty,
        .os_tag = system.os,
        .abi = switch (system.os) {
            .linux => if (system.freestanding) .musl else .gnu,
            .windows => .gnu,
            else => null,
        },
        // Old enough for every distribution that is still kept: Debian 10, RHEL 8, Ubuntu 18.10.
        .glibc_version = if (system.os == .linux and !system.freestanding) .{ .major = 2, .minor = 28, .patch = 0 } else null,
    });
}

fn levelModule(b: *std.Build, system: System, level: Level, trace: bool, optimize: std.builtin.OptimizeMode) *std.Build.Module {
    const options = b.addOptions();
    options.addOption([]const u8, "name", level.name);
    options.addOption(bool, "trace", trace);
    const module = b.createModule(.{
        .root_source_file = b.path("zig/kernels/level.zig"),
        .target = resolve(b, system, level),
        .optimize = optimize,
        .link_libc = !system.freestanding,
        .pic = true,
        .strip = if (stripped(optimize)) true else null,
        // The library has no unwinder of its own and a kernel calls nothing that could throw.
        .unwind_tables = if (stripped(optimize)) .none else null,
    });
    module.addOptions("level_options", options);
    return module;
}

fn stripped(optimize: std.builtin.OptimizeMode) bool {
    return optimize == .ReleaseFast or optimize == .ReleaseSmall;
}

var objects: std.StringHashMapUnmanaged(*std.Build.Step.Compile) = .empty;

/// The level's object, one step however many link it: the library, the tests of the data plane, `zig build levels`. With `trace`,
/// the one whose kernels report their accesses.
fn levelObject(b: *std.Build, system: System, level: Level, trace: bool, optimize: std.builtin.OptimizeMode) *std.Build.Step.Compile {
    const key = b.fmt("{s} {} {t} {t} {t}", .{ level.name, trace, system.arch, system.os, optimize });
    const entry = objects.getOrPut(b.allocator, key) catch @panic("out of memory");
    if (!entry.found_existing) entry.value_ptr.* = b.addObject(.{
        .name = b.fmt("kernels_{s}{s}", .{ level.name, if (trace) "_traced" else "" }),
        .root_module = levelModule(b, system, level, trace, optimize),
        .use_llvm = true,
    });
    return entry.value_ptr.*;
}

/// Kernels that report every access are slow whatever the compiler does, and small code is made fast.
const trace_optimize: std.builtin.OptimizeMode = .ReleaseSmall;

/// The root module of the library, or of what links the same kernels, with the names of the levels that are linked in.
/// `kernel_optimize` is of the levels.
fn rootModule(b: *std.Build, source: []const u8, system: System, optimize: std.builtin.OptimizeMode, kernel_optimize: std.builtin.OptimizeMode, wanted: ?[]const u8) *std.Build.Module {
    const module = b.createModule(.{
        .root_source_file = b.path(source),
        .target = resolve(b, system, null),
        .optimize = optimize,
        .link_libc = true,
        .pic = true,
        .strip = if (optimize == .ReleaseFast) true else null,
    });
    var names: std.ArrayList([]const u8) = .empty;
    for (levels) |level| {
        if (level.arch != system.arch or !isWanted(level, wanted)) continue;
        names.append(b.allocator, level.name) catch @panic("out of memory");
        module.addObject(levelObject(b, system, level, false, kernel_optimize));
        module.addObject(levelObject(b, system, level, true, trace_optimize));
    }
    if (names.items.len == 0) std.process.fatal("-Dlevels names no level of {t}", .{system.arch});
    const options = b.addOptions();
    options.addOption([]const []const u8, "levels", names.items);
    module.addOptions("options", options);
    return module;
}

fn addLibrary(b: *std.Build, system: System, optimize: std.builtin.OptimizeMode, wanted: ?[]const u8) *std.Build.Step.Compile {
    return b.addLibrary(.{
        .name = "tinyai",
        .linkage = .dynamic,
        .root_module = rootModule(b, "zig/tinyai.zig", system, optimize, optimize, wanted),
        .use_llvm = true,
    });
}

/// Level objects of both architectures, before linking strips their symbols: what test/kernels/disassembly reads.
fn addLevelsStep(b: *std.Build, wanted: ?[]const u8, optimize: std.builtin.OptimizeMode) void {
    const step = b.step("levels", "Install the levels' objects, with symbols, into zig-out/levels");
    for (levels) |level| {
        if (!isWanted(level, wanted)) continue;
        const object = levelObject(b, .{ .name = "", .arch = level.arch, .os = .linux }, level, false, optimize);
        step.dependOn(&b.addInstallFile(object.getEmittedBin(), b.fmt("levels/{s}.o", .{level.name})).step);
    }
}

/// Runs on Linux, where valgrind does; of the levels, those whose instructions valgrind 3.19 knows.
fn addMemoryCheckStep(b: *std.Build, host: System, optimize: std.builtin.OptimizeMode) void {
    const step = b.step("memory-check", "Install the program that runs one kernel over operands at fixed addresses");
    const program = b.addExecutable(.{
        .name = "memory_check",
        .root_module = rootModule(b, "zig/memory_check.zig", host, optimize, optimize, "scalar,x86_64_v2,avx2,neon"),
        .use_llvm = true,
    });
    step.dependOn(&b.addInstallArtifact(program, .{}).step);
}

/// Every test binary ends with a line `zig tests <name>: <n> passed, <n> failed, <n> skipped` (zig/test_runner.zig); what
/// cannot run here is named in a line `zig tests <name>: not run: <why>`.
fn addTestStep(b: *std.Build, host: System, optimize: std.builtin.OptimizeMode, wanted: ?[]const u8, qemu: Qemu) void {
    const step = b.step("test", "Run Zig's tests: the data plane's once, the kernels' at every level that can run here");
    const filters = b.option([]const []const u8, "test-filter", "Only run tests whose name contains this") orelse &.{};
    const traces = b.option(bool, "traces", "Debug information in test binaries: failures show where they arose, compiling takes twice as long") orelse false;
    const runner: std.Build.Step.Compile.TestRunner = .{ .path = b.path("zig/test_runner.zig"), .mode = .simple };

    const root = b.addTest(.{
        .name = "root",
        // The data plane with its assertions, the kernels as the library has them: theirs are tested below.
        .root_module = rootModule(b, "zig/tinyai.zig", host, .ReleaseSafe, optimize, wanted),
        .test_runner = runner,
        .filters = filters,
        .use_llvm = true,
    });
    const run_root = runTests(b, "root");
    run_root.addArtifactArg(root);
    run_root.addArg("root");
    step.dependOn(&run_root.step);

    for (levels) |level| {
        if (!isWanted(level, wanted)) continue;
        const native = level.arch == host.arch and b.graph.host.result.cpu.features.isSuperSetOf(level.needs);
        const emulator = if (qemu == .off or level.qemu_cpu == null) null else findQemu(b, level.arch);
        if (!native and emulator == null) {
            step.dependOn(notRun(b, level, qemu));
            continue;
        }
        const module = levelModule(b, .{
            .name = "",
            .arch = level.arch,
            .os = if (emulator == null) host.os else .linux,
            .freestanding = emulator != null,
        }, level, false, .ReleaseSafe);
        module.strip = !traces;
        const binary = b.addTest(.{
            .name = b.fmt("kernels_{s}", .{level.name}),
            .root_module = module,
            .test_runner = runner,
            .filters = filters,
            .use_llvm = true,
        });
        // A level below this machine's runs on the emulated older CPU as well, which stops at an instruction the level must not
        // use. That takes minutes, so there it is a part of the tests; which instructions all kernels have is read from their code
        // (test/kernels/disassembly.test.ts).
        if (emulator) |program| {
            for (0..if (native) 1 else emulated_parts) |part| {
                const name = b.fmt("{s} (qemu {s}), part {d} of {d}", .{ level.name, level.qemu_cpu.?, part + 1, emulated_parts });
                const run = runTests(b, name);
                run.addArgs(&.{ program, "-cpu", b.fmt("{s}{s}", .{ level.qemu_cpu.?, level.qemu_without }) });
                run.addArtifactArg(binary);
                run.addArgs(&.{ name, b.fmt("{d}", .{part}), b.fmt("{d}", .{emulated_parts}) });
                step.dependOn(&run.step);
            }
        }
        if (native) {
            const run = runTests(b, level.name);
            run.addArtifactArg(binary);
            run.addArg(level.name);
            step.dependOn(&run.step);
        }
        if (native and emulator == null and level.qemu_cpu != null and qemu != .off) step.dependOn(notRun(b, level, qemu));
    }
}

/// Processes that share an emulated level's tests, which take minutes: alone, the last one would leave the other CPUs idle.
const emulated_parts = 4;

/// A run whose output is shown when it ends. It is executed each time; with streams that are inherited, one run would wait for the other.
fn runTests(b: *std.Build, name: []const u8) *std.Build.Step.Run {
    const run = std.Build.Step.Run.create(b, b.fmt("run tests of {s}", .{name}));
    run.has_side_effects = true;
    run.expectExitCode(0);
    return run;
}

fn findQemu(b: *std.Build, arch: std.Target.Cpu.Arch) ?[]const u8 {
    return b.findProgram(&.{b.fmt("qemu-{t}", .{arch})}, &.{}) catch null;
}

const NotRun = struct {
    step: std.Build.Step,
    level: Level,
    fail: bool,

    fn make(step: *std.Build.Step, _: std.Build.Step.MakeOptions) anyerror!void {
        const self: *NotRun = @fieldParentPtr("step", step);
        if (self.level.qemu_cpu) |cpu| {
            const format = "zig tests {s} (qemu {s}): not run: qemu-{t} is not installed (Debian: apt-get install qemu-user)";
            const arguments = .{ self.level.name, cpu, self.level.arch };
            if (self.fail) return step.fail(format, arguments);
            std.debug.print(format ++ "\n", arguments);
        } else {
            std.debug.print("zig tests {s}: not run: this CPU lacks the level's instructions and qemu cannot emulate them\n", .{self.level.name});
        }
    }
};

fn notRun(b: *std.Build, level: Level, qemu: Qemu) *std.Build.Step {
    const self = b.allocator.create(NotRun) catch @panic("out of memory");
    self.* = .{
        .step = .init(.{ .id = .custom, .name = b.fmt("level {s} not run", .{level.name}), .owner = b, .makeFn = NotRun.make }),
        .level = level,
        .fail = qemu == .require,
    };
    return &self.step;
}
