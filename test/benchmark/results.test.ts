// Files of benchmark results: what opens, what is refused and how, what is written, and that the types, the schema in code and the
// published one say the same.

import { describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { Ajv2020 } from "ajv/dist/2020.js";
import published from "tinyai/results.schema.json";
import type { z } from "zod";
import { resolveSettings } from "../../src/benchmark/config.ts";
import { inference } from "../../src/benchmark/inference.ts";
import { type BenchmarkResults, metricOf, metricsOf } from "../../src/benchmark/results.ts";
import { parseResults, readResults, writeResults } from "../../src/benchmark/results-file.ts";
import { resultsJsonSchema, type resultsSchema } from "../../src/benchmark/schema/results.ts";
import { BenchmarkFileError, OptionError, TinyAIError } from "../../src/errors.ts";
import {
  guideResults,
  inferenceResults,
  madeUpInfo,
  memoryResults,
  samplesAround,
  systemResults,
} from "../support/benchmark-results.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

type Json = string | number | boolean | null | Json[] | JsonObject;
interface JsonObject {
  [key: string]: Json;
}

const folder = temporaryFolder();
const samples: Readonly<Record<string, BenchmarkResults>> = {
  "the guide's example": guideResults,
  "an inference benchmark": inferenceResults(samplesAround(80, 12)),
  "a memory benchmark": memoryResults(),
  "a system benchmark": systemResults(),
};
// Strict, and without formats, as anyone's validator is at first.
const validate = new Ajv2020().compile(published);

/** What an action throws. */
async function thrown(action: () => unknown): Promise<unknown> {
  try {
    await action();
  } catch (error) {
    return error;
  }
  return undefined;
}

const copyOf = (results: BenchmarkResults): JsonObject => JSON.parse(JSON.stringify(results));

/** Every place in a value: the object or list that holds it, its key there, and its path. Of a list the first and last stand for all. */
function* placesOf(value: Json, where: string): Generator<readonly [JsonObject, string, string]> {
  if (typeof value !== "object" || value === null) return;
  const all = Object.keys(value);
  const keys = Array.isArray(value) ? new Set([all[0], all.at(-1)]) : all;
  for (const key of keys) {
    if (key === undefined) continue;
    const path = Array.isArray(value) ? `${where}[${key}]` : where === "" ? key : `${where}.${key}`;
    yield [value as JsonObject, key, path];
    yield* placesOf((value as JsonObject)[key] ?? null, path);
  }
}

describe("reading", () => {
  for (const [name, results] of Object.entries(samples)) {
    test(`opens the results of ${name} as they were written`, async () => {
      const path = folder.file("results.json");
      await writeResults(path, results);
      expect(await readResults(path)).toEqual(copyOf(results) as unknown as BenchmarkResults);
    });
  }

  test("takes or refuses a change of any field as the published schema does, and names the file and the field", () => {
    const wrong: Json[] = [null, -1, 0.5, 1e300, "text", {}];
    const tried = new Set<string>();
    const disagreed: string[] = [];
    const unclear: string[] = [];
    let refusedCount = 0;
    for (const [name, results] of Object.entries(samples)) {
      const whole = copyOf(results);
      const check = (where: string) => {
        const accepted = validate(whole);
        try {
          parseResults(whole, "some.json");
          if (!accepted) disagreed.push(`${name}: ${where} was taken`);
        } catch (error) {
          refusedCount++;
          if (accepted) disagreed.push(`${name}: ${where} was refused: ${error}`);
          const message = error instanceof BenchmarkFileError ? error.message : `no such error: ${error}`;
          const field = where.replace(/ .*/, "");
          const isNamed = message.includes(field) || /version = 1e.*newer TinyAI/.test(`${where} ${message}`);
          if (!/^some\.json: [^\n]*$/.test(message) || !isNamed) unclear.push(`${where}: ${message}`);
        }
      };
      for (const [object, key, path] of placesOf(whole, "")) {
        // Figures of the same shape are tried once: an interval's low under a rate's mean is as one under another's.
        const shape = path.split(".").slice(-2).join(".");
        if (tried.has(shape)) continue;
        tried.add(shape);
        const right = object[key] as Json;
        for (const value of wrong) {
          object[key] = value;
          check(`${path} = ${JSON.stringify(value)}`);
        }
        if (!Array.isArray(object)) {
          delete object[key];
          check(`${path} missing`);
        }
        object[key] = right;
      }
    }
    expect(disagreed).toEqual([]);
    expect(unclear).toEqual([]);
    expect(refusedCount).toBeGreaterThan(1000);
  }, 60_000);

  test("refuses what is no number where one is expected: NaN, the infinities", () => {
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      const { latency, ...others } = guideResults.results;
      if (!latency) throw new Error("the guide has latencies");
      const results = { ...guideResults, results: { ...others, latency: { ...latency, std: value } } };
      expect(() => parseResults(results, "x.json")).toThrow(`x.json: results.latency.std is ${value}; `);
    }
  });

  test("refuses a key of by_batch_size that is no batch size, and names it", () => {
    for (const key of ["0", "-1", "1.5", "many", "__proto__"]) {
      const text = JSON.stringify(samples["an inference benchmark"]).replace('"by_batch_size":{', `$&"${key}":{},`);
      expect(() => parseResults(JSON.parse(text), "x.json")).toThrow(`x.json: results.by_batch_size.${key} `);
    }
  });

  test("opens files with fields that it does not know, in every object, and keeps them", async () => {
    for (const results of Object.values(samples)) {
      const extended = copyOf(results);
      for (const [object, key] of [...placesOf(extended, "")]) {
        const value = object[key];
        const isRecordOfOwnKeys = ["by_batch_size", "formats", "percentile_intervals", "utilization"].includes(key);
        if (typeof value === "object" && value !== null && !Array.isArray(value) && !isRecordOfOwnKeys) {
          value["unheard_of"] = { deep: [1, null] };
        }
      }
      const path = folder.write("extended.json", JSON.stringify(extended));
      const opened = await readResults(path);
      expect(opened).toEqual(extended as unknown as BenchmarkResults);
      await writeResults(path, opened);
      expect(JSON.parse(readFileSync(path, "utf8"))).toEqual(extended);
    }
  });

  test("refuses what a newer version wrote, whatever else is in it", () => {
    const newer = { benchmark_info: { version: 7, everything: "is different" } };
    expect(() => parseResults(newer, "new.json")).toThrow(
      new BenchmarkFileError("new.json", "written by a newer TinyAI (version 7); this one reads up to 1"),
    );
  });

  test("refuses a file that was cut short anywhere in one line that names it", async () => {
    const text = JSON.stringify(guideResults, null, 2);
    for (let length = 1; length < text.length; length += 7) {
      const path = folder.write("cut.json", text.slice(0, length));
      const error = await thrown(() => readResults(path));
      expect(error).toBeInstanceOf(BenchmarkFileError);
      expect(String(error)).toMatch(/^BenchmarkFileError: .*cut\.json: is (cut short|no JSON)[^\n]*$/);
    }
  });

  test("says of anything else what it is, in one line with the file's name", async () => {
    const fifo = folder.file("fifo");
    spawnSync("mkfifo", [fifo]);
    const huge = folder.write("huge.json", "{}");
    truncateSync(huge, 200e6 + 1);
    const cases: readonly (readonly [path: string, problem: string])[] = [
      [folder.file("nowhere.json"), "cannot be read: there is no such file"],
      [folder.path, "is a folder"],
      ["", '"": is no path; name a file'],
      [fifo, "is not a regular file"],
      [huge, "has 201 MB; a file of benchmark results has at most 200 MB"],
      [folder.write("empty.json", ""), "is empty"],
      [folder.write("blank.json", " \n"), "is empty"],
      [folder.write("text.json", "# a page\n"), "is no JSON"],
      [folder.write("binary.json", new Uint8Array([0x7f, 0x45, 0, 0xff, 0x1b, 0x5b])), "is no JSON"],
      [folder.write("list.json", "[1, 2]"), "has no benchmark_info"],
      [folder.write("null.json", "null"), "has no benchmark_info"],
      [folder.write("foreign.json", '{"name": "a package"}'), "has no benchmark_info"],
      [folder.write("prototype.json", '{"__proto__": {"benchmark_info": {}}}'), "has no benchmark_info"],
      [folder.write("deep.json", "[".repeat(200_000)), "is "],
    ];
    for (const [path, problem] of cases) {
      const error = await thrown(() => readResults(path));
      expect(error).toBeInstanceOf(BenchmarkFileError);
      const { message } = error as BenchmarkFileError;
      expect(message).toStartWith(path === "" ? problem : `${path}: ${problem}`);
      expect(message).not.toContain("\n");
      expect(message).not.toContain("\u001b");
    }
  });
});

