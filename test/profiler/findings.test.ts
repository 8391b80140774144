// The rules behind the findings: each fires on a report that deserves it, and is silent on its neighbour on the other side of
// the threshold.

import { describe, expect, test } from "bun:test";
import { FINDINGS_MAX, findingsOf } from "../../profiler/findings.ts";
import type { Finding, Report } from "../../profiler/report.ts";
import { bareReport, type Changes, changed, emptyReport, madeUpReport } from "../support/report.ts";

const { report: made } = madeUpReport();
/** A report in which no rule finds anything. */
const quiet = changed(made, { run: { options: { screening: true } } });

function change(changes: Changes<Report>): Report {
  return changed<Report>(quiet, changes);
}

function withOps(edit: (op: Report["byOp"][number]) => Partial<Report["byOp"][number]>): Report {
  return change({ byOp: quiet.byOp.map((op) => ({ ...op, ...edit(op) })) });
}

function javascript(name: string, row: object): Report {
  const rows = (quiet.javascript?.rows ?? []).map((before) => (before.name === name ? { ...before, ...row } : before));
  return { ...quiet, javascript: quiet.javascript && { ...quiet.javascript, rows } };
}

/** Most tokens came together with the one before them: the median of the times between them is 0, their sum as before. */
function guessed(name: string, row: object): Report {
  return { ...javascript(name, row), betweenTokens: { ...quiet.betweenTokens, p50Ns: 0, p90Ns: 0 } };
}

function attention(share: number, kvCache: "f16" | "q8_0"): Report {
  const byKind = quiet.byKind.map((row) => (row.kind === "attention" ? { ...row, share } : row));
  return change({ byKind, run: { options: { kvCache } } });
}

function queued(queueNs: number): Report {
  const requests = quiet.requests.map((row) => ({ ...row, queueNs, firstTokenNs: 20_000_000 }));
  return change({ requests });
}

function prompts(prefixCache: boolean): Report {
  const requests = quiet.requests.map((row) => ({ ...row, promptTokens: 500 }));
  return change({ requests, run: { options: { prefixCache } } });
}

function system(changes: Changes<NonNullable<Report["system"]>>): Report {
  return { ...quiet, system: quiet.system && changed<NonNullable<Report["system"]>>(quiet.system, changes) };
}

const threads = (idleShare: number): Report =>
  change({ threads: quiet.threads.map((row) => (row.thread === 0 ? row : { ...row, idleShare })) });

/** What the threads did, all together, by the clock. */
const workNs = quiet.threads.reduce((sum, { busyNs }) => sum + busyNs, 0);

