// The pitfalls as checks, over made-up trees of the files that Linux has: two readings with known counts between them.

import { describe, expect, test } from "bun:test";
import {
  checkEnvironment,
  type EnvironmentFinding,
  frequencyChange,
  watchEnvironment,
} from "../../src/benchmark/environment.ts";
import { between, type Meanwhile, readActivity } from "../../src/benchmark/machine/activity.ts";
import { checkActivity, checkClock, checkDisks, checkNoise, checkState } from "../../src/benchmark/machine/checks.ts";
import { measureClock } from "../../src/benchmark/machine/clock.ts";
import { availableMemory } from "../../src/benchmark/machine/memory.ts";
import { noiseOf } from "../../src/benchmark/machine/noise.ts";
import { temporaryFolder } from "../support/folder.ts";
import { systemTree, writeTree } from "../support/system-tree.ts";

type Files = Readonly<Record<string, string>>;

const folder = temporaryFolder();
const tree = (files: Files): string => systemTree(folder.path, files);
const cpuFolder = "sys/devices/system/cpu";
const group = {
  "proc/self/cgroup": "0::/\n",
  "proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw\n",
};

/** What is said of the ten seconds between two states of a machine of two CPUs, of which this process had `ownMs`. */
function activity(before: Files, after: Files, ownMs = 0): { meanwhile: Meanwhile; findings: EnvironmentFinding[] } {
  const root = tree(before);
  const first = readActivity({ root, cpus: [0, 1], atMs: 0, ownMs: 0 });
  writeTree(root, after);
  const meanwhile = between(first, readActivity({ root, cpus: [0, 1], atMs: 10_000, ownMs }));
  return { meanwhile, findings: checkActivity(meanwhile, root) };
}

function find(findings: readonly EnvironmentFinding[], name: string): EnvironmentFinding {
  const found = findings.find((each) => each.name === name);
  if (!found) throw new Error(`nothing is said of ${name}`);
  return found;
}

/** /proc/stat, with a third CPU that the process may not use and that is busy. */
function stat(user: number, idle: number, steal: number): string {
  return `cpu  9 9 9 9\ncpu0 ${user} 0 0 ${idle} 0 0 0 ${steal} 0 0\ncpu1 0 0 0 1000 0 0 0 0 0 0\ncpu2 99999 0 0 0 0 0 0 0 0 0\n`;
}

function process(number: number, name: string, ticks: number, started = 5): Files {
  return { [`proc/${number}/stat`]: `${number} (${name}) S 1 1 1 0 -1 0 0 0 0 0 ${ticks} 0 0 0 20 0 1 0 ${started} 0` };
}

/** Of 2,000 ticks: 800 busy, 100 stolen, 1,100 idle; CPU 1 stays as it is in the file. */
const before = { "proc/stat": stat(100, 900, 0) };
const after = { "proc/stat": stat(900, 2000, 100) };

describe("what others do", () => {
  test("is what CPUs did, less what this process did, of those that it may use", () => {
    expect(activity(before, after).meanwhile.foreign).toBeCloseTo(0.4, 10);
    // 6 s of 20 s.
    expect(activity(before, after, 6000).meanwhile.foreign).toBeCloseTo(0.1, 10);
    expect(activity(before, after, 9000).meanwhile.foreign).toBe(0);
  });

  test("is a warning from 5 % on, and names the busiest", () => {
    const processes = { ...process(7, "make (all)", 100), ...process(8, "idle", 50), ...process(9, "old", 900, 1) };
    const later = { ...process(7, "make (all)", 700), ...process(8, "idle", 51), ...process(9, "new", 100, 6) };
    const { findings } = activity({ ...before, ...processes }, { ...after, ...later });
    const load = find(findings, "background load");
    expect(load.verdict).toBe("warning");
    expect(load.found).toBe("others have 40 % of the time of 2 CPUs: make (all) (60 % of a CPU), new (10 % of a CPU)");
    expect(load.remedy).toBeDefined();
    const quiet = find(activity(before, after, 8000).findings, "background load");
    expect(quiet).toEqual({ name: "background load", verdict: "ok", found: "others have 0 % of the time of 2 CPUs" });
  });

  test("is unknown over a moment that is shorter than the system counts", () => {
    const root = tree(before);
    const first = readActivity({ root, cpus: [0, 1], atMs: 0, ownMs: 0 });
    writeTree(root, after);
    const moment = between(first, readActivity({ root, cpus: [0, 1], atMs: 50, ownMs: 0 }));
    expect(moment).toMatchObject({ foreign: null, stolen: null, network: null });
  });

  test("is unknown where nothing is counted", () => {
    const { findings } = activity({}, {});
    for (const { name, verdict, remedy } of findings) {
      expect([name, verdict]).toEqual([name, "unknown"]);
      expect(remedy).toBeDefined();
    }
    expect(findings).toHaveLength(6);
  });
});

