// What a model and its process use of the machine, in percent of what the process may use.

import { cpuCapacity } from "../engine/cpu.ts";
import type { Engine } from "../engine/engine.ts";
import { usableMemory } from "./limits.ts";

/** Shares of the machine, 0 to 100. */
export interface MachineShare {
  /** Percent of the CPU time of all CPUs that the process may use (`cpu.cores`), over the window. */
  readonly cpuUsage: number;
  /** Percent of the memory that the process may use (the machine's, or less in a control group), now. */
  readonly memoryUsage: number;
}

/** What a model uses: its engine's threads, and its weights, activations, keys and values. */
export interface ResourceUsage extends MachineShare {
  /** The same of the whole process. */
  readonly process: MachineShare;
  /** What `cpuUsage` is over: the time since it was read last, or since the model was loaded, in ms. */
  readonly windowMs: number;
}

/** Reads what is used, over windows from one reading to the next. */
export class ResourceMeter {
  readonly #engine: Engine;
  #last = { atMs: 0, engineNs: 0, processNs: 0 };

  constructor(engine: Engine) {
    this.#engine = engine;
    this.#last = this.#times(engine.usage.cpuNs);
  }

  /** @throws {EngineError} if the model is closed. */
  read(): ResourceUsage {
    const { cpuNs, residentBytes, kvBytes } = this.#engine.usage;
    const before = this.#last;
    const now = this.#times(cpuNs);
    this.#last = now;
    const capacityNs = (now.atMs - before.atMs) * 1e6 * cpuCapacity();
    const share = (part: number, whole: number) => (whole > 0 ? Math.min(100, Math.max(0, (part / whole) * 100)) : 0);
    const memory = usableMemory();
    return {
      cpuUsage: share(now.engineNs - before.engineNs, capacityNs),
      memoryUsage: share(residentBytes + kvBytes, memory),
      process: {
        cpuUsage: share(now.processNs - before.processNs, capacityNs),
        memoryUsage: share(process.memoryUsage.rss(), memory),
      },
      windowMs: now.atMs - before.atMs,
    };
  }

  #times(engineNs: number) {
    const { user, system } = process.cpuUsage();
    return {
      atMs: performance.now(),
      // A thread that is ending may not be counted for a moment.
      engineNs: Math.max(engineNs, this.#last.engineNs),
      processNs: (user + system) * 1000,
    };
  }
}
