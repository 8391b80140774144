// What can be asked of `tinyai pipe`.

import { describe } from "../../check.ts";
import type { EmbedStreamOptions } from "../../embed/options.ts";
import { OptionError } from "../../errors.ts";
import type { Prompt } from "../../generate/generate.ts";
import { checkGenerateOptions, type GenerateOptions } from "../../generate/options.ts";
import type { LoadOptions } from "../../load-options.ts";
import { sequencesMax } from "../../plan/layout.ts";
import { generationJson } from "../generation-json.ts";
import type { Models } from "./models.ts";
import {
  checkParameters,
  embeddingNames,
  generationNames,
  loadingNames,
  namingParameters,
  optionsOf,
} from "./parameters.ts";

export interface Call {
  readonly params: unknown;
  /** Aborted when the request is cancelled. */
  readonly signal: AbortSignal;
  readonly models: Models;
  /** Sends an event before the result; resolves when there is room for more. */
  readonly tell: (event: Readonly<Record<string, unknown>>) => Promise<void>;
}

export interface Method {
  /** Whether nothing else may run meanwhile. */
  readonly alone?: boolean;
  readonly run: (call: Call) => Promise<unknown>;
}

/** Bytes of vectors in an event; a vector that is longer comes alone. */
const vectorBytes = 1 << 18;

export const methods: Readonly<Record<string, Method>> = {
  /** A text after a prompt; with `stream`, its pieces as they come. */
  generate: {
    async run({ params, signal, models, tell }) {
      const loading = Object.keys(loadingNames);
      const known = ["model", "prompt", "stream", ...loading, ...Object.keys(generationNames)];
      const { model, prompt, stream = false, ...rest } = checkParameters(params, known);
      if (typeof stream !== "boolean") {
        throw new OptionError("stream", `is ${describe(stream)}; true or false is expected`);
      }
      return await namingParameters({ ...loadingNames, ...generationNames }, async () => {
        const asked = optionsOf<GenerateOptions>(rest, generationNames);
        const options = { ...asked, seed: seedOf(asked.seed), signal };
        // Before the model is loaded, which takes longer.
        checkGenerateOptions(options, sequencesMax);
        return await models.use(model, optionsOf<LoadOptions>(rest, loadingNames), signal, async (opened) => {
          const pieces = opened.stream(prompt as Prompt, options);
          for (;;) {
            const next = await pieces.next();
            if (next.done) return generationJson(next.value);
            if (stream && next.value.text !== "") await tell({ text: next.value.text });
          }
        });
      });
    },
  },

  /** Vectors of texts, as events with the bytes of some of them: float32, little-endian, one after another, in base64. */
  embed: {
    async run({ params, signal, models, tell }) {
      const known = ["model", "texts", ...Object.keys(loadingNames), ...Object.keys(embeddingNames)];
      const { model, texts, ...rest } = checkParameters(params, known);
      if (!Array.isArray(texts)) throw new OptionError("texts", `is ${describe(texts)}; a list of texts is expected`);
      return await namingParameters({ ...loadingNames, ...embeddingNames }, () =>
        models.use(model, optionsOf<LoadOptions>(rest, loadingNames), signal, async (opened) => {
          const options = { ...optionsOf<EmbedStreamOptions>(rest, embeddingNames), signal };
          let waiting: Uint8Array[] = [];
          let bytes = 0;
          let done = 0;
          const send = async () => {
            await tell({ vectors: Buffer.concat(waiting).toString("base64") });
            waiting = [];
            bytes = 0;
          };
          for await (const vector of opened.embedStream(texts, options)) {
            if (bytes + vector.byteLength > vectorBytes && bytes > 0) await send();
            waiting.push(new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength));
            bytes += vector.byteLength;
            done++;
          }
          if (bytes > 0) await send();
          return { count: done, dimensions: options.dimensions ?? opened.embeddingWidth };
        }),
      );
    },
  },

  "benchmark.run": { alone: true, run: async (call) => (await import("./benchmark.ts")).run(call) },
  "benchmark.analyze": { run: async (call) => (await import("./benchmark.ts")).analyze(call) },
  "benchmark.load": { run: async (call) => (await import("./benchmark.ts")).load(call) },
  "benchmark.save": { run: async (call) => (await import("./benchmark.ts")).save(call) },

  /** The models in memory. */
  models: {
    run({ params, models }) {
      checkParameters(params, []);
      return Promise.resolve({ models: models.list() });
    },
  },

  /** Closes models that nobody uses: one by its name, or all. */
  close: {
    async run({ params, models }) {
      const { model } = checkParameters(params, ["model"]);
      if (model !== undefined && typeof model !== "string") {
        throw new OptionError("model", `is ${describe(model)}; a path or the name of a model is expected`);
      }
      return { closed: await models.closeIdle(model) };
    },
  },
};

/** Seeds have 64 bits, more than a number of JSON surely holds; as text they may have all. */
function seedOf(seed: unknown): number | bigint | undefined {
  if (typeof seed === "string" && /^\d{1,20}$/.test(seed)) return BigInt(seed);
  // Checked where it is used.
  return seed as number | undefined;
}
