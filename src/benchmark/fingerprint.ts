// The machine that results were measured on: what tells it from others, the guide's three fields, and how two of them differ.

import { release, totalmem, type } from "node:os";
import manifest from "../../package.json" with { type: "json" };
import { cpu } from "../engine/cpu.ts";
import { openLibrary } from "../engine/library.ts";
import { machineInfo } from "../profiling/machine.ts";
import { findGovernor, findTurbo, findVirtualization } from "./machine/state.ts";
import { type BenchmarkInfo, type MachineFingerprint, resultsVersion, type SystemInfo } from "./results.ts";

/**
 * What tells this machine, as it is now, from others. Opens the native library.
 * @throws {LibraryError} if the library is missing or of another version.
 */
export function machineFingerprint(): MachineFingerprint {
  const { fingerprint, cpu: model, cores, memoryBytes, bun } = machineInfo(openLibrary());
  return {
    id: fingerprint,
    cpu: model,
    cores,
    memory_bytes: memoryBytes,
    kernel: `${type()} ${release()}`,
    bun,
    governor: findGovernor(),
    turbo: findTurbo(),
    virtualization: findVirtualization(),
  };
}

/** The guide's three fields. Memory is in GiB, rounded, as modules are sold; the kernel is without what its packager appends. */
export function systemInfo(): SystemInfo {
  const version = /^\d+(\.\d+)*/.exec(release())?.[0] ?? release();
  return { cpu: cpu.model, memory: `${Math.round(totalmem() / 2 ** 30)}GB`, os: `${type()} ${version}` };
}

/**
 * What results say of where they come from: this machine, and this version of TinyAI.
 * @throws {LibraryError} as `machineFingerprint` does.
 */
export function provenance(): Pick<BenchmarkInfo, "system_info" | "version" | "tinyai" | "fingerprint"> {
  return {
    system_info: systemInfo(),
    version: resultsVersion,
    tinyai: manifest.version,
    fingerprint: machineFingerprint(),
  };
}

/** Memory that the system keeps for itself differs between kernels: that much is no other machine. */
const memoryTolerance = 0.02;

/**
 * In which ways two machines, or one at two times, differ where that can change a speed; a phrase each, none: they are alike.
 * @param between the word between the two: "to" of a change.
 */
export function sameMachine(a: MachineFingerprint, b: MachineFingerprint, between = "and"): readonly string[] {
  const differences: string[] = [];
  const differ = (what: string, first: unknown, second: unknown): void => {
    if (first !== second) differences.push(`${what}: ${first ?? "unknown"} ${between} ${second ?? "unknown"}`);
  };
  const turbo = (value: boolean | null): string | null => (value === null ? null : value ? "on" : "off");
  differ("CPU", a.cpu, b.cpu);
  differ("usable CPUs", a.cores, b.cores);
  if (a.id !== b.id && differences.length === 0) differences.push("caches or instruction sets differ");
  if (Math.abs(a.memory_bytes - b.memory_bytes) > memoryTolerance * Math.max(a.memory_bytes, b.memory_bytes)) {
    const gibibytes = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
    differ("memory", gibibytes(a.memory_bytes), gibibytes(b.memory_bytes));
  }
  differ("kernel", a.kernel, b.kernel);
  differ("Bun", a.bun, b.bun);
  differ("governor", a.governor, b.governor);
  differ("turbo", turbo(a.turbo), turbo(b.turbo));
  differ("virtualization", a.virtualization, b.virtualization);
  return differences;
}
