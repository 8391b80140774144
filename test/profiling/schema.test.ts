// The published schema of reports: real ones and made-up ones are valid, what was changed is not, every field that it names
// occurs, and it says of every field what the types say.

import { afterAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Ajv2020 } from "ajv/dist/2020.js";
import schema from "tinyai/schema.json";
import { Histogram } from "../../profiler/index.ts";
import type { Report } from "../../profiler/report.ts";
import { hardwareCacheStatistics } from "../../src/engine/counters.ts";
import { loadModel } from "../../src/index.ts";
import { temporaryFolder } from "../support/folder.ts";
import { bareReport, changed, emptyReport, madeUpImpact, madeUpReport } from "../support/report.ts";
import { writeTinyModel } from "../support/tiny-model.ts";
import { keepVariables } from "../support/variables.ts";

type Json = string | number | boolean | null | Json[] | JsonObject;
interface JsonObject {
  [key: string]: Json;
}

const folder = temporaryFolder();
keepVariables("TINYAI_HOME");
process.env["TINYAI_HOME"] = folder.file("home");
const path = folder.file("tiny.gguf");
writeTinyModel(path, { architecture: "gemma3", layers: 6, context: 512, dtype: "Q8_0" });
const model = await loadModel(path, { threads: { count: 2 }, prepared: false });
afterAll(() => model.close());

const text = "once upon a time there was a model";
const work = () => model.generate([text, "hello"], { temperature: 0, maxLength: 12, ignoreEos: true });
const whole = await model.profile(work);

const { report: madeUp } = madeUpReport();
/** It has what a real one has only elsewhere: counters of the CPU, a head without a screen, a sum beyond 2^53. */
const counted: Report = {
  ...changed(madeUp, { run: { options: { screeningProblem: "its head is in F16" } } }),
  cache: hardwareCacheStatistics(
    {
      ...{ cycles: 9e9, instructions: 2e10, l1Reads: 8e9, l1Misses: 4e8, lastLevelReads: 3e8, lastLevelMisses: 9e7 },
      ...{ tlbMisses: 70, countedShare: 0.5 },
    },
    madeUp.cache?.geometry ?? [],
    madeUp.steps.count,
  ),
  steps: { ...madeUp.steps, histogram: beyondDoubles().toJSON() },
  memory: madeUp.memory && {
    ...madeUp.memory,
    perStep: { ...madeUp.memory.perStep, loads: new Histogram("operations").row({ histogram: true }) },
  },
};

const reports: Readonly<Record<string, Report>> = {
  everything: whole,
  "without caches and roofline": await model.profile(work, { cache: false, roofline: false }),
  "deterministic counts": await model.profile(work, { deterministic: true }),
  "scores alone": await model.profile(() => model.score(text), { roofline: false }),
  "nothing that ran": await model.profile(() => {}, { roofline: false }),
  "a made-up run": madeUp,
  "a made-up run whose optimisations were switched": { ...madeUp, impact: madeUpImpact() },
  "a made-up run on a machine with counters": counted,
  "a made-up run of which only time is known": bareReport(),
  "a made-up run without a step": emptyReport(),
};

// Strict, and without formats, as anyone's validator is at first.
const ajv = new Ajv2020();
const validate = ajv.compile(schema);

