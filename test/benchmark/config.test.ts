// Configurations of benchmarks: files, their schema and examples, and the settings that come of them and of flags.

import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Ajv2020 } from "ajv/dist/2020.js";
import published from "tinyai/benchmark-config.schema.json";
import {
  type BenchmarkConfig,
  configJsonSchema,
  parseBenchmarkConfig,
  readBenchmarkConfig,
  resolveSettings,
} from "../../src/benchmark/config.ts";
import type { Settings } from "../../src/benchmark/results.ts";
import { BenchmarkFileError, OptionError } from "../../src/errors.ts";
import { temporaryFolder } from "../support/folder.ts";

const folder = temporaryFolder();
const examples = ["benchmark_config.json", "comparison_config.json"].map((name) =>
  join(import.meta.dir, "../../docs/examples", name),
);
const keys = Object.keys(published.properties);

describe("a configuration's file", () => {
  test("may have comments, commas at ends and a byte-order mark", async () => {
    const text = '\uFEFF// how often\n{ "iterations": 10, /* both */ "batch_sizes": [1, 8,], } // done';
    expect(await readBenchmarkConfig(folder.write("commented.json", text))).toEqual({
      iterations: 10,
      batch_sizes: [1, 8],
    });
  });

  test("is refused with its name and the key, and with the keys there are where one is unknown", async () => {
    const cases: readonly (readonly [text: string, problem: string])[] = [
      ['{ "iteration": 10 }', `there is no key "iteration"; there are ${keys.join(", ")}`],
      ['{ "iterations": 0 }', "iterations is 0; at least 1 is expected"],
      ['{ "iterations": -5 }', "iterations is -5; at least 1 is expected"],
      ['{ "iterations": "10" }', 'iterations is "10"; a number is expected'],
      ['{ "batch_sizes": 8 }', "batch_sizes is 8; an array is expected"],
      ['{ "batch_sizes": [8, 8] }', "batch_sizes is [8,8]; each batch size once is expected"],
      ['{ "batch_sizes": [] }', "batch_sizes is []; a number of items of at least 1 is expected"],
      ['{ "metrics": ["speed"] }', 'metrics[0] is "speed"; there are latency, throughput, memory_usage, memory'],
      ['{ "quantize": "Q4" }', 'quantize is "Q4"; there are F32, '],
      ['{ "time_s": 0 }', "time_s is 0; more than 0 is expected"],
      ['{ "confidence_level": 1 }', "confidence_level is 1; at most 0.999 is expected"],
      ["[]", "is []; an object is expected"],
      ["", "is empty"],
      ["// nothing", "is cut short or damaged"],
      ['{ "iterations": 10', "is cut short or damaged"],
      ['{ "iterations": 10 } { "iterations": 20 }', "is no JSON"],
      ["iterations: 10", "is no JSON"],
    ];
    for (const [text, problem] of cases) {
      const path = folder.write("wrong.json", text);
      const error = await readBenchmarkConfig(path).catch((cause: unknown) => cause);
      expect(error).toBeInstanceOf(BenchmarkFileError);
      expect((error as BenchmarkFileError).message).toStartWith(`${path}: ${problem}`);
      expect((error as BenchmarkFileError).message).not.toContain("\n");
    }
  });

  test("that is no JSON is refused with the line and the column, and one without end as such", async () => {
    const refused = (text: string) => readBenchmarkConfig(folder.write("broken.json", text));
    await expect(refused('{ // how often\n  "iterations": 5 "seed": 1 }')).rejects.toThrow(" (line 2, column 19)");
    await expect(refused('{"iterations": 5} more')).rejects.toThrow("(line 1, column 19)");
    await expect(refused(`${"[".repeat(2e5)}${"]".repeat(2e5)}`)).rejects.toThrow("broken.json: is nested too deeply");
  });

  test("with any value in any key is taken or refused as the published schema says", () => {
    const validate = new Ajv2020().compile(published);
    const values = [null, -1, 0, 0.5, 1, 3, 100, 1e9, "", "Q4_0", "avx2", true, [], [1], [1, 1], ["memory"], [99], {}];
    const disagreed: string[] = [];
    for (const key of [...keys, "another"]) {
      for (const value of values) {
        const config = { [key]: value };
        let isTaken = true;
        try {
          parseBenchmarkConfig(config, "some.json");
        } catch {
          isTaken = false;
        }
        // That no size stands twice is more than the schema says.
        const isTwice = Array.isArray(value) && value.length === 2;
        if (isTaken !== validate(config) && !isTwice) disagreed.push(`${key}: ${JSON.stringify(value)}`);
      }
    }
    expect(disagreed).toEqual([]);
  });

  test("has a published schema that is the one it is checked with, and says of every key what it is", () => {
    expect(published as object).toEqual(configJsonSchema());
    for (const [key, field] of Object.entries(published.properties)) {
      expect(`${key}: ${field.description}`).toMatch(/^\w+: .{20,}\.$/);
    }
  });

  for (const path of examples) {
    test(`has an example that opens and comments on every key: ${path.split("/").at(-1)}`, async () => {
      const config = await readBenchmarkConfig(path);
      expect(resolveSettings("inference", config)).toMatchObject({ seed: 1, prompt_tokens: 32 });
      const lines = readFileSync(path, "utf8").split("\n");
      for (const key of Object.keys(config)) {
        const at = lines.findIndex((line) => line.startsWith(`  "${key}":`));
        expect(lines[at - 1]).toStartWith("  // ");
      }
    });
  }

  test("has examples that name every key between them, with the defaults where they are said to be", async () => {
    const [whole = {}, comparison = {}] = await Promise.all(examples.map(readBenchmarkConfig));
    const named = new Set([...Object.keys(whole), ...Object.keys(comparison)]);
    expect(keys.filter((key) => !named.has(key))).toEqual(["disk_folder"]);
    expect(readFileSync(examples[0] ?? "", "utf8")).toContain('// "disk_folder": ');
    const { batch_sizes: _sizes, ...others } = resolveSettings("inference", whole);
    const { batch_sizes: _defaults, ...defaults } = resolveSettings("inference");
    expect(others).toEqual(defaults);
  });
});

