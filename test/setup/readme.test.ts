import { expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "../../src/setup/checkout.ts";
import { runProgram } from "../../src/setup/python.ts";
import { readPage, readPages } from "../docs/pages.ts";

setDefaultTimeout(120_000);

const readme = readPage("README.md");

test("every command of the README exists, with the flags that it shows", async () => {
  const lines = readme.blocks.filter(({ language }) => language === "sh").flatMap(({ text }) => text.split("\n"));
  const commands = lines.filter((line) => line.startsWith("bun run tinyai "));
  expect(commands.length).toBeGreaterThan(0);
  for (const command of commands) {
    const [verb = ""] = command.slice("bun run tinyai ".length).split(" ");
    const help = await runProgram([process.execPath, join(root, "src/cli/main.ts"), verb, "--help"]);
    expect(help.status).toBe(0);
    for (const [flag] of command.matchAll(/--[a-z-]+/g)) expect(help.stdout).toContain(`${flag} `);
  }
});

test("every script that the README and the documentation run is in package.json", () => {
  const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  for (const { text } of readPages()) {
    for (const [, name] of text.matchAll(/bun(?:@[\d.]+)? run ([a-z:]+)/g))
      expect(Object.keys(scripts)).toContain(name ?? "");
  }
});
