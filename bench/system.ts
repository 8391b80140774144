// The system's and the memory benchmark beside programs that are known: the disk beside fio, memory beside a loop in C as STREAM has it
// (bench/stream.c, compiled by the toolchain's Zig). Both are asked for the same in turns, in an order that is drawn anew, and are
// compared pair by pair, the disk over the very same file. The bar: within 10 % of each other. fio is installed by
// `apt-get install fio`; the file is handed to it by a path that Linux has for open files.
//
//   bun run bench:system [disk] [memory] [--folder DIR] [--rounds N] [--threads N] [--json]
//
// There are so many rounds of the disk, and of memory, whose samples are shorter, twice as many. The exit status is 1 unless all that was
// asked for is shown to be within the bar; what could not be compared, as the disk without fio, is said, and is not shown.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { shuffled } from "../src/benchmark/experiment.ts";
import { compare, type Ratio } from "../src/benchmark/ratio.ts";
import { seededRandom } from "../src/benchmark/statistics/random.ts";
import { show, summarise } from "../src/benchmark/statistics/summary.ts";
import { type Kind, kinds, prepareFile } from "../src/benchmark/system/disk.ts";
import { measurableBytes, openBandwidth } from "../src/engine/bandwidth.ts";
import { chooseLevel, cpu } from "../src/engine/cpu.ts";
import { openLibrary } from "../src/engine/library.ts";
import { ensureZig, zigEnvironment } from "../src/setup/toolchain.ts";

const bar = 0.1;
const fileBytes = 256 << 20;
const sliceMs = 400;
/** What fio does at first is not counted: it has just been started. */
const rampMs = 100;
/** Of all threads together: far beyond what a last level holds. */
const workingBytes = 256 << 20;
/** Moved at a time: in some ms, so that the system interrupts few of them. */
const movedBytes = 256 << 20;
/** Of so many samples, one after the other of each program, a round has the best: the others were interrupted. */
const attempts = { disk: 1, memory: 5 } as const;
const memoryRounds = 2;
const traffics = ["read", "write", "copy"] as const;

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    folder: { type: "string", default: tmpdir() },
    rounds: { type: "string", default: "12" },
    threads: { type: "string", default: String(cpu.cores) },
    json: { type: "boolean", default: false },
  },
});
const rounds = Number(flags.rounds);
const threads = Number(flags.threads);
if (!(Number.isInteger(rounds) && rounds >= 6 && rounds <= 1000 && Number.isInteger(threads) && threads >= 1)) {
  console.error("--rounds is a whole number from 6 to 1,000, --threads one from 1 on");
  process.exit(2);
}
const random = seededRandom(1);

/** What is asked of two programs. */
interface Asked {
  readonly name: string;
  readonly unit: string;
  readonly ours: () => Promise<number> | number;
  readonly theirs: () => Promise<number>;
}

interface Compared extends Ratio {
  readonly name: string;
  readonly unit: string;
  readonly ours: readonly number[];
  readonly theirs: readonly number[];
  /** Where the whole interval of the ratio lies beside the bar; unclear: on both sides of an end. */
  readonly standing: "within" | "outside" | "unclear";
}

function standingOf({ interval }: Ratio): Compared["standing"] {
  const [low, high] = interval ?? [Number.NaN, Number.NaN];
  if (low >= 1 - bar && high <= 1 + bar) return "within";
  return high < 1 - bar || low > 1 + bar ? "outside" : "unclear";
}

/** Asks both for all of it, in turns. */
async function inTurns(asked: readonly Asked[], rounds: number, tries: number): Promise<Compared[]> {
  const taken = asked.map(() => ({ ours: [] as number[], theirs: [] as number[] }));
  for (let round = -1; round < rounds; round++) {
    for (const [place, { ours, theirs }] of shuffled([...asked.entries()], random)) {
      const pair = { ours: 0, theirs: 0 };
      for (let attempt = 0; attempt < tries; attempt++) {
        for (const name of shuffled(["ours", "theirs"] as const, random)) {
          pair[name] = Math.max(pair[name], await (name === "ours" ? ours() : theirs()));
        }
      }
      // The first round warms up.
      if (round < 0) continue;
      taken[place]?.ours.push(pair.ours);
      taken[place]?.theirs.push(pair.theirs);
    }
    if (!flags.json && process.stderr.isTTY) process.stderr.write(`\rround ${round + 1} of ${rounds}`);
  }
  if (!flags.json && process.stderr.isTTY) process.stderr.write("\r\x1b[K");
  return asked.flatMap(({ name, unit }, place) => {
    const pairs = taken[place];
    if (!pairs) return [];
    const ratio = compare(pairs.ours, pairs.theirs, "more");
    return [{ name, unit, ...pairs, ...ratio, standing: standingOf(ratio) }];
  });
}

/** MB/s of one kind of access, by fio's own count: one access at a time (psync), past the page cache, over a file that is there. */
async function fio(path: string, kind: Kind): Promise<number> {
  const [order, direction] = kind.split("_") as ["sequential" | "random", "read" | "write"];
  const options = {
    name: kind,
    filename: path,
    rw: order === "random" ? `rand${direction}` : direction,
    bs: order === "random" ? "4k" : "512k",
    size: fileBytes,
    runtime: `${sliceMs}ms`,
    ramp_time: `${rampMs}ms`,
    ioengine: "psync",
    iodepth: 1,
    direct: 1,
    overwrite: 1,
    "output-format": "json",
  };
  const words = Object.entries(options).map(([name, value]) => `--${name}=${value}`);
  const command = ["fio", ...words, "--time_based", "--thread", "--norandommap", "--randrepeat=0"];
  const child = Bun.spawn(command, { stdout: "pipe", stderr: "inherit", stdin: "ignore" });
  const text = await new Response(child.stdout).text();
  if ((await child.exited) !== 0) throw new Error(`fio failed: ${text}`);
  const { jobs } = JSON.parse(text) as { jobs: Record<"read" | "write", { bw_bytes: number }>[] };
  return (jobs[0]?.[direction].bw_bytes ?? Number.NaN) / 1e6;
}

