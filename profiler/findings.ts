// What stands out in a report, in words: each finding with the figures that led to it and a knob that exists, or where none does,
// what to do in the program around the model. A rule looks at the report alone and says nothing without evidence. It turns no knob
// and measures nothing.

import type { CostRow } from "./profile.ts";
import type { Finding, Report, RooflineRow } from "./report.ts";
import { duration, percent } from "./words.ts";

/** Findings at most: a list that nobody reads to its end helps nobody. */
export const FINDINGS_MAX = 10;

/** A finding and how much of the run it is about, 0 to 1 and more for what makes the report itself doubtful. */
interface Found extends Finding {
  readonly worth: number;
}

type Rule = (report: Report) => Found | undefined;

/** Everything that stands out, most valuable first, at most `FINDINGS_MAX`. */
export function findingsOf(report: Report): Finding[] {
  if (report.steps.count === 0 && report.lostEvents === 0) return [];
  return rules
    .map((rule) => rule(report))
    .filter((found) => found !== undefined)
    .sort((a, b) => b.worth - a.worth)
    .slice(0, FINDINGS_MAX)
    .map(({ worth: _, ...finding }) => finding);
}

/** Steps below this are too few to say anything of how time divides: a single slow one would decide. */
const STEPS_MIN = 8;

/** The output head costs each token its whole size; from a quarter of a token on, reading less of it is felt. */
const HEAD_SHARE_MIN = 0.25;
/** From here on an op has what its roof gives, up to what measuring the roof scatters by. */
const AT_ROOF_MIN = 0.7;

/** The output head: the largest product outside the layers that gives logits, by its share of the steps' time. */
function headOf(report: Report) {
  const heads = report.byOp.filter((op) => op.layer < 0 && op.kind === "matmul");
  return heads.reduce<(typeof heads)[number] | undefined>((a, b) => (a && a.totalNs >= b.totalNs ? a : b), undefined);
}

/** An op's place on the roofline in generation, or over all steps. */
function roofOf(report: Report, index: number): RooflineRow | undefined {
  const rows = report.roofline?.byOp.filter((row) => row.index === index) ?? [];
  return rows.find((row) => row.phase === "generation") ?? rows.find((row) => row.phase === "all");
}

/** Rows that went through steps of generation, and the mean sequences in one. */
function generation(report: Report): { rows: number; sequences: number; share: number } {
  const row = report.phases.find(({ phase }) => phase === "generation");
  return {
    rows: row?.rows ?? 0,
    sequences: row && row.count > 0 ? row.sequences / row.count : 0,
    share: row?.share ?? 0,
  };
}

/** Steps of more sequences are not screened. */
const SCREENED_SEQUENCES_MAX = 3;

const headScreening: Rule = (report) => {
  const { options } = report.run;
  const head = headOf(report);
  const { rows, sequences } = generation(report);
  if (options.screening || options.screeningProblem !== null || head === undefined || rows < STEPS_MIN) return;
  if (head.share < HEAD_SHARE_MIN || sequences > SCREENED_SEQUENCES_MAX) return;
  const roof = roofOf(report, head.index);
  // An op that is held by arithmetic does not gain from fewer bytes.
  if (roof !== undefined && roof.bound !== "memory") return;
  const atRoof = roof !== undefined && roof.share >= AT_ROOF_MIN;
  const roofWords = atRoof ? `, at ${roof.share.toFixed(2)} of the memory roof: only fewer bytes help` : "";
  return {
    severity: "advice",
    text: `${percent(head.share)} of the steps' time is the output head${roofWords}; try head screening, which gives the same tokens.`,
    evidence: [
      { label: "output head", value: head.share, unit: "share" },
      ...(atRoof ? [{ label: "of the memory roof", value: roof.share, unit: "share" }] : []),
    ],
    knob: { option: "screening: true", flag: "--screening" },
    worth: head.share,
  };
};

/** A tenth of the time at barriers is several times what well-fed threads lose (2 to 5 %, measured on two cores). */
const WAITING_MIN = 0.1;
/** Switches against its will, a second of wall time: the system takes a thread off its CPU several times in each token. */
const SWITCHES_MIN = 200;

