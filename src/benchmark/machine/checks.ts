// The guide's pitfalls as checks: what is said of what the system counts and how it is set up, and what to do about it. What the
// system does not tell is unknown, and never well.

import { existsSync, statfsSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { groupsOf } from "../../engine/cgroup.ts";
import { homeFolder } from "../../model/folders.ts";
import { formatBytes } from "../../text-table.ts";
import type { EnvironmentFinding } from "../environment.ts";
import type { Meanwhile } from "./activity.ts";
import { measureClock } from "./clock.ts";
import { availableMemory } from "./memory.ts";
import type { Noise } from "./noise.ts";
import { findFrequencies, findGovernor, findHypervisor, findTurbo, findVirtualization } from "./state.ts";
import { listFolder, readFields, readNumber, readText } from "./system-files.ts";

/** Parts of the CPUs' time: what others have above it shows in measurements, and so does what other virtual machines have. */
const foreignMax = 0.05;
const stolenMax = 0.01;
/** Bytes/s: about a thousand packets a second, each an interruption. */
const networkMax = 1e6;
/** Of memory, what has to be available. */
const availableMin = 0.1;
/** Percent of the last ten seconds in which something waited for memory. */
const pressureMax = 1;
const diskBytesMin = 1e9;
/** A clock that counts more coarsely, or takes longer to look at, shows in times of a millisecond. */
const clockMax_ns = 1000;
const slowClocks: readonly string[] = ["hpet", "acpi_pm", "jiffies", "refined-jiffies"];
/** Differences of some percent cannot be seen above it. */
const variationMax = 0.05;
const robustMax = 0.02;
/** The most processes that are named. */
const namedMax = 3;

type Verdict = EnvironmentFinding["verdict"];

function finding(name: string, verdict: Verdict, found: string, remedy: string): EnvironmentFinding {
  return verdict === "ok" ? { name, verdict, found } : { name, verdict, found, remedy };
}

function unknown(name: string, remedy: string, found = "the system does not tell"): EnvironmentFinding {
  return finding(name, "unknown", found, remedy);
}

function percent(part: number, digits = 0): string {
  return `${(100 * part).toFixed(digits)} %`;
}

/** What happened on the machine, whether for a moment before measuring or all the while. */
export function checkActivity(meanwhile: Meanwhile, root = "/"): EnvironmentFinding[] {
  return [
    backgroundLoad(meanwhile),
    stealTime(meanwhile, root),
    throttledGroups(meanwhile, root),
    thermalThrottling(meanwhile, root),
    swapping(meanwhile, root),
    networkActivity(meanwhile),
  ];
}

function backgroundLoad({ foreign, cpus, busiest }: Meanwhile): EnvironmentFinding {
  const name = "background load";
  if (foreign === null) return unknown(name, "look with the system's task manager, and end what is not needed");
  const named = busiest.slice(0, namedMax).map((process) => `${process.name} (${percent(process.share)} of a CPU)`);
  const which = foreign > foreignMax && named.length > 0 ? `: ${named.join(", ")}` : "";
  return finding(
    name,
    foreign > foreignMax ? "warning" : "ok",
    `others have ${percent(foreign)} of the time of ${cpus === 1 ? "1 CPU" : `${cpus} CPUs`}${which}`,
    "end them or wait until they are done, or measure on a machine that nobody else uses",
  );
}

function stealTime({ stolen, everStolen }: Meanwhile, root: string): EnvironmentFinding {
  const name = "steal time";
  const remedy = "measure on a machine of one's own, or one whose CPUs are not shared";
  const hypervisor = findHypervisor(root);
  if (stolen === null) return unknown(name, remedy);
  if (stolen > stolenMax) {
    return finding(name, "warning", `other virtual machines had ${percent(stolen, 1)} of the CPUs' time`, remedy);
  }
  // Many hypervisors count none, whatever they give to others.
  if (hypervisor !== null && !everStolen) {
    return unknown(name, remedy, `none since the machine was started: ${hypervisor} may not count it`);
  }
  return finding(name, "ok", `other virtual machines had ${percent(stolen, 1)} of the CPUs' time`, remedy);
}

function throttledGroups({ throttled }: Meanwhile, root: string): EnvironmentFinding {
  const name = "CPU quota";
  const remedy = "raise the container's CPU limit, or use fewer threads (--threads) than it allows";
  const limited = [...groupsOf(root)].some(({ folder }) => hasQuota(root, relative(root, folder)));
  if (!throttled) {
    return limited || ![...groupsOf(root)].length
      ? unknown(name, remedy, "the system does not tell whether this process is held up")
      : finding(name, "ok", "no control group limits the time of CPUs", remedy);
  }
  const { periods, ms } = throttled;
  if (periods > 0) {
    return finding(
      name,
      "warning",
      `held up in ${periods} periods, for ${ms.toFixed(0)} ms, by a control group`,
      remedy,
    );
  }
  const found = limited ? "a control group limits the time of CPUs, but held nothing up" : "no control group limits it";
  return finding(name, "ok", found, remedy);
}

function hasQuota(root: string, folder: string): boolean {
  const [limit = "max"] = readText(root, join(folder, "cpu.max")).split(" ");
  return (limit !== "" && limit !== "max") || (readNumber(root, join(folder, "cpu.cfs_quota_us")) ?? 0) > 0;
}

function thermalThrottling({ thermalEvents }: Meanwhile, root: string): EnvironmentFinding {
  const name = "thermal throttling";
  const remedy = "let the machine cool down and see to its cooling, or measure more slowly";
  const hot = hotZones(root);
  if (hot === null && thermalEvents === null) {
    return unknown(name, "see whether times rise while measuring", "the system tells no temperatures");
  }
  if ((thermalEvents ?? 0) > 0) {
    return finding(name, "warning", `the CPU was too hot and slowed down ${thermalEvents} times`, remedy);
  }
  if (hot && hot.length > 0) return finding(name, "warning", `too hot: ${hot.join(", ")}`, remedy);
  return finding(name, "ok", thermalEvents === null ? "no zone is too hot" : "the CPU did not slow down", remedy);
}

/** Zones that are as hot as where the system begins to slow down; null where it has no zones that tell. */
function hotZones(root: string): string[] | null {
  const folder = "sys/class/thermal";
  const hot: string[] = [];
  let told = false;
  for (const zone of listFolder(root, folder).filter((name) => name.startsWith("thermal_zone"))) {
    const now = readNumber(root, `${folder}/${zone}/temp`);
    for (const file of listFolder(root, `${folder}/${zone}`)) {
      const point = /^(trip_point_\d+)_type$/.exec(file)?.[1];
      if (point === undefined || readText(root, `${folder}/${zone}/${file}`) !== "passive") continue;
      const limit = readNumber(root, `${folder}/${zone}/${point}_temp`);
      if (now === null || limit === null || limit <= 0) continue;
      told = true;
      // Thousandths of a degree.
      const degrees = `${Math.round(now / 1000)} °C`;
      if (now >= limit) hot.push(`${readText(root, `${folder}/${zone}/type`) || zone} (${degrees})`);
    }
  }
  return told ? hot : null;
}

function swapping({ swappedPages }: Meanwhile, root: string): EnvironmentFinding {
  const name = "swap";
  const remedy = "free memory, or switch swap space off (swapoff -a)";
  const fields = readFields(root, "proc/meminfo");
  const [total, free] = [fields.get("SwapTotal"), fields.get("SwapFree")];
  if (total === undefined || free === undefined || swappedPages === null) return unknown(name, remedy);
  const used = total > 0 ? `${formatBytes(1024 * (total - free))} of ${formatBytes(1024 * total)} used` : "none";
  if (swappedPages === 0) return finding(name, "ok", total > 0 ? `${used}, and none moved` : used, remedy);
  return finding(name, "warning", `${used}, and ${swappedPages} pages moved`, remedy);
}

function networkActivity({ network }: Meanwhile): EnvironmentFinding {
  const name = "network activity";
  const remedy = "end downloads and synchronisation while measuring";
  if (network === null) return unknown(name, remedy);
  return finding(name, network > networkMax ? "warning" : "ok", `${formatBytes(network)}/s`, remedy);
}

/** How the machine is set up and what it has left. */
export function checkState(root = "/"): EnvironmentFinding[] {
  return [virtualization(root), frequencyScaling(root), turbo(root), memoryPressure(root)];
}

function virtualization(root: string): EnvironmentFinding {
  const name = "virtualization";
  const remedy = "only a machine of one's own has no unseen neighbours: repeat measurements, and compare in turns";
  const found = findVirtualization(root);
  if (found !== null) {
    const unseen = findHypervisor(root) === null ? "" : ": its neighbours cannot be seen";
    return finding(name, unseen === "" ? "ok" : "unknown", `${found}${unseen}`, remedy);
  }
  if (readText(root, "proc/cpuinfo") === "") return unknown(name, remedy);
  return finding(name, "ok", "none that shows", remedy);
}

function frequencyScaling(root: string): EnvironmentFinding {
  const name = "frequency scaling";
  const remedy = "cpupower frequency-set --governor performance";
  const governor = findGovernor(root);
  if (governor === null) {
    const where = findHypervisor(root) === null ? "the system does not tell" : "the host does, and does not tell";
    return unknown(name, "set the governor where CPUs are in charge: on the machine itself", where);
  }
  const [first] = findFrequencies(root);
  const hertz = (value: number | null | undefined, what: string): string =>
    typeof value === "number" ? `, ${what} ${(value / 1e9).toFixed(2)} GHz` : "";
  const found = `governor ${governor}${hertz(first?.current, "now")}${hertz(first?.base, "base")}${hertz(first?.max, "at most")}`;
  return finding(name, governor === "performance" ? "ok" : "warning", found, remedy);
}

function turbo(root: string): EnvironmentFinding {
  const name = "turbo";
  const isOn = findTurbo(root);
  if (isOn === null) return unknown(name, "switch it off in the firmware, or where the governor is set");
  const file =
    readText(root, "sys/devices/system/cpu/intel_pstate/no_turbo") === "" ? "cpufreq/boost" : "intel_pstate/no_turbo";
  return finding(
    name,
    isOn ? "warning" : "ok",
    isOn ? "on: speed depends on heat and on how many CPUs work" : "off",
    `echo ${file === "cpufreq/boost" ? 0 : 1} > /sys/devices/system/cpu/${file}`,
  );
}

function memoryPressure(root: string): EnvironmentFinding {
  const name = "memory pressure";
  const remedy = "end what takes memory, or measure a smaller model or context";
  const memory = availableMemory(root);
  if (memory === null) return unknown(name, remedy);
  const waited = Number(/^some avg10=([\d.]+)/m.exec(readText(root, "proc/pressure/memory"))?.[1] ?? Number.NaN);
  const pressure = Number.isNaN(waited) ? "" : `; something waited for memory in ${waited.toFixed(1)} % of ten seconds`;
  const short = memory.available < availableMin * memory.total;
  return finding(
    name,
    short || waited > pressureMax ? "warning" : "ok",
    `${formatBytes(memory.available)} of ${formatBytes(memory.total)} available${pressure}`,
    remedy,
  );
}

/** The clocks that measurements are taken with. */
export function checkClock(root = "/"): EnvironmentFinding {
  const clocks = [measureClock(Bun.nanoseconds, 1), measureClock(() => performance.now(), 1e6)];
  const step = Math.max(...clocks.map(({ step_ns }) => step_ns));
  const cost = Math.max(...clocks.map(({ cost_ns }) => cost_ns));
  const source = readText(root, "sys/devices/system/clocksource/clocksource0/current_clocksource");
  const coarse = step > clockMax_ns || cost > clockMax_ns || slowClocks.includes(source);
  return finding(
    "clock resolution",
    coarse ? "warning" : "ok",
    `steps of ${step.toFixed(0)} ns, a look takes ${cost.toFixed(0)} ns${source === "" ? "" : `, source ${source}`}`,
    "choose a faster clock of those in /sys/devices/system/clocksource/clocksource0/available_clocksource",
  );
}

/** Room where results, prepared models and temporary files are written. */
export function checkDisks(folders: Readonly<Record<string, string>> = diskFolders()): EnvironmentFinding {
  const name = "disk space";
  const remedy = "free some, or choose other folders: TINYAI_HOME for the cache, TMPDIR for temporary files";
  const free: string[] = [];
  let verdict: Verdict = "ok";
  for (const [what, folder] of Object.entries(folders)) {
    const bytes = freeBytes(folder);
    free.push(`${what} ${bytes === null ? "unknown" : formatBytes(bytes)}`);
    if (bytes === null && verdict === "ok") verdict = "unknown";
    if (bytes !== null && bytes < diskBytesMin) verdict = "warning";
  }
  return finding(name, verdict, `free: ${free.join(", ")}`, remedy);
}

function diskFolders(): Record<string, string> {
  return { "working folder": process.cwd(), cache: homeFolder(), temporary: tmpdir() };
}

/** Of the file system that a folder is on, or will be once it is made. */
function freeBytes(folder: string): number | null {
  let existing = folder;
  while (!existsSync(existing) && dirname(existing) !== existing) existing = dirname(existing);
  try {
    const { bavail, bsize } = statfsSync(existing);
    return bavail * bsize;
  } catch {
    return null;
  }
}

/** How far the times of the same work spread. */
export function checkNoise({ variation, robust, repetitions }: Noise): EnvironmentFinding {
  return finding(
    "noise floor",
    variation > variationMax || robust > robustMax ? "warning" : "ok",
    `the same work's times vary by ${percent(variation, 1)} (${percent(robust, 1)} without outliers) in ${repetitions} repetitions`,
    "see to the other warnings; smaller differences than that need many more iterations, and comparing in turns",
  );
}
