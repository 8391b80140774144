// `tinyai bundle`: a program, the library and models in one executable.

import type { Command } from "commander";
import { bundleProgram } from "../bundle/bundle.ts";
import { formatBytes } from "../text-table.ts";
import { interruption } from "./interrupt.ts";
import { type Progress, startProgress } from "./progress.ts";

interface Flags {
  readonly model: string[];
  readonly outfile: string;
  readonly target?: string;
  readonly json?: boolean;
}

/** Adds `tinyai bundle`. */
export function registerBundle(program: Command): void {
  program
    .command("bundle")
    .description("make one executable of a program, the library and models")
    .argument("<program>", "the program's file, which imports tinyai")
    .argument("[build...]", "behind --, further arguments for `bun build`; paths in them are absolute")
    .requiredOption("--model <model...>", "paths of GGUF or .tinyai files, or names of pulled models")
    .requiredOption("--outfile <file>", "the executable")
    .option(
      "--target <target>",
      "another system, as Bun names it: bun-linux-arm64, bun-darwin-arm64, bun-windows-x64 ...",
    )
    .option("--json", "print the executable's path and bytes and the models in it as JSON")
    .addHelpText(
      "after",
      `
Examples:
  tinyai bundle app.ts --model gemma3-270m --outfile app
  tinyai bundle app.ts --model gemma3-270m --outfile app --target bun-darwin-arm64
  tinyai bundle app.ts --model gemma3-270m --outfile app -- --minify --bytecode --format=esm

The program finds the model where it asks for it by the name that is given here, or by its file's: loadModel("gemma3-270m").
It is mapped from the executable, which needs nothing else. For another system, its library must be installed:
bun install --os=* --cpu=*`,
    )
    .action(async (entry: string, buildArguments: string[], { model, outfile, target, json }: Flags) => {
      let part: Progress | undefined;
      const bundle = await bundleProgram(entry, {
        models: model,
        output: outfile,
        target,
        buildArguments,
        signal: interruption(),
        onPart: (label) => {
          part?.done();
          part = startProgress({ label, unit: "seconds" });
        },
      }).catch((error: unknown) => {
        part?.failed();
        throw error;
      });
      part?.done();
      if (json) process.stdout.write(`${JSON.stringify(bundle)}\n`);
      else {
        process.stdout.write(`${bundle.path}\n`);
        const inside = bundle.models.map(({ names, bytes }) => `${names[0]} with ${formatBytes(bytes)}`);
        process.stderr.write(`${formatBytes(bundle.bytes)}, of which ${inside.join(", ")}\n`);
      }
    });
}
