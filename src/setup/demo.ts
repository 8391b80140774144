// `bun run demo`: from a fresh clone to text from a model, and where its time went. Each long part is skipped when it has
// been done before, so that a second run shows text within a second.

import { ensureLibrary } from "./build.ts";
import { runSetup } from "./checkout.ts";
import { ensurePackages } from "./packages.ts";

const modelName = "gemma3-270m";
const prompt = "Once upon a time";

await runSetup(async () => {
  await ensurePackages();
  await ensureLibrary();

  // Only now may modules be loaded that import packages.
  const { pullModel } = await import("../cli/pull.ts");
  const { TinyAIError } = await import("../errors.ts");
  try {
    const { path } = await pullModel(modelName, { verify: false });
    const { loadModel } = await import("../index.ts");
    const { formatReport } = await import("../../profiler/index.ts");
    await using model = await loadModel(path);
    process.stdout.write(prompt);
    const profile = await model.profile(async () => {
      for await (const piece of model.stream(prompt, { maxLength: 100, repeatPenalty: 1.15, seed: 4 })) {
        process.stdout.write(piece.text);
      }
    });
    process.stdout.write(`\n\n${formatReport(profile)}\n`);
    return 0;
  } catch (error) {
    if (!(error instanceof TinyAIError)) throw error;
    process.stderr.write(`${error.message}\n`);
    return 1;
  }
});
