// Type `memory`: what a model takes of memory while it is loaded and while it runs, and for what; what is allocated for a request; how
// well the caches serve it; and how fast the machine's caches and memory are.

import { watchCollections } from "../engine/collections.ts";
import { memoryParts } from "../engine/footprint.ts";
import { TinyAIError } from "../errors.ts";
import { type Model, partsOf } from "../loaded-model.ts";
import { worthPreparingBytes } from "../prepared.ts";
import { measureBandwidth } from "./memory/bandwidth.ts";
import { profileRequests } from "./memory/caches.ts";
import { measureJavaScript } from "./memory/javascript.ts";
import { measureLoading } from "./memory/loading.ts";
import { openPeak, type ResidentPeak } from "./memory/peak.ts";
import { measureRunning, type Running, warmupDefault } from "./memory/running.ts";
import { divide, roundsDefault, shortOfSamples } from "./part.ts";
import type { Benchmark, BenchmarkContext, Measured } from "./registry.ts";
import type { AllocationFigures, MemoryFigures, MemoryPartFigures, Settings } from "./results.ts";
import { loadOnce, openSubject, requestOf, type Subject } from "./subject.ts";

const secondsDefault = 60;

const parts = {
  loading: { share: 0.15, doing: "loading the model" },
  running: { share: 0.35, doing: "requests" },
  javascript: { share: 0.15, doing: "JavaScript's allocations" },
  caches: { share: 0.1, doing: "cache accesses" },
  bandwidth: { share: 0.25, doing: "bandwidth of the caches and of memory" },
} as const;

export const memory: Benchmark = { needsModel: true, run: measureMemory };

type Writable<Type> = { -readonly [Field in keyof Type]: Type[Field] };

/** @throws the signal's reason if it came before the model was loaded. */
async function measureMemory(context: BenchmarkContext): Promise<Measured> {
  const peak = openPeak();
  try {
    return await measureWith(peak, context);
  } finally {
    peak.close();
  }
}

async function measureWith(peak: ResidentPeak, context: BenchmarkContext): Promise<Measured> {
  const { model = "", settings, signal } = context;
  const options = divide(context, parts, secondsDefault);
  const open = () => openSubject(model, settings, { signal });
  options.loading.onProgress?.(0);
  // What is made when a model is opened for the first time is made before.
  const { details, embeds, model: first, close } = await open();
  const { library, engine } = partsOf(first);
  const onMachine = { library, level: engine.settings.levels.matmul, threadCount: engine.threadCount };
  const collections = watchCollections(library);
  await close();

  const found: Writable<MemoryFigures> = {};
  const allocations: Writable<AllocationFigures> = {};
  const warnings: string[] = [];
  let running: Running = { bySize: {}, warnings: [] };
  const unlessAborted = (error: unknown): undefined => {
    if (!signal?.aborted) throw error;
  };
  // Without one part, the others are worth having.
  const unlessImpossible = async <Found>(part: string, measure: () => Promise<Found>): Promise<Found | undefined> => {
    try {
      return await measure();
    } catch (error) {
      if (!(error instanceof TinyAIError)) throw error;
      warnings.push(`${part}: not measured: ${error.message}`);
      return undefined;
    }
  };
  // A copy that could not be kept would be made anew each time, and loading would seem to take as long.
  const isKept = first.preparation.state !== "none";
  if (first.preparation.state === "none" && details.bytes >= worthPreparingBytes) {
    warnings.push(
      `No prepared copy of the model could be kept (${first.preparation.reason}): loading is that of the model file itself.`,
    );
  }
  const load = () => loadOnce(model, settings, { signal }, isKept);
  const loaded = await measureLoading({ ...options.loading, library, peak, load });
  if (!loaded) throw signal?.reason;
  found.loading = loaded.loading;
  allocations.loading = loaded.native;

  const measureRequests = async (subject: Subject): Promise<void> => {
    const [batchSize = 1] = settings.batch_sizes;
    running = await measureRunning({ ...options.running, library, peak, subject, settings });
    if (running.first) {
      found.running = running.first.running;
      allocations.native = running.first.native;
    }
    const work = () => subject.iterate(batchSize);
    const javascript = collections && (await measureJavaScript(work, collections, options.javascript));
    if (!javascript && !signal?.aborted) {
      const why = collections ? "its collector ran in every request" : "it is not seen when its collector runs";
      warnings.push(`What JavaScript allocates was not measured: ${why}.`);
    }
    const profiled = await unlessImpossible("caches", () => profileRequests(subject, batchSize, options.caches));
    const { cache, collections: pauses } = profiled ?? {};
    if (cache) found.cache = cache;
    if (javascript || pauses) allocations.javascript = { ...javascript, ...(pauses && { collections: pauses }) };
    found.parts = partsOfModel(subject.model);
  };
  if (!signal?.aborted) {
    const subject = await open().catch(unlessAborted);
    try {
      if (subject) await measureRequests(subject);
    } finally {
      await subject?.close();
    }
  }
  if (!signal?.aborted) {
    const bandwidth = await unlessImpossible("bandwidth", () =>
      measureBandwidth({ ...options.bandwidth, ...onMachine }),
    );
    if (bandwidth && bandwidth.length > 0) found.bandwidth = bandwidth;
  }
  if (!signal?.aborted) {
    warnings.push(
      ...shortOfSamples(parts.loading.doing, found.loading?.time, settings),
      ...shortOfSamples(parts.javascript.doing, allocations.javascript?.objects, settings),
      ...shortOfSamples(parts.bandwidth.doing, found.bandwidth?.[0]?.read, settings),
    );
  }
  const { bySize } = running;
  const [batchSize = 1] = settings.batch_sizes;
  return {
    figures: { ...bySize[batchSize], by_batch_size: bySize, memory: { ...found, allocations } },
    details,
    ...(embeds && { settings: { ...settings, generated_tokens: 0 } }),
    methodology: methodologyOf(settings, embeds, peak.exact, options.running.timeMs),
    warnings: [...running.warnings, ...warnings],
    interrupted: signal?.aborted ?? false,
  };
}

