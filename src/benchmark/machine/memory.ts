// How much memory is left, of the machine and of the control groups that this process is in. Linux tells; of others nothing is known.

import { groupMemoryLeft, readGroupLimits } from "../../engine/cgroup.ts";
import { readFields } from "./system-files.ts";

/** Memory that can be had without swapping, and all there is, in bytes; in a control group, of what it leaves. */
export function availableMemory(root = "/"): { readonly available: number; readonly total: number } | null {
  const fields = readFields(root, "proc/meminfo");
  const [all, free] = [fields.get("MemTotal"), fields.get("MemAvailable")];
  if (all === undefined || free === undefined) return null;
  return {
    available: Math.max(0, Math.min(1024 * free, groupMemoryLeft(root, "idle"))),
    total: Math.min(1024 * all, readGroupLimits(root).memoryBytes),
  };
}
