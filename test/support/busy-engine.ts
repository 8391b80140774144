// An engine whose rests a monitor does not see, so that it does all its work while the engine works.

import type { Engine } from "../../src/engine/engine.ts";
import type { MonitoredModel } from "../../src/profiling/monitor.ts";

export function neverResting(engine: Engine): MonitoredModel["engine"] {
  return {
    pending: 1,
    work: engine.work,
    get nowNs() {
      return engine.nowNs;
    },
    get eventsLost() {
      return engine.eventsLost;
    },
    get closed() {
      return engine.closed;
    },
    drainEvents: () => engine.drainEvents(),
    watch: (watcher) => engine.watch(watcher),
  };
}
