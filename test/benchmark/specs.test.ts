// What this machine is: found in made-up trees of the files that Linux has, and of this machine the same as other programs say.

import { beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync, realpathSync } from "node:fs";
import { cpus } from "node:os";
import { findMounts, mountOf } from "../../src/benchmark/machine/mounts.ts";
import { findCacheSpecs, findTopology, type SystemSpecs, systemSpecs } from "../../src/benchmark/specs.ts";
import { runProgram } from "../../src/setup/python.ts";
import { temporaryFolder } from "../support/folder.ts";
import { systemTree } from "../support/system-tree.ts";

// The system's own programs are run, and take their time on a loaded machine.
setDefaultTimeout(60_000);
const folder = temporaryFolder();
const tree = (files: Readonly<Record<string, string>>): string => systemTree(folder.path, files);
const cpuFolder = "sys/devices/system/cpu";

function topology(number: number, socket: number, core: number): Record<string, string> {
  return {
    [`${cpuFolder}/cpu${number}/topology/physical_package_id`]: `${socket}\n`,
    [`${cpuFolder}/cpu${number}/topology/core_id`]: `${core}\n`,
  };
}

function cache(number: number, index: number, level: number, type: string, sharers: string): Record<string, string> {
  const place = `${cpuFolder}/cpu${number}/cache/index${index}`;
  return {
    [`${place}/level`]: `${level}\n`,
    [`${place}/type`]: `${type}\n`,
    [`${place}/size`]: "48K\n",
    [`${place}/ways_of_associativity`]: "12\n",
    [`${place}/coherency_line_size`]: "64\n",
    [`${place}/shared_cpu_list`]: `${sharers}\n`,
  };
}

describe("of made-up machines", () => {
  test("cores are told apart by their sockets, and CPUs that are off are not counted", () => {
    const on = { ...topology(0, 0, 0), ...topology(1, 0, 0), ...topology(2, 1, 0), ...topology(3, 1, 0) };
    expect(findTopology(tree({ ...on, [`${cpuFolder}/cpu4/online`]: "0\n" }))).toEqual({
      sockets: 2,
      cores: 2,
      threads: 4,
    });
    expect(findTopology(tree({}))).toEqual({ sockets: null, cores: null, threads: null });
  });

  test("caches that are alike are counted, with who shares one", () => {
    const files = [0, 1, 2, 3].map((number) => ({
      ...cache(number, 0, 1, "Data", String(number)),
      ...cache(number, 1, 1, "Instruction", String(number)),
      ...cache(number, 2, 2, "Unified", number < 2 ? "0-1" : "2-3"),
    }));
    const alike = { bytes: 49_152, ways: 12, line_bytes: 64 };
    expect(findCacheSpecs(tree(Object.assign({}, ...files)))).toEqual([
      { level: 1, type: "data", ...alike, count: 4, shared_by: 1 },
      { level: 1, type: "instruction", ...alike, count: 4, shared_by: 1 },
      { level: 2, type: "unified", ...alike, count: 2, shared_by: 2 },
    ]);
    expect(findCacheSpecs(tree({}))).toEqual([]);
  });

  test("mounted file systems are found, whatever is in a folder's name", () => {
    const root = tree({
      "proc/self/mountinfo":
        "22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n30 22 0:26 / /mnt/my\\040disk rw - xfs /dev/sdb rw\n",
    });
    expect(findMounts(root)).toEqual([
      { folder: "/", device: "/dev/sda1", fileSystem: "ext4" },
      { folder: "/mnt/my disk", device: "/dev/sdb", fileSystem: "xfs" },
    ]);
    expect(findMounts(tree({}))).toEqual([]);
  });

  test("a folder is of the nearest mount around it, and of two in one place of the later one", () => {
    const root = tree({
      "proc/self/mountinfo": [
        "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw",
        "30 22 0:26 / /tmp rw - tmpfs tmpfs rw",
        "31 22 0:27 / /data rw - xfs /dev/vdb rw",
        "32 31 0:28 / /data/my\\040disk rw master:2 - btrfs /dev/vdc rw",
        "33 22 0:29 / /data rw - zfs pool rw",
        "",
      ].join("\n"),
    });
    const found = ["/", "/tmp", "/tmp/a/b", "/tmpfile", "/data/x", "/data/my disk/x"].map(
      (path) => mountOf(path, findMounts(root))?.fileSystem,
    );
    expect(found).toEqual(["ext4", "tmpfs", "tmpfs", "ext4", "zfs", "btrfs"]);
    expect(mountOf("/", [])).toBeUndefined();
  });
});

