// How reports word their figures: durations, bytes, counts and shares, and how text is cut, padded and wrapped for a given
// width. It knows nothing of what is reported.

/** A unit of time and the decimals that suit it in a column. */
export interface Unit {
  readonly name: string;
  readonly ns: number;
  readonly decimals: number;
}

export const MICROSECONDS: Unit = { name: "µs", ns: 1e3, decimals: 1 };
export const MILLISECONDS: Unit = { name: "ms", ns: 1e6, decimals: 2 };
export const SECONDS: Unit = { name: "s", ns: 1e9, decimals: 3 };

/** A single duration in running text, to three or four digits. */
export function duration(ns: number): string {
  if (ns < 1e3) return `${ns} ns`;
  const unit = ns < 1e6 ? MICROSECONDS : ns < 1e9 ? MILLISECONDS : SECONDS;
  return `${grouped(ns / unit.ns, unit === SECONDS ? 2 : 1)} ${unit.name}`;
}

export function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}

export function grouped(value: number, decimals: number): string {
  const [whole = "", fraction] = value.toFixed(decimals).split(".");
  const separated = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  return fraction === undefined ? separated : `${separated}.${fraction}`;
}

export function count(amount: number, noun: string): string {
  return `${grouped(amount, 0)} ${noun}${amount === 1 ? "" : "s"}`;
}

export function columnsOf(text: string): number {
  return Bun.stringWidth(text);
}

export function pad(text: string, size: number): string {
  return " ".repeat(Math.max(0, size - columnsOf(text))) + text;
}

/** The text in exactly `size` columns, its end replaced by an ellipsis when it does not fit. */
export function cut(text: string, size: number): string {
  if (columnsOf(text) <= size) return text + " ".repeat(size - columnsOf(text));
  let kept = "";
  for (const character of text) {
    if (columnsOf(kept + character) > size - 1) break;
    kept += character;
  }
  return `${kept}…`;
}

export function wrap(text: string, width: number): string[] {
  const wrapped: string[] = [];
  let line = "";
  for (const piece of text.split(" ")) {
    if (line !== "" && columnsOf(line) + 1 + columnsOf(piece) > width) {
      wrapped.push(line);
      line = piece;
    } else {
      line = line === "" ? piece : `${line} ${piece}`;
    }
  }
  return [...wrapped, line];
}

export function emphasise(text: string, code: string, color: boolean): string {
  return color ? `\u001b[${code}m${text}\u001b[0m` : text;
}

export function lines(text: readonly string[]): string {
  return `${text.join("\n")}\n`;
}

/** Bytes in running text, in decimal units. */
export function bytes(amount: number): string {
  return scaled(amount, ["B", "KB", "MB", "GB", "TB", "PB"]);
}

/** A large count in running text: `1.23 M`. */
export function amount(value: number): string {
  return scaled(value, ["", "k", "M", "G", "T", "P"]).trimEnd();
}

function scaled(value: number, units: readonly string[]): string {
  let size = value;
  let power = 0;
  while (Math.abs(size) >= 1000 && power + 1 < units.length) {
    size /= 1000;
    power++;
  }
  const decimals = power === 0 && Number.isInteger(size) ? 0 : size < 10 ? 2 : size < 100 ? 1 : 0;
  return `${grouped(size, decimals)} ${units[power] ?? ""}`;
}

/** A bar of `share` of `size` columns, to an eighth of a column; something above 0 always shows. */
export function bar(share: number, size: number): string {
  const part = Math.min(1, Math.max(0, Number.isFinite(share) ? share : 0));
  const eighths = part > 0 ? Math.max(1, Math.round(part * size * 8)) : 0;
  const rest = eighths % 8;
  return "█".repeat((eighths - rest) / 8) + (rest === 0 ? "" : (" ▏▎▍▌▋▊▉"[rest] ?? ""));
}

/** Text from outside, such as a file's name, fit for one line of a terminal: control characters become visible. */
export function plain(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not reach a terminal.
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, "�");
}

/** The same of text of several lines. */
export function plainLines(text: string): string {
  return text.split("\n").map(plain).join("\n");
}
