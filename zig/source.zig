//! The files that hold a model's row-major tensors, read as if they were one: an offset counts through all of them in order.

const std = @import("std");
const assert = std.debug.assert;
const system = @import("system.zig");

/// Models in more files than this have more weights than this engine is for.
pub const files_max = 64;

pub const Source = struct {
    files: [files_max]system.File,
    /// Where each file begins.
    begins: [files_max]u64,
    count: u32,

    /// `paths` are the files' one behind the other, each with a zero at its end, and after the last another zero.
    pub fn open(paths: [*:0]const u8) error{Open}!Source {
        var source: Source = .{ .files = undefined, .begins = undefined, .count = 0 };
        errdefer source.close();
        var path = paths;
        var begin: u64 = 0;
        while (path[0] != 0) : (path += std.mem.len(path) + 1) {
            if (source.count == files_max) return error.Open;
            const file = try system.File.open(path, .read);
            source.files[source.count] = file;
            source.begins[source.count] = begin;
            source.count += 1;
            begin += try file.size();
        }
        if (source.count == 0) return error.Open;
        return source;
    }

    pub fn close(source: Source) void {
        for (source.files[0..source.count]) |file| file.close();
    }

    /// Fills `buffer` from `offset` on, out of one of the files.
    pub fn readAll(source: *const Source, buffer: []u8, offset: u64) error{ Read, CutShort }!void {
        assert(source.count > 0);
        var index = source.count - 1;
        while (source.begins[index] > offset) index -= 1;
        return source.files[index].readAll(buffer, offset - source.begins[index]);
    }
};

test "an offset counts through all files" {
    var folder = std.testing.tmpDir(.{});
    defer folder.cleanup();
    const io = std.testing.io;
    try folder.dir.writeFile(io, .{ .sub_path = "first", .data = "abc" });
    try folder.dir.writeFile(io, .{ .sub_path = "second", .data = "defgh" });
    var names: [2][:0]u8 = undefined;
    for ([_][]const u8{ "first", "second" }, &names) |name, *path| {
        path.* = try folder.dir.realPathFileAlloc(io, name, std.testing.allocator);
    }
    defer for (names) |path| std.testing.allocator.free(path);
    const paths = try std.fmt.allocPrintSentinel(std.testing.allocator, "{s}\x00{s}\x00", .{ names[0], names[1] }, 0);
    defer std.testing.allocator.free(paths);
    const source = try Source.open(paths);
    defer source.close();
    var bytes: [2]u8 = undefined;
    for ([_]u64{ 1, 3, 6 }, [_][]const u8{ "bc", "de", "gh" }) |offset, expected| {
        try source.readAll(&bytes, offset);
        try std.testing.expectEqualStrings(expected, &bytes);
    }
    try std.testing.expectError(error.CutShort, source.readAll(&bytes, 2));
    try std.testing.expectError(error.CutShort, source.readAll(&bytes, 7));
    try std.testing.expectError(error.Open, Source.open(""));
}
