// `tinyai embed` and `tinyai search`: what they print and write, and what they refuse.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { closeSync, constants, mkdirSync, openSync, readFileSync, rmSync, statSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { createIndex, loadModel, openIndex, similarity } from "../../src/index.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyEncoder } from "../support/tiny-encoder.ts";

setDefaultTimeout(60_000);

const main = join(import.meta.dir, "../../src/cli/main.ts");
const folder = temporaryFolder();
const model = folder.file("encoder.gguf");
writeTinyEncoder(model, { context: 512 });
const texts = ["hello world", "", "the cat and the dog"];
const lines = folder.write("lines.txt", `${texts.join("\r\n")}\r\n`);
const expected = (async () => {
  await using opened = await loadModel(model, { prepared: false });
  return await opened.embed(texts);
})();

async function run(rest: readonly string[], input?: string) {
  const child = Bun.spawn([process.execPath, main, ...rest, "--no-prepared"], {
    cwd: folder.path,
    stdin: input === undefined ? "ignore" : Buffer.from(input),
    stdout: "pipe",
    stderr: "pipe",
  });
  const [output, errors, status] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { status, output, errors };
}

/** As they come from JSON. */
function rounded(vectors: readonly (readonly number[])[]): Float32Array[] {
  return vectors.map((vector) => Float32Array.from(vector));
}

describe("tinyai embed", () => {
  test("prints a vector a line, of texts, of a file's lines and of standard input", async () => {
    for (const { output, status } of [
      await run(["embed", ...texts, "--model", model]),
      await run(["embed", "--file", lines, "--model", model]),
      await run(["embed", "--model", model], texts.join("\n")),
    ]) {
      expect(status).toBe(0);
      expect(
        rounded(
          output
            .trim()
            .split("\n")
            .map((line) => JSON.parse(line)),
        ),
      ).toEqual(await expected);
    }
  });

  test("prints exactly one JSON document with --json", async () => {
    const { output } = await run([
      "embed",
      ...texts,
      "--model",
      model,
      "--json",
      "--dimensions",
      "8",
      "--no-normalise",
    ]);
    const { dimensions, vectors } = JSON.parse(output);
    expect([dimensions, vectors.length, vectors[0].length]).toEqual([8, 3, 8]);
    await using opened = await loadModel(model, { prepared: false });
    expect(rounded(vectors)).toEqual(await opened.embed(texts, { dimensions: 8, normalise: false }));
  });

  test("writes NumPy's arrays and lines of JSON", async () => {
    const vectors = await expected;
    const numpy = folder.file("vectors.npy");
    expect(await run(["embed", "--file", lines, "--model", model, "--output", numpy])).toMatchObject({
      status: 0,
      output: "",
    });
    const bytes = readFileSync(numpy);
    expect(bytes.subarray(0, 8).toString("latin1")).toBe("\x93NUMPY\x01\x00");
    const end = 10 + bytes.readUInt16LE(8);
    expect(end % 64).toBe(0);
    expect(bytes.subarray(10, end).toString("latin1").trimEnd()).toBe(
      "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 64), }",
    );
    const floats = new Float32Array(bytes.buffer.slice(bytes.byteOffset + end, bytes.byteOffset + bytes.length));
    expect(floats).toEqual(Float32Array.from(vectors.flatMap((vector) => [...vector])));
    const json = folder.file("vectors.jsonl");
    expect((await run(["embed", "--file", lines, "--model", model, "--output", json])).status).toBe(0);
    const read = readFileSync(json, "utf8").trim().split("\n");
    expect(rounded(read.map((line) => JSON.parse(line)))).toEqual(vectors);
  });

  test.skipIf(process.platform === "win32")("computes no more while nobody reads, and can be ended then", async () => {
    const count = 2000;
    for (const ends of [false, true]) {
      const fifo = folder.file(`fifo-${ends}`);
      Bun.spawnSync(["mkfifo", fifo]);
      // Keeps the FIFO open, and reads nothing.
      const held = openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK);
      const written = openSync(fifo, constants.O_WRONLY);
      const child = Bun.spawn([process.execPath, main, "embed", "--model", model, "--no-prepared"], {
        stdin: Buffer.from("a cat\n".repeat(count)),
        stdout: written,
        stderr: "pipe",
      });
      closeSync(written);
      let errors = "";
      const told = (async () => {
        for await (const bytes of child.stderr) errors += Buffer.from(bytes).toString();
      })();
      while (errors === "") await Bun.sleep(10);
      await Bun.sleep(1000);
      expect(errors).toBe(`embedding ${count} texts ...\n`);
      if (ends) {
        child.kill("SIGINT");
        await child.exited;
      }
      const read = openSync(fifo, constants.O_RDONLY);
      closeSync(held);
      const output = ends ? "" : await Bun.file(read).text();
      closeSync(read);
      expect([await child.exited, output.split("\n").length - 1]).toEqual(ends ? [130, 0] : [0, count]);
      await told;
    }
  });

  test("refuses what is wrong with status 2", async () => {
    for (const [rest, problem] of [
      [["embed", "a", "--model", model, "--output", "vectors.txt"], "--output: is"],
      [["embed", "a", "--model", model, "--output", "v.npy", "--json"], "--json: goes to standard output"],
      [["embed", "a", "--file", lines, "--model", model], "--file: takes the place of texts"],
      [["embed", "a", "--model", model, "--pooling", "max"], 'pooling: is "max"'],
      [["embed", "a", "--model", model, "--dimensions", "65"], "dimensions: is 65"],
      [["generate", "--prompt", "a", "--model", model], "call embed"],
    ] as const) {
      const { status, errors, output } = await run(rest);
      expect({ rest, status, output }).toEqual({ rest, status: 2, output: "" });
      expect(errors).toContain(problem);
    }
  });
});

