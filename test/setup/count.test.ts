import { expect, test } from "bun:test";
import { countJunit, countZig, sumRunners } from "../../src/setup/count.ts";

test("the lines of all of Zig's test binaries are added up, wherever they stand in the output", () => {
  const output = [
    "zig tests root: 12 passed, 0 failed, 0 skipped",
    "FAIL kernels.norm.test: TestUnexpectedResult",
    "zig tests avx2 (qemu Haswell): 30 passed, 2 failed, 1 skipped",
    "zig tests amx: not run: this CPU lacks the level's instructions and qemu cannot emulate them",
  ].join("\n");
  expect(countZig(output)).toEqual({ passed: 42, failed: 2 });
});

test("output without a count has none, even if a compiler said a number", () => {
  expect(countZig("error: 3 compilation errors\nBuild Summary: 4/6 steps succeeded")).toBeUndefined();
});

test("a JUnit report's totals are read, skipped tests apart", () => {
  const report = `<?xml version="1.0"?>\n<testsuites name="bun test" tests="10" assertions="9" failures="2" skipped="3" time="1">\n</testsuites>`;
  expect(countJunit(report)).toEqual({ passed: 5, failed: 2 });
  expect(countJunit("")).toBeUndefined();
});

test("pytest's report is read, whose totals are in the suite", () => {
  const report = `<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests"><testsuite name="pytest" errors="1" failures="2" skipped="3" tests="10" time="1.5"><testcase classname="tests.test_a" name="test_b" time="0.1" /></testsuite></testsuites>`;
  expect(countJunit(report)).toEqual({ passed: 4, failed: 3 });
});

test("what `bun test` really writes is read, with its passes, failures and skips", async () => {
  const { mkdtempSync, readFileSync, rmSync, writeFileSync } = await import("node:fs");
  const { tmpdir } = await import("node:os");
  const { join } = await import("node:path");
  const folder = mkdtempSync(join(tmpdir(), "tinyai-count-"));
  writeFileSync(
    join(folder, "a.test.ts"),
    `import { test, expect } from "bun:test";
     test("one", () => expect(1).toBe(1)); test("two", () => expect(1).toBe(2)); test.skip("three", () => {}); test("four", () => {});`,
  );
  const report = join(folder, "report.xml");
  const child = Bun.spawn([process.execPath, "test", "--reporter=junit", `--reporter-outfile=${report}`], {
    cwd: folder,
    stdio: ["ignore", "ignore", "ignore"],
  });
  await child.exited;
  expect(countJunit(readFileSync(report, "utf8"))).toEqual({ passed: 2, failed: 1 });
  rmSync(folder, { recursive: true });
});

test("a runner without a count, without a test, or that ends badly counts as a failure", () => {
  const good = { name: "good", counts: { passed: 3, failed: 0 }, status: 0 };
  expect(sumRunners([good])).toEqual({ passed: 3, failed: 0, problems: [] });
  expect(sumRunners([good, { name: "silent", counts: undefined, status: 0 }])).toMatchObject({ passed: 3, failed: 1 });
  expect(sumRunners([good, { name: "empty", counts: { passed: 0, failed: 0 }, status: 0 }])).toMatchObject({
    passed: 3,
    failed: 1,
  });
  expect(sumRunners([good, { name: "crashed", counts: { passed: 2, failed: 0 }, status: null }])).toMatchObject({
    passed: 5,
    failed: 1,
  });
  expect(sumRunners([good, { name: "red", counts: { passed: 2, failed: 4 }, status: 1 }])).toMatchObject({
    passed: 5,
    failed: 4,
  });
});
