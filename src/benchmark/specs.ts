// What this machine is: its CPU, caches, memory, disks, network, GPUs, and what limits it. What the project finds for itself is taken
// from there; memory modules, disks, interfaces and other makers' GPUs are systeminformation's, which runs the system's own programs:
// they are asked at once, and not waited for longer than some seconds.

import { statfsSync } from "node:fs";
import { arch, release, totalmem, type } from "node:os";
import { join } from "node:path";
import type { Systeminformation } from "systeminformation";
import manifest from "../../package.json" with { type: "json" };
import { readCaches } from "../engine/caches.ts";
import { groupLimits } from "../engine/cgroup.ts";
import { cpu } from "../engine/cpu.ts";
import { readGpus } from "../engine/nvml.ts";
import { availableMemory } from "./machine/memory.ts";
import { findMounts, mountOf } from "./machine/mounts.ts";
import { findContainer, findFrequencies, findGovernor, findHypervisor, findTurbo } from "./machine/state.ts";
import { listFolder, readFields, readNumber, readText } from "./machine/system-files.ts";

/** What this machine is, as one document. What the system does not tell is null, or not in its list. */
export interface SystemSpecs {
  readonly cpu: CpuSpecs;
  readonly memory: MemorySpecs;
  readonly disks: readonly DiskSpecs[];
  readonly working_folder: FolderSpecs;
  readonly network: readonly InterfaceSpecs[];
  readonly gpus: readonly GpuSpecs[];
  readonly system: KernelSpecs;
  /** What the system's programs did not tell, or not in time. */
  readonly missing: readonly string[];
}

export interface CpuSpecs {
  readonly model: string;
  readonly architecture: string;
  readonly sockets: number | null;
  readonly cores: number | null;
  /** Logical CPUs that are switched on. */
  readonly threads: number | null;
  /** CPUs' worth of time that this process may use, rounded up: by its affinity mask and its control groups. */
  readonly usable: number;
  /** Hz. */
  readonly frequency: { readonly current: number | null; readonly base: number | null; readonly max: number | null };
  readonly caches: readonly CacheSpecs[];
  /** Vector instructions that kernels look for. */
  readonly features: readonly string[];
  /** The level of kernels that models have unless they are loaded otherwise. */
  readonly level: string;
  readonly levels: readonly { readonly name: string; readonly usable: boolean }[];
}

/** The caches of a level that are alike. */
export interface CacheSpecs {
  readonly level: number;
  readonly type: "data" | "instruction" | "unified";
  /** Of each. */
  readonly bytes: number;
  readonly ways: number | null;
  readonly line_bytes: number | null;
  readonly count: number;
  /** Logical CPUs that share one. */
  readonly shared_by: number;
}

export interface MemorySpecs {
  readonly total: number;
  /** What can be had without swapping, of what a control group leaves. */
  readonly available: number | null;
  readonly swap: number | null;
  /** As the firmware tells them, often only to the administrator. */
  readonly modules: readonly {
    readonly bytes: number;
    readonly type: string;
    readonly megatransfers: number | null;
    readonly ecc: boolean | null;
  }[];
  /** When the system gives large pages: `always`, `madvise`, `never`. */
  readonly huge_pages: string | null;
}

export interface DiskSpecs {
  readonly device: string;
  readonly kind: "ssd" | "nvme" | "hdd" | "virtual" | null;
  readonly model: string | null;
  readonly bytes: number;
}

/** The working folder's file system. */
export interface FolderSpecs {
  readonly path: string;
  readonly device: string | null;
  readonly file_system: string | null;
  readonly bytes: number;
  /** What this user may still write. */
  readonly free: number;
}

export interface InterfaceSpecs {
  readonly name: string;
  readonly type: string;
  readonly state: string;
  /** Mbit/s. */
  readonly speed: number | null;
  /** The largest packet, in bytes. */
  readonly mtu: number | null;
}

export interface GpuSpecs {
  readonly name: string;
  readonly driver: string | null;
  /** In bytes. */
  readonly memory_total: number | null;
  readonly memory_used: number | null;
  /** Percent. */
  readonly utilization: number | null;
}

export interface KernelSpecs {
  readonly kernel: string;
  readonly distribution: string | null;
  readonly bun: string;
  readonly tinyai: string;
  readonly governor: string | null;
  readonly turbo: boolean | null;
  readonly clock: string | null;
  readonly container: string | null;
  readonly hypervisor: string | null;
  /** Limits of control groups: CPUs' worth of time, and bytes; null: none. */
  readonly cpu_limit: number | null;
  readonly memory_limit: number | null;
}

/** What the system's programs are given to answer; usually they take a fifth of a second together. */
const patienceMs = 4000;

