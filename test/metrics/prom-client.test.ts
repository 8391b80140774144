// A model's metrics in prom-client's registry: what its text says, read back, is what the monitor's own text says.

import { afterAll, describe, expect, test } from "bun:test";
import { Counter, Registry } from "prom-client";
import { type GenerateOptions, loadModel } from "../../src/index.ts";
import { prometheusText, registerMetrics } from "../../src/metrics/index.ts";
import { temporaryFolder } from "../support/folder.ts";
import { madeUpReport } from "../support/report.ts";
import { writeTinyModel } from "../support/tiny-model.ts";
import { readExposition } from "./exposition.ts";

const folder = temporaryFolder();
const path = folder.file('a "tiny" model.gguf');
writeTinyModel(path);
const model = await loadModel(path, { threads: { count: 2 }, prepared: false });
afterAll(() => model.close());
const options: GenerateOptions = { maxLength: 20, ignoreEos: true, seed: 3 };

/** Samples of a text as lines with sorted labels, without what the process holds, which changes. */
function told(text: string): string[] {
  const samples = [...readExposition(text, false).values()].flatMap((family) => family.samples);
  return samples
    .filter(({ name }) => !name.endsWith("_memory_bytes"))
    .map(({ name, labels, value }) => JSON.stringify([name, Object.entries(labels).sort(), value]))
    .sort();
}

describe("a registry", () => {
  test("has a model's metrics beside its own, as they are at each collection", async () => {
    using monitor = model.monitor();
    const registry = new Registry();
    new Counter({ name: "own_total", help: "Of somebody else.", registers: [registry] }).inc(2);
    registerMetrics(registry, monitor);
    const empty = await registry.metrics();
    expect(empty).toContain("own_total 2");
    expect(empty).toContain("tinyai_requests_total{");
    for (let round = 1; round <= 2; round++) {
      await model.generate("hello", options);
      await Bun.sleep(120);
      const text = await registry.metrics();
      const without = text.split("\n\n").filter((part) => part.includes("\ntinyai_"));
      expect(told(`${without.join("\n").trimEnd()}\n`)).toEqual(told(prometheusText(monitor)));
      const requests = /tinyai_requests_total\{model="a \\"tiny\\" model.gguf"\} (\d+)/.exec(text)?.[1];
      expect(requests).toBe(String(round));
    }
    const json = await registry.getMetricsAsJSON();
    expect(json.find(({ name }) => name === "tinyai_steps_total")).toMatchObject({ type: "counter" });
    registry.resetMetrics();
    expect(await registry.getSingleMetricAsString("tinyai_requests_total")).toContain("} 2");
  });

  test("names counters as OpenMetrics wants them where it speaks that", async () => {
    const registry = new Registry();
    registry.setContentType(Registry.OPENMETRICS_CONTENT_TYPE as never);
    registerMetrics(registry, madeUpReport().report);
    const text = await registry.metrics();
    expect(text).toContain("# TYPE tinyai_requests counter");
    expect(text).toContain('tinyai_requests_total{model="made-up-270m.gguf"} 2');
    expect(text.endsWith("# EOF\n")).toBe(true);
    expect(await registry.metrics()).toBe(text);
  });

  test("refuses the same names twice, and has none any more when that is ended", async () => {
    const registry = new Registry();
    const end = registerMetrics(registry, madeUpReport().report);
    expect(() => registerMetrics(registry, madeUpReport().report)).toThrow("already been registered");
    end();
    expect((await registry.metrics()).trim()).toBe("");
    registerMetrics(registry, [madeUpReport().report]);
    expect(await registry.metrics()).toContain("tinyai_step_duration_seconds_bucket{");
  });
});
