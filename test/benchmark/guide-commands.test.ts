// Every benchmark command of the guide, as it is written there, on a tiny model with random weights. The same on a real model is
// test/conformance/benchmark.test.ts.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { copyFileSync, existsSync, mkdirSync, readFileSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { homeFolder } from "../../src/model/folders.ts";
import { root } from "../../src/setup/checkout.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";
import { CommandFolder, guideCommands } from "./guide-commands.ts";
import { expectGuideFields, lookAtPage, lookAtPicture } from "./guide-outputs.ts";

setDefaultTimeout(150_000);

const temporary = temporaryFolder();
const folder = new CommandFolder(temporary.file("work"), { ...process.env, TINYAI_HOME: temporary.file("home") });
writeTinyModel(folder.file("model.gguf"), { architecture: "gemma3", dtype: "Q8_0", context: 512 });
// Nothing is measured of this machine again that was before.
mkdirSync(temporary.file("home"));
const roofs = join(homeFolder(), "roofs");
if (existsSync(roofs)) symlinkSync(roofs, join(temporary.file("home"), "roofs"));
for (const name of ["benchmark_config.json", "comparison_config.json"]) {
  copyFileSync(join(root, "docs/examples", name), folder.file(name));
}

describe.skipIf(process.platform === "win32")("a command of the guide, as it is written", () => {
  test("tells what the machine is, and whether one can measure on it", async () => {
    const specs = await folder.run(guideCommands.specs);
    expect([specs.status, specs.stderr]).toEqual([0, ""]);
    expect(specs.stdout).toMatch(/^caches +L1/m);
    const environment = await folder.run(guideCommands.environment);
    expect(environment.status).toBe(0);
    expect(environment.stdout).toContain("noise floor");
  });

  test("prepares a model from a GGUF file, and from what was prepared before, and verifies it", async () => {
    for (const command of [guideCommands.prepare, guideCommands.prepareAgain]) {
      const { status, stderr } = await folder.run(command);
      expect([command, status, status === 0 ? "" : stderr]).toEqual([command, 0, ""]);
      expect(folder.has("model.tinyai")).toBe(true);
    }
    const verified = await folder.run(guideCommands.verify);
    expect([verified.status, verified.status === 0 ? "" : verified.stderr]).toEqual([0, ""]);
    expect(verified.stdout).toContain("finite");
  });

  test("measures a model, and says what the results hold", async () => {
    // On a machine that is not quiet it takes its whole minute, for which nobody needs to wait here.
    const run = await folder.run(guideCommands.run, 10);
    expect(run.status === 0 || run.status === 130).toBe(true);
    expectGuideFields(JSON.parse(readFileSync(folder.file("benchmark_results.json"), "utf8")), "model.tinyai");
    const analyzed = await folder.run(guideCommands.analyze);
    expect(analyzed.status).toBe(0);
    expect(analyzed.stdout).toContain("latency, ms");
    copyFileSync(folder.file("benchmark_results.json"), folder.file("results_v1.json"));
  });

  test("measures as many iterations, of that batch size, and that of it which it names", async () => {
    const { status, stderr } = await folder.run(guideCommands.customized);
    expect([status, status === 0 ? "" : stderr]).toEqual([0, ""]);
    const results = JSON.parse(readFileSync(folder.file("benchmark_results.json"), "utf8"));
    expectGuideFields(results, "model.tinyai");
    expect(results.benchmark_info.settings.batch_sizes).toEqual([8]);
    expect(results.results.latency.samples).toHaveLength(1000);
    copyFileSync(folder.file("benchmark_results.json"), folder.file("results_v2.json"));
  });

  test("compares models in turns, files of results, and shows a trend", async () => {
    for (const name of ["model_v1.tinyai", "model_v2.tinyai"]) {
      copyFileSync(folder.file("model.tinyai"), folder.file(name));
    }
    const models = await folder.run(guideCommands.compareModels);
    expect([models.status, models.status === 0 ? "" : models.stderr]).toEqual([0, ""]);
    expect(models.stdout).toContain("model_v2.tinyai");
    await lookAtPage(folder.file("comparison_report.html"), "models of the guide");
    // Of one batch size and another there is nothing that both have.
    const again = await folder.run(`${guideCommands.run} --iterations 200 --output results_v2.json`);
    expect([again.status, again.status === 0 ? "" : again.stderr]).toEqual([0, ""]);
    const results = await folder.run(guideCommands.compareResults);
    expect([results.status, results.status === 0 ? "" : results.stderr]).toEqual([0, ""]);
    await lookAtPage(folder.file("comparison_report.html"), "results of the guide");
    const trends = await folder.run(guideCommands.trends);
    expect([trends.status, trends.status === 0 ? "" : trends.stderr]).toEqual([0, ""]);
    lookAtPicture(folder.file("trends.png"), "trend of the guide");
  });
});
