// What the guide's commands leave, looked at: the fields of its results, pages in a browser, pictures. It is not a test.

import { expect } from "bun:test";
import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { Browser, browserMissing } from "../support/browser.ts";
import { testOutput } from "../support/output.ts";
import { readPng } from "../support/png.ts";

interface Spread {
  readonly mean: number;
  readonly std: number;
  readonly min: number;
  readonly max: number;
}

/** The fields that the guide's example of a results file has, with figures that can be. */
export function expectGuideFields(file: unknown, model: string): void {
  const { benchmark_info: info, results } = file as {
    readonly benchmark_info: {
      readonly model: string;
      readonly type: string;
      readonly timestamp: string;
      readonly system_info: Readonly<Record<"cpu" | "memory" | "os", string>>;
    };
    readonly results: {
      readonly latency: Spread & { readonly percentiles: Readonly<Record<"50" | "90" | "95" | "99", number>> };
      readonly throughput: Spread;
      readonly memory_usage: Pick<Spread, "mean" | "std"> & { readonly peak: number };
    };
  };
  expect([info.model, info.type]).toEqual([model, "inference"]);
  expect(Math.abs(Date.parse(info.timestamp) - Date.now())).toBeLessThan(600_000);
  for (const said of Object.values(info.system_info)) expect(said).toMatch(/\S/);
  const { latency, throughput, memory_usage: memory } = results;
  for (const { min, mean, max, std } of [latency, throughput]) {
    expect(min).toBeGreaterThan(0);
    expect(mean).toBeGreaterThanOrEqual(min);
    expect(max).toBeGreaterThanOrEqual(mean);
    expect(std).toBeGreaterThanOrEqual(0);
  }
  const percentiles = [50, 90, 95, 99].map((part) => Reflect.get(latency.percentiles, part) as number);
  expect(percentiles.toSorted((a, b) => a - b)).toEqual(percentiles);
  // Bun alone takes more, and no model of the tests takes so much.
  expect(memory.mean).toBeGreaterThan(20);
  expect(memory.peak).toBeGreaterThanOrEqual(memory.mean);
  expect(memory.peak).toBeLessThan(4000);
}

/** Opens a page, and leaves a picture of it. */
export async function lookAtPage(path: string, name: string): Promise<void> {
  if (browserMissing !== undefined) return console.log(`pages: not looked at: ${browserMissing}`);
  await using browser = await Browser.start();
  const page = await browser.open(pathToFileURL(path).href);
  await page.until("document.querySelector('footer') !== null");
  expect(page.errors).toEqual([]);
  writeFileSync(testOutput(`${name}.png`), await page.screenshot({ whole: true }));
}

/** Decodes a picture, and leaves a copy of it. */
export function lookAtPicture(path: string, name: string): void {
  const { width, height } = readPng(readFileSync(path));
  expect(Math.min(width, height)).toBeGreaterThanOrEqual(400);
  copyFileSync(path, testOutput(`${name}.png`));
}
