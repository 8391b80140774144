// A report in words and tables, section by section. The plain text prints them, report.html shows them below its charts, and
// the terminal takes their words. A section whose part of the report is missing says what is missing and why.

import { impactSection } from "./impact.ts";
import type { CostRow, TimeRow } from "./profile.ts";
import type {
  AmountRow,
  CacheCounts,
  CacheStatistics,
  Finding,
  MemoryCounts,
  NativeCalls,
  Report,
  RooflineRow,
} from "./report.ts";
import { countsByOp } from "./roofline.ts";
import { remarks } from "./table.ts";
import { amount, bytes, count, duration, grouped, percent, plain } from "./words.ts";

/** A table; the first column holds names, the others figures. */
export interface SectionTable {
  readonly title: string;
  readonly columns: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

export interface Section {
  readonly id: string;
  readonly title: string;
  /** Sentences. */
  readonly words: readonly string[];
  readonly tables: readonly SectionTable[];
  /** Why there is nothing to show. */
  readonly missing: string | null;
}

export interface SectionOptions {
  /** Rows that a table of ops or requests has at most; the rest is counted in a last row. By default all. */
  readonly limit?: number;
}

/** Every section, in the order in which they are read. */
export function sectionsOf(report: Report, options: SectionOptions = {}): Section[] {
  const limit = options.limit ?? Number.POSITIVE_INFINITY;
  return [
    findingsSection(report),
    runSection(report),
    timeSection(report, limit),
    latencySection(report),
    requestsSection(report, limit),
    memorySection(report, limit),
    cacheSection(report, limit),
    rooflineSection(report, limit),
    ...(report.impact ? [impactSection(report.impact)] : []),
    javascriptSection(report),
    systemSection(report),
  ];
}

/** Why there are no steps in it; undefined: there are. */
export function noSteps({ steps, javascript }: Report): string | undefined {
  if (steps.count > 0) return undefined;
  // JavaScript's thread is watched whenever steps are.
  return javascript === null ? "Steps were not recorded, with { time: false }." : "No step ran while it was watched.";
}

/** What was not done, and why: that there are no steps, or else `why`. */
function notDone(report: Report, what: string, why: string): string {
  const reason = noSteps(report);
  return reason === undefined ? `${what}: ${why}.` : `${what}. ${reason}`;
}

/** A finding's evidence, in one line. */
export function evidenceOf(finding: Finding): string {
  return finding.evidence.map(({ label, value, unit }) => `${plain(label)}: ${measure(value, unit)}`).join(", ");
}

/** What to turn, in words; empty when there is nothing to turn. */
export function knobOf(finding: Finding): string {
  if (finding.knob === null) return "";
  const { option, flag } = finding.knob;
  return flag === null ? option : `${option} (${flag})`;
}

/** A figure with its unit, as evidence has them. */
function measure(value: number, unit: string): string {
  if (unit === "share") return percent(value);
  if (unit === "ns") return duration(Math.round(value));
  if (unit === "bytes") return bytes(value);
  const figure = Number.isInteger(value) ? grouped(value, 0) : grouped(value, value < 10 ? 2 : 1);
  return unit === "" ? figure : `${figure} ${plain(unit)}`;
}

function section(id: string, title: string, parts: Partial<Section>): Section {
  return { id, title, words: [], tables: [], missing: null, ...parts };
}

function findingsSection(report: Report): Section {
  const words = report.findings.map((finding) => {
    const evidence = evidenceOf(finding);
    const knob = knobOf(finding);
    const behind = [evidence, knob === "" ? "" : `to turn: ${knob}`].filter((part) => part !== "").join("; ");
    return `${finding.severity}: ${plain(finding.text)}${behind === "" ? "" : ` [${behind}]`}`;
  });
  const missing = "Nothing stood out: no rule found enough evidence in this run.";
  return section("findings", "Findings", words.length > 0 ? { words } : { missing });
}

/** What ran, in one line. */
export function runLine(report: Report): string {
  const { run, machine } = report;
  const threads = count(run.threads, "thread");
  return `${plain(run.model)} (${plain(run.architecture)}, ${bytes(run.weightsBytes)}), ${threads}, ${plain(run.level)}, ${plain(machine.cpu)}`;
}

function runSection(report: Report): Section {
  const { run, machine } = report;
  const { options } = run;
  const screening = options.screening
    ? "on"
    : options.screeningProblem === null
      ? "off"
      : `off: ${plain(options.screeningProblem)}`;
  const rows: [string, string][] = [
    ["model", plain(run.model)],
    ["architecture", plain(run.architecture)],
    ["weights", bytes(run.weightsBytes)],
    ["level", `${plain(run.level)} (widest here: ${plain(options.widestLevel)})`],
    ["threads", `${run.threads} on ${count(options.usableCpus, "usable CPU")}`],
    ["context", count(run.contextLength, "position")],
    ["batch", `${count(run.batchSize, "sequence")} at most`],
    ["keys and values", options.kvCache],
    ["screening", screening],
    ["prefix cache", options.prefixCache ? "on" : "off"],
    ["prepared copy", options.prepared ? "used" : "not used"],
    ["tuning", options.tuning],
    ["started", plain(run.startedAt)],
    ["watched for", duration(Math.round(run.wallMs * 1e6))],
    ["TinyAI", plain(run.version)],
    ["processor", plain(machine.cpu)],
    ["cores", grouped(machine.cores, 0)],
    ["memory", bytes(machine.memoryBytes)],
    ["system", plain(machine.system)],
    ["Bun", plain(machine.bun)],
    ["fingerprint", plain(machine.fingerprint)],
  ];
  return section("run", "What ran", { tables: [{ title: "", columns: ["", ""], rows }] });
}

function timeSection(report: Report, limit: number): Section {
  const { steps } = report;
  if (steps.count === 0) {
    return section("time", "Time", { words: remarks(report), missing: noSteps(report) ?? null });
  }
  const words = [
    `${count(steps.count, "step")} took ${duration(steps.totalNs)}, ${percent(report.attributedShare)} of it accounted for; ${duration(report.spanNs)} lay between the first step's start and the last one's end.`,
    "Total, share and wait are time of the engine thread, which adds up; p50 to max, GB/s and GFLOP/s of ops are from the first thread's start to the last one's end. GB/s are of the bytes that an op has to move by its shape, once each; the roofline has those that came out of the level that holds it.",
    `A row is a token that goes through a step: of a prompt, fed back to continue, or guessed with success. ${count(generatedTokens(report), "token")} came of all of them; the first one of each request comes of its prompt.`,
    "Threads work by the clock: where another program has its CPU, a thread's work takes longer. The process's CPU time is in the section on the system.",
    ...remarks(report),
  ];
  const phases: SectionTable = {
    title: "Phases",
    columns: ["phase", "steps", "rows", "total", "share", "rows/s", "step p50", "p99", "max"],
    rows: report.phases.map((row) => [
      row.phase,
      grouped(row.count, 0),
      grouped(row.rows, 0),
      duration(row.totalNs),
      percent(row.share),
      grouped(row.rowsPerSecond, 1),
      duration(row.p50Ns),
      duration(row.p99Ns),
      duration(row.maxNs),
    ]),
  };
  const kinds = costTable("Kinds of op", "kind", largest(report.byKind), (row) => row.kind, Number.POSITIVE_INFINITY);
  const kindsAndOthers = {
    ...kinds,
    rows: [...kinds.rows, ...[...otherTimes(report), ["steps", report.steps] as const].map((row) => timeCells(...row))],
  };
  const threads: SectionTable = {
    title: "Threads",
    columns: ["thread", "working, by the clock", "waiting", "idle or not recorded", "recorded idle"],
    rows: report.threads.map((row) => [
      `thread ${row.thread}`,
      percent(row.busyShare),
      percent(row.waitingShare),
      percent(row.idleShare),
      duration(row.recordedIdleNs),
    ]),
  };
  return section("time", "Time", {
    words,
    tables: [
      phases,
      kindsAndOthers,
      costTable("Layers", "layer", report.byLayer, layerName, Number.POSITIVE_INFINITY),
      costTable("Ops", "op", largest(report.byOp), (row) => `${plain(row.name)} (${plain(row.kernel)})`, limit),
      threads,
    ],
  });
}

/** Each request's first token, and those that came after another. */
export function generatedTokens({ firstTokens, betweenTokens }: Report): number {
  return firstTokens.count + betweenTokens.count;
}

/** Time of the steps that belongs to no op, by name; what never was is left out. */
export function otherTimes(report: Report): (readonly [name: string, row: TimeRow])[] {
  const others: readonly (readonly [string, TimeRow])[] = [
    ["waiting at barriers", report.waiting],
    ["sampling", report.sampling],
    ["copying", report.copying],
    ["forming steps", report.engine],
    ["idle", report.idle],
    ["unattributed", report.unattributed],
  ];
  return others.filter(([, row]) => row.count > 0);
}

function largest<Row extends TimeRow>(rows: readonly Row[]): Row[] {
  return [...rows].sort((a, b) => b.totalNs - a.totalNs);
}

export function layerName({ layer }: { readonly layer: number }): string {
  return layer < 0 ? "outside the layers" : `layer ${layer}`;
}

function timeCells(name: string, row: TimeRow): string[] {
  const times = [duration(row.totalNs), percent(row.share), duration(row.p50Ns), duration(row.p99Ns)];
  return [name, grouped(row.count, 0), ...times, duration(row.maxNs), "", "", ""];
}

function costTable<Row extends CostRow>(
  title: string,
  name: string,
  rows: readonly Row[],
  nameOf: (row: Row) => string,
  limit: number,
): SectionTable {
  const rate = (value: number | null): string => (value === null ? "–" : grouped(value, 1));
  const columns = [name, "count", "total", "share", "p50", "p99", "max", "wait", "GB/s", "GFLOP/s"];
  const cells = (row: Row): string[] => [
    ...timeCells(nameOf(row), row).slice(0, 7),
    duration(row.waitNs),
    rate(row.gigabytesPerSecond),
    rate(row.gigaflopsPerSecond),
  ];
  return { title, columns, rows: limited(rows.map(cells), limit) };
}

function limited(rows: readonly (readonly string[])[], limit: number): (readonly string[])[] {
  if (rows.length <= limit) return [...rows];
  return [...rows.slice(0, limit), [`… ${count(rows.length - limit, "row")} more`]];
}

function latencySection(report: Report): Section {
  const named: readonly (readonly [string, TimeRow])[] = [
    ["first token", report.firstTokens],
    ["between tokens", report.betweenTokens],
    ...report.phases.map((phase) => [`steps of ${phase.phase}`, phase] as const),
  ];
  const rows = named.filter(([, row]) => row.count > 0);
  const missing = named.filter(([, row]) => row.count === 0).map(([name]) => name);
  const words = missing.length > 0 ? [`Not seen in this run: ${missing.join(", ")}.`] : [];
  if (rows.length === 0) return section("latency", "Latency", { missing: noSteps(report) ?? null });
  const columns = ["", "count", "p50", "p90", "p99", "max"];
  const cells = rows.map(([name, row]) => [
    name,
    grouped(row.count, 0),
    ...[row.p50Ns, row.p90Ns, row.p99Ns, row.maxNs].map(duration),
  ]);
  return section("latency", "Latency", { words, tables: [{ title: "", columns, rows: cells }] });
}

function requestsSection(report: Report, limit: number): Section {
  if (report.requests.length === 0) {
    const missing =
      report.javascript === null && report.steps.count === 0
        ? "Requests were not recorded, with { time: false }."
        : "No request ended while it was watched.";
    return section("requests", "Requests", { missing });
  }
  const words = [
    `${count(report.requestCount, "request")} ended${report.requests.length < report.requestCount ? `; the last ${grouped(report.requests.length, 0)} are shown` : ""}. A request's time is the sum of its parts: tokenizing, queue, steps, between, delivery, JavaScript, unattributed.`,
  ];
  const columns = ["request", "prompt", "reused", "new", "wall", "first token"];
  columns.push("tokenizing", "queue", "steps", "between", "delivery", "JavaScript", "unattributed");
  const rows = report.requests.map((row) => [
    `${row.id}`,
    grouped(row.promptTokens, 0),
    grouped(row.reusedTokens, 0),
    grouped(row.generatedTokens, 0),
    duration(row.wallNs),
    row.firstTokenNs === null ? "–" : duration(row.firstTokenNs),
    duration(row.tokenizingNs),
    duration(row.queueNs),
    duration(row.stepsNs),
    duration(row.betweenNs),
    duration(row.deliveryNs),
    duration(row.javascriptNs),
    duration(row.unattributedNs),
  ]);
  return section("requests", "Requests", { words, tables: [{ title: "", columns, rows: limited(rows, limit) }] });
}

function memorySection(report: Report, limit: number): Section {
  const { memory } = report;
  const title = "Memory operations";
  if (memory === null) {
    return section("memory", title, {
      missing: notDone(
        report,
        "Loads and stores were not counted",
        "that runs steps once more, and the model was closed, or memory's limit left too little for it",
      ),
    });
  }
  const words = [
    `${amount(memory.loads)} loads read ${bytes(memory.bytesRead)} and ${amount(memory.stores)} stores wrote ${bytes(memory.bytesWritten)}, for ${amount(memory.operations)} arithmetic operations.`,
  ];
  if (memory.uncountedSteps > 0) {
    words.push(`${count(memory.uncountedSteps, "step")} left out: their shape was not recorded.`);
  }
  const cells = (name: string, row: MemoryCounts): string[] => [
    name,
    amount(row.loads),
    amount(row.stores),
    bytes(row.bytesRead),
    bytes(row.bytesWritten),
  ];
  const columns = (name: string): string[] => [name, "loads", "stores", "read", "written"];
  const ops = [...memory.byOp].sort((a, b) => b.bytesRead + b.bytesWritten - a.bytesRead - a.bytesWritten);
  const { perStep } = memory;
  return section("memory", title, {
    words,
    tables: [
      {
        title: "By region",
        columns: columns("region"),
        rows: memory.byRegion.map((row) => cells(regionName(row.region), row)),
      },
      {
        title: "A step",
        columns: ["", "mean", "p50", "p99", "max"],
        rows: [
          amountCells("loads", perStep.loads),
          amountCells("stores", perStep.stores),
          amountCells("read", perStep.bytesRead),
          amountCells("written", perStep.bytesWritten),
        ],
      },
      {
        title: "By op",
        columns: columns("op"),
        rows: limited(
          [cells("drawing tokens", memory.sampling), ...ops.map((row) => cells(plain(row.name), row))],
          limit,
        ),
      },
    ],
  });
}

/** A region's name in running text. */
export function regionName(region: string): string {
  return region === "keysValues" ? "keys and values" : region;
}

function amountCells(name: string, row: AmountRow): string[] {
  const word = (value: number): string =>
    row.unit === "bytes" ? bytes(value) : row.unit === "ns" ? duration(Math.round(value)) : amount(value);
  return [name, word(row.count === 0 ? 0 : row.total / row.count), word(row.p50), word(row.p99), word(row.max)];
}

function cacheSection(report: Report, limit: number): Section {
  const { cache } = report;
  if (cache === null) {
    return section("cache", "Caches", {
      missing: notDone(
        report,
        "Cache accesses were not followed",
        "the profile did not ask for them, or memory's limit left too little to simulate them",
      ),
    });
  }
  const words = [
    `From ${cache.source === "simulator" ? "a simulator" : "hardware counters"}: ${plain(cache.description)}`,
    `${fromMemory(cache)}.`,
  ];
  if (cache.cycles !== null && cache.instructions !== null) {
    const perCycle = cache.cycles === 0 ? 0 : cache.instructions / cache.cycles;
    words.push(
      `${amount(cache.instructions)} instructions in ${amount(cache.cycles)} cycles, ${grouped(perCycle, 2)} a cycle.`,
    );
  }
  if (cache.tlbMisses !== null) words.push(`${amount(cache.tlbMisses)} misses of the TLB.`);
  const levelCells = (row: CacheCounts): string[] => [
    row.name,
    amount(row.accesses),
    amount(row.hits),
    amount(row.misses),
    percent(row.hitRate),
  ];
  const names = new Map(report.byOp.map((op) => [op.index, plain(op.name)]));
  const missesOf = (levels: readonly CacheCounts[]): number => levels.at(-1)?.misses ?? 0;
  const ops = [...cache.byOp].sort((a, b) => missesOf(b.levels) - missesOf(a.levels));
  return section("cache", "Caches", {
    words,
    tables: [
      {
        title: "Levels",
        columns: ["cache", "accesses", "hits", "misses", "hit rate"],
        rows: cache.levels.map(levelCells),
      },
      {
        title: "Geometry",
        columns: ["cache", "size", "ways", "line", "shared by"],
        rows: cache.geometry.map((row) => [
          row.name,
          kibibytes(row.bytes),
          grouped(row.ways, 0),
          `${row.lineBytes} B`,
          count(row.sharedBy, "thread"),
        ]),
      },
      {
        title: "Misses a step",
        columns: ["cache", "mean", "p50", "p99", "max"],
        rows: cache.missesPerStep.map((row) => amountCells(row.name, row.misses)),
      },
      {
        title: "Misses by op",
        columns: ["op", ...cache.levels.map((level) => level.name)],
        rows: limited(
          ops.map((row) => [
            names.get(row.index) ?? `op ${row.index}`,
            ...row.levels.map((level) => amount(level.misses)),
          ]),
          limit,
        ),
      },
    ],
  });
}

/** What came from memory, which the last level's misses do not tell where a prefetcher is at work. */
export function fromMemory({ memoryBytes, prefetcher }: CacheStatistics): string {
  const brought = prefetcher
    ? ", what a prefetcher brought before it was missed included"
    : "; no prefetcher was modelled";
  return `${bytes(memoryBytes)} came from memory${brought}`;
}

/** Sizes of caches, which are whole powers of two more often than not. */
export function kibibytes(size: number): string {
  return size >= 2 ** 20
    ? `${grouped(size / 2 ** 20, size % 2 ** 20 === 0 ? 0 : 1)} MiB`
    : `${grouped(size / 1024, 0)} KiB`;
}

/** What holds an op, in words. */
export function boundName(bound: RooflineRow["bound"]): string {
  if (bound === "memory") return "memory";
  if (bound === "overhead") return "starting it";
  return bound.startsWith("L") ? `${bound} bandwidth` : `${bound} arithmetic`;
}

function rooflineSection(report: Report, limit: number): Section {
  const { roofline } = report;
  if (roofline === null) {
    return section("roofline", "Roofline", {
      missing: notDone(
        report,
        "What this machine does at most was not measured",
        "the profile did not ask for it, or did not wait for it",
      ),
    });
  }
  const { machine } = roofline;
  const columns = ["", "phase", "held by", "reached", "roof", "unit", "of the roof", "time", "at the roof"];
  const cells = (row: RooflineRow): string[] => [
    plain(row.name),
    row.phase,
    boundName(row.bound),
    grouped(row.achieved, 1),
    grouped(row.roof, 1),
    row.unit,
    percent(row.share),
    duration(Math.round(row.wallNs)),
    duration(Math.round(row.roofNs)),
  ];
  const ops = [...roofline.byOp].sort((a, b) => b.wallNs - a.wallNs);
  const peak = (value: number): string => (value === 0 ? "–" : grouped(value, 0));
  return section("roofline", "Roofline", {
    words: [
      `Measured ${plain(machine.measuredAt)} on ${count(machine.threads, "thread")} at ${plain(machine.level)}; the last cache holds ${kibibytes(machine.lastLevelBytes)} in effect.`,
      `What was reached of a bandwidth is of the bytes that came out of that level, ${countsByOp(report.cache) ? "as the caches were counted" : "by the sizes of what the ops read"}: these GB/s may differ from those of the time's tables, which are of the bytes that an op has to move.`,
    ],
    tables: [
      { title: "Kinds of op", columns, rows: roofline.byKind.map(cells) },
      { title: "Ops", columns, rows: limited(ops.map(cells), limit) },
      {
        title: "Bandwidth, GB/s",
        columns: ["", "working set", "read", "write", "copy"],
        rows: machine.bandwidth.map((row) => [
          row.name,
          kibibytes(row.workingBytes),
          grouped(row.read, 1),
          grouped(row.write, 1),
          grouped(row.copy, 1),
        ]),
      },
      {
        title: "Arithmetic, 10⁹ operations a second",
        columns: ["", "float", "int8", "int16", "bf16"],
        rows: [
          [
            "peak",
            peak(machine.peaks.float),
            peak(machine.peaks.int8),
            peak(machine.peaks.int16),
            peak(machine.peaks.bf16),
          ],
        ],
      },
    ],
  });
}

const javascriptNames = {
  tokenizing: "tokenizing",
  submitting: "submitting requests",
  records: "reading records",
  detokenizing: "detokenizing",
  consumer: "the consumer",
  profiling: "profiling",
  garbageCollection: "garbage collection",
} as const;

/** A row of JavaScript's share, or a span of it, in running text. */
export function javascriptName(name: keyof typeof javascriptNames): string {
  return javascriptNames[name];
}

function javascriptSection(report: Report): Section {
  const { javascript } = report;
  const title = "JavaScript's share";
  if (javascript === null) {
    return section("javascript", title, {
      missing: "JavaScript's thread was not watched, with { time: false }.",
    });
  }
  const sum = javascript.rows.reduce((total, row) => total + row.totalNs, 0);
  const { wallNs } = javascript;
  const shareOf = (ns: number): string => (wallNs === 0 ? "–" : percent(ns / wallNs));
  const cpu =
    javascript.cpuNs === null
      ? "The thread's CPU time is not known on this system."
      : `The thread used ${duration(javascript.cpuNs)} of CPU time.`;
  return section("javascript", title, {
    words: [
      `JavaScript worked for the model for ${duration(sum)} of ${duration(wallNs)}, ${shareOf(sum)}. ${cpu}`,
      callsLine(javascript.nativeCalls),
      plain(javascript.garbageCollection),
    ],
    tables: [
      {
        title: "",
        columns: ["", "count", "total", "of the wall", "p50", "p99", "max"],
        rows: javascript.rows.map((row) => [
          javascriptName(row.name),
          grouped(row.count, 0),
          duration(row.totalNs),
          shareOf(row.totalNs),
          duration(row.p50Ns),
          duration(row.p99Ns),
          duration(row.maxNs),
        ]),
      },
    ],
  });
}

/** What calls are for, in running text. */
export const nativeCallNames = {
  requests: "requests handed over",
  steps: "results of steps",
  logits: "logits",
  vectors: "vectors",
  sessions: "sessions",
  cancelled: "requests cancelled",
} as const satisfies Record<Exclude<keyof NativeCalls, "total">, string>;

function callsLine({ total, ...calls }: NativeCalls): string {
  const made = (Object.keys(nativeCallNames) as (keyof typeof nativeCallNames)[]).filter((name) => calls[name] > 0);
  const parts = made.map((name) => `${nativeCallNames[name]} ${grouped(calls[name], 0)}`);
  return `Requests needed ${count(total, "call")} into the native library${parts.length > 0 ? `: ${parts.join(", ")}` : ""}.`;
}

function systemSection(report: Report): Section {
  const { system } = report;
  if (system === null) {
    return section("system", "System", {
      missing: "Memory, faults and allocations were not watched: the profile did not ask for them.",
    });
  }
  const { allocations } = system;
  const rows: [string, string][] = [
    ["peak resident memory", bytes(system.peakResidentBytes)],
    ["minor page faults", grouped(system.minorFaults, 0)],
    ["major page faults", grouped(system.majorFaults, 0)],
    ["voluntary switches", grouped(system.voluntarySwitches, 0)],
    ["involuntary switches", grouped(system.involuntarySwitches, 0)],
    ["CPU time, all threads", duration(system.cpuNs)],
    ["native allocations", `${grouped(allocations.count, 0)}, ${bytes(allocations.allocatedBytes)}`],
    ["native frees", `${grouped(allocations.frees, 0)}, ${bytes(allocations.freedBytes)}`],
    ["native memory at the end", bytes(allocations.liveBytes)],
    ["native memory at its peak", bytes(allocations.peakLiveBytes)],
  ];
  const tables: SectionTable[] = [{ title: "", columns: ["", ""], rows }];
  const amounts = [
    ...(allocations.sizes.count > 0 ? [amountCells("size", allocations.sizes)] : []),
    ...(allocations.lifetimes.count > 0 ? [amountCells("lifetime", allocations.lifetimes)] : []),
  ];
  if (amounts.length > 0) {
    tables.push({ title: "Allocations", columns: ["", "mean", "p50", "p99", "max"], rows: amounts });
  }
  return section("system", "System", { tables });
}
