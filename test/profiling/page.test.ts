// report.html of a real model, written by a program from source and by the same program compiled: what it needs, ECharts and the
// page's own scripts, is in the executable.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { Report } from "../../profiler/report.ts";
import { Browser, browserMissing } from "../support/browser.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

setDefaultTimeout(120_000);
if (browserMissing !== undefined) process.stderr.write(`report.html: not looked at in a browser, ${browserMissing}\n`);

const folder = temporaryFolder();
const model = folder.file("tiny.gguf");
writeTinyModel(model, { architecture: "gemma3", layers: 6, context: 512, dtype: "Q8_0" });
const entry = join(import.meta.dir, "../../src/index.ts");
const program = folder.write(
  "program.ts",
  `import { loadModel } from ${JSON.stringify(entry)};
await using model = await loadModel(${JSON.stringify(model)}, { threads: { count: 2 }, prepared: false });
const options = { temperature: 0, maxLength: 30, ignoreEos: true };
const run = await model.profile(() => model.generate("once upon a time", options), { roofline: false });
await run.write("report.html");
await run.write("report.json");
`,
);

function run(command: readonly string[], name: string): string {
  const cwd = folder.file(name);
  mkdirSync(cwd, { recursive: true });
  const { exitCode, stderr } = Bun.spawnSync([...command], { cwd });
  expect(exitCode, stderr.toString()).toBe(0);
  return join(cwd, "report.html");
}

const binary = folder.file("program");
const ways: readonly (readonly [name: string, command: readonly string[]])[] = [
  ["from source", [process.execPath, program]],
  ["compiled", [binary]],
];

describe("report.html", () => {
  let browser: Browser | undefined;
  beforeAll(async () => {
    run([process.execPath, "build", "--compile", program, "--outfile", binary], "build");
    if (browserMissing === undefined) browser = await Browser.start();
  });
  afterAll(() => browser?.close());

  for (const [name, command] of ways) {
    test(`of a program ${name} has everything in it`, async () => {
      const file = run(command, name.replace(" ", "-"));
      expect(readFileSync(file, "utf8")).toContain('id="echarts-script"');
      if (browser === undefined) return;
      const report: Report = JSON.parse(readFileSync(file.replace(/html$/, "json"), "utf8"));
      const page = await browser.open(pathToFileURL(file).href);
      await page.until("document.querySelector('footer') !== null");
      const texts = (selector: string) =>
        page.evaluate<string[]>(`[...document.querySelectorAll("${selector}")].map((each) => each.textContent)`);
      expect(await texts("h1")).toEqual(["tiny.gguf – TinyAI profile"]);
      expect(await texts(".facts dd.note")).toContain(`of ${report.steps.count} steps`);
      expect(await texts("#roofline .missing")).toHaveLength(1);
      await page.click("#ops .controls button");
      for (const op of report.byOp) expect(await texts("#ops tbody th")).toContain(op.name);
      const drawn = await texts(".chart svg");
      expect(drawn.length).toBeGreaterThan(8);
      expect(page.errors).toEqual([]);
      expect(page.requests).toEqual([pathToFileURL(file).href]);
      await page.close();
    });
  }
});
