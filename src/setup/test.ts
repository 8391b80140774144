// Runs the tests in a fresh clone as well as in a used one: packages, Zig and the library first, then the runners, then
// one line with the sum. `bun run test` runs Zig's tests and Bun's; `bun run test:conformance` those that download data;
// `bun run test:python` those of the Python package. Further arguments go to `bun test`, or to pytest.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { ensureLibrary } from "./build.ts";
import { root, runSetup, withTemporaryFolder } from "./checkout.ts";
import { countJunit, countZig, type RunnerResult, sumRunners } from "./count.ts";
import { ensurePackages } from "./packages.ts";
import { runPytest } from "./pytest.ts";
import { ensureZig, zigEnvironment, zigJobs } from "./toolchain.ts";

async function runZig(): Promise<RunnerResult> {
  const zig = await ensureZig();
  // Zig shows the output of its runs as it shows errors, by default with the command that "failed".
  const child = Bun.spawn([zig, "build", "test", zigJobs, "--summary", "none", "--error-style", "minimal"], {
    cwd: root,
    env: zigEnvironment(),
    stdio: ["ignore", "pipe", "pipe"],
  });
  const [stdout, stderr] = await Promise.all([show(child.stdout), show(child.stderr)]);
  return { name: "zig build test", counts: countZig(`${stdout}\n${stderr}`), status: await child.exited };
}

async function show(stream: ReadableStream<Uint8Array>): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of stream) {
    process.stderr.write(chunk);
    text += decoder.decode(chunk, { stream: true });
  }
  return text;
}

function runBun(options: readonly string[]): Promise<RunnerResult> {
  return withTemporaryFolder("test", async (folder) => {
    const report = join(folder, "report.xml");
    // bunfig.toml has no key for the time that a test may take; 5 s are too few on a loaded machine.
    const limits = ["--timeout=120000"];
    const command = [
      process.execPath,
      "test",
      ...limits,
      "--reporter=junit",
      `--reporter-outfile=${report}`,
      ...options,
    ];
    const child = Bun.spawn(command, { cwd: root, stdio: ["ignore", "inherit", "inherit"] });
    const status = await child.exited;
    let counts: RunnerResult["counts"];
    try {
      counts = countJunit(readFileSync(report, "utf8"));
    } catch {}
    return { name: "bun test", counts, status };
  });
}

if (import.meta.main) {
  await runSetup(async () => {
    const [first, ...rest] = process.argv.slice(2);
    await ensurePackages();
    await ensureLibrary();
    const runners: RunnerResult[] = [];
    if (first === "conformance") {
      // bunfig.toml leaves these out of the ordinary run; no path is ignored here.
      runners.push(
        await runBun(["--path-ignore-patterns=nothing", ...(rest.length > 0 ? rest : ["test/conformance"])]),
      );
    } else if (first === "python") {
      runners.push(await runPytest(rest));
    } else {
      runners.push(await runZig());
      runners.push(await runBun(process.argv.slice(2)));
    }
    const { passed, failed, problems } = sumRunners(runners);
    for (const problem of problems) process.stderr.write(`${problem}\n`);
    process.stdout.write(`${passed} passed, ${failed} failed\n`);
    return failed === 0 ? 0 : 1;
  });
}