describe("writing", () => {
  test("in which fields that are not known are nested without end are refused", () => {
    let nested: unknown = 1;
    for (let level = 0; level < 50_000; level++) nested = level % 2 === 0 ? { nested } : [nested];
    expect(() => parseResults({ ...guideResults, nested }, "deep.json")).toThrow(
      "deep.json: is nested too deeply; results have at most 100 levels",
    );
  });

  test("gives every list of samples one line, and leaves texts that look like lists as they are", async () => {
    const path = folder.file("readable.json");
    const texts = ["[\n1,\n2]", "[ 1, 2 ]", "samples: [1,  2]"];
    const results = inferenceResults([80, 81.5, 1e-9, 2e21 / 1e20, 7], { warnings: texts, methodology: [] });
    await writeResults(path, results);
    const text = readFileSync(path, "utf8");
    expect(text).toContain('"samples": [80, 81.5, 1e-9, 20, 7]');
    expect(text).toContain('  "benchmark_info": {\n    "model": "model.gguf",\n');
    expect(JSON.parse(text)).toEqual(copyOf(results));
  });

  test("refuses a figure that is not finite, names it, and leaves what was there", async () => {
    const path = folder.write("there.json", "before");
    const results = { ...guideResults, results: { throughput: { mean: Number.NaN, std: 0, min: 1, max: 1 } } };
    expect(String(await thrown(() => writeResults(path, results)))).toContain("results.throughput.mean is NaN");
    expect(readFileSync(path, "utf8")).toBe("before");
  });

  test("refuses a path where no file can be, and leaves nothing behind where the disk refuses it", async () => {
    expect(await thrown(() => writeResults(folder.file("no/such/folder.json"), guideResults))).toBeInstanceOf(
      OptionError,
    );
    mkdirSync(folder.file("here"));
    expect(await thrown(() => writeResults(folder.file("here"), guideResults))).toBeInstanceOf(OptionError);
    if (existsSync("/dev/full")) {
      const error = await thrown(() => writeResults("/dev/full", guideResults));
      expect(error).toBeInstanceOf(TinyAIError);
      expect(String(error)).toStartWith("TinyAIError: /dev/full: cannot be written: ENOSPC");
    }
    writeFileSync(folder.file("here/results.json"), "before");
    await writeResults(folder.file("here/results.json"), guideResults);
    expect(readdirSync(folder.file("here"))).toEqual(["results.json"]);
  });
});

