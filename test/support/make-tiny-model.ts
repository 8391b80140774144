// Writes tiny models into a folder, for tests in other languages: `bun make-tiny-model.ts FOLDER` makes model.gguf, which answers
// nonsense, for as long as one likes, and encoder.gguf, which gives vectors.

import { join } from "node:path";
import { writeTinyEncoder } from "./tiny-encoder.ts";
import { writeTinyModel } from "./tiny-model.ts";

const [folder = "."] = process.argv.slice(2);
writeTinyModel(join(folder, "model.gguf"), { context: 1 << 16 });
writeTinyEncoder(join(folder, "encoder.gguf"));
