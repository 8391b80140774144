// Pages of the documentation that show what real models say, where those were pulled, and the reference of the public interface.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { catalogue, pulledPath } from "../../src/model/catalogue.ts";
import { homeFolder } from "../../src/model/folders.ts";
import { root } from "../../src/setup/checkout.ts";
import { runProgram } from "../../src/setup/python.ts";
import { makeStage, readPages, runPage } from "../docs/pages.ts";
import { temporaryFolder } from "../support/folder.ts";

setDefaultTimeout(300_000);

const folder = temporaryFolder();
const missing = catalogue.filter((entry) => !existsSync(pulledPath(entry))).map(({ name }) => name);

describe.skipIf(process.platform === "win32")("with real models the examples print what the page says", () => {
  const stage = makeStage(folder.path, homeFolder(), true);
  for (const page of readPages()) {
    if (!page.blocks.some(({ words }) => words.includes("real"))) continue;
    const wants = page.blocks.some(({ text }) => missing.some((name) => text.includes(name)));
    test.skipIf(wants)(page.path, async () => expect(await runPage(page, stage)).toEqual([]));
  }
});

test("the reference of the public interface is made without a warning", async () => {
  const { status, stdout, stderr } = await runProgram([process.execPath, join(root, "src", "setup", "docs.ts")]);
  expect(status, stdout + stderr).toBe(0);
});
