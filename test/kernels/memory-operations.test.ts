// What traced kernels say that they load and store is what the machine does: an independent witness, valgrind's lackey, counts the
// bytes of every load and store of the ordinary kernels, and for each operand both agree to the byte. At the levels whose
// instructions valgrind knows.

import { beforeAll, describe, expect, test } from "bun:test";
import { buildMemoryCheck, memoryCheck, missingForValgrind } from "../support/memory-check.ts";

const levelsOf: Readonly<Record<string, readonly string[]>> = { x64: ["scalar", "x86_64_v2", "avx2"], arm64: ["neon"] };
const levels = levelsOf[process.arch] ?? [];

/** Bytes loaded and stored. */
type Bytes = [loaded: number, stored: number];

/** What zig/memory_check.zig printed of a case. */
interface Case {
  readonly name: string;
  readonly ranges: { readonly name: string; readonly begin: number; readonly end: number }[];
  /** By operand, where the kernel was a traced one. */
  readonly sums: Map<string, Bytes>;
}

function parseCases(text: string): Case[] {
  const cases: Case[] = [];
  for (const line of text.split("\n")) {
    const [word, name = "", first = "", second = "", third = ""] = line.split(" ");
    if (word === "case") cases.push({ name: `${name} ${first} ${second}`, ranges: [], sums: new Map() });
    const begin = Number.parseInt(first, 16);
    if (word === "range") cases.at(-1)?.ranges.push({ name, begin, end: begin + Number(second) });
    if (word === "sum") cases.at(-1)?.sums.set(name, [Number(first), Number(second)]);
    if (word === "sum" && third === "") throw new Error(`memory_check printed ${line}`);
  }
  return cases;
}

const pageBytes = 4096;
const newline = 0x0a;
const letterI = 0x49;
const letterM = 0x4d;
const letterS = 0x53;
const comma = 0x2c;

/**
 * Adds up lackey's trace as it comes: lines ` L address,bytes` (load), ` S` (store), ` M` (both), `I  ` (instruction). Of what
 * lies between the two marks of a case, gives bytes by page from `base` on.
 */
class Trace {
  readonly cases: Map<number, Bytes>[] = [];
  private running: Map<number, Bytes> | undefined;
  private rest = new Uint8Array(0);
  private base: number;
  private end: number;

  constructor(base: number, end: number) {
    this.base = base;
    this.end = end;
  }

  /** Of every ten lines, seven are of instructions: those are passed over. */
  add(chunk: Uint8Array): void {
    const bytes = this.rest.length === 0 ? chunk : Buffer.concat([this.rest, chunk]);
    let at = 0;
    for (;;) {
      // A line of an instruction has 10 bytes at least.
      const end = bytes.indexOf(newline, bytes[at] === letterI ? at + 10 : at);
      if (end < 0) break;
      if (bytes[at] === 0x20) this.access(bytes, at + 1);
      at = end + 1;
    }
    this.rest = bytes.slice(at);
  }

  private access(bytes: Uint8Array, start: number): void {
    const kind = bytes[start];
    let address = 0;
    let at = start + 2;
    for (let digit = bytes[at] ?? comma; digit !== comma; digit = bytes[++at] ?? comma) {
      address = address * 16 + (digit <= 0x39 ? digit - 0x30 : digit - 0x61 + 10);
    }
    if (address < this.base || address >= this.end) return;
    let count = 0;
    for (let digit = bytes[++at] ?? newline; digit !== newline; digit = bytes[++at] ?? newline) {
      count = count * 10 + digit - 0x30;
    }
    const stores = kind === letterS || kind === letterM;
    if (address < this.base + pageBytes) {
      if (stores && address === this.base) {
        this.running = new Map();
        this.cases.push(this.running);
      } else if (stores) this.running = undefined;
      return;
    }
    if (this.running === undefined) return;
    const page = Math.floor((address - this.base) / pageBytes);
    let sums = this.running.get(page);
    if (sums === undefined) {
      sums = [0, 0];
      this.running.set(page, sums);
    }
    if (kind !== letterS) sums[0] += count;
    if (stores) sums[1] += count;
  }
}

async function collect(command: string[], onError: (bytes: Uint8Array) => void): Promise<string> {
  const child = Bun.spawn(command, { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const text = new Response(child.stdout).text();
  for await (const bytes of child.stderr) onError(bytes);
  if ((await child.exited) !== 0) throw new Error(`${command.join(" ")} failed`);
  return await text;
}

/** By case and operand, what the machine did and what the traced kernel told. */
interface Comparison {
  readonly machine: Record<string, Bytes>;
  readonly told: Record<string, Bytes>;
}

async function compare(level: string): Promise<Comparison> {
  const cases = parseCases(await collect([memoryCheck, level, "all", "-", "-", "traced"], () => {}));
  const base = cases[0]?.ranges[0]?.begin ?? 0;
  const trace = new Trace(base, Math.max(...cases.flatMap(({ ranges }) => ranges.map(({ end }) => end))));
  const lackey = ["valgrind", "--tool=lackey", "--trace-mem=yes"];
  await collect([...lackey, memoryCheck, level, "all", "-", "-", "ordinary"], (bytes) => trace.add(bytes));
  expect(trace.cases.length).toBe(cases.length);
  const machine: Record<string, Bytes> = {};
  const told: Record<string, Bytes> = {};
  for (const [index, { name, ranges, sums }] of cases.entries()) {
    for (const range of ranges.slice(1)) {
      const found: Bytes = [0, 0];
      for (const [page, [loaded, stored]] of trace.cases[index] ?? []) {
        const address = base + page * pageBytes;
        if (address < range.begin || address >= range.end) continue;
        found[0] += loaded;
        found[1] += stored;
      }
      machine[`${name} ${range.name}`] = found;
      told[`${name} ${range.name}`] = sums.get(range.name) ?? [-1, -1];
    }
  }
  return { machine, told };
}

const missing = missingForValgrind("memory operations: not compared with the machine's", Object.keys(levelsOf));

describe.skipIf(missing !== undefined)("memory operations", () => {
  beforeAll(buildMemoryCheck, 600_000);

  // Two at a time: the widest levels take as long together as the narrowest.
  const compared = new Map<string, Promise<Comparison>>();
  beforeAll(() => {
    const [narrowest = "", ...wider] = levels;
    compared.set(narrowest, compare(narrowest));
    let before: Promise<unknown> = Promise.resolve();
    for (const level of wider) {
      const next = before.then(() => compare(level));
      compared.set(level, next);
      before = next.catch(() => {});
    }
  });

  for (const level of levels) {
    test(`every kernel of level ${level} loads and stores the bytes that its traced one tells of, operand by operand`, async () => {
      const { machine, told } = (await compared.get(level)) ?? { machine: {}, told: { none: [0, 0] } };
      expect(machine).toEqual(told);
    }, 300_000);
  }
});