describe("tinyai search", () => {
  const notes = folder.file("notes");
  mkdirSync(join(notes, "deeper"), { recursive: true });
  mkdirSync(join(notes, ".hidden"));
  const cats = `${"the cat is for the dog ".repeat(9)}\n`;
  folder.write("notes/a.md", `${cats}\n\n${"hello world of text and time ".repeat(8)}\n`);
  folder.write("notes/deeper/b.txt", "once upon a time there was a search\n");
  folder.write("notes/.hidden/c.txt", "never found\n");
  folder.write("notes/picture.png", Buffer.from([0x89, 0x50, 0, 0xff]));

  test("finds the piece that is the query, in a folder's text files", async () => {
    const { output, status } = await run(["search", cats.trim(), "--folder", "notes", "--model", model, "--json"]);
    expect(status).toBe(0);
    const { query, hits } = JSON.parse(output);
    expect(query).toBe(cats.trim());
    expect(hits.map(({ path, line }: { path: string; line: number }) => `${path}:${line}`).sort()).toEqual([
      "notes/a.md:1",
      "notes/a.md:4",
      "notes/deeper/b.txt:1",
    ]);
    expect(hits[0]).toEqual({
      score: expect.closeTo(1, 5),
      path: "notes/a.md",
      line: 1,
      text: cats.trim(),
      id: expect.stringMatching(/^notes\/a\.md:1:[0-9a-z]{10,13}$/),
    });
  });

  test("keeps an index, computes what is new, and finds in it without the folder and without a model's name", async () => {
    const index = folder.file("notes.index");
    rmSync(index, { force: true });
    const search = (...rest: string[]) => run(["search", "hello world", "--index", index, "--count", "1", ...rest]);
    const first = await search("--folder", "notes", "--model", model);
    expect(first.errors).toContain("embedding 3 pieces");
    const { mtimeMs } = statSync(index);
    const second = await search("--folder", "notes", "--model", model);
    expect(second.errors).not.toContain("embedding");
    expect(second.output).toBe(first.output);
    expect(statSync(index).mtimeMs).toBe(mtimeMs);
    expect((await search()).output).toBe(first.output);
    expect(first.output).toMatch(/^\d\.\d{4} {2}notes\/a\.md:4\n {8}hello world of text/);

    folder.write("notes/deeper/b.txt", "the world is a text\n");
    const third = await search("--folder", "notes", "--model", model);
    expect(third.errors).toContain("embedding 1 pieces");
    using opened = await openIndex(index);
    expect([opened.count, opened.model]).toEqual([3, model]);
    const other = await search("--folder", "notes", "--model", "all-minilm-l6-v2");
    expect([other.status, other.errors.includes("was made with")]).toEqual([2, true]);
  });

  test("makes the whole index anew where the model of its name is another by now", async () => {
    const [path, index] = [folder.file("tuned.gguf"), folder.file("tuned.index")];
    mkdirSync(folder.file("few"));
    folder.write("few/a.txt", "the cat\n");
    const search = () => run(["search", "cat", "--folder", "few", "--model", path, "--index", index]);
    for (const options of [{}, { seed: 2 }, { seed: 2, pooling: "first" }] as const) {
      writeTinyEncoder(path, options);
      const first = await search();
      expect(first.errors).toContain("embedding 1 pieces");
      await using opened = await loadModel(path, { prepared: false });
      using kept = await openIndex(index);
      expect(similarity(kept.vector(0), await opened.embed("the cat"))).toBeCloseTo(1, 5);
      expect((await search()).errors).toBe("");
    }
    // One text more: the one that is there is not taken over either.
    writeTinyEncoder(path, { seed: 3 });
    folder.write("few/b.txt", "a dog\n");
    expect((await search()).errors).toContain("embedding 2 pieces");
  });

  test("tells an index's own ids as they are, and reads no file for them that is none", async () => {
    const index = folder.file("own.index");
    Bun.spawnSync(["mkfifo", folder.file("waits")]);
    const ids = ["2024-01-01 10:30:00", "notes:1:word", "waits:1:0123456789ab", "/dev/zero:1:0123456789ab"];
    {
      await using opened = await loadModel(model, { prepared: false });
      using made = await createIndex(await opened.embed(["a", "b", "c", "d"]), { ids, model });
      await made.save(index);
    }
    const plain = await run(["search", "a", "--index", index]);
    expect(
      plain.output
        .trim()
        .split("\n")
        .map((line) => line.slice(8))
        .sort(),
    ).toEqual(["2024-01-01 10:30:00", "notes:1:word", "waits:1", "/dev/zero:1"].sort());
    const { hits } = JSON.parse((await run(["search", "a", "--index", index, "--json"])).output);
    expect(hits.map(({ id }: { id: string }) => id).sort()).toEqual([...ids].sort());
  });

  test("says before it computes where an index cannot be kept, and shows hits where that comes out later", async () => {
    const search = (index: string) =>
      run(["search", "hello world", "--folder", "notes", "--model", model, "--index", index]);
    const early = await search("nowhere/x.index");
    expect(early).toMatchObject({ status: 2, output: "" });
    expect(early.errors).toStartWith("tinyai: --index: there is no folder nowhere for nowhere/x.index");
    symlinkSync("nowhere/x.index", folder.file("x.index"));
    const late = await search("x.index");
    expect(late.status).toBe(1);
    expect(late.output).toContain("notes/a.md:4");
    expect(late.errors).toContain("x.index: cannot be written");
  });

  test("refuses what is wrong with status 2", async () => {
    for (const [rest, problem] of [
      [["search", "a", "--model", model], "--folder: is missing, and so is --index"],
      [["search", " ", "--folder", "notes", "--model", model], "query: is empty"],
      [["search", "a", "--folder", "none", "--model", model], "--folder: none cannot be read"],
      [["search", "a", "--folder", "notes"], "--model: is missing"],
      [["search", "a", "--folder", "notes", "--model", model, "--count", "0"], "--count: is 0"],
    ] as const) {
      const { status, errors, output } = await run(rest);
      expect({ rest, status, output }).toEqual({ rest, status: 2, output: "" });
      expect(errors).toContain(problem);
    }
  });
});
