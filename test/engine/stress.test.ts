// Many requests of all kinds at once, with cancels at random moments, on an engine that has room for all and on one that has
// too few pages, with prefixes that they share: every request that is not cancelled gives what it gives alone, and in the end
// everything is free again.

import { afterAll, describe, expect, test } from "bun:test";
import type { EngineRequest, EngineToken } from "../../src/engine/engine.ts";
import { type OpenedEngine, openEngine } from "../support/engine.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyModel } from "../support/gguf-writer.ts";
import { Random } from "../support/random.ts";

const folder = temporaryFolder();
const path = folder.file("gemma.gguf");
writeTinyModel(path, { architecture: "gemma3", dtype: "Q5_1", layers: 6, slidingWindow: 40, context: 512 });

/** Half of the requests begin with some of this. */
const common = Array.from({ length: 512 }, (_, index) => (index * 31) % 512);

function randomRequest(random: Random): EngineRequest {
  const length = random.pick([1, 2, 5, 30, 64, 65, 130, 260, 400]);
  const alike = random.below(2) * random.below(length + 1);
  const scores = random.below(4) === 0;
  return {
    kind: scores ? "score" : "generate",
    tokens: Uint32Array.from({ length }, (_, index) => (index < alike ? (common[index] ?? 0) : random.below(512))),
    generateMax: scores ? 0 : 1 + random.below(60),
    seed: BigInt(random.bits()),
    temperature: random.pick([0, 0.7, 1.5]),
    topP: random.pick([1, 0.9]),
    minP: random.pick([0, 0.05]),
    topK: random.pick([0, 50]),
    repeatPenalty: random.pick([1, 1.3]),
    repeatLast: 64,
    stopTokens: random.pick([[], [2], [5, 6, 7, 8]]),
    topCount: random.pick([0, 0, 3]),
    chunkRows: random.pick([0, 0, 0, 7]),
    dumpLogits: scores && random.below(2) === 0,
    sharesPrefix: random.below(5) > 0,
    ...random.pick([{}, { speculation: { maxDraft: 8, minMatch: 1 } }]),
  };
}

interface Outcome {
  readonly finish: string;
  readonly tokens: readonly Pick<EngineToken, "token" | "logprob" | "position" | "top">[];
  readonly logits: readonly number[];
}

/** Runs a request; `cancelAfter` tokens it is cancelled (0: at once). */
function run({ engine }: OpenedEngine, request: EngineRequest, cancelAfter?: number): Promise<Outcome> {
  const { promise, resolve, reject } = Promise.withResolvers<Outcome>();
  const tokens: Outcome["tokens"][number][] = [];
  const logits: number[] = [];
  const handle = engine.submit(request, {
    onToken({ token, logprob, position, top }) {
      tokens.push({ token, logprob, position, top });
      if (tokens.length === cancelAfter) handle.cancel();
    },
    // A value of each row: how rows come together depends on what else runs.
    onLogits(rows, count) {
      for (let row = 0; row < count; row++) logits.push(rows[(row * rows.length) / count + 300] ?? Number.NaN);
    },
    onFinish: (finish) => resolve({ finish, tokens, logits }),
    onError: reject,
  });
  if (cancelAfter === 0) handle.cancel();
  return promise;
}

const random = new Random(99);
const requests = Array.from({ length: 40 }, () => randomRequest(random));
const reference = await openEngine(path, {}, { threadCount: 1 });
afterAll(() => reference.engine.close());
const expected: Outcome[] = [];
for (const request of requests) expected.push(await run(reference, { ...request, sharesPrefix: false }));

describe("requests of all kinds give what each gives alone", () => {
  const engines = {
    "with room for all, on two threads": [{}, { threadCount: 2, events: true }],
    "with pages for one long sequence": [{ kvBytesMax: 0 }, { threadCount: 1 }],
    "with few kept pages": [{ keptBytesMax: 40_000 }, { threadCount: 2 }],
    "three at once": [{ batchMax: 3 }, { threadCount: 2 }],
    "with as many rows of logits as sequences": [{ batchMax: 16, logitsRowsMax: 16 }, { threadCount: 1 }],
    "sixty-four at once": [{ batchMax: 64, logitsRowsMax: 64 }, { threadCount: 2 }],
  } as const;
  for (const [name, [changes, options]] of Object.entries(engines)) {
    test(name, async () => {
      const opened = await openEngine(path, changes, options);
      const draw = new Random(name.length);
      for (let round = 0; round < 2; round++) {
        const running = requests.flatMap((request, index) => {
          // About every third is cancelled: at once, after its first token, or somewhere in its middle.
          const kept = run(opened, request).then((outcome) => expect(outcome).toEqual(expected[index] ?? outcome));
          if (draw.below(3) !== 0) return [kept];
          const cancelled = run(opened, request, draw.pick([0, 1, 10])).then(({ finish, tokens, logits }) => {
            const whole = expected[index];
            if (finish !== "cancelled") expect(finish).toBe(whole?.finish ?? "");
            expect(tokens).toEqual(whole?.tokens.slice(0, tokens.length) ?? []);
            expect(logits).toEqual(whole?.logits.slice(0, logits.length) ?? []);
          });
          return [kept, cancelled];
        });
        await Promise.all(running);
        expect(opened.engine.pending).toBe(0);
      }
      await opened.engine.close();
    });
  }
});
