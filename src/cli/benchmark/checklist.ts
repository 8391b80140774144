// `tinyai benchmark checklist`: the performance guide's checklist for a model as it is loaded with these flags, with evidence.

import { statSync } from "node:fs";
import type { Command } from "commander";
import { type Checklist, checklistOf, type ItemState } from "../../benchmark/checklist.ts";
import { OptionError } from "../../errors.ts";
import { addModelFlags, loadFromFlags, type ModelFlags, printJson } from "../model.ts";
import { namingParameters } from "../pipe/parameters.ts";

interface Flags extends ModelFlags {
  readonly folder: string;
  readonly json?: boolean;
}

/** Adds `tinyai benchmark checklist`. */
export function registerChecklist(benchmark: Command): void {
  addModelFlags(
    benchmark.command("checklist").description("what of the optimization checklist is done for a model, with evidence"),
  )
    .option("--folder <folder>", "where reports, results and programs are looked for", ".")
    .option("--json", "print it as one JSON document")
    .addHelpText(
      "after",
      `
Examples:
  tinyai benchmark checklist --model gemma3-270m
  tinyai benchmark checklist --model gemma3-270m --threads 2 --memory-limit 80
  tinyai benchmark checklist --model model.tinyai --folder project --json

It loads the model as these flags say, and reads what is kept of earlier measurements and what is in the folder. It measures nothing.`,
    )
    .action(checklist);
}

/** The flags of the options that they set. */
const flagNames = {
  "--model": "model",
  "--threads": "threads.count",
  "--cpu-limit": "limits.cpuPercent",
  "--memory-limit": "limits.memoryPercent",
  "--simd-level": "simd.level",
  "--context": "contextLength",
  "--batch-size": "batchSize",
  "--kv-cache": "kvCache",
  "--screening": "screening",
} as const;

async function checklist({ folder, json, ...flags }: Flags): Promise<void> {
  const found = statSync(folder, { throwIfNoEntry: false });
  if (!found?.isDirectory()) {
    throw new OptionError("--folder", found ? `${folder} is no folder` : `there is no folder ${folder}`);
  }
  await using model = await namingParameters(flagNames, () => loadFromFlags(flags));
  const list = checklistOf(model, flags.model, folder);
  if (json) printJson(list);
  else process.stdout.write(formatChecklist(list));
}

const marks: Readonly<Record<ItemState, string>> = { done: "[x]", "not done": "[ ]", "not applicable": "[-]" };

function formatChecklist({ model, items, done, of }: Checklist): string {
  const lines = items.map(({ item, state, evidence, command }) => {
    const todo = state === "not done" ? `\n    ${command}` : "";
    return `${marks[state]} ${item}\n    ${evidence}${todo}\n`;
  });
  return `${model}: ${done} of ${of} done\n\n${lines.join("")}`;
}
