import { expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { runProgram } from "../../src/setup/python.ts";
import { temporaryFolder } from "../cli/support.ts";

setDefaultTimeout(120_000);

const root = resolve(import.meta.dir, "..", "..");
const readme = readFileSync(join(root, "README.md"), "utf8");

function blocks(language: string): string[] {
  return [...readme.matchAll(new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\`$`, "gm"))].map(
    ([, text]) => text ?? "",
  );
}

test("the README's TypeScript type-checks against the public entry", async () => {
  using folder = temporaryFolder();
  const examples = blocks("ts");
  expect(examples.length).toBeGreaterThan(0);
  for (const [index, example] of examples.entries()) writeFileSync(join(folder.path, `example${index}.ts`), example);
  const settings = {
    extends: join(root, "tsconfig.json"),
    compilerOptions: {
      typeRoots: [join(root, "node_modules", "@types")],
      paths: {
        tinyai: [join(root, "src/index.ts")],
        "tinyai/metrics": [join(root, "src/metrics/index.ts")],
        "tinyai/test": [join(root, "src/test/index.ts")],
      },
    },
    include: ["*.ts"],
  };
  writeFileSync(join(folder.path, "tsconfig.json"), JSON.stringify(settings));
  const tsc = await runProgram([join(root, "node_modules/.bin/tsc"), "--noEmit", "-p", folder.path]);
  expect(tsc.stdout.split("\n").filter((line) => line.includes("example"))).toEqual([]);
  expect(tsc.stdout).toBe("");
});

test("every command of the README exists, with the flags that it shows", async () => {
  const lines = blocks("sh").flatMap((block) => block.split("\n"));
  const commands = lines.filter((line) => line.startsWith("bun run tinyai "));
  expect(commands.length).toBeGreaterThan(0);
  for (const command of commands) {
    const [verb = ""] = command.slice("bun run tinyai ".length).split(" ");
    const help = await runProgram([process.execPath, join(root, "src/cli/main.ts"), verb, "--help"]);
    expect(help.status).toBe(0);
    for (const [flag] of command.matchAll(/--[a-z-]+/g)) expect(help.stdout).toContain(`${flag} `);
  }
});

test("every script that the README runs is in package.json", () => {
  const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  for (const [, name] of readme.matchAll(/bun(?:@[\d.]+)? run ([a-z:]+)/g))
    expect(Object.keys(scripts)).toContain(name ?? "");
});
