// Shows on stderr how far a long part is: one line that redraws itself on a terminal, a plain line now and then elsewhere.
// It knows nothing of what is being done, and never writes to stdout, which belongs to results.

import { writeSync } from "node:fs";

/** How a part's position is shown: as bytes, or only as the time it has taken. */
export type ProgressUnit = "bytes" | "seconds";

/** One long part being shown. Every method may be called after `done` or `failed`; then it does nothing. */
export interface Progress {
  /** The position so far, in the part's unit; ignored for `seconds`, which counts by itself. */
  update(position: number): void;
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
  /** Where `update` ends, in the part's unit. Unknown: no percentage is shown. */
  readonly total?: number;
  /** Where `update` begins: a download that resumes counts its speed from here. Default 0. */
  readonly start?: number;
  /** When the part began, by `performance.now()`, if it is shown only because it takes long. Default now. */
  readonly began_ms?: number;
}

const redrawPeriod_ms = 100;
const linePeriod_ms = 10_000;
const barWidth = 24;

/** Starts showing a part. A part that ends before the first redraw leaves only its last line. */
export function startProgress(options: ProgressOptions): Progress {
  const { label, unit, total, start = 0 } = options;
  const terminal = process.stderr.isTTY === true;
  const started_ms = options.began_ms ?? performance.now();
  let position = start;
  let shown = false;
  let ended = false;
  if (!terminal) write(`${label} ...\n`);

  const timer = setInterval(show, terminal ? redrawPeriod_ms : linePeriod_ms);
  timer.unref();

  function elapsed_s(): number {
    return (performance.now() - started_ms) / 1_000;
  }

  function figures(): string {
    if (unit === "seconds") return formatSeconds(elapsed_s());
    const speed = (position - start) / Math.max(elapsed_s(), 1e-3);
    const amount = total === undefined ? formatBytes(position) : `${formatBytes(position)} of ${formatBytes(total)}`;
    return `${amount}, ${formatBytes(speed)}/s`;
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
    update(next) {
      position = next;
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

function drawBar(share: number): string {
  const filled = Math.round(Math.min(1, Math.max(0, share)) * barWidth);
  return `[${"#".repeat(filled)}${"-".repeat(barWidth - filled)}] ${Math.floor(Math.min(1, share) * 100)} %`;
}

/** Bytes in decimal units, three digits: `253 MB`. */
export function formatBytes(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1_000;
    unit += 1;
  }
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toPrecision(2)} ${units[unit]}`;
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