describe("steal time", () => {
  const guest = { "proc/cpuinfo": "flags\t: fpu hypervisor\n" };

  test("is a warning above 1 % of the CPUs' time", () => {
    const { meanwhile, findings } = activity({ "proc/stat": stat(0, 0, 0) }, { "proc/stat": stat(0, 1900, 100) });
    expect(meanwhile.stolen).toBeCloseTo(0.05, 10);
    expect(find(findings, "steal time").verdict).toBe("warning");
    expect(find(findings, "steal time").found).toContain("5.0 %");
  });

  test("is well where some was counted before and none now", () => {
    const { findings } = activity({ ...guest, "proc/stat": stat(0, 0, 30) }, { "proc/stat": stat(0, 2000, 30) });
    expect(find(findings, "steal time").verdict).toBe("ok");
  });

  test("is unknown where a hypervisor has never counted any", () => {
    const { findings } = activity({ ...guest, "proc/stat": stat(0, 0, 0) }, { "proc/stat": stat(0, 2000, 0) });
    expect(find(findings, "steal time").verdict).toBe("unknown");
    const bare = activity({ "proc/stat": stat(0, 0, 0) }, { "proc/stat": stat(0, 2000, 0) });
    expect(find(bare.findings, "steal time").verdict).toBe("ok");
  });
});

describe("a CPU quota", () => {
  const path = "sys/fs/cgroup/cpu.stat";

  test("is a warning where it held this process up meanwhile, in either version of control groups", () => {
    const second = activity(
      {
        ...group,
        "sys/fs/cgroup/cpu.max": "50000 100000\n",
        [path]: "nr_periods 10\nnr_throttled 3\nthrottled_usec 9000\n",
      },
      { [path]: "nr_periods 90\nnr_throttled 8\nthrottled_usec 59000\n" },
    );
    expect(second.meanwhile.throttled).toEqual({ periods: 5, ms: 50 });
    expect(find(second.findings, "CPU quota").verdict).toBe("warning");
    const first = activity(
      {
        "proc/self/cgroup": "1:cpu:/a\n",
        "proc/self/mountinfo": "32 31 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n",
        "sys/fs/cgroup/cpu/a/cpu.stat": "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n",
      },
      { "sys/fs/cgroup/cpu/a/cpu.stat": "nr_periods 4\nnr_throttled 2\nthrottled_time 20000000\n" },
    );
    expect(first.meanwhile.throttled).toEqual({ periods: 2, ms: 20 });
  });

  test("is well where it held nothing up, and unknown where that is not counted", () => {
    const limited = { ...group, "sys/fs/cgroup/cpu.max": "50000 100000\n" };
    const counted = activity({ ...limited, [path]: "nr_throttled 3\nthrottled_usec 9\n" }, {});
    expect(find(counted.findings, "CPU quota").verdict).toBe("ok");
    expect(find(activity(limited, {}).findings, "CPU quota").verdict).toBe("unknown");
    expect(find(activity(group, {}).findings, "CPU quota").verdict).toBe("ok");
  });
});

