// How a machine is set up where that changes its speed: frequency governor, turbo, and what it runs in. Linux tells; of others nothing
// is known.

import { listFolder, readNumber, readText } from "./system-files.ts";

const cpuFolder = "sys/devices/system/cpu";

/** Hz of one CPU; null: the system does not tell. */
export interface Frequency {
  readonly current: number | null;
  readonly base: number | null;
  readonly max: number | null;
}

function findPolicies(root: string): readonly string[] {
  return listFolder(root, `${cpuFolder}/cpufreq`).filter((name) => name.startsWith("policy"));
}

/** The frequency governor, several joined by a comma where CPUs differ; null where the system tells none. */
export function findGovernor(root = "/"): string | null {
  const names = findPolicies(root).map((name) => readText(root, `${cpuFolder}/cpufreq/${name}/scaling_governor`));
  return [...new Set(names)].filter((name) => name !== "").join(", ") || null;
}

/** Whether the CPU may clock above its base; null where the system does not tell. */
export function findTurbo(root = "/"): boolean | null {
  const forbidden = readNumber(root, `${cpuFolder}/intel_pstate/no_turbo`);
  if (forbidden !== null) return forbidden === 0;
  const boost = readNumber(root, `${cpuFolder}/cpufreq/boost`);
  return boost === null ? null : boost !== 0;
}

/** Frequencies by policy, a set of CPUs that clock together, of the first `policiesMax`. None where the system does not tell. */
export function findFrequencies(root = "/", policiesMax = Number.POSITIVE_INFINITY): readonly Frequency[] {
  const policies = findPolicies(root).slice(0, policiesMax);
  const hertz = (policy: string, file: string): number | null => {
    const kilohertz = readNumber(root, `${cpuFolder}/cpufreq/${policy}/${file}`);
    return kilohertz === null ? null : 1000 * kilohertz;
  };
  return policies.map((policy) => ({
    current: hertz(policy, "scaling_cur_freq"),
    base: hertz(policy, "base_frequency"),
    max: hertz(policy, "cpuinfo_max_freq"),
  }));
}

/** What a container leaves behind. */
const containerFiles: readonly (readonly [path: string, name: string])[] = [
  [".dockerenv", "docker"],
  ["run/.containerenv", "podman"],
];
/** Parts of the names of control groups in which containers are put. */
const containerGroups: readonly (readonly [pattern: RegExp, name: string])[] = [
  [/kubepods/, "kubernetes"],
  [/docker/, "docker"],
  [/libpod/, "podman"],
  [/\blxc\b/, "lxc"],
  [/containerd/, "containerd"],
];

/** The kind of container that this process is in; null: none, or none that can be told. */
export function findContainer(root = "/"): string | null {
  // systemd and its like say it to the first process, and to whoever may read of that.
  const told = /(?:^|\0)container=([\w-]+)/.exec(readText(root, "proc/1/environ"))?.[1];
  if (told !== undefined) return told;
  const groups = readText(root, "proc/self/cgroup");
  const group = containerGroups.find(([pattern]) => pattern.test(groups));
  if (group) return group[1];
  const folder = listFolder(root, "");
  const inRun = listFolder(root, "run");
  const file = containerFiles.find(([path]) => folder.includes(path) || inRun.includes(path.replace("run/", "")));
  return file?.[1] ?? null;
}

/** Parts of what a machine calls itself, its maker, its tables or its clocks, and the hypervisor that they mean; the first one counts. */
const hypervisors: readonly (readonly [pattern: RegExp, name: string])[] = [
  [/FIRECK/, "firecracker"],
  [/VMware/i, "vmware"],
  [/VirtualBox|innotek/i, "virtualbox"],
  [/Microsoft Corporation.*Virtual Machine|hyperv_clocksource|microsoft-standard/i, "hyper-v"],
  [/Parallels/i, "parallels"],
  [/\bxen\b/i, "xen"],
  [/Amazon EC2|Google Compute Engine|KVM|kvm-clock|linux,kvm/i, "kvm"],
  [/QEMU|Bochs/i, "qemu"],
];

/** The hypervisor that this machine runs on; null: none, or none that can be told. `unknown` where there is one without a name. */
export function findHypervisor(root = "/"): string | null {
  const isGuest = /^flags\s*:.*\bhypervisor\b/m.test(readText(root, "proc/cpuinfo"));
  const names = [
    ...["sys_vendor", "product_name", "board_vendor"].map((name) => readText(root, `sys/class/dmi/id/${name}`)),
    readText(root, "sys/hypervisor/type"),
    readText(root, "sys/firmware/devicetree/base/hypervisor/compatible"),
    readText(root, "sys/devices/system/clocksource/clocksource0/available_clocksource"),
    readText(root, "proc/sys/kernel/osrelease"),
    readText(root, "sys/firmware/acpi/tables/APIC"),
  ].join(" ");
  // Cloud providers' names stand on their bare machines too, which have no such flag; ARM has no such flag at all.
  const isPc = readText(root, "proc/cpuinfo").includes("flags");
  if (isPc && !isGuest) return null;
  return hypervisors.find(([pattern]) => pattern.test(names))?.[1] ?? (isGuest ? "unknown" : null);
}

/** Such as "docker on kvm"; null on bare metal, or where it cannot be told. */
export function findVirtualization(root = "/"): string | null {
  const parts = [findContainer(root), findHypervisor(root)].filter((part) => part !== null);
  return parts.join(" on ") || null;
}