const waiting: Rule = (report) => {
  const { waiting: row, run, system } = report;
  if (report.steps.count < STEPS_MIN || run.threads < 2 || row.share < WAITING_MIN) return;
  const perSecond = system === null || run.wallMs === 0 ? null : (system.involuntarySwitches / run.wallMs) * 1e3;
  const busy = (perSecond !== null && perSecond >= SWITCHES_MIN) || starvation(report) !== undefined;
  const why = busy
    ? "the CPUs are busy with other programs, which take threads away"
    : "the work does not divide well among so many, or other programs hold the CPUs";
  return {
    severity: "advice",
    text: `${percent(row.share)} of the steps' time the engine thread waited for other threads: ${why}. Try fewer threads.`,
    evidence: [
      { label: "waiting at barriers", value: row.share, unit: "share" },
      { label: "threads", value: run.threads, unit: "" },
      ...(busy && perSecond !== null ? [{ label: "involuntary switches a second", value: perSecond, unit: "" }] : []),
    ],
    knob: { option: "threads.count", flag: "--threads" },
    worth: row.share,
  };
};

/** Of the threads' work, what the process had no CPU for. Its CPU time has other threads' too: there is no scatter to allow for. */
const STARVED_MIN = 0.15;
/** Less work than this says nothing: the system counts CPU time to a few milliseconds. */
const STARVED_WORK_NS_MIN = 100e6;

/** How much CPU time is missing from the threads' work, if that is clearly some. Where they waited for the disk, nobody knows. */
function starvation(report: Report): { workNs: number; cpuNs: number; share: number } | undefined {
  const { system, threads } = report;
  const workNs = threads.reduce((sum, { busyNs }) => sum + busyNs, 0);
  if (system === null || workNs < STARVED_WORK_NS_MIN || majorFaultsPerSecond(report) >= MAJOR_FAULTS_MIN) return;
  const share = 1 - system.cpuNs / workNs;
  return share < STARVED_MIN ? undefined : { workNs, cpuNs: system.cpuNs, share };
}

const starved: Rule = (report) => {
  const found = starvation(report);
  if (found === undefined || report.system === null) return;
  const { workNs, cpuNs, share } = found;
  return {
    severity: "warning",
    text: `The threads were at work for ${duration(workNs)} by the clock, all together, but the process had ${duration(cpuNs)} of CPU time: other programs had the CPUs, or the system allows it no more. Every time in this report is longer for it. Measure on a quiet machine, or try fewer threads.`,
    evidence: [
      { label: "work without a CPU", value: share, unit: "share" },
      { label: "threads' work, by the clock", value: workNs, unit: "ns" },
      { label: "CPU time of the process", value: cpuNs, unit: "ns" },
      { label: "involuntary switches", value: report.system.involuntarySwitches, unit: "" },
    ],
    knob: { option: "threads.count", flag: "--threads" },
    // Before all that rests on these times, behind a report with holes.
    worth: 1 + share,
  };
};

/** A thread that does less than half of the steps' time is one that the work would not miss much. */
const IDLE_MIN = 0.5;

const idleThread: Rule = (report) => {
  if (report.steps.count < STEPS_MIN) return;
  const [idlest] = report.threads.filter(({ thread }) => thread > 0).sort((a, b) => b.idleShare - a.idleShare);
  if (idlest === undefined || idlest.idleShare < IDLE_MIN) return;
  return {
    severity: "note",
    text: `Thread ${idlest.thread} had nothing to do for ${percent(idlest.idleShare)} of the steps' time; fewer threads would leave its CPU to others.`,
    evidence: [{ label: `thread ${idlest.thread} idle`, value: idlest.idleShare, unit: "share" }],
    knob: { option: "threads.count", flag: "--threads" },
    worth: idlest.idleShare / report.run.threads,
  };
};

