// `bun run schemas`: writes the JSON Schemas of benchmark files anew from what checks them.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { configJsonSchema } from "../benchmark/config.ts";
import { resultsJsonSchema } from "../benchmark/schema/results.ts";
import { root } from "./checkout.ts";

const schemas = { "results.schema.json": resultsJsonSchema(), "config.schema.json": configJsonSchema() };
const paths = Object.entries(schemas).map(([name, schema]) => {
  const path = join(root, "src", "benchmark", name);
  writeFileSync(path, `${JSON.stringify(schema, null, 2)}\n`);
  return path;
});
const biome = join(root, "node_modules", ".bin", "biome");
process.exitCode = Bun.spawnSync([biome, "format", "--write", ...paths], {
  stdio: ["ignore", "inherit", "inherit"],
}).exitCode;
