// Watches all models of the process: each is profiled from when it is opened, or the last report was made, until the next report or
// its closing. It records nothing itself (recording.ts does) and writes what profiled runs write.

import { basename } from "node:path";
import type { OptimizationImpact } from "../../profiler/impact.ts";
import type { SystemSample } from "../../profiler/report.ts";
import { readProcess, SystemWatch } from "../../profiler/system.ts";
import type { PerformanceAnalysis } from "../analysis.ts";
import { EngineError } from "../errors.ts";
import { analyzeOptimizationImpact, type ImpactOptions } from "../impact.ts";
import type { Model } from "../loaded-model.ts";
import { type WatchedModel, watchModels } from "../watched.ts";
import { checkReportPath, reportEnding } from "./file.ts";
import { addImpact, type ProfiledRun, type ProfileOptions } from "./index.ts";

/** Bytes that a file's name may have on all systems, less those of the name that it is written under first. */
const NAME_BYTES_MAX = 255 - 40;

/** A run, and what its model is found by. */
interface SourcedRun {
  readonly source: string;
  readonly run: ProfiledRun;
}

/** There is one at a time: two would each keep the events of all models. */
let underWay: Analysis | undefined;

export class Analysis implements PerformanceAnalysis {
  readonly #options: ProfileOptions;
  readonly #watched = new Set<WatchedModel>();
  /** What ended and is in no report yet: of models that were closed, and of reports that could not be written. */
  #kept: SourcedRun[] = [];
  /** What optimisations contribute, by what models are found by. */
  readonly #impacts = new Map<string, OptimizationImpact>();
  /** Settles when what reports read of open models has been read. */
  #making: Promise<unknown> = Promise.resolve();
  readonly #system = new SystemWatch({ nativeBytes: () => 0, every: () => () => {}, read: readProcess });
  readonly #unwatch: () => void;
  #open = true;

  /** @throws {EngineError} if there is another analysis. */
  constructor(options: ProfileOptions) {
    if (underWay) throw new EngineError("there is an analysis already; close it first");
    this.#options = options;
    try {
      this.#unwatch = watchModels({
        opened: (model) => this.#watch(model),
        closing: async (model) => {
          if (!this.#watched.delete(model)) return;
          const [run] = await Promise.all([model.finish(), this.#making]);
          if (this.#open) this.#kept.push({ source: model.source(), run });
        },
      });
    } catch (error) {
      this.#cancel().catch(() => {});
      throw error;
    }
    underWay = this;
  }

  takeSample(): SystemSample {
    this.#checkOpen();
    const samples = [...this.#watched].map((model) => model.sample());
    return samples[0] ?? this.#system.sample();
  }

  async generateReport(path: string): Promise<readonly string[]> {
    this.#checkOpen();
    const { length } = checkReportPath(path);
    const ending = path.slice(-length);
    const kept = this.#kept.splice(0);
    const made = [...this.#watched].map(async (model) => {
      const run = model.finish();
      // What it does from now on is in the next report.
      model.start(this.#options);
      return { source: model.source(), run: await run };
    });
    const making = Promise.allSettled(made);
    this.#making = Promise.all([this.#making, making]).then(() => {});
    const results = await making;
    const runs = [...kept, ...results.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []))];
    const working = runs.filter(({ run }) => run.steps.count > 0);
    const reported = working.length > 0 ? working : runs.slice(-1);
    try {
      for (const result of results) if (result.status === "rejected") throw result.reason;
      if (runs.length === 0)
        throw new EngineError("no model was open while it was watched; load one before the report");
      const models = reported.map(({ run }) => run.run.model.replace(/\.[^.]+$/, ""));
      const paths = reported.length === 1 ? [path] : pathsOf(path.slice(0, -ending.length), models, ending);
      for (const [index, { source, run }] of reported.entries()) {
        const impact = this.#impacts.get(source);
        await (impact ? addImpact(run, impact) : run).write(paths[index] as string);
      }
      return paths;
    } catch (error) {
      this.#kept.unshift(...reported);
      throw error;
    }
  }

  async analyzeOptimizationImpact(options: ImpactOptions = {}): Promise<readonly OptimizationImpact[]> {
    this.#checkOpen();
    const models = new Map<string, Model>();
    for (const watched of this.#watched) {
      // Of several of a source, the limits of the one that may have least memory hold.
      const [source, model] = [watched.source(), watched.model()];
      const other = models.get(source);
      if (!other || model.limits.memoryPercent < other.limits.memoryPercent) models.set(source, model);
    }
    if (models.size === 0)
      throw new EngineError("no model is open whose optimisations could be switched; load one first");
    const impacts: OptimizationImpact[] = [];
    for (const [source, model] of models) {
      // What was measured until the signal came is the result.
      if (impacts.length > 0 && options.signal?.aborted) break;
      const impact = await analyzeOptimizationImpact(model, options);
      this.#impacts.set(source, impact);
      impacts.push(impact);
    }
    return impacts;
  }

  async close(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    underWay = undefined;
    this.#unwatch();
    this.#kept = [];
    await Promise.all([this.#cancel(), this.#making]);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #watch(model: WatchedModel): void {
    model.start(this.#options);
    this.#watched.add(model);
  }

  /** Ends all recordings at once, also if one of them fails to. */
  #cancel(): Promise<unknown> {
    const cancelled = [...this.#watched].map(async (model) => model.cancel());
    this.#watched.clear();
    return Promise.all(cancelled);
  }

  #checkOpen(): void {
    if (!this.#open) throw new EngineError("the analysis is closed; create another");
  }
}

/**
 * A path for each model, with its name between stem and ending; one that cannot have its own has a number behind it: there may be
 * several of a name, and with `trace` before it an ending names another format. Long names are cut.
 */
function pathsOf(stem: string, models: readonly string[], ending: string): string[] {
  const taken = new Set<string>();
  const room = NAME_BYTES_MAX - Buffer.byteLength(`${basename(stem)}.${ending}`);
  return models.map((model) => {
    for (let copy = 1; ; copy++) {
      const number = copy === 1 ? "" : `-${copy}`;
      const path = `${stem}.${cut(model, room - number.length)}${number}${ending}`;
      // Some file systems do not tell case, or ways to write an accent.
      const key = path.normalize("NFC").toLowerCase();
      if (taken.has(key) || reportEnding(path)?.length !== ending.length) continue;
      taken.add(key);
      return path;
    }
  });
}

/** As many of its first characters as have so many bytes. */
function cut(name: string, bytesMax: number): string {
  let bytes = 0;
  let kept = "";
  for (const character of name) {
    bytes += Buffer.byteLength(character);
    if (bytes > bytesMax) break;
    kept += character;
  }
  return kept;
}
