// `tinyai quantize`: a model in smaller formats, as a new file.

import type { Command } from "commander";
import type { DType } from "../model/file.ts";
import { type QuantizeResult, quantizeModel } from "../quantize/quantize.ts";
import { type QuantizationType, quantizationTypes } from "../quantize/types.ts";
import { formatBytes } from "../text-table.ts";
import { interruption } from "./interrupt.ts";
import { numberFlag, printJson } from "./model.ts";
import { type Progress, startProgress } from "./progress.ts";

interface Flags {
  readonly type: string;
  readonly threads?: string;
  readonly allowRequantize?: boolean;
  readonly overwrite?: boolean;
  readonly json?: boolean;
}

/** The result in a few lines: sizes, and the tensors by what they became. */
export function formatQuantization(result: QuantizeResult): string {
  const parameters = result.tensors.reduce((sum, tensor) => sum + tensor.parameters, 0);
  const bytes = result.tensors.reduce((sum, tensor) => sum + tensor.bytes, 0);
  const counts = new Map<DType, number>();
  for (const { to } of result.tensors) counts.set(to, (counts.get(to) ?? 0) + 1);
  const tensors = [...counts].map(([dtype, count]) => `${count} ${dtype}`).join(", ");
  return (
    `${result.path}: ${result.type}, ${formatBytes(result.bytes)} (before: ${formatBytes(result.bytesBefore)}), ` +
    `${((8 * bytes) / Math.max(1, parameters)).toFixed(2)} bits a value\ntensors: ${tensors}\n`
  );
}

/** Adds `tinyai quantize`. */
export function registerQuantize(program: Command): void {
  program
    .command("quantize")
    .description("write a model in smaller formats to a new file")
    .argument("<in>", "the model: a GGUF file, best in F32, F16 or BF16, or the name of a pulled one")
    .argument("<out>", "the new file")
    .requiredOption("--type <type>", quantizationTypes.join(", "))
    .option("--threads <count>", "threads that convert (default: the CPUs this process may use)")
    .option("--allow-requantize", "take a model that is quantized already, whose errors add up")
    .option("--overwrite", "replace <out> if it is there")
    .option("--json", "print sizes and every tensor's format before and after as JSON")
    .addHelpText(
      "after",
      `
Examples:
  tinyai quantize model-f16.gguf model-q4_k_m.gguf --type Q4_K_M
  tinyai quantize model-f16.gguf model-q8_0.gguf --type Q8_0 --overwrite
  tinyai quantize gemma3-270m gemma3-270m-q3_k_m.gguf --type Q3_K_M --allow-requantize

Each tensor's format is the one that llama.cpp's llama-quantize gives it; the same input gives the same file, whatever the
number of threads.`,
    )
    .action(async (input: string, output: string, flags: Flags) => {
      let progress: Progress | undefined;
      try {
        const result = await quantizeModel(input, output, {
          type: flags.type.toUpperCase() as QuantizationType,
          threads: numberFlag("threads", flags.threads),
          allowRequantize: flags.allowRequantize,
          overwrite: flags.overwrite,
          signal: interruption(),
          onProgress(done, total) {
            progress ??= startProgress({ label: `quantizing ${input}`, unit: "bytes", total });
            progress.update(done);
          },
        });
        progress?.done();
        if (flags.json) printJson(result);
        else process.stdout.write(formatQuantization(result));
      } catch (error) {
        progress?.failed();
        throw error;
      }
    });
}
