// Every benchmark command of the guide, as it is written there, on Gemma 3 270M. A thousand iterations of eight requests take minutes:
// Ctrl-C ends them, and what was measured until then is there.

import { expect, setDefaultTimeout, test } from "bun:test";
import { copyFileSync, linkSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "../../src/setup/checkout.ts";
import { CommandFolder, guideCommands } from "../benchmark/guide-commands.ts";
import { expectGuideFields, lookAtPage, lookAtPicture } from "../benchmark/guide-outputs.ts";
import { temporaryFolder } from "../support/folder.ts";
import { gemma } from "./harness.ts";

setDefaultTimeout(240_000);

test.skipIf(process.platform === "win32")("the guide's benchmark commands run on a real model", async () => {
  const folder = new CommandFolder(temporaryFolder().file("work"), process.env);
  const source = await gemma();
  try {
    linkSync(source, folder.file("model.gguf"));
  } catch {
    copyFileSync(source, folder.file("model.gguf"));
  }
  copyFileSync(join(root, "docs/examples/benchmark_config.json"), folder.file("benchmark_config.json"));
  writeFileSync(
    folder.file("comparison_config.json"),
    `{ "iterations": 12, "warmup": 2 } // Few, since each takes a while.`,
  );
  const results = () => JSON.parse(readFileSync(folder.file("benchmark_results.json"), "utf8"));
  const succeeds = async (command: string) => {
    const { status, stdout, stderr } = await folder.run(command);
    expect([command, status, status === 0 ? "" : stderr]).toEqual([command, 0, ""]);
    return stdout;
  };

  for (const name of ["specs", "environment", "prepare", "prepareAgain", "verify"] as const) {
    await succeeds(guideCommands[name]);
  }
  // On a machine that is not quiet it would take its whole minute.
  const run = await folder.run(guideCommands.run, 30);
  expect(run.status === 0 || run.status === 130).toBe(true);
  expectGuideFields(results(), "model.tinyai");
  console.log(await succeeds(guideCommands.analyze));
  copyFileSync(folder.file("benchmark_results.json"), folder.file("results_v1.json"));

  const { status, stderr } = await folder.run(guideCommands.customized, 25);
  expect([status, stderr.includes("interrupted")]).toEqual([130, true]);
  expectGuideFields(results(), "model.tinyai");
  expect([results().benchmark_info.interrupted, results().benchmark_info.settings.batch_sizes]).toEqual([true, [8]]);

  for (const name of ["model_v1.tinyai", "model_v2.tinyai"]) linkSync(folder.file("model.tinyai"), folder.file(name));
  console.log(await succeeds(guideCommands.compareModels));
  await lookAtPage(folder.file("comparison_report.html"), "gemma3-270m compared");
  await succeeds(`${guideCommands.run} --iterations 12 --output results_v2.json`);
  await succeeds(guideCommands.compareResults);
  await succeeds(guideCommands.trends);
  lookAtPicture(folder.file("trends.png"), "gemma3-270m over time");
});