describe("heat", () => {
  const counter = `${cpuFolder}/cpu0/thermal_throttle/core_throttle_count`;
  const zone = "sys/class/thermal/thermal_zone0";

  test("is a warning where a CPU slowed down meanwhile, not where it did before", () => {
    expect(find(activity({ [counter]: "3" }, { [counter]: "5" }).findings, "thermal throttling").verdict).toBe(
      "warning",
    );
    expect(find(activity({ [counter]: "3" }, {}).findings, "thermal throttling").verdict).toBe("ok");
  });

  test("is a warning where a zone is as hot as where the system slows down", () => {
    const files = {
      [`${zone}/type`]: "x86_pkg_temp",
      [`${zone}/temp`]: "96000",
      [`${zone}/trip_point_0_type`]: "critical",
      [`${zone}/trip_point_0_temp`]: "105000",
      [`${zone}/trip_point_1_type`]: "passive",
      [`${zone}/trip_point_1_temp`]: "95000",
    };
    const hot = find(activity(files, {}).findings, "thermal throttling");
    expect([hot.verdict, hot.found]).toEqual(["warning", "too hot: x86_pkg_temp (96 °C)"]);
    expect(find(activity(files, { [`${zone}/temp`]: "60000" }).findings, "thermal throttling").verdict).toBe("ok");
  });
});

describe("swap and network", () => {
  const memory = "MemTotal: 1000 kB\nMemAvailable: 900 kB\nSwapTotal: 500000 kB\nSwapFree: 400000 kB\n";
  const device = (bytes: number): string =>
    `Inter-| Receive\n face |bytes\n    lo: ${7 * bytes} 0 0 0 0 0 0 0 ${7 * bytes} 0\n  eth0: ${bytes} 1 0 0 0 0 0 0 ${bytes} 1\n`;

  test("are warnings where pages or bytes moved", () => {
    const { meanwhile, findings } = activity(
      { "proc/meminfo": memory, "proc/vmstat": "pswpin 10\npswpout 5\n", "proc/net/dev": device(100) },
      { "proc/vmstat": "pswpin 30\npswpout 6\n", "proc/net/dev": device(10_000_100) },
    );
    expect(meanwhile.swappedPages).toBe(21);
    // 20 MB in 10 s.
    expect(meanwhile.network).toBeCloseTo(2e6, 5);
    expect(find(findings, "swap")).toMatchObject({
      verdict: "warning",
      found: "102 MB of 512 MB used, and 21 pages moved",
    });
    expect(find(findings, "network activity")).toMatchObject({ verdict: "warning", found: "2.0 MB/s" });
  });

  test("are well where they only stand by", () => {
    const { findings } = activity(
      { "proc/meminfo": memory, "proc/vmstat": "pswpin 10\npswpout 5\n", "proc/net/dev": device(7) },
      {},
    );
    expect(find(findings, "swap").verdict).toBe("ok");
    expect(find(findings, "network activity").verdict).toBe("ok");
  });
});

describe("how a machine is set up", () => {
  const governor = `${cpuFolder}/cpufreq/policy0/scaling_governor`;

  test("is a warning with another governor than performance, or with turbo", () => {
    const slow = checkState(tree({ [governor]: "powersave\n", [`${cpuFolder}/cpufreq/boost`]: "1\n" }));
    expect(find(slow, "frequency scaling")).toMatchObject({ verdict: "warning", found: "governor powersave" });
    expect(find(slow, "turbo")).toMatchObject({
      verdict: "warning",
      remedy: "echo 0 > /sys/devices/system/cpu/cpufreq/boost",
    });
    const steady = tree({ [governor]: "performance\n", [`${cpuFolder}/intel_pstate/no_turbo`]: "1\n" });
    expect(find(checkState(steady), "frequency scaling").verdict).toBe("ok");
    expect(find(checkState(steady), "turbo").verdict).toBe("ok");
  });

  test("is unknown where the system says nothing", () => {
    expect(checkState(tree({})).map(({ verdict }) => verdict)).toEqual(["unknown", "unknown", "unknown", "unknown"]);
  });

  test("is a warning where memory is short, or something waited for it", () => {
    const memory = (available: number): Files => ({
      "proc/meminfo": `MemTotal: 1000000 kB\nMemAvailable: ${available} kB\n`,
    });
    const pressure = (waited: string): Files => ({
      "proc/pressure/memory": `some avg10=${waited} avg60=0.00 total=1\n`,
    });
    const verdict = (files: Files): string => find(checkState(tree(files)), "memory pressure").verdict;
    expect(verdict(memory(500_000))).toBe("ok");
    expect(verdict(memory(99_000))).toBe("warning");
    expect(verdict({ ...memory(500_000), ...pressure("0.40") })).toBe("ok");
    expect(verdict({ ...memory(500_000), ...pressure("3.10") })).toBe("warning");
  });

  test("has the memory that its control group leaves", () => {
    const root = tree({
      ...group,
      "proc/meminfo": "MemTotal: 1000000 kB\nMemAvailable: 900000 kB\n",
      "sys/fs/cgroup/memory.max": "100000000\n",
      "sys/fs/cgroup/memory.current": "80000000\n",
      "sys/fs/cgroup/memory.stat": "anon 1\ninactive_file 15000000\n",
    });
    expect(availableMemory(root)).toEqual({ available: 35_000_000, total: 100_000_000 });
  });
});

