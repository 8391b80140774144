// `tinyai prepare`: makes a model's prepared file by hand, in the cache or where the user wants it.

import type { Command } from "commander";
import { prepareModel } from "../load.ts";
import { formatBytes } from "../text-table.ts";
import { interruption } from "./interrupt.ts";
import { type Progress, startProgress } from "./progress.ts";

/** Adds `tinyai prepare`. */
export function registerPrepare(program: Command): void {
  program
    .command("prepare")
    .description("make the copy of a model that opens in milliseconds")
    .argument("<model>", "path of a GGUF file or a sentence-transformers folder, or the name of a pulled model")
    .option("--output <file>", "where to write it (default: the cache, where opening the model finds it)")
    .option("--json", "print its path, its bytes, and whether it was made now, as JSON")
    .addHelpText(
      "after",
      `
Examples:
  tinyai prepare gemma3-270m
  tinyai prepare model.gguf --output model.tinyai
  tinyai generate --model model.tinyai --prompt "Once upon a time"

Opening a GGUF file makes the copy in the cache by itself; this is for making it before it is needed, or elsewhere. The
cache is $TINYAI_HOME/prepared, else in the user's cache folder; its files may be deleted at any time.`,
    )
    .action(async (model: string, options: { output?: string; json?: boolean }) => {
      let bar: Progress | undefined;
      const prepared = await prepareModel(model, {
        output: options.output,
        signal: interruption(),
        onProgress: (done, total) => {
          bar ??= startProgress({ label: `preparing ${model}`, unit: "bytes", total });
          bar.update(done);
        },
      }).catch((error: unknown) => {
        bar?.failed();
        throw error;
      });
      bar?.done();
      if (options.json) process.stdout.write(`${JSON.stringify(prepared)}\n`);
      else {
        const state = prepared.made ? "" : ", found as it should be";
        process.stdout.write(`${prepared.path}\n`);
        process.stderr.write(`${formatBytes(prepared.bytes)}${state}\n`);
      }
    });
}
