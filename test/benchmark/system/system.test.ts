// The system's benchmark as a whole, for a moment: its figures are a valid file, and an interruption keeps those that were whole.

import { expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync } from "node:fs";
import { resolveSettings } from "../../../src/benchmark/config.ts";
import { type BenchmarkResults, metrics, type Settings } from "../../../src/benchmark/results.ts";
import { parseResults } from "../../../src/benchmark/results-file.ts";
import { system } from "../../../src/benchmark/system.ts";
import { flaggedSettings } from "../../../src/cli/benchmark/flags.ts";
import { temporaryFolder } from "../../support/folder.ts";
import { keepVariables } from "../../support/variables.ts";

setDefaultTimeout(60_000);

const folder = temporaryFolder();
keepVariables("TINYAI_HOME");
process.env["TINYAI_HOME"] = folder.file("home");

const settings: Settings = {
  iterations: 2,
  time_s: 1,
  precision: 0.02,
  warmup: null,
  batch_sizes: [1],
  metrics,
  prompt_tokens: 8,
  generated_tokens: 5,
  threads: 1,
  simd: null,
  seed: 1,
};
const parts = ["disk", "network", "threads"] as const;

function resultsOf({ figures, methodology, warnings, interrupted }: Awaited<ReturnType<typeof system.run>>) {
  const about = { model: "none", type: "system", timestamp: "2024-03-21T10:00:00Z", version: 1 } as const;
  const system_info = { cpu: "a", memory: "1GB", os: "Linux 6.1" };
  const info = { ...about, system_info, settings, methodology, warnings, interrupted };
  return { benchmark_info: info, results: figures } satisfies BenchmarkResults;
}

test("measures disk, network and threads in TinyAI's folder, each with what was used meanwhile", async () => {
  const doings: string[] = [];
  const onProgress = (_: number, doing: string) => doings.at(-1) !== doing && doings.push(doing);
  const measured = await system.run({ model: undefined, settings, onProgress });
  expect(doings).toEqual(["disk", "loopback network", "threads"]);
  const results = JSON.parse(JSON.stringify(resultsOf(measured)));
  expect(JSON.parse(JSON.stringify(parseResults(results, "results")))).toEqual(results);
  const { utilization, ...figures } = measured.figures.system ?? {};
  expect(Object.keys(figures)).toEqual([...parts]);
  expect(figures.disk?.folder).toBe(folder.file("home"));
  expect(figures.threads?.curve?.map(({ threads }) => threads)).toEqual([1]);
  for (const part of parts) expect(utilization?.[part]?.cpu?.mean).toBeWithin(0, 100.001);
  expect(measured.methodology.length).toBeGreaterThanOrEqual(5);
  expect(readdirSync(folder.file("home"))).toEqual([]);
});

test("what was measured before an interruption is kept, and nothing else", async () => {
  const controller = new AbortController();
  const onProgress = (_: number, doing: string) => doing === "loopback network" && controller.abort();
  const measured = await system.run({ model: undefined, settings, signal: controller.signal, onProgress });
  expect(measured.interrupted).toBe(true);
  expect(Object.keys(measured.figures.system ?? {})).toEqual(["disk", "utilization"]);
  expect(Object.keys(measured.figures.system?.utilization ?? {})).toEqual(["disk"]);
  parseResults(resultsOf(measured), "results");
  const refused = system.run({ model: undefined, settings, signal: AbortSignal.abort(new Error("no more")) });
  await expect(refused).rejects.toThrow("no more");
});

test("a folder that was chosen and is not there is refused; without one, the other parts are measured", async () => {
  const missing = folder.file("missing");
  const chosen = system.run({ model: undefined, settings: { ...settings, disk_folder: missing } });
  await expect(chosen).rejects.toThrow(`--disk-folder: ${missing}: cannot be measured`);
  process.env["TINYAI_HOME"] = folder.write("occupied", "no folder");
  const { figures, warnings } = await system.run({ model: undefined, settings });
  process.env["TINYAI_HOME"] = folder.file("home");
  expect(Object.keys(figures.system ?? {})).toEqual(["network", "threads", "utilization"]);
  expect(warnings.join()).toContain("disk: not measured: ");
});

test("the folder is a setting of this type alone", () => {
  const flags = flaggedSettings({ diskFolder: "/data" });
  expect(resolveSettings("system", {}, flags)).toMatchObject({ disk_folder: "/data", time_s: 40 });
  expect(resolveSettings("system", { disk_folder: "/data" }, {}).disk_folder).toBe("/data");
  expect(() => resolveSettings("inference", {}, flags)).toThrow("--disk-folder: is of type system alone");
});
