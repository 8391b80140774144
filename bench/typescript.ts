// What TypeScript does for every token, event and request, and for every model once, each by itself with mitata: it warms up,
// batches, and shows how far the samples spread. Kernels are measured by kernels.ts.
//
//   bun run bench:typescript [--model NAME|PATH] [--json]

import { parseArgs } from "node:util";
import { bench, do_not_optimize, group, run } from "mitata";
import { DurationHistogram, EVENT_BYTES, EventKind, NO_OP, type OpInfo, Profiler } from "../profiler/index.ts";
import { openLibrary } from "../src/engine/library.ts";
import { StopFinder } from "../src/generate/stop.ts";
import { buildGraph } from "../src/model/architectures/index.ts";
import { openGguf } from "../src/model/gguf.ts";
import { Event, Record, Request } from "../src/plan/layout.ts";
import { planProgram } from "../src/plan/plan.ts";
import { createTokenizer } from "../src/tokenizer/index.ts";
import { chooseModel } from "./model.ts";

const { values: flags } = parseArgs({
  options: { model: { type: "string" }, json: { type: "boolean", default: false } },
});
const chosen = chooseModel(flags.model);
const library = await openLibrary();
const file = openGguf(chosen.path);
const graph = buildGraph(file);
const options = {
  contextMax: graph.contextLength,
  batchMax: 16,
  rowsMax: 256,
  logitsRowsMax: 32,
  chunkPositions: 256,
  kvBytesMax: 1e9,
  keptBytesMax: 0,
};
const plan = planProgram(graph, options);
const tokenizer = createTokenizer(file.metadata);
const sentence = "The quick brown fox jumps over the lazy dog, and nobody at the river minded it at all. ";
const page = sentence.repeat(40);
const tokens = tokenizer.encode(sentence);

group("tokens", () => {
  bench("encode a sentence of 87 characters", () => do_not_optimize(tokenizer.encode(sentence)));
  bench("encode 3,480 characters", () => do_not_optimize(tokenizer.encode(page)));
  bench(`decode ${tokens.length} tokens as a stream`, () => {
    const decoder = tokenizer.decoder();
    for (const token of tokens) do_not_optimize(decoder.push(token));
    do_not_optimize(decoder.finish());
  });
  bench("look for two stop texts in a piece", function* () {
    const finder = new StopFinder(["\n\nUser:", "<|end|>"]);
    yield () => do_not_optimize(finder.push(" river"));
  });
});

/** What one thread writes in a step of `ops`: work and barrier of each op, sampling, and the step itself. */
function stepEvents(ops: number, step: number): Uint8Array {
  const bytes = new Uint8Array((2 * ops + 2) * EVENT_BYTES);
  const view = new DataView(bytes.buffer);
  let now = step * 10_000_000;
  let at = 0;
  const write = (kind: number, op: number, start: number, end: number) => {
    Event.write(view, at, { start, end, step, rows: 1, op, kind, thread: 0, aux: 1 });
    at += EVENT_BYTES;
  };
  const begin = now;
  for (let op = 0; op < ops; op++) {
    write(EventKind.work, op, now, now + 20_000);
    write(EventKind.barrier, op, now + 20_000, now + 21_000);
    now += 21_000;
  }
  write(EventKind.sampling, NO_OP, now, now + 50_000);
  write(EventKind.step, NO_OP, begin, now + 51_000);
  return bytes;
}

const opList = plan.ops.map(
  ({ index, name, kind, layer, bytesPerStep, bytesPerRow, operationsPerRow }): OpInfo => ({
    index,
    name,
    kind,
    kernel: kind,
    layer,
    bytesPerStep,
    bytesPerRow,
    operationsPerRow,
  }),
);

group("profiler", () => {
  bench("record one duration", function* () {
    const histogram = new DurationHistogram();
    let duration = 1;
    yield () => {
      duration = (duration * 48_271) % 2_147_483_647;
      histogram.record(duration % 1_000_000);
    };
  });
  bench(`drain a step of ${opList.length} ops (${2 * opList.length + 2} events)`, function* () {
    const profiler = new Profiler(opList);
    let step = 1;
    yield {
      [0]: () => stepEvents(opList.length, step++),
      bench: (events: Uint8Array) => profiler.drain(events, 0),
    };
  });
});

group("engine", () => {
  bench("call into the library", () => do_not_optimize(library.symbols.tinyai_level_count()));
  bench("write a request", function* () {
    const bytes = new Uint8Array(Request.size);
    const view = new DataView(bytes.buffer);
    yield () => Request.write(view, 0, { id: 1, kind: 0, token_count: 100, seed: 5n, temperature: 0.7, top_k: 50 });
  });
  bench("read a record's fields", function* () {
    const view = new DataView(new ArrayBuffer(Record.size));
    yield () =>
      do_not_optimize(view.getUint32(Record.offset("token"), true) + view.getFloat32(Record.offset("logprob"), true));
  });
});

group("once for each model", () => {
  bench("open the file's header", () => do_not_optimize(openGguf(chosen.path)));
  bench("build the graph", () => do_not_optimize(buildGraph(file)));
  bench("plan the program", () => do_not_optimize(planProgram(graph, options)));
});

try {
  if (!flags.json) console.log(`${chosen.name}\n`);
  await run(flags.json ? { format: "json" } : {});
} finally {
  chosen.remove();
}
