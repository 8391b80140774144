// The performance guide's optimization checklist for one model on this machine: each item with what was found, in the loaded model, in
// what is kept of earlier measurements, and in a folder with reports, results and programs; and with the command that does it.

import { cpus as systemCpus, totalmem } from "node:os";
import { groupLimits } from "../engine/cgroup.ts";
import { cpu } from "../engine/cpu.ts";
import { type Model, partsOf } from "../loaded-model.ts";
import { enoughBatch, scalingOf } from "./analysis.ts";
import { batchesOf } from "./figures.ts";
import { type FolderEvidence, type FoundImpact, readFolder } from "./folder-evidence.ts";

export type ItemState = "done" | "not done" | "not applicable";

export interface ChecklistItem {
  /** As the guide words it. */
  readonly item: string;
  readonly state: ItemState;
  /** What was found. */
  readonly evidence: string;
  /** What does it, on the command line or in a program. */
  readonly command: string;
}

export interface Checklist {
  readonly model: string;
  /** Where reports, results and programs were looked for. */
  readonly folder: string;
  readonly items: readonly ChecklistItem[];
  readonly done: number;
  /** Without what is not applicable. */
  readonly of: number;
}

/** What an item looks at. */
interface Looked {
  readonly model: Model;
  /** What commands call the model. */
  readonly name: string;
  readonly evidence: FolderEvidence;
}

type Found = readonly [state: ItemState, evidence: string, command: string];

/** In the guide's order. */
const items: Readonly<Record<string, (looked: Looked) => Found>> = {
  "Profile application performance": profiled,
  "Identify bottlenecks": bottlenecks,
  "Enable SIMD operations": simd,
  "Configure cache optimization": caches,
  "Set appropriate batch sizes": batchSizes,
  "Configure thread management": threads,
  "Set resource limits": limits,
  "Enable performance monitoring": monitoring,
  "Implement profiling": profiling,
  "Generate and analyze reports": reports,
  "Apply recommended optimizations": optimizations,
  "Validate optimization impact": impact,
};

/**
 * The checklist of a loaded model, as it is loaded.
 * @param name what commands call it.
 * @param folder with the reports, results and programs of whoever works on it.
 */
export function checklistOf(model: Model, name: string, folder: string): Checklist {
  const looked = { model, name, evidence: readFolder(folder, partsOf(model).name) };
  const rows = Object.entries(items).map(([item, look]): ChecklistItem => {
    const [state, evidence, command] = look(looked);
    return { item, state, evidence, command };
  });
  return {
    model: name,
    folder,
    items: rows,
    done: rows.filter(({ state }) => state === "done").length,
    of: rows.filter(({ state }) => state !== "not applicable").length,
  };
}

function profileCommand(name: string): string {
  return `tinyai profile --model ${name} --prompt "Once upon a time" --report report.html`;
}

function profiled({ name, evidence: { reports, cut } }: Looked): Found {
  const command = profileCommand(name);
  const [newest] = reports;
  if (newest) return ["done", `${newest.path} is of a run of ${newest.startedAt}`, command];
  const looked = cut ? "among the files that were looked at" : "in the folder";
  return ["not done", `there is no report of this model ${looked} (.json or .html)`, command];
}

function bottlenecks({ name, evidence: { reports } }: Looked): Found {
  const newest = reports.find(({ most }) => most);
  const command = profileCommand(name);
  if (!newest?.most) return ["not done", "without a report nobody knows where the time goes", command];
  const { path, most, finding } = newest;
  const share = `${path}: ${most.name} takes ${(100 * most.share).toFixed(0)} % of the time`;
  return ["done", finding === undefined ? share : `${share}; ${finding}`, command];
}

function simd({ model }: Looked): Found {
  const { widest } = partsOf(model).simd.level;
  const { name, reason, levels } = model.simd;
  const off = Object.entries(levels).filter(([, level]) => level !== widest);
  if (widest === "scalar") return ["not applicable", "this CPU runs no vector level of the library", "tinyai doctor"];
  if (name === widest && off.length === 0) return ["done", `${name} in all operations: ${reason}`, "tinyai doctor"];
  const narrower = off.map(([operation, level]) => `${operation} ${level}`).join(", ");
  return ["not done", `${narrower}, where ${widest} would run: ${reason}`, "unset TINYAI_SIMD; leave out --simd-level"];
}

function caches({ model, name }: Looked): Found {
  const { blockSize, cacheLineSize, prefetchDistance, source } = model.cacheOptimization;
  const from = Object.values(source);
  const set = from.some((each) => each === "measured" || each === "option");
  const blocks = prefetchDistance === 1 ? "1 block" : `${prefetchDistance} blocks`;
  const ahead = prefetchDistance > 0 ? `${blocks} asked for ahead` : "nothing asked for ahead";
  const values = `blocks of ${blockSize} lines of ${cacheLineSize} bytes, ${ahead}`;
  return set
    ? [
        "done",
        `${values}, as was ${from.includes("option") ? "asked for" : "measured here"}`,
        `tinyai tune --model ${name}`,
      ]
    : [
        "not done",
        `${values}, as a table says: nothing was measured on this machine, or it is not used`,
        "unset TINYAI_TUNING; tinyai tune",
      ];
}

