// Limits of control groups and cores, read from made-up trees of the files that Linux has.

import { describe, expect, spyOn, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import * as cgroup from "../../src/engine/cgroup.ts";
import { countPhysicalCores, cpu } from "../../src/engine/cpu.ts";
import { temporaryFolder } from "../support/folder.ts";

const { groupMemoryLeft, readGroupLimits } = cgroup;
const folder = temporaryFolder();
let trees = 0;

/** A root folder with these files. */
function tree(files: Readonly<Record<string, string>>): string {
  const root = folder.file(`tree${trees++}`);
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  mkdirSync(root, { recursive: true });
  return root;
}

const unlimited = { cpus: Number.POSITIVE_INFINITY, memoryBytes: Number.POSITIVE_INFINITY };
const mount2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

describe("limits of version 2", () => {
  test("are the least of the process's group and all around it", () => {
    const root = tree({
      "proc/self/cgroup": "0::/user.slice/app.service\n",
      "proc/self/mountinfo": `22 1 8:1 / / rw - ext4 /dev/sda1 rw\n${mount2}`,
      "sys/fs/cgroup/user.slice/cpu.max": "150000 100000\n",
      "sys/fs/cgroup/user.slice/memory.max": "max\n",
      "sys/fs/cgroup/user.slice/app.service/cpu.max": "max 100000\n",
      "sys/fs/cgroup/user.slice/app.service/memory.max": "4294967296\n",
      "sys/fs/cgroup/other.slice/cpu.max": "1000 100000\n",
    });
    expect(readGroupLimits(root)).toEqual({ cpus: 1.5, memoryBytes: 4294967296 });
  });

  test("are found where the process sees its own group as the root", () => {
    const root = tree({
      "proc/self/cgroup": "0::/\n",
      "proc/self/mountinfo": mount2,
      "sys/fs/cgroup/cpu.max": "50000 100000\n",
      "sys/fs/cgroup/memory.max": "1000000\n",
    });
    expect(readGroupLimits(root)).toEqual({ cpus: 0.5, memoryBytes: 1000000 });
  });

  test("are none where groups say so, or say nothing", () => {
    const files = { "proc/self/cgroup": "0::/a/b\n", "proc/self/mountinfo": mount2 };
    expect(readGroupLimits(tree(files))).toEqual(unlimited);
    const none = { "sys/fs/cgroup/a/cpu.max": "max 100000\n", "sys/fs/cgroup/a/memory.max": "max\n" };
    expect(readGroupLimits(tree({ ...files, ...none }))).toEqual(unlimited);
    expect(readGroupLimits(tree({ ...files, "sys/fs/cgroup/a/cpu.max": "rubbish" }))).toEqual(unlimited);
    expect(readGroupLimits(tree({}))).toEqual(unlimited);
  });
});

describe("limits of version 1", () => {
  const mounts =
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n" +
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n" +
    "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" +
    "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
  const groups = "4:memory:/jobs/one\n2:cpu,cpuacct:/jobs\n1:name=systemd:/jobs/one\n0::/\n";
  const cpuFolder = "sys/fs/cgroup/cpu,cpuacct";

  test("are each controller's own", () => {
    const root = tree({
      "proc/self/cgroup": groups,
      "proc/self/mountinfo": mounts,
      [`${cpuFolder}/cpu.cfs_quota_us`]: "-1\n",
      [`${cpuFolder}/cpu.cfs_period_us`]: "100000\n",
      [`${cpuFolder}/jobs/cpu.cfs_quota_us`]: "250000\n",
      [`${cpuFolder}/jobs/cpu.cfs_period_us`]: "100000\n",
      "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
      "sys/fs/cgroup/memory/jobs/memory.limit_in_bytes": "2000000000\n",
      "sys/fs/cgroup/memory/jobs/one/memory.limit_in_bytes": "3000000000\n",
    });
    expect(readGroupLimits(root)).toEqual({ cpus: 2.5, memoryBytes: 2000000000 });
  });

  test("are those of a container whose group is mounted as the root", () => {
    const root = tree({
      "proc/self/cgroup": "4:memory:/docker/4f2/inner\n2:cpu,cpuacct:/docker/4f2\n",
      "proc/self/mountinfo": mounts.replaceAll(/ \/ (?=\S+ rw - cgroup cgroup)/g, " /docker/4f2 "),
      [`${cpuFolder}/cpu.cfs_quota_us`]: "100000\n",
      [`${cpuFolder}/cpu.cfs_period_us`]: "50000\n",
      "sys/fs/cgroup/memory/memory.limit_in_bytes": "700000000\n",
      "sys/fs/cgroup/memory/inner/memory.limit_in_bytes": "600000000\n",
    });
    expect(readGroupLimits(root)).toEqual({ cpus: 2, memoryBytes: 600000000 });
  });
});

describe("the memory that groups leave", () => {
  const groupOf = (place: string, limit: string, used: number, statistics: string) => ({
    [`sys/fs/cgroup${place}/memory.max`]: `${limit}\n`,
    [`sys/fs/cgroup${place}/memory.current`]: `${used}\n`,
    [`sys/fs/cgroup${place}/memory.stat`]: statistics,
  });
  const process2 = { "proc/self/cgroup": "0::/a/b\n", "proc/self/mountinfo": mount2 };

  test("is the least of all around the process, with cached files as free", () => {
    const inner = groupOf("/a/b", "1000000", 400000, "anon 1\nactive_file 30000\ninactive_file 20000\n");
    expect(groupMemoryLeft(tree({ ...process2, ...inner }))).toBe(650000);
    const outer = groupOf("/a", "2000000", 1900000, "inactive_file 5000\n");
    expect(groupMemoryLeft(tree({ ...process2, ...inner, ...outer }))).toBe(105000);
  });

  test("is without limit where no group has one", () => {
    expect(groupMemoryLeft(tree({ ...process2, ...groupOf("/a/b", "max", 5, "") }))).toBe(Number.POSITIVE_INFINITY);
    expect(groupMemoryLeft(tree(process2))).toBe(Number.POSITIVE_INFINITY);
    expect(groupMemoryLeft(tree({}))).toBe(Number.POSITIVE_INFINITY);
  });

  test("is that of version 1's controller, whose sums are over the groups inside", () => {
    const memory = "sys/fs/cgroup/memory/jobs";
    const root = tree({
      "proc/self/cgroup": "4:memory:/jobs\n2:cpu,cpuacct:/jobs\n0::/\n",
      "proc/self/mountinfo": "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
      [`${memory}/memory.limit_in_bytes`]: "1000000\n",
      [`${memory}/memory.usage_in_bytes`]: "900000\n",
      [`${memory}/memory.stat`]: "inactive_file 1\nactive_file 1\ntotal_inactive_file 30000\ntotal_active_file 4000\n",
    });
    expect(groupMemoryLeft(root)).toBe(134000);
  });
});

describe("cores", () => {
  test("are counted once however many CPUs are on one", () => {
    if (process.platform === "darwin") return;
    const siblings = (number: number) => `sys/devices/system/cpu/cpu${number}/topology/thread_siblings_list`;
    const root = tree({
      [siblings(0)]: "0,4\n",
      [siblings(1)]: "1,5\n",
      [siblings(4)]: "0,4\n",
      [siblings(5)]: "1,5\n",
    });
    expect(countPhysicalCores([0, 1, 4, 5], root)).toBe(2);
    expect(countPhysicalCores([0, 4], root)).toBe(1);
    expect(countPhysicalCores([0, 7], root)).toBeUndefined();
    expect(cpu.physicalCores).toBeWithin(1, cpu.cores + 1);
  });

  test("are no more than a quota leaves the time of", () => {
    const limited = { cpus: 0.5, memoryBytes: Number.POSITIVE_INFINITY };
    const limits = spyOn(cgroup, "groupLimits").mockReturnValue(limited);
    expect([cpu.cores, cpu.physicalCores]).toEqual([1, 1]);
    limits.mockRestore();
  });

  test("are those that a process was given", async () => {
    if (process.platform !== "linux" || !Bun.which("taskset")) return;
    const script = folder.write(
      "cores.ts",
      `import { cpu } from ${JSON.stringify(join(import.meta.dir, "../../src/index.ts"))}; console.log(cpu.cores, cpu.physicalCores);`,
    );
    const { usableCpus } = await import("../../src/engine/cpu.ts");
    const last = usableCpus()?.at(-1) ?? 0;
    const { stdout } = Bun.spawnSync(["taskset", "-c", String(last), process.execPath, script]);
    expect(stdout.toString()).toBe("1 1\n");
  });
});
