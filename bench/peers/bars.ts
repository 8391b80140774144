// What TinyAI sets out to reach beside its peers, and whether a result does. It measures nothing.

import { geometricMean } from "../../src/benchmark/ratio.ts";
import { prefixBar } from "../prefix-reuse.ts";
import type { Result } from "./results.ts";

/** A figure and the least, or the most, that it should be. */
export interface Bar {
  readonly what: string;
  readonly value: number;
  readonly sense: "at least" | "at most";
  readonly target: number;
  readonly unit: string;
}

/** The model whose start and memory have bars of their own. */
const small = "gemma3-270m";
/** Below that many bytes a model may lie in the caches, and the memory's bandwidth says little of it. */
const bandwidthFileBytes = 80e6;

/** The bars that one model is held to. */
export function barsOf(result: Result): Bar[] {
  const bars: Bar[] = [];
  const hold = (what: string, value: number | undefined, sense: Bar["sense"], target: number, unit = "") => {
    if (value !== undefined) bars.push({ what, value, sense, target, unit });
  };
  const row = (key: string, peer = "llama.cpp") =>
    result.rows.find(({ key: found, peerName }) => found === key && peerName === peer);
  const over = (key: string, peer?: string) => row(key, peer)?.ratio.ratio;
  if (result.file_bytes > bandwidthFileBytes) {
    for (const [key, { median }] of Object.entries(result.reached_of_bandwidth)) {
      hold(`${row(key)?.label ?? key}, of the bandwidth`, median, "at least", 0.85);
    }
  }
  hold("generation at depth 0 ÷ llama.cpp", over("depth_0"), "at least", 0.97);
  hold("prompt ÷ llama.cpp", over("prompt_512"), "at least", result.level.includes("amx") ? 4 : 2);
  hold("16 sequences ÷ llama.cpp", over("batch_16"), "at least", 2.5);
  hold("generation ÷ node-llama-cpp", over("depth_0", "node-llama-cpp"), "at least", 1.7);
  hold("first token behind 1,000 tokens ÷ without them", over("prefix", "no prefix"), "at most", prefixBar);
  if (result.model === small) {
    hold("start to first token", row("first_token")?.tinyai.median, "at most", 0.2, "s");
    hold("start to first token ÷ llama.cpp", over("first_token"), "at most", 1 / 8);
    const memory = row("peak_memory")?.tinyai.median;
    const ofFile = memory === undefined ? undefined : (memory * 1e6) / result.file_bytes;
    hold("peak memory ÷ file", ofFile, "at most", 1.25);
    hold("peak memory ÷ llama.cpp", over("peak_memory"), "at most", 0.6);
  }
  return bars;
}

/** The bars that the geometric means over the models are held to. */
export function barsOfAll(results: readonly Result[]): Bar[] {
  const targets = [
    ["depth_0", "generation at depth 0 ÷ llama.cpp, geometric mean", 1.25],
    ["depth_4096", "generation at depth 4096 ÷ llama.cpp, geometric mean", 2],
  ] as const;
  return targets.flatMap(([key, what, target]) => {
    const rows = results.flatMap(({ rows }) => rows).filter((row) => row.key === key && row.peerName === "llama.cpp");
    if (rows.length === 0) return [];
    return [{ what, value: geometricMean(rows.map(({ ratio }) => ratio.ratio)), sense: "at least", target, unit: "" }];
  });
}

/** Whether a bar is reached. */
export function isReached({ value, sense, target }: Bar): boolean {
  return sense === "at least" ? value >= target : value <= target;
}

/** "reached", or "missed by 12 %" of the target. */
export function verdictOf(bar: Bar): string {
  if (isReached(bar)) return "reached";
  const percent = (Math.abs(bar.target - bar.value) / bar.target) * 100;
  return `missed by ${percent < 1 ? "under 1" : percent.toFixed(0)} %`;
}

/** "1.31, at least 1.25: reached". */
export function showBar(bar: Bar): string {
  return `${amount(bar, bar.value)}, ${demand(bar)}: ${verdictOf(bar)}`;
}

/** "at least 1.25". */
export function demand(bar: Bar): string {
  return `${bar.sense} ${amount(bar, bar.target)}`;
}

/** "0.165 s". */
export function amount({ unit }: Bar, number: number): string {
  return `${Number(number.toFixed(3))}${unit && ` ${unit}`}`;
}
