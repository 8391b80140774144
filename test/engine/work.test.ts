// Sums of what an engine has done: over any stretch of the last minute, beside a list of all that happened.

import { describe, expect, test } from "bun:test";
import { drawsNothing, type EngineRequest } from "../../src/engine/engine.ts";
import { type CountedRequest, WorkMeter } from "../../src/engine/work.ts";
import { Random } from "../support/random.ts";

function request(kind: EngineRequest["kind"], promptTokens = 3): EngineRequest {
  const tokens = new Uint32Array(promptTokens);
  return { kind, tokens, ...drawsNothing, topCount: 0, chunkRows: 0, dumpLogits: false, sharesPrefix: false };
}

/** A meter on a clock of the test's own. */
function played() {
  const clock = { ns: 7e14 + 123_456_789 };
  return { clock, meter: new WorkMeter(() => clock.ns) };
}

describe("a meter of work", () => {
  test("sums up what happened in a stretch of time, back to the beginning of a tenth of a second", () => {
    const { clock, meter } = played();
    const random = new Random(11);
    const loadedNs = clock.ns;
    const told: { at: number; tokens?: number; requests?: number; texts?: number }[] = [];
    const underWay: CountedRequest[] = [];
    /** Times in which a request was under way. */
    const busy: [from: number, to: number][] = [];
    for (let round = 0; round < 8000; round++) {
      const rest = random.below(2000) === 0 ? random.below(90_000) : random.below(12);
      const from = clock.ns;
      clock.ns += rest * 1e6 + random.below(1000);
      if (underWay.length > 0) busy.push([from, clock.ns]);
      const [one] = underWay;
      const choice = random.below(10);
      if (!one || (choice === 0 && underWay.length < 5)) {
        const begun = meter.begin(request(random.pick(["generate", "embed", "score"] as const)));
        if (begun) underWay.push(begun);
      } else if (choice === 1) {
        underWay.shift();
        const text = one.kind !== "generate";
        meter.end(one, text ? "embedded" : "length");
        told.push({ at: clock.ns, requests: 1, ...(text ? { texts: 1 } : {}) });
      } else {
        meter.token(one, clock.ns);
        if (one.kind === "generate") told.push({ at: clock.ns, tokens: 1 });
      }
      if (round % 50 > 0) continue;
      const windowMs = 100 + random.below(59_900);
      const beginNs = Math.max(loadedNs, Math.floor((clock.ns - windowMs * 1e6) / 1e8) * 1e8);
      const within = told.filter(({ at }) => at >= beginNs);
      const sum = (field: "tokens" | "requests" | "texts") => within.reduce((all, one) => all + (one[field] ?? 0), 0);
      const work = meter.last(windowMs);
      expect(work.spanNs).toBe(clock.ns - beginNs);
      expect([work.tokens, work.requests, work.texts]).toEqual([sum("tokens"), sum("requests"), sum("texts")]);
      const busyNs = busy.reduce((all, [from, to]) => all + Math.max(0, to - Math.max(from, beginNs)), 0);
      expect(work.busyNs).toBeCloseTo(busyNs, -1);
      expect(meter.underWay).toBe(underWay.length);
    }
    expect(meter.total()).toMatchObject({
      tokens: told.filter(({ tokens }) => tokens).length,
      requests: told.filter(({ requests }) => requests).length,
      spanNs: clock.ns - loadedNs,
    });
  });

  test("tells how each of the last 32 requests went, and whoever listens of every one", () => {
    const { clock, meter } = played();
    const heard: number[] = [];
    const end = meter.onEnd(({ promptTokens }) => heard.push(promptTokens));
    for (let index = 1; index <= 40; index++) {
      if (index === 36) end();
      const begun = meter.begin(request("generate", index)) as CountedRequest;
      clock.ns += 2e6;
      for (let token = 0; token < 4; token++, clock.ns += 1e6) meter.token(begun, clock.ns);
      meter.end(begun, "length");
    }
    expect(heard).toEqual(Array.from({ length: 35 }, (_, index) => index + 1));
    expect(meter.recent.map(({ promptTokens }) => promptTokens)).toEqual(Array.from({ length: 32 }, (_, at) => at + 9));
    expect(meter.recent.at(-1)).toEqual({
      kind: "generate",
      inferenceTime: 6,
      firstTokenTime: 2,
      promptTokens: 40,
      generatedTokens: 4,
      throughput: 4 / 0.006,
      finish: "length",
    });
  });

  test("counts no session that is held or restored, and no scored text's own tokens", () => {
    const { clock, meter } = played();
    expect(meter.begin(request("hold"))).toBeUndefined();
    expect(meter.begin(request("restore"))).toBeUndefined();
    expect(meter.underWay).toBe(0);
    const scored = meter.begin(request("score")) as CountedRequest;
    clock.ns += 1e6;
    meter.token(scored, clock.ns);
    meter.end(scored, "scored");
    expect(meter.recent[0]).toMatchObject({ kind: "score", generatedTokens: 0, firstTokenTime: null, throughput: 0 });
    expect(meter.total()).toMatchObject({ requests: 1, texts: 1, tokens: 0, firstTokens: 0 });
  });
});
