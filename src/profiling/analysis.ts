// Watches all models of the process: each is profiled from when it is opened, or the last report was made, until the next report or
// its closing. It records nothing itself (recording.ts does) and writes what profiled runs write.

import type { SystemSample } from "../../profiler/report.ts";
import { SystemWatch } from "../../profiler/system.ts";
import type { PerformanceAnalysis } from "../analysis.ts";
import { EngineError } from "../errors.ts";
import type { Model } from "../load.ts";
import { watchModels } from "../watched.ts";
import { checkReportPath } from "./file.ts";
import type { ProfiledRun, ProfileOptions } from "./index.ts";
import { recordings } from "./recording.ts";

/** Models are recorded once at a time. */
let underWay: Analysis | undefined;

/** Whether it is an analysis that records this process's models. */
export function isAnalysing(): boolean {
  return underWay !== undefined;
}

export class Analysis implements PerformanceAnalysis {
  readonly #options: ProfileOptions;
  readonly #watched = new Set<Model>();
  /** Of models that were closed since the last report. */
  #closed: ProfiledRun[] = [];
  readonly #system = new SystemWatch({ nativeBytes: () => 0, every: () => () => {} });
  readonly #unwatch: () => void;
  #open = true;

  /** @throws {EngineError} if a model is being profiled, or there is another analysis. */
  constructor(options: ProfileOptions) {
    if (underWay) throw new EngineError("there is an analysis already; close it first");
    this.#options = options;
    try {
      this.#unwatch = watchModels({
        opened: (model) => this.#watch(model),
        closing: async (model) => {
          if (!this.#watched.delete(model)) return;
          const run = await model.finishProfiling();
          if (this.#open) this.#closed.push(run);
        },
      });
    } catch (error) {
      this.#cancel();
      throw error;
    }
    underWay = this;
  }

  takeSample(): SystemSample {
    this.#checkOpen();
    const samples = [...recordings].map((recording) => recording.sample());
    return samples[0] ?? this.#system.sample();
  }

  async generateReport(path: string): Promise<readonly string[]> {
    this.#checkOpen();
    const { length } = checkReportPath(path);
    const ending = path.slice(-length);
    const ended = [...this.#watched].map((model) => {
      const run = model.finishProfiling();
      // What it does from now on is in the next report.
      model.startProfiling(this.#options);
      return run;
    });
    const closed = this.#closed;
    this.#closed = [];
    const runs = [...closed, ...(await Promise.all(ended))];
    if (runs.length === 0) throw new EngineError("no model was open while it was watched; load one before the report");
    const working = runs.filter((run) => run.steps.count > 0);
    const reported = working.length > 0 ? working : runs.slice(-1);
    const names = reported.map(({ run }) => run.model.replace(/\.[^.]+$/, ""));
    const stem = path.slice(0, -length);
    const paths: string[] = [];
    for (const [index, run] of reported.entries()) {
      const name = names[index] ?? "";
      // A model that was loaded twice has two files.
      const copy = names.slice(0, index).filter((other) => other === name).length;
      const own = copy === 0 ? `${stem}.${name}${ending}` : `${stem}.${name}-${copy + 1}${ending}`;
      const to = reported.length === 1 ? path : own;
      await run.write(to);
      paths.push(to);
    }
    return paths;
  }

  close(): Promise<void> {
    if (this.#open) {
      this.#open = false;
      underWay = undefined;
      this.#unwatch();
      this.#cancel();
    }
    return Promise.resolve();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #watch(model: Model): void {
    model.startProfiling(this.#options);
    this.#watched.add(model);
  }

  #cancel(): void {
    for (const model of this.#watched) model.cancelProfiling();
    this.#watched.clear();
  }

  #checkOpen(): void {
    if (!this.#open) throw new EngineError("the analysis is closed; create another");
  }
}