describe("the schema", () => {
  test("is one itself", () => {
    expect(ajv.validateSchema(schema)).toBe(true);
    expect(schema.$id).toBe("urn:tinyai:schema:report:1");
  });

  for (const [name, report] of Object.entries(reports)) {
    test(`describes a report of ${name}`, () => {
      expect(errorsOf(asJson(report))).toEqual([]);
    });
  }

  test("describes what a report writes to a file", async () => {
    const file = folder.file("report.json");
    await whole.write(file);
    expect(errorsOf(JSON.parse(readFileSync(file, "utf8")))).toEqual([]);
  });

  test("names no field that no report has", () => {
    const seen = new Set<string>();
    for (const report of Object.values(reports)) follow(schema as unknown as JsonObject, asJson(report), "", seen);
    const named = new Set<string>();
    nameFields(schema as unknown as JsonObject, "", named);
    expect([...named].filter((field) => !seen.has(field))).toEqual([]);
    expect(named.size).toBeGreaterThan(250);
  });

  test("refuses a report with a field less, a field more, or a field of another type, in every object of it", () => {
    for (const name of [
      "everything",
      "a made-up run on a machine with counters",
      "a made-up run whose optimisations were switched",
    ]) {
      const report = asJson(reports[name] as Report);
      const accepted: string[] = [];
      const refused = (where: string) => {
        if (validate(report)) accepted.push(where);
      };
      let objects = 0;
      for (const [where, object] of objectsOf(report, "report")) {
        objects++;
        object["unheardOf"] = 1;
        refused(`${where} with another field`);
        delete object["unheardOf"];
        for (const [key, value] of Object.entries(object)) {
          object[key] = Array.isArray(value) ? {} : [];
          refused(`${where}.${key} of another type`);
          // Enumerations, and what counts whole things.
          object[key] = typeof value === "string" ? 7 : typeof value === "number" ? `${value}` : (null as Json);
          if (value !== null && !mayBeNull.has(key)) refused(`${where}.${key}: ${object[key]}`);
          delete object[key];
          if (!optional.has(key)) refused(`${where} without ${key}`);
          object[key] = value;
        }
      }
      expect(accepted).toEqual([]);
      expect(objects).toBeGreaterThan(80);
      expect(validate(report)).toBe(true);
    }
  }, 60_000);

  test("refuses counts and nanoseconds that are not whole or below zero, and words that it does not list", () => {
    const report = asJson(whole);
    const accepted: string[] = [];
    const words = new Set(["phase", "source", "bound", "severity", "kvCache", "tuning", "region"]);
    for (const [where, object] of objectsOf(report, "report")) {
      for (const [key, value] of Object.entries(object)) {
        const wrong: Json[] = [];
        if (/^(count|.*(Ns|Bytes|Faults|Events|Steps|Tokens))$/.test(key) && typeof value === "number") {
          wrong.push(-1, key === "roofNs" ? -0.5 : 0.5);
        }
        if (words.has(key)) wrong.push("another");
        if (/^(started|measured)At$/.test(key)) wrong.push("yesterday", "2026-13-1 5:00");
        for (const change of wrong) {
          object[key] = change;
          if (validate(report)) accepted.push(`${where}.${key}: ${change}`);
        }
        object[key] = value;
      }
    }
    expect(accepted).toEqual([]);
  });
});

describe("the schema and the types", () => {
  test("say the same of every field of a report", () => {
    expect(differences("Report")).toEqual([]);
  }, 60_000);

  test("are told apart where a type is changed: a field less, one more, one that may be missing, another type, another word", () => {
    expect(
      differences(`Omit<Report, "rows" | "idle" | "steps" | "machine" | "phases" | "cache"> & {
        readonly added: number;
        readonly idle?: TimeRow;
        readonly steps: Omit<TimeRow, "histogram"> & { readonly histogram?: HistogramData | undefined };
        readonly machine: Omit<Report["machine"], "cores"> & { readonly cores: number | null };
        readonly phases: readonly (Omit<PhaseRow, "phase"> & { readonly phase: "prompt" })[];
        readonly cache: Omit<CacheStatistics, "hitRate"> | null;
      }`),
    ).toEqual(["added", "cache.hitRate", "idle", "machine.cores", "phases[].phase", "rows", "steps.histogram"]);
  }, 60_000);
});

/** Fields that may be missing, and fields that may be null where they are not: those the types say. */
const optional = new Set(["histogram", "totalRest", "impact"]);
const mayBeNull = new Set(["memory", "cache", "roofline", "javascript", "system", "knob", "low", "high", "sameText"]);

function asJson(report: Report): JsonObject {
  return JSON.parse(JSON.stringify(report));
}

function errorsOf(report: Json): string[] {
  return validate(report)
    ? []
    : (validate.errors ?? []).map(({ instancePath, message }) => `${instancePath} ${message}`);
}

/** A histogram whose sum no double holds. */
function beyondDoubles(): Histogram {
  const histogram = new Histogram("ns");
  for (let index = 0; index < 5; index++) histogram.record(2 ** 52 + 1);
  return histogram;
}

function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Every object of a report with its path. */
function* objectsOf(value: Json, where: string): Generator<readonly [string, JsonObject]> {
  if (Array.isArray(value)) {
    // A long list's rows are alike; its ends stand for it.
    for (const index of new Set([0, value.length - 1])) {
      const item = value[index];
      if (item !== undefined) yield* objectsOf(item, `${where}[${index}]`);
    }
  } else if (isObject(value)) {
    yield [where, value];
    for (const [key, field] of Object.entries(value)) yield* objectsOf(field, `${where}.${key}`);
  }
}

/** The schema that a reference names, and what it is called. */
function resolve(node: JsonObject, where: string): readonly [JsonObject, string] {
  const reference = node["$ref"];
  if (typeof reference !== "string") return [node, where];
  const name = reference.replace("#/$defs/", "");
  const target = (schema.$defs as unknown as JsonObject)[name];
  if (!isObject(target)) throw new Error(`${reference} is not there`);
  return resolve(target, name);
}

/** The parts of a schema: what a list's items are, or what it may be. */
function partsOf(node: JsonObject): JsonObject[] {
  const { anyOf, items } = node;
  return [...(Array.isArray(anyOf) ? anyOf : []), items].filter(isObject);
}