async function disk(): Promise<Compared[]> {
  const folder = mkdtempSync(join(flags.folder, "tinyai-bench-"));
  const file = prepareFile(folder, { folder, fileBytes });
  try {
    await file.fill(60_000, undefined);
    const path = `/proc/${process.pid}/fd/${file.descriptor}`;
    const asked = kinds.map((kind): Asked => {
      const ours = async () => {
        const { bytes, elapsedMs } = await file.access(kind, sliceMs, random, undefined);
        return bytes / 1e3 / elapsedMs;
      };
      return { name: `disk, ${kind.replace("_", " ")}`, unit: "MB/s", ours, theirs: () => fio(path, kind) };
    });
    return await inTurns(asked, rounds, attempts.disk);
  } finally {
    file.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

async function memory(): Promise<Compared[]> {
  const library = openLibrary();
  const level = chooseLevel(library, undefined).index;
  const share = measurableBytes(workingBytes / threads);
  const folder = mkdtempSync(join(tmpdir(), "tinyai-bench-"));
  const program = join(folder, "stream");
  // Loops stay loops: a call of the C library in their place would write past the caches.
  const flagsOfC = ["-O3", "-march=native", "-ffast-math", "-fno-builtin", "-fno-sanitize=all"];
  // As wide as our own: a compiler takes half of it by itself.
  if (process.arch === "x64") flagsOfC.push("-mprefer-vector-width=512");
  const compile = [await ensureZig(), "cc", ...flagsOfC, "-o", program, join(import.meta.dir, "stream.c"), "-lpthread"];
  const compiled = Bun.spawnSync(compile, { env: zigEnvironment(), stdio: ["ignore", "inherit", "inherit"] });
  if (!compiled.success) throw new Error("bench/stream.c cannot be compiled");
  const stream = Bun.spawn([program, String(threads), String(share)], { stdin: "pipe", stdout: "pipe" });
  const reader = stream.stdout.getReader();
  const decoder = new TextDecoder();
  const meter = openBandwidth(library, { level, threadCount: threads, bytesMax: share });
  /** GB/s. */
  const theirs = async (kind: string): Promise<number> => {
    stream.stdin.write(`${kind} ${movedBytes}\n`);
    stream.stdin.flush();
    let line = "";
    while (!line.endsWith("\n")) {
      const { done, value } = await reader.read();
      if (done) throw new Error("the loop in C has ended");
      line += decoder.decode(value);
    }
    const [bytes = 0, ns = Number.NaN] = line.split(" ").map(Number);
    return bytes / ns;
  };
  try {
    const asked = traffics.map(
      (traffic): Asked => ({
        name: `memory, ${traffic}`,
        unit: "GB/s",
        ours: () => meter.measure(traffic, share, movedBytes),
        theirs: () => theirs(traffic),
      }),
    );
    // A line that is written is brought in before: of three lines that memory moves for a copy two are counted, of four for a triad
    // three.
    const triad = { name: "memory, copy beside 8/9 of STREAM's triad", unit: "GB/s" };
    const copy = () => meter.measure("copy", share, movedBytes);
    return await inTurns(
      [...asked, { ...triad, ours: copy, theirs: async () => ((await theirs("triad")) * 8) / 9 }],
      memoryRounds * rounds,
      attempts.memory,
    );
  } finally {
    meter.close();
    await stream.stdin.end();
    await stream.exited;
    rmSync(folder, { recursive: true, force: true });
  }
}

const wanted = positionals.length > 0 ? positionals : ["disk", "memory"];
const unknown = wanted.find((name) => name !== "disk" && name !== "memory");
if (unknown !== undefined) {
  console.error(`there is no ${unknown}; there are disk and memory`);
  process.exit(2);
}
const leftOut: string[] = [];
if (wanted.includes("disk") && Bun.which("fio") === null) {
  leftOut.push("disk: fio is not installed (Debian: apt-get install fio)");
}
const compared = [
  ...(wanted.includes("disk") && leftOut.length === 0 ? await disk() : []),
  ...(wanted.includes("memory") ? await memory() : []),
];
for (const reason of leftOut) console.error(`left out: ${reason}`);
if (flags.json) console.log(JSON.stringify({ rounds, threads, bar, leftOut, compared }));
else {
  console.log(`${threads} threads, a bar of ${bar * 100} %; ratios are ours over theirs`);
  for (const { name, unit, ours, theirs, ratio, interval, standing } of compared) {
    const [low, high] = interval ?? [Number.NaN, Number.NaN];
    const digits = unit === "MB/s" ? 1 : 2;
    console.log(
      `${name}, ${ours.length} rounds: ${show(summarise(ours), digits)} ${unit}, theirs ${show(summarise(theirs), digits)}`,
    );
    console.log(`  ratio ${ratio.toFixed(3)} (${low.toFixed(3)} to ${high.toFixed(3)}): ${standing}`);
  }
}
process.exitCode = leftOut.length === 0 && compared.every(({ standing }) => standing === "within") ? 0 : 1;
