import { expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ensureLibrary } from "../../src/setup/build.ts";
import { temporaryFolder } from "../cli/support.ts";

setDefaultTimeout(120_000);

// What stands in for Zig is a shell script.
const posix = test.skipIf(process.platform === "win32");
const name = process.platform === "darwin" ? "libtinyai.dylib" : "libtinyai.so";

/** A checkout whose Zig notes each build and, unless told otherwise, "compiles" zig/tinyai.zig by copying it. */
function makeCheckout(folder: string, script = `cp zig/tinyai.zig zig-out/lib/${name}`) {
  mkdirSync(join(folder, "zig", "kernels"), { recursive: true });
  writeFileSync(join(folder, "build.zig"), "// build");
  writeFileSync(join(folder, "zig", "tinyai.zig"), "// one");
  writeFileSync(join(folder, "zig", "kernels", "norm.zig"), "// norm");
  const zig = join(folder, "fake-zig");
  writeFileSync(zig, `#!/bin/sh\necho "$@" >> builds\nmkdir -p zig-out/lib\n${script}\n`);
  chmodSync(zig, 0o755);
  const builds = () => readFileSync(join(folder, "builds"), "utf8").trim().split("\n").length;
  return { options: { folder, zig }, builds };
}

posix("the library is built once, and not again while nothing changes", async () => {
  using folder = temporaryFolder();
  const { options, builds } = makeCheckout(folder.path);
  const library = await ensureLibrary(options);
  expect(library).toBe(join(folder.path, "zig-out", "lib", name));
  expect(readFileSync(library, "utf8")).toBe("// one");
  await ensureLibrary(options);
  expect(builds()).toBe(1);
});

posix("a changed or added source, or another build.zig, is built again", async () => {
  using folder = temporaryFolder();
  const { options, builds } = makeCheckout(folder.path);
  await ensureLibrary(options);
  const changes: [file: string, text: string][] = [
    ["zig/kernels/norm.zig", "// norm, better"],
    ["zig/kernels/rope.zig", "// rope"],
    ["build.zig", "// build, otherwise"],
  ];
  for (const [index, [file, text]] of changes.entries()) {
    writeFileSync(join(folder.path, file), text);
    await ensureLibrary(options);
    await ensureLibrary(options);
    expect(builds()).toBe(index + 2);
  }
});

posix("a library that someone else put in its place is built again", async () => {
  using folder = temporaryFolder();
  const { options, builds } = makeCheckout(folder.path);
  writeFileSync(await ensureLibrary(options), "// one level only");
  await ensureLibrary(options);
  expect(builds()).toBe(2);
});

posix("a build that fails is told with what Zig said, and tried again next time", async () => {
  using folder = temporaryFolder();
  const { options, builds } = makeCheckout(folder.path, "echo 'norm.zig:3:1: error: no' >&2; exit 1");
  for (const count of [1, 2]) {
    await expect(ensureLibrary(options)).rejects.toThrow("norm.zig:3:1: error: no");
    expect(builds()).toBe(count);
  }
});

posix("a build that leaves no library is a failure", async () => {
  using folder = temporaryFolder();
  const { options } = makeCheckout(folder.path, "true");
  await expect(ensureLibrary(options)).rejects.toThrow("left no");
});
