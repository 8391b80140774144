// Limits of the control groups that this process is in (Linux): CPU time and memory, in versions 1 and 2, of its own group and of
// those around it, and what of memory they leave.

import { readFileSync } from "node:fs";
import { join } from "node:path";

export interface GroupLimits {
  /** CPUs' worth of time, a fraction where the quota is one; Infinity: no limit. */
  readonly cpus: number;
  /** Bytes; Infinity: no limit. */
  readonly memoryBytes: number;
}

/** Limits change seldom, and reading them takes about ten files: they are not read anew within this time. */
const keptMs = 1000;
let kept: { readonly limits: GroupLimits; readonly untilMs: number } | undefined;

/** This process's, as they were at most a second ago. */
export function groupLimits(): GroupLimits {
  const nowMs = performance.now();
  if (!kept || nowMs >= kept.untilMs) kept = { limits: readGroupLimits(), untilMs: nowMs + keptMs };
  return kept.limits;
}

/** @param root where the system's files begin; another than "/" is for tests. */
export function readGroupLimits(root = "/"): GroupLimits {
  let cpus = Number.POSITIVE_INFINITY;
  let memoryBytes = Number.POSITIVE_INFINITY;
  for (const { controller, folder } of groupsOf(root)) {
    if (controller === "") {
      const [limit, period] = words(join(folder, "cpu.max"));
      cpus = Math.min(cpus, quota(limit, period));
      memoryBytes = Math.min(memoryBytes, positive(words(join(folder, "memory.max"))[0]));
    } else if (controller === "cpu") {
      const [limit] = words(join(folder, "cpu.cfs_quota_us"));
      cpus = Math.min(cpus, quota(limit, words(join(folder, "cpu.cfs_period_us"))[0]));
    } else if (controller === "memory") {
      memoryBytes = Math.min(memoryBytes, positive(words(join(folder, "memory.limit_in_bytes"))[0]));
    }
  }
  return { cpus, memoryBytes };
}

/**
 * Bytes that the groups leave of their memory, the least of all; Infinity: no limit, and below 0 where one is exceeded. Cached files count
 * as used there, but make room when memory is asked for.
 * @param root as of `readGroupLimits`.
 * @param files those that are to make room: all, or only those that nobody looked at lately, which go first.
 */
export function groupMemoryLeft(root = "/", files: "all" | "idle" = "all"): number {
  let left = Number.POSITIVE_INFINITY;
  for (const { controller, folder } of groupsOf(root)) {
    if (controller !== "" && controller !== "memory") continue;
    const [limitFile, usedFile] =
      controller === "" ? ["memory.max", "memory.current"] : ["memory.limit_in_bytes", "memory.usage_in_bytes"];
    const limit = positive(words(join(folder, limitFile))[0]);
    const used = Number(words(join(folder, usedFile))[0]);
    if (Number.isFinite(limit)) left = Math.min(left, limit - used + cachedBytes(folder, files));
  }
  return left;
}

/** Of files, in a group and those inside it; version 1 has sums over these under names of their own. */
function cachedBytes(folder: string, files: "all" | "idle"): number {
  const statistics = read(join(folder, "memory.stat"));
  const bytes = (name: string): number | undefined => {
    const found = new RegExp(`^${name} (\\d+)$`, "m").exec(statistics)?.[1];
    return found === undefined ? undefined : Number(found);
  };
  const lists = files === "all" ? ["inactive_file", "active_file"] : ["inactive_file"];
  return lists.reduce((sum, name) => sum + (bytes(`total_${name}`) ?? bytes(name) ?? 0), 0);
}

/** A group that this process is in, or one around it. */
export interface Group {
  /** "" in version 2, which has one hierarchy without a controller's name. */
  readonly controller: string;
  /** Where its files are. */
  readonly folder: string;
}

/**
 * This process's groups and all around them that can be seen, innermost first.
 * @param root as of `readGroupLimits`.
 */
export function* groupsOf(root = "/"): Generator<Group, void, void> {
  const mounts = groupMounts(root);
  for (const line of read(join(root, "proc/self/cgroup")).split("\n")) {
    const [, controllers, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    if (controllers === undefined || path === undefined) continue;
    for (const controller of controllers === "" ? [""] : controllers.split(",")) {
      for (const group of groupsAround(mounts.get(controller), path)) yield { controller, folder: join(root, group) };
    }
  }
}

interface Mount {
  readonly folder: string;
  /** The group that is seen there. */
  readonly group: string;
}

/** Where groups are seen, by controller; version 2 under "". */
function groupMounts(root: string): Map<string, Mount> {
  const mounts = new Map<string, Mount>();
  for (const line of read(join(root, "proc/self/mountinfo")).split("\n")) {
    const [place = "", system = ""] = line.split(" - ");
    const [, , , group, folder] = place.split(" ");
    const [type, , options = ""] = system.split(" ");
    if (group === undefined || folder === undefined) continue;
    const mount = { folder, group };
    if (type === "cgroup2") mounts.set("", mount);
    if (type === "cgroup") for (const name of options.split(",")) mounts.set(name, mount);
  }
  return mounts;
}

/** Folders of the group and of all around it that can be seen. */
function* groupsAround(mount: Mount | undefined, path: string): Generator<string, void, void> {
  if (!mount) return;
  const { folder, group } = mount;
  const inside = group === "/" ? path : path.startsWith(`${group}/`) ? path.slice(group.length) : "/";
  const parts = inside.split("/").filter((part) => part !== "" && part !== "..");
  for (let length = parts.length; length >= 0; length--) yield join(folder, ...parts.slice(0, length));
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function words(path: string): string[] {
  return read(path).trim().split(/\s+/);
}

/** "max", -1 and what is not there are no limit. */
function positive(text: string | undefined): number {
  const value = Number(text === "" ? undefined : text);
  return value > 0 ? value : Number.POSITIVE_INFINITY;
}

function quota(limit: string | undefined, period: string | undefined): number {
  const share = positive(limit) / positive(period);
  return share > 0 ? share : Number.POSITIVE_INFINITY;
}