describe("metrics", () => {
  test("memory and memory_usage are one, and named twice they are measured once", () => {
    expect(metricOf("memory")).toBe("memory_usage");
    expect(metricsOf(["latency", "memory", "memory_usage", "latency"])).toEqual(["latency", "memory_usage"]);
  });

  test("an unknown one is refused with those there are, and so is none", () => {
    expect(() => metricOf("speed", "--metric")).toThrow(
      '--metric: there is no metric "speed"; there are latency, throughput, memory_usage',
    );
    expect(() => metricsOf([])).toThrow("--metrics: names none");
  });
});

describe("the published schema", () => {
  test("is the one that files are checked with", () => {
    expect(published as object).toEqual(resultsJsonSchema());
    expect(published.$id).toBe("urn:tinyai:schema:benchmark-results:1");
  });

  test("says the same as the types of results", () => {
    // The compiler checks it.
    const same: Same<Plain<BenchmarkResults>, Plain<z.infer<typeof resultsSchema>>> = true;
    expect(same).toBe(true);
  });

  test("takes the guide's results, and results of every type", () => {
    for (const results of Object.values(samples)) {
      validate(copyOf(results));
      expect(validate.errors).toBeNull();
    }
  });

  test("takes what is measured of a model", async () => {
    const path = folder.file("tiny.gguf");
    writeTinyModel(path, { context: 256 });
    const settings = resolveSettings("inference", {}, { iterations: 6, batch_sizes: [1, 2] });
    const { figures, details, methodology, warnings } = await inference.run({ model: path, settings });
    const benchmark_info = {
      ...madeUpInfo,
      settings,
      methodology,
      warnings,
      ...(details && { model_details: details }),
    };
    const results: BenchmarkResults = { benchmark_info, results: figures };
    validate(copyOf(results));
    expect(validate.errors).toBeNull();
    expect(parseResults(copyOf(results), "measured.json").results.latency?.samples).toHaveLength(6);
  });

  test("says of every field what it is", () => {
    const silent: string[] = [];
    for (const [node, key, path] of placesOf(published as unknown as JsonObject, "")) {
      const field = node[key];
      if (!/(^|\.)properties\.[^.]+$/.test(path) || typeof field !== "object" || field === null) continue;
      if (!("description" in field)) silent.push(path);
    }
    expect(silent).toEqual([]);
  });

  test("names no field that the made-up results do not have, so that each of its fields was tried", () => {
    const named = new Set<string>();
    for (const [node, key, path] of placesOf(published as unknown as JsonObject, "")) {
      if (/(^|\.)properties\.[^.]+$/.test(path) && typeof node[key] === "object") named.add(key);
    }
    const seen = new Set<string>();
    for (const results of Object.values(samples)) {
      for (const [, key] of placesOf(copyOf(results), "")) seen.add(key);
    }
    expect([...named].filter((field) => !seen.has(field))).toEqual([]);
    expect(named.size).toBeGreaterThan(100);
  });
});

type Plain<T> = T extends readonly (infer Item)[]
  ? Plain<Item>[]
  : T extends object
    ? { -readonly [Key in keyof T]: Plain<T[Key]> }
    : T;
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
