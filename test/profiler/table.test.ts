// The table of a profile: what it says, how it lines up, and that it keeps inside the terminal.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { formatProfile, type Profile, Profiler } from "../../profiler/index.ts";
import { encode, opList, type TestEvent } from "./stream.ts";

const OPS = opList([
  { name: "token_embd", kind: "embed", layer: -1, bytesPerRow: 640 },
  { name: "blk.0.attn_norm", kind: "norm", layer: 0 },
  { name: "blk.0.attn_q", kind: "matmul", kernel: "matmul.q5_0.avx512_vnni", layer: 0, bytesPerStep: 400_000 },
  { name: "blk.1.attn_q", kind: "matmul", kernel: "matmul.q5_0.avx512_vnni", layer: 1, bytesPerStep: 400_000 },
]);

/** One prompt step and `generated` steps of one token; the second product takes twice as long as the first. */
function profileOf(generated: number, lost = 0): Profile {
  const events: TestEvent[] = [];
  for (let step = 1; step <= generated + 1; step++) {
    const rows = step === 1 ? 32 : 1;
    const at = step * 1_000_000;
    events.push(
      { kind: "work", op: 0, step, rows, start: at + 100, end: at + 1_100 },
      { kind: "work", op: 1, step, rows, start: at + 1_100, end: at + 4_100 },
      { kind: "work", op: 2, step, rows, start: at + 4_100, end: at + 24_100 },
      { kind: "barrier", op: 2, step, rows, start: at + 24_100, end: at + 25_100 },
      { kind: "work", op: 3, step, rows, start: at + 25_100, end: at + 65_100 },
      { kind: "work", op: 3, step, rows, start: at + 25_200, end: at + 65_000, thread: 1 },
      { kind: "sampling", step, start: at + 65_100, end: at + 67_100 },
      { kind: "step", step, rows, start: at, end: at + 70_000 },
    );
  }
  const profiler = new Profiler(OPS);
  profiler.drain(encode(events), lost);
  return profiler.result();
}

/** The lines of the table that begins with the word `title`, without its header. */
function section(text: string, title: string): string[] {
  const lines = text.split("\n");
  const first = lines.findIndex((line) => line.startsWith(`${title} `));
  if (first < 0) throw new Error(`no table of ${title} in:\n${text}`);
  const length = lines.slice(first).indexOf("");
  return lines.slice(first + 1, first + length);
}

describe("the table", () => {
  test("stands sorted by time, with what belongs to no op last", () => {
    const text = formatProfile(profileOf(9), { width: 120, color: false });
    const names = section(text, "kind").map((line) => line.split("  ")[0]);
    expect(names.slice(0, 3)).toEqual(["matmul", "norm", "embed"]);
    expect(names[3]).toStartWith("───");
    expect(names.slice(4)).toEqual(["waiting at barriers", "sampling", "unattributed", "steps"]);
    expect(section(text, "layer").map((line) => line.split("  ")[0])).toEqual([
      "layer 1",
      "layer 0",
      "outside the layers",
    ]);
  });

  test("shows the profile's figures in one unit a column", () => {
    const text = formatProfile(profileOf(9), { width: 120, color: false });
    const [matmul = ""] = section(text, "kind");
    // 10 steps of 60 µs of the engine thread in products, of 70 µs each; 800,000 bytes in 60 µs of wall time.
    expect(matmul.split(/ {2,}/)).toEqual([
      "matmul",
      "20",
      "600.0",
      "85.7 %",
      "20.0",
      "40.0",
      "40.0",
      "40.0",
      "10.0",
      "13.3",
      "–",
    ]);
    expect(text).toContain("total µs");
    expect(text).toContain("10 steps, 700.0 µs: 32 rows in 1 prompt step");
    expect(text.replaceAll("\n", " ")).toContain("9 rows in 9 generation steps");
    expect(text).toMatch(/thread 1: 56\.9 % working/);
  });

  test("lines its columns up to the right", () => {
    const lines = section(formatProfile(profileOf(9), { width: 120, color: false }), "kind");
    const ends = lines.filter((line) => !line.startsWith("─")).map((line) => line.indexOf(" %"));
    expect(new Set(ends).size).toBe(1);
    expect(ends[0]).toBeGreaterThan(0);
  });

  test("never is wider than the terminal, and keeps name, total and share", () => {
    fc.assert(
      fc.property(fc.integer({ min: 40, max: 160 }), fc.integer({ min: 1, max: 2000 }), (width, generated) => {
        const text = formatProfile(profileOf(generated), { width, color: false, by: ["kind", "layer", "op"] });
        for (const line of text.split("\n")) expect(Bun.stringWidth(line)).toBeLessThanOrEqual(width);
        for (const title of ["kind", "layer", "op"]) expect(section(text, title)[0]).toContain(" %");
        expect(text).toContain("total");
        expect(text).toContain("share");
      }),
      { numRuns: 30 },
    );
  });

  test("sums the rows beyond the limit in one line", () => {
    const text = formatProfile(profileOf(9), { width: 120, color: false, by: ["op"], limit: 1 });
    const [first, second] = section(text, "op");
    expect(first).toStartWith("blk.1.attn_q (matmul.q5_0.avx512_vnni)");
    expect(second).toBe("… 3 more, 240.0 µs, 34.3 %");
  });

  test("is plain text unless colour is asked for, which adds ANSI sequences and nothing else", () => {
    const profile = profileOf(9);
    const plain = formatProfile(profile, { width: 100, color: false });
    const colored = formatProfile(profile, { width: 100, color: true });
    expect(plain).not.toContain("\u001b");
    expect(colored).toContain("\u001b[1m");
    expect(Bun.stripANSI(colored)).toBe(plain);
  });

  test("says what was lost, and nothing about it when nothing was", () => {
    expect(formatProfile(profileOf(1, 1234), { width: 120, color: false })).toContain("1,234 events lost");
    expect(formatProfile(profileOf(1), { width: 120, color: false })).not.toContain("lost");
  });

  test("says that there is nothing to show when no step was profiled", () => {
    const profiler = new Profiler(OPS);
    profiler.drain(new Uint8Array(0), 5);
    expect(formatProfile(profiler.result(), { width: 120, color: false })).toBe(
      "No step was profiled.\n5 events lost: the rings were full; their time is unattributed or left out.\n",
    );
  });
});
