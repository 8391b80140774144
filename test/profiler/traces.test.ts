// Traces for other tools, checked against what their formats ask for: Chrome's trace format, folded stacks, speedscope.

import { describe, expect, test } from "bun:test";
import Ajv from "ajv";
import { decodeTrace } from "../../profiler/decode.ts";
import { EVENT_BYTES } from "../../profiler/events.ts";
import { phaseParts } from "../../profiler/parts.ts";
import type { TraceData } from "../../profiler/report.ts";
import { chromeTrace, foldedStacks, speedscope } from "../../profiler/traces.ts";
import { emptyReport, LAYERS, madeUpReport } from "../support/report.ts";
import { encode } from "./stream.ts";

const { report, trace } = madeUpReport();
const emptyTrace: TraceData = { events: [], spans: [], samples: [], startNs: 5e15, dropped: 0, spansDropped: 0 };

/** The first half of the events, and half of the spans. */
const cutTrace: TraceData = {
  ...trace,
  events: trace.events.map((bytes) => bytes.subarray(0, Math.floor(bytes.length / EVENT_BYTES / 2) * EVENT_BYTES)),
  spans: trace.spans.slice(0, trace.spans.length / 2),
  dropped: 1_234,
  spansDropped: 1,
};

interface ChromeEvent {
  ph: "M" | "X" | "C" | "i";
  name: string;
  pid: number;
  tid: number;
  ts: number;
  dur?: number;
  args: Record<string, unknown>;
}

function chrome(from = report, data = trace): ChromeEvent[] {
  return JSON.parse([...chromeTrace(from, data)].join("")).traceEvents;
}

/** Trace Event Format, as far as it is used: metadata, complete events, counters, instants. */
const chromeSchema = {
  type: "object",
  required: ["traceEvents"],
  properties: {
    displayTimeUnit: { enum: ["ms", "ns"] },
    otherData: { type: "object" },
    traceEvents: {
      type: "array",
      items: {
        type: "object",
        required: ["ph", "name", "pid", "tid", "ts", "args"],
        properties: {
          ph: { enum: ["M", "X", "C", "i"] },
          name: { type: "string", minLength: 1 },
          cat: { type: "string" },
          pid: { type: "integer" },
          tid: { type: "integer" },
          ts: { type: "number", minimum: 0 },
          dur: { type: "number", minimum: 0 },
          s: { enum: ["g", "p", "t"] },
          args: { type: "object" },
        },
        additionalProperties: false,
        allOf: [
          // biome-ignore lint/suspicious/noThenProperty: JSON schema's keyword.
          { if: { properties: { ph: { const: "X" } } }, then: { required: ["dur", "cat"] } },
          {
            if: { properties: { ph: { const: "C" } } },
            // biome-ignore lint/suspicious/noThenProperty: JSON schema's keyword.
            then: { properties: { args: { additionalProperties: { type: "number" }, minProperties: 1 } } },
          },
        ],
      },
    },
  },
  additionalProperties: false,
};

