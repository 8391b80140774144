// Whether a model is ready to be measured: sound ones pass, and each kind of damage is found.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, readFileSync, statSync, truncateSync, utimesSync, writeFileSync } from "node:fs";
import { findNotFinite } from "../../src/benchmark/finite.ts";
import { type ModelCheck, verifyModel } from "../../src/benchmark/verify-model.ts";
import { ModelFileError, OptionError } from "../../src/errors.ts";
import { prepareModel } from "../../src/index.ts";
import { catalogue } from "../../src/model/catalogue.ts";
import { type DType, dtypeBlocks } from "../../src/model/file.ts";
import { openGguf } from "../../src/model/gguf.ts";
import { type PreparedFile, restampPrepared } from "../../src/model/prepared.ts";
import { openModelFile, preparedPath, stampOf, worthPreparingBytes } from "../../src/prepared.ts";
import { sha256 } from "../cli/support.ts";
import { temporaryFolder } from "../support/folder.ts";
import { decodeTensor } from "../support/formats.ts";
import { GgufWriter } from "../support/gguf-writer.ts";
import { writeTinyEncoderFolder } from "../support/tiny-encoder.ts";
import { type TinyModelOptions, writeTinyModel } from "../support/tiny-model.ts";
import { keepVariables } from "../support/variables.ts";

setDefaultTimeout(60_000);

const folder = temporaryFolder();
keepVariables("TINYAI_HOME");
process.env["TINYAI_HOME"] = folder.file("home");
mkdirSync(folder.file("home/models"), { recursive: true });
mkdirSync(folder.file("home/prepared"), { recursive: true });

const dtypes = Object.keys(dtypeBlocks) as DType[];
/** Not a number, in float16 and in the upper half of the others. */
const broken = 0x7fff;
let files = 0;

function tinyFile(options: TinyModelOptions = {}): string {
  const path = folder.file(`tiny${files++}.gguf`);
  writeTinyModel(path, options);
  return path;
}

function blockOf(dtype: DType): number {
  return Math.max(64, dtypeBlocks[dtype].columns);
}

function find(checks: readonly ModelCheck[], name: ModelCheck["name"]): ModelCheck {
  const found = checks.find((check) => check.name === name);
  if (!found) throw new Error(`nothing is said of ${name}`);
  return found;
}

/** Writes a value into a file, `at` bytes into one of its tensors. */
function poke(path: string, tensor: string, at: number, value = broken): void {
  const entry = openGguf(path).tensors.get(tensor);
  if (!entry) throw new Error(`there is no tensor ${tensor}`);
  const bytes = readFileSync(path);
  bytes.writeUInt16LE(value, entry.byteOffset + at);
  writeFileSync(path, bytes);
}

describe("a sound model", () => {
  test("passes every check, with its hash and what it takes", async () => {
    const path = tinyFile({ architecture: "gemma3", dtype: "Q4_0" });
    const shares: number[] = [];
    const { ok, checks, ...rest } = await verifyModel(path, { onProgress: (share) => shares.push(share) });
    expect(rest).toEqual({ model: path, path, sha256: sha256(readFileSync(path)) });
    expect(checks.map(({ name, verdict }) => [name, verdict])).toEqual([
      ["layout", "ok"],
      ["hash", "unknown"],
      ["tensors", "ok"],
      ["memory", "ok"],
      ["forward pass", "ok"],
    ]);
    expect(ok).toBe(true);
    const { tensors } = openGguf(path);
    expect(find(checks, "tensors").evidence).toContain(`in ${tensors.size} tensors`);
    expect(find(checks, "forward pass").evidence).toMatch(
      /^8,192 logits of 16 tokens, all finite, from -?[\d.e-]+ to /,
    );
    expect(shares).toEqual([...shares].sort((a, b) => a - b));
    expect(shares.at(-1)).toBe(1);
  });

  test("that only embeds passes by its vector", async () => {
    const { ok, checks } = await verifyModel(writeTinyEncoderFolder(folder.file("encoder")));
    expect(ok).toBe(true);
    expect(find(checks, "forward pass").evidence).toContain("values of a vector");
  });

  test("that is prepared passes, and says what is known of where it came from", async () => {
    const source = tinyFile({ dtype: "Q8_0" });
    const output = folder.file("sound.tinyai");
    await prepareModel(source, { output });
    const { ok, checks } = await verifyModel(output);
    expect([ok, find(checks, "hash").verdict]).toEqual([true, "unknown"]);
    expect(find(checks, "layout").evidence).toStartWith("tinyai version 1, ");
    // Of what is published is not more known: nothing tells whether its own weights are as they were made.
    const { sha256 = "" } = catalogue.find(({ name }) => name === "gemma3-270m") ?? {};
    const { source: made } = openModelFile(output) as PreparedFile;
    restampPrepared(output, { ...made, sha256 });
    const { verdict, evidence } = find((await verifyModel(output)).checks, "hash");
    expect(verdict).toBe("unknown");
    expect(evidence).toContain(
      "made from gemma3-270m as it is published, and its own bytes have nothing to be compared",
    );
  });
});

