// How much memory is left, of the machine and of the control groups that this process is in. Linux tells; of others nothing is known.

import { join, relative } from "node:path";
import { groupsOf } from "../../engine/cgroup.ts";
import { readFields, readNumber } from "./system-files.ts";

/** Memory that can be had without swapping, and all there is, in bytes; in a control group, of what it leaves. */
export function availableMemory(root = "/"): { readonly available: number; readonly total: number } | null {
  const fields = readFields(root, "proc/meminfo");
  const [all, free] = [fields.get("MemTotal"), fields.get("MemAvailable")];
  if (all === undefined || free === undefined) return null;
  let [available, total] = [1024 * free, 1024 * all];
  for (const { controller, folder } of groupsOf(root)) {
    if (controller !== "" && controller !== "memory") continue;
    const place = relative(root, folder);
    const [limitFile, useFile] =
      controller === "" ? ["memory.max", "memory.current"] : ["memory.limit_in_bytes", "memory.usage_in_bytes"];
    const [limit, used] = [readNumber(root, join(place, limitFile)), readNumber(root, join(place, useFile))];
    if (limit === null || used === null || limit >= total) continue;
    // Pages of files that nobody looked at lately are given back first.
    const statistics = readFields(root, join(place, "memory.stat"));
    const unused = statistics.get("total_inactive_file") ?? statistics.get("inactive_file") ?? 0;
    total = limit;
    available = Math.min(available, Math.max(0, limit - used + unused));
  }
  return { available, total };
}