function batchSizes({ model, name, evidence: { results } }: Looked): Found {
  const command = `tinyai tune --model ${name}`;
  const { size, minimum, maximum, source } = model.recommendedBatchSize;
  const room = `its steps have room for ${model.batchSize}`;
  if (source === "measured") {
    const state = model.batchSize >= maximum ? "done" : "not done";
    return [state, `${maximum} was measured to be enough, and ${room}`, command];
  }
  for (const { path, results: found } of results) {
    const scaling = scalingOf(batchesOf(found));
    const enough = enoughBatch(scaling);
    if (!enough) continue;
    const state = model.batchSize >= enough.batchSize ? "done" : "not done";
    const isLast = enough === scaling.at(-1);
    const what = isLast ? "brings the most of those measured" : "is enough";
    return [state, `by ${path} ${enough.batchSize} ${what}, and ${room}`, command];
  }
  return [
    "not done",
    `${minimum} to ${maximum} is recommended for a ${size} model by its size; nothing was measured`,
    command,
  ];
}

function threads({ model, name }: Looked): Found {
  const command = `tinyai tune --model ${name}`;
  const count = `${model.threadCount === 1 ? "1 thread" : `${model.threadCount} threads`} on ${cpu.cores} CPUs`;
  if (cpu.cores === 1) return ["not applicable", "the process may use one CPU", command];
  const { threads: source } = model.tuningSource;
  if (source === "option") return ["done", `${count}, as was asked for`, command];
  if (source === "model") return ["done", `${count}, as was measured for this model`, command];
  return ["not done", `${count}, by default: which number is best was not measured`, command];
}

function limits({ model, name, evidence: { uses } }: Looked): Found {
  const command = `loadModel(${JSON.stringify(name)}, { limits: { cpuPercent: 90, memoryPercent: 80 } })`;
  const { cpuPercent, memoryPercent } = model.limits;
  const { cpus, memoryBytes } = groupLimits();
  const found = [
    ...(cpuPercent < 100 ? [`CPU time at ${cpuPercent} %`] : []),
    ...(memoryPercent < 100 ? [`memory at ${memoryPercent} %`] : []),
    ...(cpus < systemCpus().length ? [`${cpus} CPUs by its control group`] : []),
    // A group without a limit has one that no machine reaches.
    ...(memoryBytes < totalmem() ? [`${Math.round(memoryBytes / 1e6)} MB by its control group`] : []),
    ...(uses.limits.length > 0 ? [`set in ${uses.limits.join(", ")}`] : []),
  ];
  if (found.length > 0) return ["done", found.join("; "), command];
  return [
    "not done",
    "neither the model nor its control group has a limit, and no program in the folder sets one",
    command,
  ];
}

function monitoring({ evidence: { uses } }: Looked): Found {
  const command = "const monitor = model.monitor(); console.log(monitor.metrics())";
  if (uses.monitoring.length > 0) return ["done", uses.monitoring.join(", "), command];
  return ["not done", "no program in the folder monitors a model (model.monitor, tinyai/metrics)", command];
}

function profiling({ evidence: { uses } }: Looked): Found {
  const command = 'await model.profile(() => model.generate("Once upon a time")), or a test that imports "tinyai/test"';
  const found = [...uses.profiling, ...uses.tests];
  if (found.length > 0) return ["done", found.join(", "), command];
  return ["not done", "no program or test in the folder profiles a model", command];
}

function reports({ name, evidence }: Looked): Found {
  const command = `tinyai benchmark run --model ${name}, then tinyai benchmark analyze --results benchmark_results.json`;
  const found = [
    ...evidence.results.map(({ path, results }) => `${path} of ${results.benchmark_info.timestamp}`),
    ...evidence.reports.map(({ path, startedAt }) => `${path} of ${startedAt}`),
  ];
  if (found.length > 0) return ["done", listed(found), command];
  return ["not done", "there are neither reports nor results of benchmarks of this model in the folder", command];
}

function optimizations({ model, name }: Looked): Found {
  const command = `tinyai tune --model ${name}`;
  const { kernels, path } = model.tuningSource;
  const { preparation } = model;
  const prepared =
    preparation.state === "none"
      ? `no prepared copy, since ${preparation.reason}`
      : `its prepared copy is ${preparation.state}`;
  if (kernels === "model") return ["done", `tuned as ${path} keeps it; ${prepared}`, command];
  return [
    "not done",
    `kernels are as was measured on this ${kernels === "machine" ? "machine, not for this model" : "kind of machine"}; ${prepared}`,
    command,
  ];
}

function impact({ name, evidence: { impacts, results } }: Looked): Found {
  const command = `tinyai benchmark impact --model ${name} --output impact.html`;
  const [newest] = impacts;
  if (newest) return ["done", `${newest.path}: ${effectsOf(newest)}`, command];
  if (results.length > 1) {
    const found = `there are results (${listed(results.map(({ path }) => path))}), but none of what each optimisation contributes`;
    return ["not done", found, command];
  }
  return ["not done", "it was not measured what each optimisation contributes to this model", command];
}

/** Optimisations that were shown to help, by how much text they speed up or what else they do first. */
function effectsOf({ impact: { effects } }: FoundImpact): string {
  const shown = effects.flatMap(({ title, besideAll }) => {
    const figure = besideAll.find(({ verdict }) => verdict === "ahead");
    return figure ? [`${title} ${figure.ratio.toFixed(2)} times (${figure.metric})`] : [];
  });
  return shown.length > 0 ? shown.join(", ") : "no optimisation was shown to make a difference";
}

/** The first few, and how many more. */
function listed(texts: readonly string[]): string {
  const more = texts.length - 3;
  return [...texts.slice(0, 3), ...(more > 0 ? [`${more} more`] : [])].join(", ");
}