const unusedCpus: Rule = (report) => {
  const { threads, options } = report.run;
  const [largest] = [...(report.roofline?.byKind ?? [])].sort((a, b) => b.wallNs - a.wallNs);
  // Where memory already gives what it has, another thread adds nothing.
  if (largest === undefined || threads >= options.usableCpus || report.steps.count < STEPS_MIN) return;
  if (largest.bound === "memory" && largest.share >= AT_ROOF_MIN) return;
  return {
    severity: "advice",
    text: `${threads} of ${options.usableCpus} usable CPUs compute, and ${largest.kind} is not at its roof: try more threads.`,
    evidence: [
      { label: "threads", value: threads, unit: "" },
      { label: "usable CPUs", value: options.usableCpus, unit: "" },
      { label: `${largest.kind} of its roof`, value: largest.share, unit: "share" },
    ],
    knob: { option: "threads.count", flag: "--threads" },
    worth: (1 - threads / options.usableCpus) / 2,
  };
};

const level: Rule = (report) => {
  const { level: used, options } = report.run;
  if (used === options.widestLevel || report.steps.count === 0) return;
  return {
    severity: "advice",
    text: `The kernels ran at ${used}, but this CPU has ${options.widestLevel}, which does more with each instruction.`,
    evidence: [{ label: `steps at ${used}`, value: report.steps.count, unit: "" }],
    knob: { option: "simd.level: 3, without TINYAI_SIMD", flag: "--simd-level 3" },
    worth: 0.5,
  };
};

const untuned: Rule = (report) => {
  if (report.run.options.tuning === "measured" || report.steps.count < STEPS_MIN) return;
  return {
    severity: "note",
    text: "The kernels work as a table says: what this machine prefers was not measured, or was not used.",
    evidence: [{ label: "steps without a measured tuning", value: report.steps.count, unit: "" }],
    knob: { option: 'tuning: "measured", after tinyai tune', flag: null },
    // What tuning gave where it was measured: 0 to 3 %.
    worth: 0.02,
  };
};

/** A shared beginning shorter than this is computed in one step anyhow. */
const PREFIX_TOKENS_MIN = 128;

const prefix: Rule = (report) => {
  // Prompts of the same length that took nothing over: all that a report can tell of what prompts hold.
  const lengths = Map.groupBy(report.requests, ({ promptTokens }) => promptTokens);
  let again = 0;
  for (const [tokens, rows] of lengths) {
    const fresh = rows.filter(({ reusedTokens }) => reusedTokens === 0);
    if (tokens >= PREFIX_TOKENS_MIN && fresh.length > 1) again += tokens * (fresh.length - 1);
  }
  const prompt = report.phases.find(({ phase }) => phase === "prompt");
  if (again === 0 || prompt === undefined || report.run.options.prefixCache) return;
  return {
    severity: "advice",
    text: `Prompts of one length, up to ${again} tokens, may have been computed again: with the prefix cache, a prompt that begins like an earlier one starts from what that one left.`,
    evidence: [
      { label: "tokens that may have been there", value: again, unit: "tokens" },
      { label: "prompts", value: prompt.share, unit: "share" },
    ],
    knob: { option: "prefixCache, cachePrompt", flag: null },
    worth: prompt.share / 2,
  };
};

/** The equation of a step closes to well below this; more means that something ran which no event covers. */
const UNATTRIBUTED_MIN = 0.02;

const unattributed: Rule = (report) => {
  const { unattributed: row, steps, run } = report;
  if (steps.count < STEPS_MIN || row.share < UNATTRIBUTED_MIN) return;
  const fewer = run.threads > 1;
  return {
    severity: "warning",
    text: `${percent(row.share)} of the steps' time is covered by no event: threads were taken off their CPUs, or events are missing. Measure on a quiet machine${fewer ? ", or try fewer threads" : ""}.`,
    evidence: [{ label: "unattributed", value: row.share, unit: "share" }],
    knob: fewer ? { option: "threads.count", flag: "--threads" } : null,
    worth: row.share,
  };
};

const lost: Rule = (report) => {
  const { lostEvents, incompleteSteps } = report;
  if (lostEvents === 0) return;
  return {
    severity: "warning",
    text: "Events were lost because JavaScript did not drain them in time: what ran meanwhile is missing from every row. Keep the event loop free while a model is profiled: what computes for long belongs in a Worker, or behind the profile.",
    evidence: [
      { label: "events lost", value: lostEvents, unit: "" },
      { label: "steps left out", value: incompleteSteps, unit: "" },
    ],
    knob: null,
    // Before all others: they rest on a report with holes.
    worth: 2,
  };
};

