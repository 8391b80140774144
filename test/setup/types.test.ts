// The package's types, as a program sees them that uses it and checks libraries too.

import { expect, test } from "bun:test";
import { join } from "node:path";
import { reportPage as declared } from "../../profiler/page/entry.js";
import { reportPage } from "../../profiler/page/index.ts";
import { root } from "../../src/setup/checkout.ts";
import { runProgram } from "../../src/setup/python.ts";

test("the entries' types hold where nothing is known of browsers, and none of them are ECharts'", async () => {
  const flags =
    "--noEmit --ignoreConfig --strict --skipLibCheck false --target esnext --lib esnext --types bun --module preserve " +
    "--moduleResolution bundler --allowImportingTsExtensions --resolveJsonModule --listFiles";
  const entries = ["src/index.ts", "src/benchmark/index.ts", "src/metrics/index.ts", "src/test/index.ts"].map((path) =>
    join(root, path),
  );
  const tsc = join(root, "node_modules", ".bin", "tsc");
  const { stdout } = await runProgram([tsc, ...flags.split(" "), ...entries], { env: process.env });
  const lines = stdout.split(/\r?\n/);
  expect(lines.filter((line) => line.includes("echarts"))).toEqual([]);
  expect(lines.filter((line) => line.includes(": error ") && !line.includes("node_modules"))).toEqual([]);
  expect(lines.filter((line) => line.endsWith("src/load.ts")).length).toBe(1);
}, 60_000);

test("the page's entry has the type that it is declared with", () => {
  // Each is assigned to the other's type; the type checker says whether they fit.
  const same: { one: typeof declared; other: typeof reportPage } = { one: reportPage, other: declared };
  expect(same.one).toBe(same.other);
});