/**
 * Looks at this machine. Opens the native library.
 * @throws {LibraryError} if the library is missing or of another version.
 */
export async function systemSpecs(): Promise<SystemSpecs> {
  const missing: string[] = [];
  const overdue = AbortSignal.timeout(patienceMs);
  const ask = async <T>(what: string, answer: Promise<T>, otherwise: T): Promise<T> => {
    const late = new Promise<undefined>((resolve) => overdue.addEventListener("abort", () => resolve(undefined)));
    const told = await Promise.race([
      answer.then(
        (value) => ({ value }),
        () => undefined,
      ),
      late,
    ]);
    if (told === undefined) missing.push(what);
    return told ? told.value : otherwise;
  };
  const isLinux = process.platform === "linux";
  // Only who asks for all of this loads it.
  const {
    blockDevices,
    cpu: cpuDetails,
    fsSize,
    graphics,
    memLayout,
    networkInterfaces,
    osInfo,
  } = await import("systeminformation");
  const [modules, devices, systems, interfaces, displays, distribution, processor] = await Promise.all([
    ask("memory modules", memLayout(), []),
    ask("disks", blockDevices(), []),
    ask("file systems", isLinux ? Promise.resolve([]) : fsSize(), []),
    ask("network interfaces", networkInterfaces(), []),
    ask("graphics", graphics(), { controllers: [], displays: [] }),
    ask("distribution", osInfo(), null),
    ask("CPU", isLinux ? Promise.resolve(null) : cpuDetails(), null),
  ]);
  const group = groupLimits();
  return {
    cpu: describeCpu(processor),
    memory: describeMemory(modules),
    disks: describeDisks(devices),
    working_folder: describeFolder(process.cwd(), systems),
    network: [interfaces].flat().map(describeInterface),
    gpus: describeGpus(displays),
    system: {
      kernel: `${type()} ${release()}`,
      distribution: distribution ? `${distribution.distro} ${distribution.release}` : null,
      bun: Bun.version,
      tinyai: manifest.version,
      governor: findGovernor(),
      turbo: findTurbo(),
      clock: readText("/", "sys/devices/system/clocksource/clocksource0/current_clocksource") || null,
      container: findContainer(),
      hypervisor: findHypervisor(),
      cpu_limit: finite(group.cpus),
      memory_limit: group.memoryBytes < totalmem() ? group.memoryBytes : null,
    },
    missing,
  };
}

function finite(value: number): number | null {
  return Number.isFinite(value) ? value : null;
}

/** @param told what systeminformation says, where Linux does not. */
function describeCpu(told: Systeminformation.CpuData | null): CpuSpecs {
  const { sockets, cores, threads } = told
    ? { sockets: told.processors, cores: told.physicalCores, threads: told.cores }
    : findTopology();
  const { level, levels, reason: _, avx512: __, ...features } = cpu.simd;
  const [policy] = findFrequencies();
  const megahertz = Number(/^cpu MHz\s*:\s*([\d.]+)/m.exec(readText("/", "proc/cpuinfo"))?.[1] ?? Number.NaN);
  const gigahertz = (value: number | undefined): number | null => (value ? value * 1e9 : null);
  return {
    model: cpu.model,
    architecture: arch(),
    sockets,
    cores,
    threads,
    usable: cpu.cores,
    frequency: {
      current: policy?.current ?? finite(megahertz * 1e6),
      base: policy?.base ?? gigahertz(told?.speed),
      max: policy?.max ?? gigahertz(told?.speedMax),
    },
    caches: findCacheSpecs(),
    features: Object.entries(features).flatMap(([name, has]) => (has ? name : [])),
    level,
    levels: levels.map(({ name, supported }) => ({ name, usable: supported })),
  };
}

/** Sockets, cores and logical CPUs that are switched on (Linux). */
export function findTopology(root = "/"): Pick<CpuSpecs, "sockets" | "cores" | "threads"> {
  const folder = "sys/devices/system/cpu";
  const places = listFolder(root, folder)
    .filter((name) => /^cpu\d+$/.test(name))
    .map((name) => [
      readNumber(root, `${folder}/${name}/topology/physical_package_id`),
      readNumber(root, `${folder}/${name}/topology/core_id`),
    ])
    .filter(([, core]) => core !== null);
  if (places.length === 0) return { sockets: null, cores: null, threads: null };
  return {
    sockets: new Set(places.map(([socket]) => socket)).size,
    cores: new Set(places.map((place) => place.join(" "))).size,
    threads: places.length,
  };
}

