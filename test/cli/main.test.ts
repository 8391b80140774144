import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import manifest from "../../package.json" with { type: "json" };
import { catalogueEntry } from "../../src/model/catalogue.ts";
import { runProgram } from "../../src/setup/python.ts";
import { offline, reachesSize, startHub, temporaryFolder } from "./support.ts";

// Processes and pip take their time on a loaded machine.
setDefaultTimeout(120_000);

const main = join(import.meta.dir, "..", "..", "src", "cli", "main.ts");

function tinyai(arguments_: readonly string[], env: NodeJS.ProcessEnv = process.env) {
  return runProgram([process.execPath, main, ...arguments_], { env });
}

test("--version prints the package's version", async () => {
  const { status, stdout, stderr } = await tinyai(["--version"]);
  expect(stdout).toBe(`${manifest.version}\n`);
  expect(stderr).toBe("");
  expect(status).toBe(0);
});

test("every verb in the list of verbs has help with examples", async () => {
  const { stdout } = await tinyai(["--help"]);
  const verbs = [...(stdout.split("Commands:")[1]?.split("\n\n")[0] ?? "").matchAll(/^ {2}([a-z]+) /gm)].map(
    ([, verb]) => verb ?? "",
  );
  expect(verbs).toContain("pull");
  expect(verbs).toContain("doctor");
  for (const verb of verbs.filter((verb) => verb !== "help")) {
    const help = await tinyai([verb, "--help"]);
    expect(help.status).toBe(0);
    expect(help.stdout).toContain("Examples:\n");
    expect(help.stdout).toContain(`tinyai ${verb}`);
  }
});

test("wrong usage ends with status 2, a reason on stderr and nothing on stdout", async () => {
  const wrong = [
    ["frobnicate"],
    ["pull"],
    ["pull", "gemma3-270m", "--frobnicate"],
    ["pull", "no-such-model"],
    ["doctor", "extra"],
  ];
  for (const arguments_ of wrong) {
    const { status, stdout, stderr } = await tinyai(arguments_);
    expect({ arguments_, status, stdout }).toEqual({ arguments_, status: 2, stdout: "" });
    expect(stderr).not.toBe("");
    expect(stderr).not.toContain("    at ");
  }
});

test("a hub's address that is none is refused as wrong usage, naming the variable", async () => {
  using folder = temporaryFolder();
  for (const hub of ["not an address", "ftp://hub.example/models"]) {
    const { status, stderr } = await tinyai(["pull", "gemma3-270m"], {
      ...offline(undefined, hub),
      TINYAI_HOME: folder.path,
    });
    expect(status).toBe(2);
    expect(stderr).toContain("TINYAI_HUB");
  }
});

test("a pull that fails ends with status 1, one line of error and an empty stdout even with --json", async () => {
  using folder = temporaryFolder();
  const { status, stdout, stderr } = await tinyai(["pull", "gemma3-270m", "--json"], {
    ...offline(undefined),
    TINYAI_HOME: folder.path,
  });
  expect(status).toBe(1);
  expect(stdout).toBe("");
  expect(stderr.split("\n").filter((line) => line.startsWith("tinyai: "))).toHaveLength(1);
  expect(stderr).not.toContain("    at ");
});

test("Ctrl-C ends a pull with status 130 and leaves only what can be resumed", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "models", "gemma3-270m.gguf");
  // As long as the model by its headers; the connection stalls after the first bytes.
  const hub = await startHub(new Uint8Array(catalogueEntry("gemma3-270m").bytes), () => ({
    sends: 100_000,
    until: "never",
  }));
  const child = Bun.spawn([process.execPath, main, "pull", "gemma3-270m"], {
    env: { ...offline(undefined, hub.address), TINYAI_HOME: folder.path },
    stdio: ["ignore", "pipe", "pipe"],
  });
  await reachesSize(`${path}.part`, 100_000);
  child.kill("SIGINT");
  const [status, stdout, stderr] = await Promise.all([child.exited, child.stdout.text(), child.stderr.text()]);
  hub.close();
  expect(status).toBe(130);
  expect(stdout).toBe("");
  expect(stderr).not.toContain("    at ");
  expect(readdirSync(join(folder.path, "models"))).toEqual(["gemma3-270m.gguf.part"]);
  expect(statSync(`${path}.part`).size).toBe(100_000);
});

test("output into a closed pipe ends quietly", async () => {
  const { stdout, stderr } = await runProgram([
    "sh",
    "-c",
    `{ "$0" "$1" --help; echo "status $?" >&3; } 3>&1 1>&2 2>/dev/null | cat`,
    process.execPath,
    main,
  ]);
  expect(stderr).toContain("tinyai");
  expect(stdout).toContain("status 0");
  const closed = await runProgram(["sh", "-c", `"$0" "$1" --help | true`, process.execPath, main]);
  expect(closed.stderr).toBe("");
});

test("doctor --json prints one JSON document that names each finding's state", async () => {
  using folder = temporaryFolder();
  const home = join(folder.path, "home");
  const { status, stdout } = await tinyai(["doctor", "--json"], { ...process.env, TINYAI_HOME: home });
  const { ok, findings } = JSON.parse(stdout);
  expect(status).toBe(ok ? 0 : 1);
  const byName = new Map<string, { state: string; found: string }>(
    findings.map((finding: { name: string }) => [finding.name, finding]),
  );
  expect(byName.get("Bun")?.found).toContain(Bun.version);
  expect(byName.get("cache folder")?.state).toBe("ok");
  expect(byName.get("model gemma3-270m")?.state).toBe("missing");
  for (const { state } of byName.values()) expect(["ok", "missing", "broken"]).toContain(state);
  // It looks and changes nothing.
  expect(existsSync(home)).toBe(false);
});

test("doctor reports a library that is no library as broken, with status 1", async () => {
  const { status, stdout } = await tinyai(["doctor", "--json"], { ...process.env, TINYAI_LIBRARY: main });
  const { ok, findings } = JSON.parse(stdout);
  expect(ok).toBe(false);
  expect(status).toBe(1);
  expect(findings.find((finding: { name: string }) => finding.name === "native library").found).toContain(main);
});

test.skipIf(process.platform !== "linux")("doctor reports a cache folder that cannot be written", async () => {
  const { stdout } = await tinyai(["doctor", "--json"], { ...process.env, TINYAI_HOME: "/dev/null/tinyai" });
  const finding = JSON.parse(stdout).findings.find((candidate: { name: string }) => candidate.name === "cache folder");
  expect(finding.state).toBe("broken");
  expect(finding.remedy).toContain("TINYAI_HOME");
});