function partsOfModel(model: Model): MemoryPartFigures[] {
  const estimate = model.estimateMemory();
  const { taken, resident } = model.memoryInUse();
  return memoryParts.flatMap((name) => {
    const { minimum = 0, maximum = 0 } = estimate.parts.find((part) => part.name === name) ?? {};
    if (taken[name] === 0 && maximum === 0) return [];
    return {
      name,
      estimated_min: minimum / 1e6,
      estimated_max: maximum / 1e6,
      taken: taken[name] / 1e6,
      resident: resident[name] / 1e6,
    };
  });
}

function methodologyOf(settings: Settings, embeds: boolean, exact: boolean, runningMs: number) {
  const { batch_sizes, iterations, precision, warmup, seed } = settings;
  const ends = [
    ...(iterations === null ? [] : [`after ${iterations} iterations`]),
    ...(iterations === null && precision > 0
      ? [`when half the 95 % interval of the mean latency is at most ${100 * precision} % of the mean`]
      : []),
    `after ${(runningMs / 1000 / batch_sizes.length).toFixed(1)} s`,
  ];
  return [
    `Memory is what is resident of the whole process at its highest, Bun and mapped files included, ${exact ? "as the system keeps it, begun anew for each sample" : "as it was found every 5 ms: a short peak may be missed"}.`,
    "The model was loaded and closed again and again after a first time, so that its file was in the page cache; a sample is from the call to the loaded model, and its weights may come into memory later.",
    `A request is ${requestOf(embeds, settings)}; an iteration is so many requests at once: ${batch_sizes.join(", ")}. Where there are several batch sizes, allocations and caches are of the first; parts are as they stood at the end of all.`,
    `Each batch size warms up for ${warmup ?? warmupDefault} iterations of its own; measuring it ends ${ends.join(", or ")}. Of other figures there are ${iterations ?? roundsDefault} samples, or as many as there was time for.`,
    "Native allocations are those of the library, counted by itself: heap and mappings, without address space that is only reserved and without mapped files. An estimate's least is after one short request, its most after all that the model can run at a time.",
    "JavaScript's allocations are the difference between counts of the whole heap before and after an iteration, after a full collection and with none in between; iterations in which the collector ran are left out, and so are hidden classes, which counting makes itself.",
    "Bandwidth was measured after the model was closed, by the library's threads and vectors: of half of each cache, and of a working set far beyond the caches; reads, writes and copies in turns in a drawn order, a sample being a slice of time. A copy counts what it reads and what it writes.",
    `Intervals are of 95 %, by bootstrap with seed ${seed}.`,
  ];
}
