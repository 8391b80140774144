// The machine that a report was made on, and what tells it from others.

import { arch, release, totalmem } from "node:os";
import type { MachineInfo } from "../../profiler/report.ts";
import { findCaches } from "../engine/caches.ts";
import { cpu } from "../engine/cpu.ts";
import type { Library } from "../engine/library.ts";

/** Where reports are made. */
export function machineInfo(library: Library): MachineInfo {
  const levels = library.levels.filter(({ supported }) => supported).map(({ name }) => name);
  const caches = findCaches({ threads: cpu.cores }).levels.map(({ name, bytes, ways }) => `${name}:${bytes}:${ways}`);
  const identity = [cpu.model, cpu.cores, ...caches, ...levels].join(";");
  return {
    cpu: cpu.model,
    cores: cpu.cores,
    memoryBytes: totalmem(),
    system: `${process.platform} ${release()} ${arch()}`,
    bun: Bun.version,
    fingerprint: Bun.hash.xxHash64(identity).toString(16).padStart(16, "0"),
  };
}
