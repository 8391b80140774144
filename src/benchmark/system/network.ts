// How fast two processes on this machine talk to each other: TCP over 127.0.0.1, this process at one end and another at the other.
// No network card is in it. It is what programs in Bun have of it, their event loops included.

import { tmpdir } from "node:os";
import type { Socket, Subprocess } from "bun";
import { EngineError } from "../../errors.ts";
import type { Part, PartOptions } from "../part.ts";
import type { NetworkFigures } from "../results.ts";
import { takeRounds } from "../rounds.ts";
import { latencyOf, statisticsOf } from "../statistics/describe.ts";
import { seededRandom } from "../statistics/random.ts";
import { Thinned } from "./thinned.ts";

const address = "127.0.0.1";
const messageBytes = 64;
/** Messages of each slice whose times are kept, spread over it, at most. */
const timesPerSlice = 50;
const warmMs = 50;
/** After so long without an answer the other process is taken to be gone. */
const silenceMs = 5_000;
/** What arrives in this time after a flow began is of the beginning, when little is under way, and not counted. */
const beginningMs = 20;

/** What a message begins with: it asks for an answer, for a flow of bytes, or for its end. */
const ask = 0;
const start = 1;
const stop = 2;
/** What an answer ends with, and nothing of a flow. */
const last = 7;

/**
 * The other process: answers messages, and sends all it can from one that asks for it until one that ends it. It runs from its own
 * text, so it knows nothing of this module.
 */
function peer(messageBytes: number, last: number, port: number): void {
  // Ctrl-C comes to all processes of a terminal. This one ends when the other closes the connection.
  process.on("SIGINT", () => {});
  const chunk = new Uint8Array(1 << 19);
  const answer = new Uint8Array(messageBytes);
  answer[messageBytes - 1] = last;
  /** What is left of an answer that the socket did not take whole. */
  let owed = answer.subarray(messageBytes);
  let flowing = false;
  let [kind, at] = [0, 0];
  const send = (socket: Socket): void => {
    if (owed.length > 0) owed = owed.subarray(Math.max(0, socket.write(owed)));
    // Between two pieces it hears what it is told.
    else if (flowing && socket.write(chunk) === chunk.length) setImmediate(() => send(socket));
  };
  void Bun.connect({
    hostname: "127.0.0.1",
    port,
    socket: {
      open: (socket) => void socket.setNoDelay(true),
      data(socket, bytes) {
        for (const byte of bytes) {
          if (at === 0) kind = byte;
          at = (at + 1) % messageBytes;
          if (at > 0) continue;
          if (kind === 0) owed = answer;
          else flowing = kind === 1;
          send(socket);
        }
      },
      drain: send,
      close: () => process.exit(0),
      error: () => process.exit(1),
    },
  });
}

interface Flow {
  readonly bytes: number;
  readonly elapsedMs: number;
}

/** @throws {EngineError} if the other process cannot be started, or ends before its time. */
export async function measureNetwork(options: PartOptions): Promise<Part<NetworkFigures>> {
  const line = await openLine();
  let childrenMs: number;
  let measured: Part<NetworkFigures>;
  try {
    measured = await measureLine(line, options);
  } finally {
    childrenMs = await line.close();
  }
  return { ...measured, childrenMs };
}

async function measureLine(line: Line, options: PartOptions): Promise<Part<NetworkFigures>> {
  const { seed, signal } = options;
  try {
    const measure = async (flowMs: number, pingsMs: number) => ({
      flow: await line.flow(flowMs, signal),
      timesMs: await line.pings(pingsMs, signal),
    });
    // Both programs warm up.
    await measure(warmMs, warmMs);
    const take = (sliceMs: number) => measure(sliceMs / 2, sliceMs / 2);
    const [samples = []] = await takeRounds([take], { ...options, random: seededRandom(seed) });
    if (samples.length === 0) return { methodology: [], warnings: [] };
    const rates = samples.map(({ flow }) => flow.bytes / 1e3 / flow.elapsedMs);
    const timesMs = samples.flatMap((sample) => sample.timesMs);
    const figures: NetworkFigures = {
      processes: 2,
      bandwidth: statisticsOf(rates, seededRandom(seed)),
      bytes: samples.reduce((sum, { flow }) => sum + flow.bytes, 0),
      latency: latencyOf(timesMs, seededRandom(seed)),
      message_bytes: messageBytes,
    };
    return { figures, methodology, warnings: [] };
  } catch (error) {
    if (!signal?.aborted) throw error;
    return { methodology: [], warnings: [] };
  }
}

const methodology = [
  "The network's figures are of TCP over 127.0.0.1 between two processes of this machine, one connection, and no network card: its bandwidth is what this process received in slices of time while the other sent all it could, its latency that of a message of 64 bytes there and back, without delay (TCP_NODELAY), as programs in Bun have it.",
];