/** Half of the wait for a first token is more than a request's fair share of somebody else's steps. */
const QUEUE_MIN = 0.5;
/** Less than this nobody feels, whatever its share. */
const QUEUE_NS_MIN = 1e6;

const queue: Rule = (report) => {
  const rows = report.requests.filter((row) => row.firstTokenNs !== null && row.firstTokenNs > 0);
  const firstNs = rows.reduce((sum, row) => sum + (row.firstTokenNs ?? 0), 0);
  const queueNs = rows.reduce((sum, row) => sum + row.queueNs, 0);
  if (rows.length === 0 || queueNs / firstNs < QUEUE_MIN || queueNs / rows.length < QUEUE_NS_MIN) return;
  return {
    severity: "advice",
    text: `${percent(queueNs / firstNs)} of the time to the first token requests stood in the queue, ${duration(Math.round(queueNs / rows.length))} each: more sequences in a step would let them begin.`,
    evidence: [
      { label: "queue, of the first token", value: queueNs / firstNs, unit: "share" },
      { label: "sequences at most", value: report.run.batchSize, unit: "" },
    ],
    knob: { option: "batchSize", flag: "--batch-size" },
    worth: queueNs / firstNs / 2,
  };
};

/**
 * A consumer that takes longer for a token than the model does holds the text up. The model's time is the mean one: guesses that
 * came true are there together with the token before them, and half of all times between tokens may be 0.
 */
const consumer: Rule = (report) => {
  const row = report.javascript?.rows.find(({ name }) => name === "consumer");
  const between = report.betweenTokens;
  if (row === undefined || row.count < STEPS_MIN || between.count < STEPS_MIN) return;
  const meanNs = between.totalNs / between.count;
  if (row.p50Ns <= meanNs) return;
  return {
    severity: "warning",
    text: `The code that takes the tokens needs ${duration(row.p50Ns)} for one, the model ${duration(Math.round(meanNs))}: the text comes at the consumer's pace. Let the loop over the stream only take the tokens in, and show, send or store several at once.`,
    evidence: [
      { label: "the consumer, p50", value: row.p50Ns, unit: "ns" },
      { label: "between tokens, mean", value: meanNs, unit: "ns" },
    ],
    knob: null,
    worth: 1 - meanNs / row.p50Ns,
  };
};

/** A page from the disk takes 0.1 ms and more; so many a second of wall time are a hundredth of it. */
const MAJOR_FAULTS_MIN = 100;

function majorFaultsPerSecond({ system, run }: Report): number {
  return system === null || run.wallMs === 0 ? 0 : (system.majorFaults / run.wallMs) * 1e3;
}

const majorFaults: Rule = (report) => {
  const faults = report.system?.majorFaults ?? 0;
  const perSecond = majorFaultsPerSecond(report);
  if (perSecond < MAJOR_FAULTS_MIN) return;
  return {
    severity: "warning",
    text: "Weights came from the disk while the model ran: the machine's memory does not hold them, or the model was opened for the first time. A narrower type takes less.",
    evidence: [
      { label: "major page faults", value: faults, unit: "" },
      { label: "weights", value: report.run.weightsBytes, unit: "bytes" },
      { label: "memory", value: report.machine.memoryBytes, unit: "bytes" },
    ],
    knob: { option: "quantizeModel", flag: "tinyai quantize" },
    worth: Math.min(1, perSecond / 1e4),
  };
};

/** Ops in 16 bits that are this much of the time are worth a quantization. */
const WIDE_SHARE_MIN = 0.3;

