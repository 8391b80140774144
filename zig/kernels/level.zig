//! One instruction-set level: the root of an object that is compiled once per level. It exports the level's `Table` under
//! the hidden symbol `tinyai_kernels_<level>` and nothing else that another level could collide with. Compiled once more with
//! `level_options.trace`, it reports every access to memory, and the symbol is `tinyai_kernels_<level>_traced`.

const std = @import("std");
const table = @import("table.zig");
const vec = @import("vec.zig");
const quant = @import("quant.zig");
const matmul = @import("matmul.zig");
const pack = @import("pack.zig");
const convert = @import("convert.zig");
const activation = @import("activation.zig");
const attention = @import("attention.zig");
const conv = @import("conv.zig");
const encoder = @import("encoder.zig");
const norm = @import("norm.zig");
const peak = @import("peak.zig");
const pooling = @import("pooling.zig");
const rope = @import("rope.zig");
const sample = @import("sample.zig");
const screen = @import("screen.zig");
const search = @import("search.zig");

const name = @tagName(vec.level);

const kernels: table.Table = .{
    .name = name,
    .wide_form = quant.wide_form,
    .pack = vec.entered(pack.pack),
    .matmul = vec.entered(matmul.matmul),
    .embed = vec.entered(matmul.embed),
    .quantize = vec.entered(quant.quantize),
    .norm = vec.entered(norm.norm),
    .add = vec.entered(norm.add),
    .glu = vec.entered(activation.glu),
    .rope_table = vec.entered(rope.ropeTable),
    .rope_store = vec.entered(rope.ropeStore),
    .attention = vec.entered(attention.attention),
    .attention_merge = vec.entered(attention.attentionMerge),
    .rope = vec.entered(rope.rope),
    .encode = vec.entered(encoder.encode),
    .conv = vec.entered(conv.conv),
    .pool = vec.entered(pooling.pool),
    .search = vec.entered(search.search),
    .search_merge = vec.entered(search.merge),
    .sample = vec.entered(sample.sample),
    .score = vec.entered(sample.score),
    .screen_build = vec.entered(screen.build),
    .screen = vec.entered(screen.screen),
    .screen_pick = vec.entered(screen.pick),
    .convert = vec.entered(convert.convert),
    .peak = peak.peak,
    .traffic = peak.traffic,
    .thread_begin = vec.threadBegin,
    .thread_end = vec.threadEnd,
};

comptime {
    @export(&kernels, .{ .name = "tinyai_kernels_" ++ vec.suffix, .visibility = .hidden });
}

test {
    _ = vec;
    _ = quant;
    _ = matmul;
    _ = pack;
    _ = convert;
    _ = @import("encode.zig");
    _ = @import("format.zig");
    _ = @import("prefetch.zig");
    if (vec.has_tiles) _ = @import("amx_emulator.zig");
    _ = activation;
    _ = attention;
    _ = conv;
    _ = encoder;
    _ = norm;
    _ = peak;
    _ = pooling;
    _ = rope;
    _ = sample;
    _ = screen;
    _ = search;
}
