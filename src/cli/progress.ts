// Shows on stderr how far a long part is: one line that redraws itself on a terminal, a plain line now and then elsewhere; with the time
// that is left, where it is known how much there is.
// It knows nothing of what is being done, and never writes to stdout, which belongs to results.

import { writeSync } from "node:fs";
import { formatBytes } from "../text-table.ts";

/** How a part's position is shown: as bytes, or only as the time it has taken. */
export type ProgressUnit = "bytes" | "seconds";

/** One long part being shown. Every method may be called after `done` or `failed`; then it does nothing. */
export interface Progress {
  /** The position so far, in the part's unit, or of `seconds` in any. `doing` says what is being done of the part from now on. */
  update(position: number, doing?: string): void;
  /** Ends the part with its time, and a remark if there is one. */
  done(remark?: string): void;
  /** Ends the part as failed; the error itself is told by whoever catches it. */
  failed(): void;
}

/** What a part is and how it is counted. */
export interface ProgressOptions {
  /** Says what is done, such as `model gemma3-270m`. */
  readonly label: string;
  readonly unit: ProgressUnit;
  /** Where `update` ends. Unknown: neither a percentage nor the time left is shown. */
  readonly total?: number;
  /** Where `update` begins: a download that resumes counts its speed from here. Default 0. */
  readonly start?: number;
  /** When the part began, by `performance.now()`, if it is shown only because it takes long. Default now. */
  readonly began_ms?: number;
}

const redrawPeriod_ms = 100;
const quiet_ms = 500;
const linePeriod_ms = 10_000;
const barWidth = 24;

/** The part that is done from which on the time left is told. */
const leftFrom = 0.05;

/** Starts showing a part. A part that ends before the first redraw leaves only its last line. */
export function startProgress(options: ProgressOptions): Progress {
  const { label, unit, total, start = 0 } = options;
  const terminal = process.stderr.isTTY === true;
  const started_ms = options.began_ms ?? performance.now();
  let position = start;
  let doing = "";
  let shown = false;
  let ended = false;
  if (!terminal) write(`${label} ...\n`);

  const timer = setInterval(show, terminal ? redrawPeriod_ms : linePeriod_ms);
  timer.unref();

  function elapsed_s(): number {
    return (performance.now() - started_ms) / 1_000;
  }

  function figures(): string {
    if (unit === "seconds") return [formatSeconds(elapsed_s()), ...left(), ...(doing ? [doing] : [])].join(", ");
    const speed = (position - start) / Math.max(elapsed_s(), 1e-3);
    const amount = total === undefined ? formatBytes(position) : `${formatBytes(position)} of ${formatBytes(total)}`;
    return [amount, `${formatBytes(speed)}/s`, ...left()].join(", ");
  }

  /** As long as what is left takes if it goes on as it did. */
  function left(): string[] {
    // Of the first steps nothing can be told: they prepare, or warm up.
    if (total === undefined || position - start < leftFrom * (total - start)) return [];
    const seconds = remainingSeconds(elapsed_s(), position - start, total - start);
    return seconds === undefined ? [] : [`${formatSeconds(seconds)} left`];
  }

  function show(): void {
    if (!terminal) {
      const share = total === undefined ? "" : ` ${Math.floor((100 * position) / total)} %,`;
      write(`${label}:${share} ${figures()}\n`);
      return;
    }
    shown = true;
    const bar = total === undefined ? "" : ` ${drawBar(position / total)}`;
    const line = `${label}${bar} ${figures()}`;
    write(`\r\x1b[K${line.slice(0, Math.max(20, (process.stderr.columns ?? 80) - 1))}`);
  }

  function end(text: string): void {
    if (ended) return;
    ended = true;
    clearInterval(timer);
    write(`${shown ? "\r\x1b[K" : ""}${text}\n`);
  }

  return {
    update(next, now) {
      position = next;
      if (now !== undefined) doing = now;
    },
    done(remark) {
      const amount = unit === "bytes" ? `${formatBytes(position)} in ` : "";
      end(`${label}: ${amount}${formatSeconds(elapsed_s())}${remark === undefined ? "" : `, ${remark}`}`);
    },
    failed() {
      end(`${label}: failed after ${formatSeconds(elapsed_s())}`);
    },
  };
}

/** Like `startProgress`, but shows nothing before the first update or half a second: what is refused at once has a line of its own. */
export function awaitProgress(options: ProgressOptions): Progress {
  const began_ms = performance.now();
  let progress: Progress | undefined;
  const begun = (): Progress => {
    clearTimeout(timer);
    progress ??= startProgress({ began_ms, ...options });
    return progress;
  };
  const timer = setTimeout(begun, quiet_ms);
  timer.unref();
  return {
    update: (position, doing) => begun().update(position, doing),
    done: (remark) => begun().done(remark),
    failed() {
      clearTimeout(timer);
      progress?.failed();
    },
  };
}

/**
 * How long the rest takes if it goes on as what is done of the whole; undefined as long as little is done of it, or it took no time.
 * @param elapsed in seconds, for what is done.
 */
export function remainingSeconds(elapsed: number, done: number, whole: number): number | undefined {
  if (elapsed < 1 || done < 0.01 * whole) return undefined;
  return Math.max(0, (elapsed * (whole - done)) / done);
}

function drawBar(share: number): string {
  const filled = Math.round(Math.min(1, Math.max(0, share)) * barWidth);
  return `[${"#".repeat(filled)}${"-".repeat(barWidth - filled)}] ${Math.floor(Math.min(1, share) * 100)} %`;
}

function formatSeconds(seconds: number): string {
  return seconds < 10 ? `${seconds.toFixed(1)} s` : `${Math.round(seconds)} s`;
}

// Progress is a courtesy: a closed or full stderr must not end the work.
function write(text: string): void {
  try {
    writeSync(2, text);
  } catch {}
}
