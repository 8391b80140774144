// An npm registry on this machine for tests that install packages without a network: tarballs that were packed, and of what those
// depend on the packages as they are installed here.

import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { root } from "../../src/setup/checkout.ts";

/** Of packages that are large, what is used of them. */
const usedOf: Readonly<Record<string, readonly string[]>> = {
  echarts: ["package.json", "dist/echarts.common.min.js"],
  zrender: ["package.json"],
};

/** A running registry. */
export interface Registry extends Disposable {
  readonly address: string;
}

/** Serves `tarballs`, and packages from the checkout's node_modules, until it is disposed. */
export async function startRegistry(tarballs: readonly string[]): Promise<Registry> {
  const own = new Map<string, Uint8Array<ArrayBuffer>>();
  for (const path of tarballs) {
    const bytes = new Uint8Array(readFileSync(path));
    own.set((await manifestOf(bytes)).name, bytes);
  }
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    async fetch(request) {
      const { pathname, origin } = new URL(request.url);
      const [name = "", isTarball] = decodeURIComponent(pathname.slice(1)).split("/-/");
      const bytes = own.get(name) ?? (await installed(name));
      if (!bytes) return new Response("not found", { status: 404 });
      own.set(name, bytes);
      if (isTarball !== undefined) return new Response(bytes);
      const manifest = await manifestOf(bytes);
      const integrity = `sha512-${createHash("sha512").update(bytes).digest("base64")}`;
      const dist = { tarball: `${origin}/${name}/-/package.tgz`, integrity };
      const { version } = manifest;
      return Response.json({ name, "dist-tags": { latest: version }, versions: { [version]: { ...manifest, dist } } });
    },
  });
  return { address: `http://127.0.0.1:${server.port}/`, [Symbol.dispose]: () => void server.stop(true) };
}

interface Manifest {
  readonly name: string;
  readonly version: string;
}

async function manifestOf(tarball: Uint8Array<ArrayBuffer>): Promise<Manifest> {
  const files = await new Bun.Archive(tarball).files("package/package.json");
  return (await files.get("package/package.json")?.json()) as Manifest;
}

/** A package as it is installed in the checkout, as a tarball. */
async function installed(name: string): Promise<Uint8Array<ArrayBuffer> | undefined> {
  const folder = join(root, "node_modules", name);
  if (!existsSync(join(folder, "package.json"))) return undefined;
  const names = usedOf[name] ?? readdirSync(folder, { recursive: true, encoding: "utf8" });
  const files: Record<string, Uint8Array> = {};
  for (const file of names) {
    const path = join(folder, file);
    if (!file.startsWith("node_modules") && statSync(path).isFile()) files[`package/${file}`] = readFileSync(path);
  }
  return new Uint8Array(await new Bun.Archive(files, { compress: "gzip", level: 1 }).bytes());
}
