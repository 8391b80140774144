// Checks of options at the edge: each names the option's path and the range that is allowed. Small on purpose: it is on the
// start-up path of every program.

import { OptionError } from "./errors.ts";

/** A finite number from `minimum` to `maximum`. */
export function checkNumber(option: string, value: unknown, minimum: number, maximum: number): number {
  if (typeof value !== "number" || !Number.isFinite(value) || value < minimum || value > maximum) {
    throw new OptionError(option, `is ${describe(value)}; a number from ${minimum} to ${maximum} is expected`);
  }
  return value;
}

/** A whole number from `minimum` to `maximum`. */
export function checkInteger(option: string, value: unknown, minimum: number, maximum: number): number {
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < minimum || value > maximum) {
    throw new OptionError(option, `is ${describe(value)}; a whole number from ${minimum} to ${maximum} is expected`);
  }
  return value;
}

export function checkBoolean(option: string, value: unknown): boolean {
  if (typeof value !== "boolean") throw new OptionError(option, `is ${describe(value)}; true or false is expected`);
  return value;
}

/** Refuses keys that are not known, which are usually spelled wrong. */
export function checkKeys(option: string, value: unknown, known: readonly string[]): void {
  if (!isRecord(value)) {
    throw new OptionError(option, `is ${describe(value)}; an object is expected`);
  }
  for (const key of Object.keys(value)) {
    if (!known.includes(key)) {
      throw new OptionError(`${option}.${key}`, `is not an option; there are ${known.join(", ")}`);
    }
  }
}

/** A value as it may stand in a message. */
export function describe(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value);
  if (typeof value === "bigint") return `${value}n`;
  if (value === null || value === undefined || typeof value === "number" || typeof value === "boolean")
    return String(value);
  return Array.isArray(value) ? "an array" : `a value of type ${typeof value}`;
}

/** Whether it is an object with fields: no list, and not null. */
export function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