describe("Chrome's trace format", () => {
  test("is kept to", () => {
    const validate = new Ajv({ strict: false }).compile(chromeSchema);
    for (const [from, data] of [
      [report, trace],
      [emptyReport(), emptyTrace],
      [report, cutTrace],
    ] as const) {
      validate(JSON.parse([...chromeTrace(from, data)].join("")));
      expect(validate.errors).toBeNull();
    }
  });

  test("has a named track for each thread, the steps and JavaScript", () => {
    const names = chrome().filter((event) => event.name === "thread_name");
    expect(names.map((event) => event.args["name"])).toEqual(["steps", "thread 0 (engine)", "thread 1", "JavaScript"]);
    expect(new Set(names.map((event) => event.tid)).size).toBe(4);
  });

  test("has slices that are sorted and lie inside each other or apart on each track", () => {
    const tracks = Map.groupBy(
      chrome().filter((event) => event.ph === "X"),
      (event) => event.tid,
    );
    expect(tracks.size).toBe(4);
    for (const events of tracks.values()) {
      const open: number[] = [];
      let before = 0;
      for (const { ts, dur = 0 } of events) {
        // In whole nanoseconds, which thousandths of microseconds are.
        const [start, end] = [Math.round(ts * 1000), Math.round((ts + dur) * 1000)];
        expect(start).toBeGreaterThanOrEqual(before);
        before = start;
        while (open.length > 0 && (open.at(-1) ?? 0) <= start) open.pop();
        if (open.length > 0) expect(end).toBeLessThanOrEqual(open.at(-1) ?? 0);
        open.push(end);
      }
    }
  });

  test("gives the engine thread's time of each op as the profile does", () => {
    const head = chrome().filter((event) => event.ph === "X" && event.tid === 1 && event.name === "token_embd");
    const ns = head.reduce((sum, event) => sum + Math.round((event.dur ?? 0) * 1000), 0);
    expect(ns).toBe(report.byOp.find((op) => op.name === "token_embd")?.totalNs ?? 0);
    expect(head[0]?.args).toMatchObject({ kind: "matmul", layer: -1, kernel: "matmul.q8_0.avx512_vnni" });
  });

  test("has counters for memory, faults, CPU and rows a second", () => {
    const counters = new Set(
      chrome()
        .filter((event) => event.ph === "C")
        .map((event) => event.name),
    );
    expect([...counters].sort()).toEqual([
      "CPU, %",
      "JavaScript's heap, bytes",
      "native memory, bytes",
      "page faults",
      "resident memory, bytes",
      "rows/s",
    ]);
  });

  test("says where it is cut off, and how much is missing from there on", () => {
    expect(chrome().filter(({ ph }) => ph === "i")).toEqual([]);
    const events = chrome(report, cutTrace);
    const endOf = (chosen: (tid: number) => boolean) =>
      Math.max(...events.filter(({ ph, tid }) => ph === "X" && chosen(tid)).map(({ ts, dur = 0 }) => ts + dur));
    const isThread = (tid: number) => tid === 1 || tid === 2;
    const javascript = events.find(({ args }) => args["name"] === "JavaScript")?.tid;
    const cuts = events.filter(({ ph }) => ph === "i");
    expect(cuts.map(({ name }) => name)).toEqual([
      "the trace is cut off: 1,234 events more",
      "the trace is cut off: 1 span of JavaScript more",
    ]);
    expect(cuts[0]?.ts).toBeCloseTo(endOf(isThread), 2);
    expect(cuts[1]?.ts).toBeCloseTo(
      endOf((tid) => tid === javascript),
      2,
    );
  });

  test("writes times to the nanosecond, and survives names that would end a string", () => {
    const text = [...chromeTrace(report, trace)].join("");
    for (const [, fraction = ""] of text.matchAll(/"(?:ts|dur)":\d+\.(\d+)/g))
      expect(fraction.length).toBeLessThanOrEqual(3);
    const named = { ...report, run: { ...report.run, model: 'a"b\\c\n</script>.gguf' } };
    expect(chrome(named)[0]?.args["name"]).toBe('TinyAI: a"b\\c\n</script>.gguf');
  });
});

describe("a trace's slices", () => {
  const startNs = 2 ** 53 + 2 ** 40;

  test("are exact on a machine that has been up for longer than a double can count nanoseconds", () => {
    const at = BigInt(startNs);
    const events = encode([
      { kind: "work", op: 0, start: at + 1n, end: at + 4n },
      { kind: "step", start: at, end: at + 7n },
    ]);
    const { threads, steps } = decodeTrace({ ...emptyTrace, startNs, events: [events] });
    expect(threads[0]?.slices[0]).toMatchObject({ startNs: 1, endNs: 4 });
    expect(steps[0]).toMatchObject({ startNs: 0, endNs: 7 });
  });

  test("begin at 0 even if an event lies before the start, do not overlap, and leave out what is malformed", () => {
    const events = encode([
      { kind: "work", op: 0, start: 90, end: 120 },
      { kind: "work", op: 1, start: 110, end: 130 },
      { kind: "work", op: 1, start: 150, end: 140 },
      { kind: "work", op: 1, rows: 0, start: 150, end: 160 },
      { kind: 6, start: 0, end: 5 },
      { kind: 77, start: 0, end: 5 },
    ]);
    const { threads } = decodeTrace({ ...emptyTrace, startNs: 100, events: [events] });
    expect(threads[0]?.slices.map(({ startNs, endNs }) => [startNs, endNs])).toEqual([
      [0, 30],
      [30, 40],
    ]);
  });
});

