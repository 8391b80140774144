//! One instruction-set level: the root of an object that is compiled once per level. It exports the level's `Table` under
//! the hidden symbol `tinyai_kernels_<level>` and nothing else that another level could collide with.

const std = @import("std");
const table = @import("table.zig");
const vec = @import("vec.zig");
const quant = @import("quant.zig");
const matmul = @import("matmul.zig");
const pack = @import("pack.zig");
const convert = @import("convert.zig");
const activation = @import("activation.zig");
const attention = @import("attention.zig");
const norm = @import("norm.zig");
const peak = @import("peak.zig");
const rope = @import("rope.zig");
const sample = @import("sample.zig");
const screen = @import("screen.zig");

const name = @tagName(vec.level);

const kernels: table.Table = .{
    .name = name,
    .pack = pack.pack,
    .matmul = matmul.matmul,
    .embed = matmul.embed,
    .quantize = quant.quantize,
    .norm = norm.norm,
    .add = norm.add,
    .glu = activation.glu,
    .rope_table = rope.ropeTable,
    .rope_store = rope.ropeStore,
    .attention = attention.attention,
    .attention_merge = attention.attentionMerge,
    .sample = sample.sample,
    .score = sample.score,
    .screen_build = screen.build,
    .screen = screen.screen,
    .screen_pick = screen.pick,
    .convert = convert.convert,
    .peak = peak.peak,
    .traffic = peak.traffic,
    .thread_begin = vec.threadBegin,
    .thread_end = vec.threadEnd,
};

comptime {
    @export(&kernels, .{ .name = "tinyai_kernels_" ++ name, .visibility = .hidden });
}

test {
    _ = vec;
    _ = quant;
    _ = matmul;
    _ = pack;
    _ = convert;
    _ = @import("encode.zig");
    _ = @import("format.zig");
    if (vec.has_tiles) _ = @import("amx_emulator.zig");
    _ = activation;
    _ = attention;
    _ = norm;
    _ = peak;
    _ = rope;
    _ = sample;
    _ = screen;
}