describe("settings", () => {
  const defaults: Settings = {
    iterations: null,
    time_s: 60,
    precision: 0.02,
    warmup: null,
    loadings: null,
    batch_sizes: [1],
    metrics: ["latency", "throughput", "memory_usage"],
    prompt_tokens: 32,
    generated_tokens: 16,
    threads: null,
    simd: null,
    seed: 1,
  };

  test("have a time where nothing else would end them", () => {
    expect(resolveSettings("inference", { time_s: null, precision: 0 }).time_s).toBe(60);
    expect(resolveSettings("inference", { time_s: null, precision: 0, iterations: 5 }).time_s).toBeNull();
    expect(resolveSettings("inference", { time_s: null }).time_s).toBeNull();
  });

  test("are the defaults where nothing is said, and what flags say comes before what a configuration says", () => {
    expect(resolveSettings("inference")).toEqual(defaults);
    expect(resolveSettings("system").time_s).toBe(40);
    const config = { iterations: 10, seed: 3, metrics: ["memory" as const] };
    expect(
      resolveSettings("inference", config, { iterations: 20, threads: undefined } as object as Partial<Settings>),
    ).toEqual({
      ...defaults,
      iterations: 20,
      time_s: null,
      seed: 3,
      metrics: ["memory_usage"],
    });
  });

  test("end by what was asked for: a number, a time, a precision, or the first of two of them", () => {
    const ending = (flags: Partial<Settings>) => {
      const { iterations, time_s, precision } = resolveSettings("inference", {}, flags);
      return [iterations, time_s, precision];
    };
    expect(ending({ iterations: 5 })).toEqual([5, null, 0.02]);
    expect(ending({ time_s: 7 })).toEqual([null, 7, 0]);
    expect(ending({ precision: 0.01 })).toEqual([null, 60, 0.01]);
    expect(ending({ iterations: 5, time_s: 7 })).toEqual([5, 7, 0.02]);
    expect(ending({ precision: 0.01, time_s: 7 })).toEqual([null, 7, 0.01]);
    expect(() => ending({ iterations: 5, precision: 0.01 })).toThrow("--precision: does nothing beside --iterations");
  });

  test("out of bounds are refused with the flag's name, or the configuration's key", () => {
    const refused = (flags: Partial<Settings>) => {
      try {
        resolveSettings("inference", {}, flags);
      } catch (error) {
        return error instanceof OptionError ? error.message : `no such error: ${error}`;
      }
      return "taken";
    };
    expect(refused({ iterations: 0 })).toBe("--iterations: is 0; at least 1 is expected");
    expect(refused({ iterations: -1 })).toBe("--iterations: is -1; at least 1 is expected");
    expect(refused({ iterations: 2.5 })).toBe("--iterations: is 2.5; a whole number is expected");
    expect(refused({ iterations: 1e6 + 1 })).toBe("--iterations: is 1000001; at most 1000000 is expected");
    expect(refused({ time_s: 0 })).toBe("--time: is 0; more than 0 is expected");
    expect(refused({ time_s: Number.NaN })).toBe("--time: is NaN; a number is expected");
    expect(refused({ precision: 0.6 })).toBe("--precision: is 0.6; at most 0.5 is expected");
    expect(refused({ warmup: -1 })).toBe("--warmup: is -1; at least 0 is expected");
    expect(refused({ batch_sizes: [0] })).toBe("--batch-size: is 0; at least 1 is expected");
    expect(refused({ batch_sizes: [1, 65] })).toBe("--batch-size: is 65; at most 64 is expected");
    expect(refused({ batch_sizes: [4, 1, 4] })).toBe("--batch-size: is [4,1,4]; each batch size once is expected");
    expect(refused({ prompt_tokens: 0 })).toBe("--prompt-tokens: is 0; at least 1 is expected");
    expect(refused({ generated_tokens: -1 })).toBe("--generated-tokens: is -1; at least 0 is expected");
    expect(refused({ threads: 0 })).toBe("--threads: is 0; at least 1 is expected");
    expect(refused({ seed: 2 ** 32 })).toBe("--seed: is 4294967296; at most 4294967295 is expected");
    expect(() => resolveSettings("inference", { seed: -1 })).toThrow("seed: is -1; at least 0 is expected");
  });

  test("of models are refused beside type system as flags, and passed over in a configuration", () => {
    const given: Partial<Settings> = {
      batch_sizes: [2],
      warmup: 1,
      prompt_tokens: 8,
      generated_tokens: 8,
      metrics: ["latency"],
      precision: 0.1,
    };
    for (const [field, value] of Object.entries(given)) {
      const flag = field === "batch_sizes" ? "--batch-size" : `--${field.replace("_", "-")}`;
      const flags = { [field]: value } as object as Partial<Settings>;
      expect(() => resolveSettings("system", {}, flags)).toThrow(`${flag}: does nothing of type system`);
      expect(() => resolveSettings("system", flags as BenchmarkConfig)).not.toThrow();
      expect(() => resolveSettings("inference", {}, flags)).not.toThrow();
    }
    expect(resolveSettings("system", {}, { iterations: 6, threads: 1, simd: "scalar", seed: 2 }).seed).toBe(2);
  });

  test("of a model that only embeds generate nothing, whatever a configuration says, and no flag may ask for it", () => {
    expect(resolveSettings("inference", {}, {}, true).generated_tokens).toBe(0);
    expect(resolveSettings("inference", { generated_tokens: 4 }, {}, true).generated_tokens).toBe(0);
    expect(() => resolveSettings("inference", {}, { generated_tokens: 4 }, true)).toThrow(
      "--generated-tokens: is 4, but the model only embeds; leave it out",
    );
  });
});