describe("of this machine", () => {
  let specs: SystemSpecs;
  beforeAll(async () => {
    specs = await systemSpecs();
  });

  /** What a program prints; undefined where there is none of that name. */
  async function ask(...command: [string, ...string[]]): Promise<string | undefined> {
    if (process.platform !== "linux" || Bun.which(command[0]) === null) return undefined;
    const { status, stdout } = await runProgram(command, { env: { ...process.env, LC_ALL: "C" } });
    return status === 0 ? stdout : undefined;
  }

  test("the CPU is as lscpu says", async () => {
    const text = await ask("lscpu", "--json");
    expect(specs.cpu.model).toBe(cpus()[0]?.model ?? "");
    if (text === undefined) return;
    const fields = new Map<string, string>();
    // Newer versions put fields under others.
    (function collect(list: readonly { field: string; data: string | null; children?: [] }[]): void {
      for (const { field, data, children = [] } of list) {
        if (data !== null) fields.set(field.replace(/:$/, ""), data);
        collect(children);
      }
    })(JSON.parse(text).lscpu);
    const [sockets, perSocket, perCore] = ["Socket(s)", "Core(s) per socket", "Thread(s) per core"].map((name) =>
      Number(fields.get(name)),
    );
    if (!sockets || !perSocket || !perCore) return; // Some machines tell lscpu none of them.
    expect(specs.cpu).toMatchObject({ sockets, cores: sockets * perSocket, threads: sockets * perSocket * perCore });
  });

  test("caches are as lscpu says, all of a kind together", async () => {
    const text = await ask("lscpu", "--caches=NAME,ALL-SIZE,WAYS", "--bytes", "--json");
    if (text === undefined) return;
    for (const told of JSON.parse(text).caches) {
      const [, level, letter = ""] = /^L(\d)([di]?)$/.exec(told.name) ?? [];
      const type = { d: "data", i: "instruction" }[letter] ?? "unified";
      const ours = specs.cpu.caches.filter((each) => each.level === Number(level) && each.type === type);
      const bytes = ours.reduce((sum, each) => sum + each.bytes * each.count, 0);
      expect([told.name, bytes, ours[0]?.ways]).toEqual([told.name, Number(told["all-size"]), Number(told.ways)]);
    }
  });

  test("memory is as /proc/meminfo says", () => {
    if (process.platform !== "linux") return;
    const text = readFileSync("/proc/meminfo", "utf8");
    const bytes = (name: string): number => 1024 * Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1]);
    expect(specs.memory.total).toBe(bytes("MemTotal"));
    expect(specs.memory.swap).toBe(bytes("SwapTotal"));
    // A control group may leave less, and others take and give meanwhile.
    expect(specs.memory.available).toBeGreaterThan(0);
    expect(specs.memory.available).toBeLessThanOrEqual(specs.memory.total);
  });

  test("the working folder is on the file system that df names, and as large", async () => {
    const path = realpathSync(process.cwd());
    const text = await ask("df", "-B1", "--output=source,fstype,size", path);
    const [source, fileSystem, size] = text?.trim().split("\n")[1]?.split(/\s+/) ?? [];
    expect(specs.working_folder.path).toBe(process.cwd());
    if (source === undefined) return;
    expect(specs.working_folder).toMatchObject({ file_system: fileSystem, bytes: Number(size) });
    // df follows what a device's name stands for.
    if (source.startsWith("/dev/")) expect(realpathSync(specs.working_folder.device ?? "")).toBe(realpathSync(source));
  });

  test("interfaces are those of /sys", async () => {
    const text = await ask("ls", "/sys/class/net");
    if (text === undefined) return;
    const names = text.trim().split("\n");
    for (const { name } of specs.network) expect(names).toContain(name);
  });

  test("it is all JSON: nothing of it is undefined, no number is lost", () => {
    expect(JSON.parse(JSON.stringify(specs))).toEqual(specs);
  });
});