/** Named by what is deserved: the report that deserves it, words of the finding, the knob, and the neighbour that does not. */
const cases: Record<string, { fires: Report; words: RegExp; knob: string | null; silent: Report }> = {
  "head screening": {
    fires: made,
    words: /^49\.5 % of the steps' time is the output head, at 0\.9\d of the memory roof: only fewer bytes help/,
    knob: "screening: true",
    silent: changed(made, { run: { options: { screeningProblem: "the head is in Q4_0" } } }),
  },
  "head screening only where the head is large": {
    fires: made,
    words: /output head/,
    knob: "screening: true",
    silent: changed(made, { byOp: made.byOp.map((op) => ({ ...op, share: Math.min(op.share, 0.2) })) }),
  },
  "head screening only for few sequences": {
    fires: made,
    words: /output head/,
    knob: "screening: true",
    silent: changed(made, { phases: made.phases.map((row) => ({ ...row, sequences: row.count * 8 })) }),
  },
  "quantizing wide weights": {
    fires: withOps((op) => (op.name === "token_embd" ? { kernel: "matmul.f16.avx512_vnni" } : {})),
    words: /weights of 16 bits or more, which memory holds up/,
    knob: "quantizeModel",
    silent: withOps((op) => (op.name === "output_norm" ? { kernel: "norm.f16.avx512_vnni" } : {})),
  },
  "keys and values in Q8_0": {
    fires: attention(0.35, "f16"),
    words: /^35\.0 % of the steps' time is attention/,
    knob: 'kvCache: "q8_0"',
    silent: attention(0.35, "q8_0"),
  },
  "nothing for attention at a short context": {
    fires: attention(0.21, "f16"),
    words: /attention/,
    knob: 'kvCache: "q8_0"',
    silent: attention(0.19, "f16"),
  },
  "fewer threads when they wait": {
    fires: change({ waiting: { share: 0.2 } }),
    words: /^20\.0 % of the steps' time the engine thread waited/,
    knob: "threads.count",
    silent: change({ waiting: { share: 0.2 }, run: { threads: 1 } }),
  },
  "nothing for a little waiting": {
    fires: change({ waiting: { share: 0.11 } }),
    words: /waited/,
    knob: "threads.count",
    silent: change({ waiting: { share: 0.09 } }),
  },
  "threads whose CPUs others had": {
    fires: system({ cpuNs: 0.7 * workNs }),
    words:
      /^The threads were at work for 1\.01 s by the clock, all together, but the process had 707\.8 ms of CPU time/,
    knob: "threads.count",
    silent: system({ cpuNs: 0.9 * workNs }),
  },
  "other programs only where the disk is no reason for missing CPU time": {
    fires: system({ cpuNs: 0.7 * workNs, majorFaults: 20 }),
    words: /^The threads were at work/,
    knob: "threads.count",
    silent: system({ cpuNs: 0.7 * workNs, majorFaults: 400 }),
  },
  "an idle thread": {
    fires: threads(0.6),
    words: /^Thread 1 had nothing to do for 60\.0 %/,
    knob: "threads.count",
    silent: threads(0.4),
  },
  "more threads": {
    fires: change({
      run: { threads: 1, options: { usableCpus: 4 } },
      roofline: { byKind: (quiet.roofline?.byKind ?? []).map((row) => ({ ...row, share: 0.4 })) },
    }),
    words: /^1 of 4 usable CPUs compute, and matmul is not at its roof/,
    knob: "threads.count",
    silent: change({ run: { threads: 1, options: { usableCpus: 4 } } }),
  },
  "a wider level": {
    fires: change({ run: { level: "avx2" } }),
    words: /ran at avx2, but this CPU has avx512_vnni/,
    knob: "simd.level: 3, without TINYAI_SIMD",
    silent: change({ run: { level: "avx2", options: { widestLevel: "avx2" } } }),
  },
  tuning: {
    fires: change({ run: { options: { tuning: "fixed" } } }),
    words: /what this machine prefers was not measured/,
    knob: 'tuning: "measured", after tinyai tune',
    silent: quiet,
  },
  "the prefix cache": {
    fires: prompts(false),
    words: /up to 500 tokens, may have been computed again/,
    knob: "prefixCache, cachePrompt",
    silent: prompts(true),
  },
  "unattributed time": {
    fires: change({ unattributed: { share: 0.05 } }),
    words: /^5\.0 % of the steps' time is covered by no event.* or try fewer threads\.$/,
    knob: "threads.count",
    silent: change({ unattributed: { share: 0.01 } }),
  },
  "unattributed time of a single thread": {
    fires: change({ unattributed: { share: 0.05 }, run: { threads: 1 } }),
    words: /covered by no event.*\. Measure on a quiet machine\.$/,
    knob: null,
    silent: change({ unattributed: { share: 0.01 }, run: { threads: 1 } }),
  },
  "lost events": {
    fires: change({ lostEvents: 7 }),
    words: /^Events were lost.* in a Worker/,
    knob: null,
    silent: quiet,
  },
  "a queue": {
    fires: queued(12_000_000),
    words: /^60\.0 % of the time to the first token requests stood in the queue, 12\.0 ms each/,
    knob: "batchSize",
    silent: queued(8_000_000),
  },
  "a slow consumer": {
    fires: javascript("consumer", { p50Ns: 20_000_000 }),
    words: /^The code that takes the tokens needs 20\.0 ms for one, the model 6\.\d ms.* send or store several at once/,
    knob: null,
    silent: javascript("consumer", { p50Ns: 2_000_000 }),
  },
  "a slow consumer where guesses came true": {
    fires: guessed("consumer", { p50Ns: 8_000_000 }),
    words: /^The code that takes the tokens needs/,
    knob: null,
    silent: guessed("consumer", { p50Ns: 3_000 }),
  },
  "pages from the disk": {
    fires: system({ majorFaults: 400 }),
    words: /^Weights came from the disk/,
    knob: "quantizeModel",
    silent: system({ majorFaults: 20 }),
  },
  "allocations while generating": {
    fires: system({ allocations: { count: 500 } }),
    words: /^Native memory was allocated.*before the work/,
    knob: null,
    silent: system({ allocations: { count: 150 } }),
  },
  "garbage collection": {
    fires: javascript("garbageCollection", { totalNs: 40_000_000 }),
    words: /garbage collector took 7\.\d %.* fewer objects for each token/,
    knob: null,
    silent: javascript("garbageCollection", { totalNs: 4_000_000 }),
  },
};

