// Every example of the documentation is type-checked and run, and prints what its page says; links lead somewhere. The models are
// tiny ones with random weights under the names that the pages use.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { homeFolder } from "../../src/model/folders.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyEncoderFolder } from "../support/tiny-encoder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";
import { checkTypes, deadLinks, makeStage, readPages, runPage, strayFences } from "./pages.ts";

setDefaultTimeout(120_000);

const folder = temporaryFolder();
const pages = readPages();

/** A home whose models have the names of the catalogue, and shapes for which every option holds. */
function tinyHome(): string {
  const home = folder.file("home");
  mkdirSync(join(home, "models"), { recursive: true });
  const shape = { dtype: "Q8_0", heads: 2, headWidth: 32, context: 4096 } as const;
  writeTinyModel(join(home, "models", "gemma3-270m.gguf"), { ...shape, architecture: "gemma3" });
  writeTinyEncoderFolder(join(home, "models", "all-minilm-l6-v2"));
  // Profiles measure the machine unless that was done before.
  const roofs = join(homeFolder(), "roofs");
  if (existsSync(roofs)) symlinkSync(roofs, join(home, "roofs"));
  return home;
}

test("relative links lead to files and headings that there are", () => {
  expect(pages.flatMap(deadLinks)).toEqual([]);
});

test("every fence says what becomes of it", () => {
  expect(pages.flatMap(strayFences)).toEqual([]);
});

test("every example type-checks under the strictest settings, also those that are not run", async () => {
  expect(await checkTypes(pages, folder.file("types"))).toEqual([]);
});

describe.skipIf(process.platform === "win32")("the examples run, and print what the page says", () => {
  const stage = makeStage(folder.file("stage"), tinyHome(), false);
  for (const page of pages) {
    if (page.blocks.length > 0) test(page.path, async () => expect(await runPage(page, stage)).toEqual([]));
  }
});
