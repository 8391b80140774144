// What tells one machine from another, and how a machine is set up, read from made-up trees of the files that Linux has.

import { describe, expect, test } from "bun:test";
import { machineFingerprint, sameMachine, systemInfo } from "../../src/benchmark/fingerprint.ts";
import {
  findContainer,
  findFrequencies,
  findGovernor,
  findHypervisor,
  findTurbo,
  findVirtualization,
} from "../../src/benchmark/machine/state.ts";
import type { MachineFingerprint } from "../../src/benchmark/results.ts";
import { temporaryFolder } from "../support/folder.ts";
import { systemTree } from "../support/system-tree.ts";

const folder = temporaryFolder();
const tree = (files: Readonly<Record<string, string>>): string => systemTree(folder.path, files);
const policies = "sys/devices/system/cpu/cpufreq";

describe("a machine's fingerprint", () => {
  test("is the same twice, and names what the system names", () => {
    const first = machineFingerprint();
    expect(machineFingerprint()).toEqual(first);
    expect(first.id).toMatch(/^[0-9a-f]{16}$/);
    expect(first.bun).toBe(Bun.version);
    expect(sameMachine(first, machineFingerprint())).toEqual([]);
  });

  test("has the guide's three fields as the guide writes them", () => {
    const { cpu, memory, os } = systemInfo();
    expect(cpu).toBe(machineFingerprint().cpu);
    expect(memory).toMatch(/^\d+GB$/);
    expect(os).toMatch(/^\w+ \d+(\.\d+)*$/);
  });

  const machine: MachineFingerprint = {
    id: "a",
    cpu: "Zen",
    cores: 8,
    memory_bytes: 32e9,
    kernel: "Linux 6.1.0",
    bun: "1.4.5",
    governor: "performance",
    turbo: true,
    virtualization: null,
  };

  test("differs in words, each difference once", () => {
    const other = { ...machine, id: "b", cpu: "Xeon", cores: 4, governor: "powersave", turbo: null };
    expect(sameMachine(machine, other)).toEqual([
      "CPU: Zen and Xeon",
      "usable CPUs: 8 and 4",
      "governor: performance and powersave",
      "turbo: on and unknown",
    ]);
    expect(sameMachine(machine, { ...machine, id: "c" })).toEqual(["caches or instruction sets differ"]);
  });

  test("has the same memory where only a kernel keeps more for itself", () => {
    expect(sameMachine(machine, { ...machine, memory_bytes: 31.9e9 })).toEqual([]);
    expect(sameMachine(machine, { ...machine, memory_bytes: 16e9 })).toEqual(["memory: 29.8 GiB and 14.9 GiB"]);
  });
});

describe("how a machine is set up", () => {
  test("is unknown where the system says nothing", () => {
    const root = tree({});
    expect(findGovernor(root)).toBeNull();
    expect(findTurbo(root)).toBeNull();
    expect(findFrequencies(root)).toEqual([]);
    expect(findVirtualization(root)).toBeNull();
  });

  test("has every governor that is in use, once", () => {
    const files: Record<string, string> = { [`${policies}/policy0/scaling_governor`]: "powersave\n" };
    expect(findGovernor(tree(files))).toBe("powersave");
    files[`${policies}/policy1/scaling_governor`] = "powersave\n";
    files[`${policies}/policy2/scaling_governor`] = "performance\n";
    expect(findGovernor(tree(files))).toBe("powersave, performance");
  });

  test("has turbo by either driver's file", () => {
    expect(findTurbo(tree({ [`${policies}/boost`]: "1\n" }))).toBe(true);
    expect(findTurbo(tree({ [`${policies}/boost`]: "0\n" }))).toBe(false);
    expect(findTurbo(tree({ "sys/devices/system/cpu/intel_pstate/no_turbo": "1\n" }))).toBe(false);
    expect(findTurbo(tree({ "sys/devices/system/cpu/intel_pstate/no_turbo": "0\n" }))).toBe(true);
  });

  test("has frequencies in Hz", () => {
    const root = tree({
      [`${policies}/policy0/scaling_cur_freq`]: "1800000\n",
      [`${policies}/policy0/base_frequency`]: "2400000\n",
    });
    expect(findFrequencies(root)).toEqual([{ current: 1.8e9, base: 2.4e9, max: null }]);
  });

  test("has a container by its marks", () => {
    expect(findContainer(tree({ ".dockerenv": "" }))).toBe("docker");
    expect(findContainer(tree({ "run/.containerenv": "" }))).toBe("podman");
    expect(findContainer(tree({ "proc/self/cgroup": "0::/kubepods/besteffort/pod1\n" }))).toBe("kubernetes");
    expect(findContainer(tree({ "proc/1/environ": "PATH=/bin\0container=systemd-nspawn\0" }))).toBe("systemd-nspawn");
    expect(findContainer(tree({ "proc/self/cgroup": "0::/user.slice/session-1.scope\n" }))).toBeNull();
  });

  test("has a hypervisor only where the CPU says that there is one", () => {
    const guest = { "proc/cpuinfo": "flags\t\t: fpu hypervisor sse\n" };
    const vendor = { "sys/class/dmi/id/sys_vendor": "Amazon EC2\n" };
    expect(findHypervisor(tree({ ...guest, ...vendor }))).toBe("kvm");
    expect(findHypervisor(tree({ "proc/cpuinfo": "flags\t\t: fpu sse\n", ...vendor }))).toBeNull();
    expect(findHypervisor(tree(guest))).toBe("unknown");
    expect(findHypervisor(tree({ ...guest, "sys/firmware/acpi/tables/APIC": "APIC\0\0FIRECKFCVMMADT" }))).toBe(
      "firecracker",
    );
    expect(findVirtualization(tree({ ...guest, ...vendor, ".dockerenv": "" }))).toBe("docker on kvm");
  });
});
