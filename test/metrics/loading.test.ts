// What is loaded: neither prom-client nor OpenTelemetry, until somebody who uses them does.

import { expect, test } from "bun:test";
import { join } from "node:path";
import { runScript } from "../engine/support.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

const folder = temporaryFolder();
const path = folder.file("tiny.gguf");
writeTinyModel(path);

test("a program that monitors a model and writes its metrics loads no monitoring library, and one that does not, no metrics", async () => {
  const root = join(import.meta.dir, "../..");
  const source = `
    const loaded = (pattern) => Object.keys(require.cache).some((file) => pattern.test(file));
    const libraries = () => loaded(/node_modules.+(prom-client|@opentelemetry)/);
    const model = await loadModel(path, { threads: { count: 1 }, prepared: false });
    await model.generate("hello", { maxLength: 2 });
    console.log(libraries(), loaded(/src.metrics.|profiling.monitor/));
    const { prometheusText } = await import(${JSON.stringify(join(root, "src/metrics/index.ts"))});
    using monitor = model.monitor();
    console.log(prometheusText(monitor).length > 100, libraries(), loaded(/src.metrics./));
    await import(${JSON.stringify(Bun.resolveSync("prom-client", root))});
    console.log(libraries());
    monitor.close();
    await model.close();`;
  const { output, errors, code } = await runScript(folder, path, source);
  expect([output, errors, code]).toEqual(["false false\ntrue false true\ntrue\n", "", 0]);
}, 30_000);