/** The connection, seen from this end. */
interface Line {
  /** What arrives in so long. */
  readonly flow: (sliceMs: number, signal?: AbortSignal) => Promise<Flow>;
  /** Times of messages there and back, ms, for so long. */
  readonly pings: (sliceMs: number, signal?: AbortSignal) => Promise<readonly number[]>;
  /** Ends the other process. @returns the CPU time that it took, ms. */
  readonly close: () => Promise<number>;
}

/**
 * Starts the other process and waits for it.
 * @throws {EngineError} if it cannot be started, or does not answer.
 */
export async function openLine(): Promise<Line> {
  const connected = Promise.withResolvers<Socket>();
  const gone = Promise.withResolvers<never>();
  // Nobody may be waiting when it goes.
  gone.promise.catch(() => {});
  let receive = (_bytes: Uint8Array): void => {};
  const listener = Bun.listen({
    hostname: address,
    port: 0,
    socket: {
      open(socket) {
        socket.setNoDelay(true);
        connected.resolve(socket);
      },
      data: (_, bytes) => receive(bytes),
      close: () => gone.reject(lost("has gone")),
    },
  });
  const child = startPeer(listener);
  void child.exited.then((code) => gone.reject(lost(`ended with code ${code}`)));
  const close = async () => {
    listener.stop(true);
    child.kill();
    await child.exited;
    return Number(child.resourceUsage()?.cpuTime.total ?? 0) / 1000;
  };
  /** @throws {EngineError} if the other process ends, or says nothing for too long. */
  const answered = async <T>(promise: Promise<T>, timeoutMs: number): Promise<T> => {
    const silence = Promise.withResolvers<never>();
    const timer = setTimeout(() => silence.reject(lost("does not answer")), timeoutMs);
    try {
      return await Promise.race([promise, gone.promise, silence.promise]);
    } finally {
      clearTimeout(timer);
    }
  };
  let socket: Socket;
  try {
    socket = await answered(connected.promise, silenceMs);
  } catch (error) {
    await close();
    throw error;
  }
  const message = (kind: number) => {
    const bytes = new Uint8Array(messageBytes);
    bytes[0] = kind;
    return bytes;
  };
  const [asking, starting, stopping] = [message(ask), message(start), message(stop)];

  const flow: Line["flow"] = async (sliceMs, signal) => {
    const ended = Promise.withResolvers<Flow>();
    const beganMs = performance.now() + Math.min(beginningMs, sliceMs / 2);
    let firstMs = 0;
    let bytes = 0;
    receive = ({ length }) => {
      const nowMs = performance.now();
      if (nowMs < beganMs) return;
      // What comes first ends at the moment that the time is counted from.
      if (firstMs === 0) {
        firstMs = nowMs;
        return;
      }
      bytes += length;
      if (nowMs - firstMs < sliceMs && !signal?.aborted) return;
      receive = () => {};
      ended.resolve({ bytes, elapsedMs: nowMs - firstMs });
    };
    socket.write(starting);
    const found = await answered(ended.promise, silenceMs + sliceMs);
    // What is still under way comes before the answer.
    const quiet = Promise.withResolvers<void>();
    receive = (received) => {
      if (received.at(-1) === last) quiet.resolve();
    };
    socket.write(stopping);
    socket.write(asking);
    await answered(quiet.promise, silenceMs);
    return found;
  };

  const pings: Line["pings"] = (sliceMs, signal) => {
    const ended = Promise.withResolvers<readonly number[]>();
    const times = new Thinned(timesPerSlice);
    const beganMs = performance.now();
    let sentMs = beganMs;
    receive = (received) => {
      if (received.at(-1) !== last) return;
      const nowMs = performance.now();
      times.add(nowMs - sentMs);
      if (nowMs - beganMs >= sliceMs || signal?.aborted) {
        receive = () => {};
        ended.resolve(times.values);
        return;
      }
      sentMs = performance.now();
      socket.write(asking);
    };
    socket.write(asking);
    return answered(ended.promise, silenceMs + sliceMs);
  };

  return { flow, pings, close };
}

/** @throws {EngineError} if it cannot be started; nothing listens any more then. */
function startPeer(listener: { readonly port: number; stop(now: boolean): void }): Subprocess {
  const script = `(${peer})(${messageBytes}, ${last}, ${listener.port})`;
  try {
    return Bun.spawn([process.execPath, "-e", script], {
      cwd: tmpdir(),
      // A compiled program runs a text as Bun does if it is told to.
      env: { ...process.env, BUN_BE_BUN: "1" },
      stdio: ["ignore", "ignore", "ignore"],
    });
  } catch (error) {
    listener.stop(true);
    throw lost(`cannot be started: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function lost(what: string): EngineError {
  return new EngineError(`the network cannot be measured: the other process ${what}`);
}
