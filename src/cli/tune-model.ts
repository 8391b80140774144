// `tinyai tune --model`: tries on one model what no result depends on, shows what each value does, and keeps the best for the next time
// that the model is loaded. Where it is interrupted, it shows what was tried, and keeps nothing.

import { grouped } from "../../profiler/words.ts";
import type { Ratio } from "../benchmark/ratio.ts";
import type { LeftKnob, TriedBatch, TriedKnob, TriedValue, TunedModel } from "../benchmark/tune.ts";
import { checkNumber } from "../check.ts";
import { modelTuningPath, storeModelTuning } from "../model-tuning.ts";
import { interruption } from "./interrupt.ts";
import { numberFlag, printJson } from "./model.ts";
import { startProgress } from "./progress.ts";

export const budgetDefault_s = 60;

export async function tuneModelVerb(flags: { model: string; budget?: string; json?: boolean }): Promise<void> {
  const signal = interruption();
  const budget = checkNumber("--budget", numberFlag("budget", flags.budget) ?? budgetDefault_s, 0, 86_400);
  const { tuneModel } = await import("../benchmark/tune.ts");
  const progress = startProgress({ label: `trying settings of ${flags.model}`, unit: "seconds", total: 1 });
  let tuned: TunedModel;
  try {
    const onProgress = (share: number) => progress.update(share);
    tuned = await tuneModel(flags.model, { budgetMs: Math.round(1000 * budget), signal, onProgress });
    if (tuned.tuning) await storeModelTuning(tuned.key, tuned.tuning);
  } catch (error) {
    progress.failed();
    if (signal.aborted) process.stderr.write("interrupted before anything was tried; nothing is kept\n");
    throw error;
  }
  progress.done(tuned.tuning ? undefined : "interrupted; nothing is kept");
  const path = tuned.tuning ? modelTuningPath(tuned.key) : null;
  if (flags.json) printJson({ ...tuned, tuning: tuned.tuning ?? null, path });
  else process.stdout.write(formatTuned(tuned));
  if (path !== null) process.stderr.write(`\n${path}\n`);
}

function formatTuned(tuned: TunedModel): string {
  const { model, level, promptTokens, generatedTokens, knobs, batches, left, tuning } = tuned;
  const text = generatedTokens > 0 ? ` and ${generatedTokens} tokens of text` : "";
  const head = `${model}, ${level}: requests of a prompt of ${promptTokens} tokens${text}\n\n`;
  return head + knobs.map(formatKnob).join("") + formatBatches(batches, tuning?.batchSize) + formatLeft(left);
}

function formatLeft(left: readonly LeftKnob[]): string {
  return `left as they are\n${left.map(({ knob, reason }) => `    ${knob}: ${reason}\n`).join("")}`;
}

function formatKnob({ title, rounds, values }: TriedKnob): string {
  return `${title}, ${rounds} rounds\n${values.map(formatValue).join("")}`;
}

function formatValue({ value, requestMs, ratios, chosen }: TriedValue): string {
  const mark = chosen ? "*" : " ";
  const beside = ratios ? partsOf(ratios) : "as it is without";
  return `  ${mark} ${value.padEnd(46)} ${`${grouped(requestMs, 1)} ms`.padStart(10)}  ${beside}\n`;
}

function partsOf({ request, prompt, text }: NonNullable<TriedValue["ratios"]>): string {
  const parts = text ? ` (prompt ${timeOf(prompt)}, text ${timeOf(text)})` : "";
  return `${timeOf(request)} of its time${parts}`;
}

/** "0.93 (0.91 to 0.95)"; what the turns do not carry is a dash. */
function timeOf({ ratio, interval, verdict }: Ratio): string {
  const range = interval ? `${interval[0].toFixed(2)} to ${interval[1].toFixed(2)}` : "few rounds";
  return `${verdict === "draw" ? "–" : ratio.toFixed(2)} (${range})`;
}

function formatBatches(batches: readonly TriedBatch[], chosen: number | undefined): string {
  if (batches.length === 0) return "";
  const lines = batches.map(({ size, tokensPerSecond, ratio }) => {
    const range = ratio.interval ? ` (${ratio.interval[0].toFixed(2)} to ${ratio.interval[1].toFixed(2)})` : "";
    const share = `${ratio.ratio.toFixed(2)}${range} of the best`;
    return `  ${size === chosen ? "*" : " "} ${`${size}`.padEnd(46)} ${grouped(tokensPerSecond, 1).padStart(10)}  ${share}\n`;
  });
  const advice =
    chosen === undefined
      ? ""
      : `    recommended, and no more than that: ask for it, loadModel(…, { batchSize: ${chosen} }), or read model.recommendedBatchSize\n`;
  return `batch size, tokens/s together; the smallest within 5 % of the best is recommended\n${lines.join("")}${advice}`;
}