describe("a hash", () => {
  test("is compared with the catalogue's where the model was pulled", async () => {
    writeTinyModel(folder.file("home/models/gemma3-270m.gguf"));
    const { ok, checks } = await verifyModel("gemma3-270m");
    expect([ok, find(checks, "hash").verdict]).toEqual([false, "failed"]);
    expect(find(checks, "hash").evidence).toContain("is not gemma3-270m as it is published");
  });

  test("is compared with that of when the model was prepared", async () => {
    const path = tinyFile();
    await prepareModel(path);
    expect(find((await verifyModel(path)).checks, "hash")).toMatchObject({ verdict: "ok" });
    const before = sha256(readFileSync(path));
    poke(path, "token_embd.weight", 0, 0);
    expect(find((await verifyModel(path)).checks, "hash")).toMatchObject({ verdict: "unknown" });
    // As if the disk had changed it, and nobody had written.
    const stamp = stampOf(path);
    if (!stamp) throw new Error("the file has no times");
    restampPrepared(preparedPath(path), { ...stamp, sha256: before });
    expect(find((await verifyModel(path)).checks, "hash")).toMatchObject({ verdict: "failed" });
  });
});

describe("a prepared copy", () => {
  // Smaller ones have no copy that is used.
  const large = folder.file("large.gguf");
  const write = (seed: number) => {
    writeTinyModel(large, { dtype: "F32", layers: 1, width: 512, ffn: 2048, vocabulary: 4096, seed });
  };

  test("is not written to, whether its model has changed, or was only touched, or it is damaged", async () => {
    write(1);
    expect(statSync(large).size).toBeGreaterThan(worthPreparingBytes);
    await prepareModel(large);
    const copy = preparedPath(large);
    const passes = async () => {
      const { ino, mtimeNs, ctimeNs } = statSync(copy, { bigint: true });
      expect((await verifyModel(large)).ok).toBe(true);
      expect(statSync(copy, { bigint: true })).toMatchObject({ ino, mtimeNs, ctimeNs });
    };
    await passes();
    utimesSync(large, 1e9, 1e9);
    await passes();
    write(2);
    await passes();
    truncateSync(copy, 999);
    await passes();
  });
});

describe("weights that are not finite", () => {
  test.each(dtypes)("are found in %s wherever a value becomes so", async (dtype) => {
    const { columns, bytes } = dtypeBlocks[dtype];
    const path = folder.file(`one-${dtype}.gguf`);
    const values = Float32Array.from({ length: 3 * columns }, (_, index) => (index % 7) - 3);
    new GgufWriter()
      .tensor("zero", "F32", [4], new Float32Array(4))
      .tensor("one", dtype, [3 * columns], values)
      .write(path);
    expect(await findNotFinite(openGguf(path))).toBeUndefined();
    const { byteOffset = 0 } = openGguf(path).tensors.get("one") ?? {};
    const whole = readFileSync(path);
    // One in each place of the second block.
    for (let at = bytes; at < 2 * bytes; at += 2) {
      poke(path, "one", at);
      const block = new Uint8Array(readFileSync(path).subarray(byteOffset + bytes, byteOffset + 2 * bytes));
      const expected = decodeTensor(dtype, block).every(Number.isFinite) ? undefined : "one";
      expect([at, await findNotFinite(openGguf(path))]).toEqual([at, expected]);
      writeFileSync(path, whole);
    }
  });

  test.each(dtypes)("are found in %s where they were prepared so", async (dtype) => {
    const path = tinyFile({ architecture: "llama", dtype, layers: 1, vocabulary: 384, ffn: blockOf(dtype) });
    const name = "blk.0.ffn_up.weight";
    const entry = openGguf(path).tensors.get(name);
    if (!entry) throw new Error("no such tensor");
    const output = folder.file(`prepared-${dtype}.tinyai`);
    await prepareModel(path, { output });
    expect(await findNotFinite(openModelFile(output))).toBeUndefined();
    // The last block's scale; of float32 the upper half of the last value.
    const lastScale = { F32: 2, Q2_K: 80, Q3_K: 108, Q6_K: 208 } as Readonly<Partial<Record<DType, number>>>;
    poke(path, name, entry.byteLength - dtypeBlocks[dtype].bytes + (lastScale[dtype] ?? 0));
    await prepareModel(path, { output });
    expect(await findNotFinite(openModelFile(output))).toBe(name);
  });

  test.each([
    ["output.weight", "finite"],
    // Activations that are no number become zeros.
    ["blk.0.attn_output.weight", "are 0"],
  ])("in %s fail the tensors' check and the forward pass, each with its reason", async (name, reason) => {
    const path = tinyFile({ architecture: "llama", dtype: "Q8_0" });
    const row = dtypeBlocks.Q8_0.bytes * 2;
    const rows = (openGguf(path).tensors.get(name)?.byteLength ?? 0) / row;
    for (let each = 0; each < rows; each++) poke(path, name, each * row);
    const { ok, checks } = await verifyModel(path);
    expect(ok).toBe(false);
    expect(find(checks, "tensors")).toMatchObject({ verdict: "failed" });
    expect(find(checks, "tensors").evidence).toContain(`tensor ${name} holds a value that is not finite`);
    expect(find(checks, "forward pass").verdict).toBe("failed");
    expect(find(checks, "forward pass").evidence).toContain(reason);
  });
});

describe("a model that cannot be opened", () => {
  test("is told by its typed error", async () => {
    const cut = tinyFile();
    truncateSync(cut, 5000);
    await expect(verifyModel(cut)).rejects.toBeInstanceOf(ModelFileError);
    await expect(verifyModel(folder.write("text.gguf", "no model"))).rejects.toBeInstanceOf(ModelFileError);
    await expect(verifyModel("nothing-of-that-name")).rejects.toBeInstanceOf(OptionError);
  });

  test("is not looked at further after an abort", async () => {
    const signal = AbortSignal.abort(new Error("stopped"));
    await expect(verifyModel(tinyFile(), { signal })).rejects.toThrow("stopped");
  });
});