/** Adds to `named` every field that a schema names. */
function nameFields(unresolved: JsonObject, at: string, named: Set<string>): void {
  const [node, where] = resolve(unresolved, at);
  for (const part of partsOf(node)) nameFields(part, where, named);
  if (!isObject(node["properties"])) return;
  for (const [key, field] of Object.entries(node["properties"])) {
    named.add(`${where}.${key}`);
    nameFields(field as JsonObject, `${where}.${key}`, named);
  }
}

/** Adds to `seen` every field of a value that is there and not null, as the schema calls it. */
function follow(unresolved: JsonObject, value: Json, at: string, seen: Set<string>): void {
  const [node, where] = resolve(unresolved, at);
  if (value === null) return;
  for (const part of partsOf(node)) {
    for (const item of Array.isArray(value) ? value : [value]) follow(part, item, where, seen);
  }
  const { properties } = node;
  if (!isObject(value) || !isObject(properties)) return;
  for (const [key, field] of Object.entries(value)) {
    if (field !== null) seen.add(`${where}.${key}`);
    follow(properties[key] as JsonObject, field, `${where}.${key}`, seen);
  }
}

/** A schema as a type of TypeScript. */
function typeOf(unresolved: JsonObject): string {
  const [node] = resolve(unresolved, "");
  if ("const" in node) return JSON.stringify(node["const"]);
  if (Array.isArray(node["enum"])) return node["enum"].map((word) => JSON.stringify(word)).join(" | ");
  if (Array.isArray(node["anyOf"])) return node["anyOf"].map((part) => typeOf(part as JsonObject)).join(" | ");
  if (isObject(node["items"])) return `(${typeOf(node["items"])})[]`;
  if (isObject(node["properties"])) {
    const required = node["required"] as string[];
    const fields = Object.entries(node["properties"]).map(
      ([key, field]) => `${key}${required.includes(key) ? "" : "?"}: ${typeOf(field as JsonObject)};`,
    );
    return `{ ${fields.join(" ")} }`;
  }
  return [node["type"]].flat().join(" | ").replace("integer", "number");
}

/** Where a type, in which the types of reports may be used, and the schema differ, as the compiler finds it. */
function differences(type: string): string[] {
  const root = join(import.meta.dir, "../..");
  const from = (file: string) => JSON.stringify(join(root, "profiler", file));
  const file = folder.write(
    "differences.ts",
    `import type { CacheStatistics, Report } from ${from("report.ts")};
import type { HistogramData, PhaseRow, TimeRow } from ${from("index.ts")};
export type Imported = CacheStatistics | HistogramData | PhaseRow | TimeRow;
type FromSchema = ${typeOf(schema as unknown as JsonObject)};
type Plain<T> = T extends readonly (infer E)[] ? Plain<E>[] : T extends object ? { -readonly [K in keyof T]: Plain<T[K]> } : T;
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
type Field<T, K> = K extends keyof T ? Pick<T, K> : "missing";
type Under<A, B, At extends string> = {
  [K in (keyof A | keyof B) & string]: Same<Field<A, K>, Field<B, K>> extends true
    ? never
    : K extends keyof A & keyof B
      ? Different<A[K], B[K], \`\${At}\${K}\`>
      : \`\${At}\${K}\`;
}[(keyof A | keyof B) & string];
type Deeper<A, B, At extends string> = [A, B] extends [(infer C)[], (infer D)[]]
  ? Different<C, D, \`\${At}[]\`>
  : [A, B] extends [object, object]
    ? Under<A, B, \`\${At}.\`>
    : At;
type Different<A, B, At extends string> = [null] extends [A]
  ? [null] extends [B]
    ? Deeper<NonNullable<A>, NonNullable<B>, At>
    : At
  : Same<A, B> extends true
    ? At
    : Deeper<A, B, At>;
export const different: \`field \${Under<Plain<${type}>, FromSchema, "">}\` = 0;
`,
  );
  const options = ["--noEmit", "--strict", "--exactOptionalPropertyTypes", "--noErrorTruncation", "--skipLibCheck"];
  const modules = ["--module", "preserve", "--target", "esnext", "--lib", "esnext", "--types", "bun"];
  const { stdout } = Bun.spawnSync([
    ...[join(root, "node_modules/.bin/tsc"), ...options, ...modules],
    ...["--typeRoots", join(root, "node_modules/@types"), "--allowImportingTsExtensions", "--ignoreConfig", file],
  ]);
  const output = stdout.toString();
  const found = /Type '(?:number|0)' is not assignable to type '(.*)'\.\s*$/.exec(output)?.[1];
  if (found === undefined) throw new Error(`the compiler said something else: ${output}`);
  return found === "never"
    ? []
    : found
        .split(" | ")
        .map((field) => field.slice(`"field `.length, -1))
        .sort();
}