const wideWeights: Rule = (report) => {
  const wide = report.byOp.filter((op) => op.kind === "matmul" && /\.(f32|f16|bf16)\./.test(op.kernel));
  const share = sumOf(wide, (row) => row.totalNs) / report.steps.totalNs;
  if (report.steps.count < STEPS_MIN || wide.length === 0 || !(share >= WIDE_SHARE_MIN)) return;
  const roofs = wide.map((op) => roofOf(report, op.index)).filter((row) => row !== undefined);
  const wallNs = sumOf(roofs, (row) => row.wallNs);
  const heldNs = sumOf(roofs, (row) => (row.bound === "memory" ? row.wallNs : 0));
  if (wallNs === 0 || heldNs / wallNs < 0.5) return;
  return {
    severity: "advice",
    text: `${percent(share)} of the steps' time goes into weights of 16 bits or more, which memory holds up: Q8_0 has half the bytes of F16, Q4_K_M under a third.`,
    evidence: [
      { label: "weights of 16 bits or more", value: share, unit: "share" },
      { label: "of it held by memory", value: heldNs / wallNs, unit: "share" },
    ],
    knob: { option: "quantizeModel", flag: "tinyai quantize" },
    worth: share * 0.9,
  };
};

/** Attention this large is a long context's: at short ones it is 2 to 5 %. */
const ATTENTION_MIN = 0.2;

const attention: Rule = (report) => {
  const row = report.byKind.find(({ kind }) => kind === "attention");
  const { rows, share } = generation(report);
  if (row === undefined || row.share < ATTENTION_MIN || rows < STEPS_MIN || share < 0.5) return;
  if (report.run.options.kvCache !== "f16") return;
  const roof = report.roofline?.byKind.find(({ kind }) => kind === "attention");
  if (roof !== undefined && roof.bound !== "memory" && !roof.bound.startsWith("L")) return;
  return {
    severity: "advice",
    text: `${percent(row.share)} of the steps' time is attention, which reads the keys and values of all earlier tokens: in Q8_0 they take 53 % of the bytes, for answers nearly the same.`,
    evidence: [{ label: "attention", value: row.share, unit: "share" }],
    knob: { option: 'kvCache: "q8_0"', flag: "--kv-cache q8_0" },
    worth: row.share / 2,
  };
};

/** The step path allocates nothing: more than one allocation in ten steps is no longer what requests themselves need. */
const ALLOCATIONS_MIN = 0.1;

const allocation: Rule = (report) => {
  const count = report.system?.allocations.count ?? 0;
  const perStep = report.steps.count === 0 ? 0 : count / report.steps.count;
  // A few for each request are its own.
  if (report.steps.count < STEPS_MIN || perStep < ALLOCATIONS_MIN || count < 100 * Math.max(1, report.requestCount))
    return;
  return {
    severity: "note",
    text: "Native memory was allocated while the model ran, where steps should need none: load other models, and change threads and other settings, before the work and not during it.",
    evidence: [
      { label: "allocations", value: count, unit: "" },
      { label: "a step", value: perStep, unit: "" },
    ],
    knob: null,
    worth: 0.01,
  };
};

/** Collections that take this much of the wall time are felt in the text's pace. */
const COLLECTION_MIN = 0.05;

const garbageCollection: Rule = (report) => {
  const { javascript } = report;
  const row = javascript?.rows.find(({ name }) => name === "garbageCollection");
  if (javascript == null || row === undefined || javascript.wallNs === 0) return;
  const share = row.totalNs / javascript.wallNs;
  if (share < COLLECTION_MIN) return;
  return {
    severity: "note",
    text: `JavaScript's garbage collector took ${percent(share)} of the time, ${duration(row.maxNs)} at most at once. Make fewer objects for each token, and ask for log-probabilities (topLogprobs) only where they are read.`,
    evidence: [{ label: "garbage collection", value: share, unit: "share" }],
    knob: null,
    worth: share,
  };
};

const rules: readonly Rule[] = [
  lost,
  starved,
  unattributed,
  headScreening,
  wideWeights,
  attention,
  waiting,
  idleThread,
  unusedCpus,
  level,
  untuned,
  prefix,
  queue,
  consumer,
  majorFaults,
  allocation,
  garbageCollection,
];

function sumOf<Row extends CostRow | RooflineRow>(rows: readonly Row[], value: (row: Row) => number): number {
  return rows.reduce((sum, row) => sum + value(row), 0);
}