describe("what is measured", () => {
  test("is a clock's least step and what a look takes", () => {
    let time = 0;
    // Five looks a step of 40 units.
    expect(measureClock(() => Math.floor(time++ / 5) * 40, 2)).toEqual({ step_ns: 80, cost_ns: 16 });
    expect(find([checkClock(tree({}))], "clock resolution").verdict).toBe("ok");
    const slow = tree({ "sys/devices/system/clocksource/clocksource0/current_clocksource": "hpet\n" });
    expect(find([checkClock(slow)], "clock resolution").verdict).toBe("warning");
  });

  test("is how far times spread, with and without outliers", () => {
    const times = [10, 10.1, 9.9, 10.2, 9.8, 10, 100];
    const mean = times.reduce((sum, each) => sum + each) / 7;
    const variance = times.reduce((sum, each) => sum + (each - mean) ** 2, 0) / 6;
    const noise = noiseOf(times);
    expect(noise.variation).toBeCloseTo(Math.sqrt(variance) / mean, 12);
    // Distances to the median 10: 0, 0, 0.1, 0.1, 0.2, 0.2, 90.
    expect(noise.robust).toBeCloseTo(0.014826, 6);
    expect(checkNoise(noise).verdict).toBe("warning");
    expect(checkNoise(noiseOf([10, 10.1, 9.9, 10.05])).verdict).toBe("ok");
    // None is far off, but all are somewhat.
    expect(checkNoise(noiseOf([10, 10.3, 9.7, 10.3, 9.7])).verdict).toBe("warning");
  });

  test("is the room on disks, of folders that are still to be made too", () => {
    const { verdict, found } = checkDisks({ new: folder.file("none/none"), here: folder.path });
    expect(["ok", "warning"]).toContain(verdict);
    expect(found).toMatch(/^free: new [\d.]+ .?B, here [\d.]+ .?B$/);
  });

  test("is the noise of this machine, if it is asked for", async () => {
    const root = tree({});
    const { noise, findings } = await checkEnvironment({ noise: false, sampleMs: 1, root });
    expect(noise).toBeNull();
    expect(findings.map(({ name }) => name)).not.toContain("noise floor");
    const aborted = AbortSignal.abort(new Error("stopped"));
    await expect(checkEnvironment({ signal: aborted })).rejects.toThrow("stopped");
  });
});

describe("a watch", () => {
  test("says what was amiss, and nothing of what was well or is unknown", () => {
    const counter = `${cpuFolder}/cpu0/thermal_throttle/package_throttle_count`;
    const root = tree({ "proc/vmstat": "pswpin 1\npswpout 1\n", [counter]: "1" });
    const watch = watchEnvironment({ root });
    writeTree(root, { [counter]: "4" });
    expect(watch.stop().map(({ name, found }) => [name, found])).toEqual([
      ["thermal throttling", "the CPU was too hot and slowed down 3 times"],
    ]);
  });

  test("takes what this process started for no other's work", async () => {
    const root = tree(before);
    const [watch, another] = [watchEnvironment({ root }), watchEnvironment({ root })];
    writeTree(root, after);
    // Shares of less time say nothing.
    await Bun.sleep(150);
    const names = (findings: readonly EnvironmentFinding[]) => findings.map(({ name }) => name);
    expect(names(watch.stop())).toContain("background load");
    expect(names(another.stop(1e9))).not.toContain("background load");
  });

  test("says where the clock fell", () => {
    expect(frequencyChange([3e9, 2.9e9, 3e9])).toEqual([]);
    expect(frequencyChange([3e9])).toEqual([]);
    expect(frequencyChange([])).toEqual([]);
    expect(frequencyChange([3.5e9, 2e9])[0]?.found).toBe("the CPU's clock went from 2.00 GHz to 3.50 GHz");
  });
});
