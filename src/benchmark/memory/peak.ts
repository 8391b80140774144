// The process's resident memory at its highest since some moment. Linux keeps it, and lets a process begin anew; elsewhere it is
// looked at every few milliseconds, and a short peak may be missed.

import { readFileSync, writeFileSync } from "node:fs";

/** What can be asked again and again. */
export interface ResidentPeak {
  /** Whether the system keeps it: nothing is missed. */
  readonly exact: boolean;
  /** Begins anew. */
  reset(): void;
  /** Bytes; since the last reset. */
  read(): number;
  close(): void;
}

const lookMs = 5;

export function openPeak(): ResidentPeak {
  return isKept() ? kept : looked();
}

const kept: ResidentPeak = {
  exact: true,
  // 5 sets the highest back to what is resident now, and touches nothing else.
  reset: () => writeFileSync("/proc/self/clear_refs", "5"),
  read: () => highest() ?? process.memoryUsage.rss(),
  close: () => {},
};

function isKept(): boolean {
  try {
    kept.reset();
    return highest() !== undefined;
  } catch {
    return false;
  }
}

function highest(): number | undefined {
  const line = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync("/proc/self/status", "utf8"));
  return line ? Number(line[1]) * 1024 : undefined;
}

function looked(): ResidentPeak {
  let peak = 0;
  const look = () => {
    peak = Math.max(peak, process.memoryUsage.rss());
    return peak;
  };
  const timer = setInterval(look, lookMs);
  timer.unref();
  return {
    exact: false,
    reset: () => {
      peak = 0;
    },
    read: look,
    close: () => clearInterval(timer),
  };
}