/** Caches by level and type, nearest first (Linux). */
export function findCacheSpecs(root = "/"): CacheSpecs[] {
  const folder = "sys/devices/system/cpu";
  const names = listFolder(root, folder).filter((name) => /^cpu\d+$/.test(name));
  const found = names.flatMap((name) => readCaches(join(root, folder, name)));
  const kinds = Map.groupBy(found, ({ level, type, bytes, ways, lineBytes }) =>
    [level, type, bytes, ways, lineBytes].join(" "),
  );
  const caches: CacheSpecs[] = [];
  for (const alike of kinds.values()) {
    const [first] = alike;
    const kind = first?.type.toLowerCase();
    if (!first || Number.isNaN(first.bytes) || (kind !== "data" && kind !== "instruction" && kind !== "unified"))
      continue;
    const count = new Set(alike.map(({ sharers }) => sharers)).size;
    caches.push({
      level: first.level,
      type: kind,
      bytes: first.bytes,
      ways: finite(first.ways),
      line_bytes: finite(first.lineBytes),
      count,
      shared_by: Math.ceil(alike.length / count),
    });
  }
  return caches.sort((a, b) => a.level - b.level || a.type.localeCompare(b.type));
}

function describeMemory(modules: readonly Systeminformation.MemLayoutData[]): MemorySpecs {
  const swap = readFields("/", "proc/meminfo").get("SwapTotal");
  const pages = readText("/", "sys/kernel/mm/transparent_hugepage/enabled");
  return {
    total: totalmem(),
    available: availableMemory()?.available ?? null,
    swap: swap === undefined ? null : 1024 * swap,
    // Where the firmware tells none, one without a type is made up of all memory.
    modules: modules
      .filter((module) => module.size > 0 && module.type !== "" && module.type !== "Empty")
      .map((module) => ({
        bytes: module.size,
        type: module.type,
        megatransfers: module.clockSpeed || null,
        ecc: module.ecc ?? null,
      })),
    huge_pages: /\[(\w+)\]/.exec(pages)?.[1] ?? null,
  };
}

function describeDisks(devices: readonly Systeminformation.BlockDevicesData[]): DiskSpecs[] {
  const disks = devices.filter((device) => device.type === "disk" && device.size > 0);
  return disks.map(({ name, physical, protocol, model, size }) => ({
    device: name,
    kind: diskKind(name, physical, protocol),
    model: model || null,
    bytes: size,
  }));
}

/** Disks of hypervisors say that they turn, whatever is behind them. */
function diskKind(name: string, physical: string, protocol: string): DiskSpecs["kind"] {
  if (/^(?:vd|xvd)/.test(name) || /virtio/i.test(protocol)) return "virtual";
  if (/^nvme/i.test(name) || /nvme/i.test(protocol)) return "nvme";
  if (physical === "SSD") return "ssd";
  return physical === "HDD" ? "hdd" : null;
}

/** @param systems what systeminformation says, where Linux does not. */
function describeFolder(path: string, systems: readonly Systeminformation.FsSizeData[]): FolderSpecs {
  const { blocks, bavail, bsize } = statfsSync(path);
  const others = systems.map(({ mount, fs, type: kind }) => ({ folder: mount, device: fs, fileSystem: kind }));
  const mount = mountOf(path, [...findMounts(), ...others]);
  return {
    path,
    device: mount?.device ?? null,
    file_system: mount?.fileSystem ?? null,
    bytes: blocks * bsize,
    free: bavail * bsize,
  };
}

function describeInterface(each: Systeminformation.NetworkInterfacesData): InterfaceSpecs {
  const { iface, type: kind, operstate, speed, mtu } = each;
  return {
    name: iface,
    type: each.internal ? "loopback" : kind,
    state: operstate,
    // A virtual one says -1.
    speed: speed !== null && speed > 0 ? speed : null,
    mtu: mtu !== null && mtu > 0 ? mtu : null,
  };
}

/** NVIDIA's by their own library, and of other makers what the system lists. */
function describeGpus({ controllers }: Systeminformation.GraphicsData): GpuSpecs[] {
  const nvidia = readGpus().map(({ name, driver, memoryTotal, memoryUsed, utilization }) => ({
    name,
    driver,
    memory_total: memoryTotal,
    memory_used: memoryUsed,
    utilization,
  }));
  const others = controllers
    .filter(({ vendor, model }) => nvidia.length === 0 || !/nvidia/i.test(`${vendor} ${model}`))
    .map(({ vendor, model, driverVersion, vram, utilizationGpu }) => ({
      name: [vendor, model].filter((part) => part !== "").join(" "),
      driver: driverVersion ?? null,
      memory_total: vram ? vram * 2 ** 20 : null,
      memory_used: null,
      utilization: utilizationGpu ?? null,
    }));
  return [...nvidia, ...others];
}
