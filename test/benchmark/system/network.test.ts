// The loopback network's benchmark: what it says that came, beside what the system counted on its loopback device.

import { expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { measureNetwork, openLine } from "../../../src/benchmark/system/network.ts";
import { EngineError } from "../../../src/errors.ts";

setDefaultTimeout(30_000);

const linux = process.platform === "linux";

/** Bytes that the loopback device has received. */
function looped(): number {
  return Number(/^\s*lo:\s*(\d+)/m.exec(readFileSync("/proc/net/dev", "utf8"))?.[1]);
}

/** Processes that this one has started and that still are. */
function children(): string[] {
  const tasks = readdirSync("/proc/self/task");
  return tasks.flatMap((task) => readFileSync(`/proc/self/task/${task}/children`, "utf8").split(" ").filter(Boolean));
}

test.skipIf(!linux)(
  "what came is no more than what the loopback device had, and each message crosses it twice",
  async () => {
    const line = await openLine();
    const start = looped();
    const { bytes, elapsedMs } = await line.flow(60);
    const flowed = looped() - start;
    expect(elapsedMs).toBeGreaterThanOrEqual(60);
    expect(bytes).toBeWithin(1, flowed + 1);
    const before = looped();
    const times = await line.pings(20);
    expect(times.length).toBeWithin(1, 51);
    expect(looped() - before).toBeGreaterThanOrEqual(2 * 64 * times.length);
    await line.close();
  },
);

test("flows and messages take turns again and again, and the figures are of all of them", async () => {
  const { figures, childrenMs } = await measureNetwork({ rounds: 8, timeMs: 400, seed: 1 });
  expect(figures?.processes).toBe(2);
  // On a busy machine there is time for fewer.
  expect(figures?.bandwidth?.samples?.length).toBeWithin(1, 9);
  expect(figures?.bandwidth?.min).toBeGreaterThan(0);
  expect(figures?.latency?.samples?.length).toBeGreaterThanOrEqual(1);
  expect(figures?.latency?.min).toBeGreaterThan(0);
  expect(figures?.bytes).toBeGreaterThan(0);
  // The other process sent all of it.
  expect(childrenMs).toBeGreaterThan(1);
});

test.skipIf(!linux)("no process stays, however it ends", async () => {
  const before = children();
  const controller = new AbortController();
  const onProgress = (share: number) => share > 0 && controller.abort();
  const { figures } = await measureNetwork({
    rounds: 500,
    timeMs: 25_000,
    seed: 1,
    signal: controller.signal,
    onProgress,
  });
  // The first round was whole when it was interrupted.
  expect(figures?.bandwidth?.samples).toHaveLength(1);
  expect(children()).toEqual(before);
});

test.skipIf(process.platform === "win32")("Ctrl-C, which comes to both processes, keeps what was whole", async () => {
  const module = JSON.stringify(join(import.meta.dir, "../../../src/benchmark/system/network.ts"));
  const script = `const { measureNetwork } = await import(${module});
    const controller = new AbortController();
    process.on("SIGINT", () => setTimeout(() => controller.abort(), 50));
    let told = false;
    const onProgress = (share) => {
      if (share > 0 && !told) process.kill(0, "SIGINT");
      told ||= share > 0;
    };
    const options = { rounds: 500, timeMs: 25_000, seed: 1, signal: controller.signal, onProgress };
    const { figures } = await measureNetwork(options);
    console.log(figures.bandwidth.samples.length);`;
  // In a group of its own, as a terminal has one for what runs in it.
  const child = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe", detached: true });
  const samples = Number(await child.stdout.text());
  expect(await child.exited).toBe(0);
  expect(samples).toBeWithin(1, 500);
});

test("where the other process cannot be started, an error says so", async () => {
  const path = process.execPath;
  process.execPath = join(import.meta.dir, "no-such-program");
  try {
    await expect(openLine()).rejects.toThrow("the network cannot be measured: the other process cannot be started: ");
    await expect(openLine()).rejects.toBeInstanceOf(EngineError);
  } finally {
    process.execPath = path;
  }
});
