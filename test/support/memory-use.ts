// What a model takes of memory as the system tells it: after a short request, and after everything that it can be asked for.

import type { Model } from "../../src/index.ts";
import { Random } from "./random.ts";

const random = new Random(5);

function tokens(length: number): Uint32Array {
  return Uint32Array.from({ length }, () => 3 + random.below(500));
}

/** Bytes of the engine's memory that are there now. */
export function residentOf(model: Model): number {
  return Object.values(model.memoryInUse().resident).reduce((sum, bytes) => sum + bytes, 0);
}

/** 32 tokens, and 32 more if the model generates. */
export async function runShort(model: Model): Promise<void> {
  if (model.plan().wholePrompts) await model.embed(tokens(32));
  else await model.generate(tokens(32), { maxLength: 32, temperature: 0, ignoreEos: true });
}

/**
 * Batches whose sequences all fill the context at the end, with different tokens until no page can be left that was never used, draws
 * from the whole vocabulary, and a text whose every token's logits are wanted, with as many candidates as a row may have.
 */
export async function runMost(model: Model): Promise<void> {
  const { wholePrompts, kvGroups, vocabulary, options } = model.plan();
  const { contextMax, batchMax, logitsRowsMax, rowsMax } = options;
  if (wholePrompts) {
    const length = Math.min(contextMax, model.embeddingLength ?? contextMax);
    await model.embed(Array.from({ length: 2 * batchMax }, () => tokens(length)));
  } else {
    const batchPages = (batchMax * contextMax) / 64;
    const rounds = 2 + Math.ceil(Math.max(...kvGroups.map(({ keptMax }) => keptMax)) / batchPages);
    // While a prompt is computed the sequences before it generate: they begin with a shorter one.
    const stepsOfPrompt = Math.ceil(contextMax / (rowsMax - batchMax)) + 1;
    for (let round = 0; round < rounds; round++) {
      const lengths = Array.from({ length: batchMax }, (_, index) => 16 + stepsOfPrompt * 2 * (batchMax - index));
      await Promise.all(
        lengths.map((maxLength) =>
          model.generate(tokens(contextMax - maxLength), { maxLength, temperature: 0, ignoreEos: true }),
        ),
      );
    }
    // Draws for which every thread sorts the whole vocabulary.
    const wide = { maxLength: 3, temperature: 1, topK: vocabulary - 1, batchSize: batchMax };
    await model.generate(
      Array.from({ length: 2 * batchMax }, () => tokens(8)),
      wide,
    );
    await model.score(tokens(Math.min(contextMax, 64 + logitsRowsMax)), { top: 256 });
  }
}