describe("folded stacks", () => {
  test("have a line for each phase, layer and op, and add up to the steps", () => {
    const lines = foldedStacks(report, trace).trimEnd().split("\n");
    let sum = 0;
    for (const line of lines) {
      const [, frames = "", ns = ""] = /^([^;]+(?:;[^;]+)*) (\d+)$/.exec(line) ?? [];
      expect(frames).not.toBe("");
      sum += Number(ns);
    }
    // Each line is rounded to a nanosecond.
    expect(Math.abs(sum - report.steps.totalNs)).toBeLessThanOrEqual(lines.length);
    expect(lines.filter((line) => line.startsWith("generation;layer 17;")).length).toBe(12);
    expect(new Set(lines.map((line) => line.split(";")[1])).size).toBeGreaterThan(LAYERS);
  });

  test("take each phase's ops from a whole trace, exactly", () => {
    const { steps, threads } = decodeTrace(trace);
    const prompts = new Set(steps.filter(({ phase }) => phase === "prompt").map(({ step }) => step));
    const head = report.byOp.find((op) => op.name === "token_embd");
    const expected = (threads[0]?.slices ?? [])
      .filter((slice) => slice.kind === "work" && slice.op === head?.index && prompts.has(slice.step))
      .reduce((sum, slice) => sum + slice.endNs - slice.startNs, 0);
    const [prompt] = phaseParts({ ...report, roofline: null }, trace);
    expect(prompt?.ops.find(({ op }) => op.name === "token_embd")?.ns).toBeCloseTo(expected, 0);
  });

  test("say which phases were divided by guess, where the trace is cut off", () => {
    expect(phaseParts(report, trace).map(({ estimated }) => estimated)).toEqual([false, false]);
    const frames = (text: string) => [
      ...new Set(
        text
          .trimEnd()
          .split("\n")
          .map((line) => line.split(";")[0]),
      ),
    ];
    expect(frames(foldedStacks(report, trace))).toEqual(["prompt", "generation"]);
    expect(frames(foldedStacks(report, cutTrace))).toEqual(["prompt (estimated)", "generation (estimated)"]);
    expect(frames(foldedStacks({ ...report, roofline: null }, cutTrace))).toEqual(["all steps"]);
    // All of the engine's events are there.
    expect(frames(foldedStacks(report, { ...trace, spansDropped: 9 }))).toEqual(["prompt", "generation"]);
  });

  test("keep names with semicolons and line breaks to one frame", () => {
    const byOp = report.byOp.map((op) => ({ ...op, name: "a;b\nc" }));
    for (const line of foldedStacks({ ...report, byOp }, trace)
      .trimEnd()
      .split("\n")) {
      expect(line).toMatch(/^[^;]+(;[^;]+){1,2} \d+$/);
    }
    expect(foldedStacks(emptyReport())).toBe("");
  });
});

describe("speedscope's format", () => {
  interface Evented {
    type: string;
    name: string;
    unit: string;
    startValue: number;
    endValue: number;
    events: { type: "O" | "C"; frame: number; at: number }[];
  }
  const file = JSON.parse([...speedscope(report, trace)].join("")) as {
    $schema: string;
    shared: { frames: { name: string }[] };
    profiles: Evented[];
  };

  test("has an evented profile for each thread and for JavaScript", () => {
    expect(file.$schema).toBe("https://www.speedscope.app/file-format-schema.json");
    expect(file.profiles.map(({ name }) => name)).toEqual(["thread 0 (engine)", "thread 1", "JavaScript"]);
    for (const profile of file.profiles) expect(profile).toMatchObject({ type: "evented", unit: "nanoseconds" });
  });

  test("opens and closes frames in order, the last one opened first", () => {
    for (const { events, startValue, endValue } of file.profiles) {
      const open: number[] = [];
      let before = startValue;
      for (const { type, frame, at } of events) {
        expect(at).toBeGreaterThanOrEqual(before);
        before = at;
        expect(file.shared.frames[frame]).toBeDefined();
        if (type === "O") open.push(frame);
        else expect(open.pop()).toBe(frame);
      }
      expect(open).toEqual([]);
      expect(before).toBe(endValue);
    }
  });

  test("puts the engine thread's ops inside their steps", () => {
    const frame = file.shared.frames.findIndex(({ name }) => name === "token_embd");
    const [engine] = file.profiles;
    let depth = 0;
    let inside = 0;
    for (const event of engine?.events ?? []) {
      if (event.type === "O" && event.frame === frame) inside += depth === 1 ? 1 : 0;
      depth += event.type === "O" ? 1 : -1;
    }
    expect(inside).toBe(report.steps.count);
  });

  test("says in its name that it is cut off", () => {
    const nameOf = (data: TraceData) => JSON.parse([...speedscope(report, data)].join("")).name;
    expect(nameOf(trace)).toBe(report.run.model);
    expect(nameOf({ ...trace, dropped: 1_234 })).toBe(`${report.run.model}; the trace is cut off: 1,234 events more`);
  });

  test("is whole where there is nothing to show", () => {
    expect(JSON.parse([...speedscope(emptyReport(), emptyTrace)].join("")).profiles).toEqual([]);
  });
});