describe("findings", () => {
  const matching = (report: Report, words: RegExp): Finding[] =>
    findingsOf(report).filter((finding) => words.test(finding.text));

  for (const [name, { fires, words, knob, silent }] of Object.entries(cases)) {
    test(`name ${name}, and not where it is not deserved`, () => {
      const [found, ...others] = matching(fires, words);
      expect(others).toEqual([]);
      expect(found?.knob?.option ?? null).toBe(knob);
      expect(matching(silent, words)).toEqual([]);
    });
  }

  test("are none where nothing stands out, nothing was watched, or no step ran", () => {
    expect(findingsOf(quiet)).toEqual([]);
    expect(findingsOf(changed(bareReport(), { run: { options: { screening: true } } }))).toEqual([]);
    expect(findingsOf(emptyReport())).toEqual([]);
  });

  test("all have evidence with finite figures", () => {
    for (const { fires } of Object.values(cases)) {
      for (const { evidence } of findingsOf(fires)) {
        expect(evidence.length).toBeGreaterThan(0);
        for (const { value } of evidence) expect(Number.isFinite(value)).toBe(true);
      }
    }
  });

  test("stand with the most valuable first, what makes the report doubtful before all, ten at most", () => {
    const all = changed(made, {
      lostEvents: 5,
      waiting: { share: 0.3 },
      unattributed: { share: 0.1 },
      threads: threads(0.7).threads,
      byKind: attention(0.4, "f16").byKind,
      requests: queued(15_000_000).requests,
      run: { level: "avx2", options: { tuning: "fixed" } },
      javascript: { rows: javascript("consumer", { p50Ns: 30_000_000 }).javascript?.rows ?? [] },
      system: { majorFaults: 900, allocations: { count: 900 } },
    });
    const found = findingsOf(all);
    expect(found).toHaveLength(FINDINGS_MAX);
    expect(found[0]?.text).toStartWith("Events were lost");
    expect(found[0]).not.toHaveProperty("worth");
    const places = ["output head", "covered by no event"].map((words) =>
      found.findIndex(({ text }) => text.includes(words)),
    );
    expect(places[0]).toBeLessThan(places[1] ?? 0);
  });

  test("say that CPUs are busy where the system took them away", () => {
    const busy = change({ waiting: { share: 0.2 }, system: { involuntarySwitches: 4000 } });
    expect(findingsOf(busy)[0]?.text).toContain("busy with other programs");
    expect(findingsOf(change({ waiting: { share: 0.2 } }))[0]?.text).toContain("does not divide well");
  });
});
