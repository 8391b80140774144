// `bun run docs`: the reference of the public interface, written by TypeDoc into build/reference. A warning, such as an export without
// a comment, is a failure.

import { join } from "node:path";
import { root, runSetup } from "./checkout.ts";
import { ensurePackages } from "./packages.ts";

await runSetup(async () => {
  await ensurePackages();
  // TypeDoc reads programs through the interface of TypeScript 6, which TypeScript 7 does not have.
  const typescript = await import("typescript6");
  Bun.plugin({
    name: "TypeScript of TypeDoc",
    setup: (build) => {
      build.module("typescript", () => ({ loader: "object", exports: { ...typescript } }));
    },
  });
  const { Application } = await import("typedoc");
  const application = await Application.bootstrap({
    name: "TinyAI for Bun",
    entryPoints: ["index.ts", "metrics/index.ts", "test/index.ts"].map((path) => join(root, "src", path)),
    tsconfig: join(import.meta.dir, "reference.tsconfig.json"),
    out: join(root, "build", "reference"),
    readme: "none",
    // Links to sources would need a repository's address, which a clone need not have.
    disableSources: true,
    intentionallyNotExported: ["fileTypes", "regions", "KIND_ROWS", "featureNames", "simdOps", "prefetchKinds"],
    excludePrivate: true,
    excludeInternal: true,
    validation: { notExported: true, invalidLink: true, invalidPath: true, rewrittenLink: true, notDocumented: true },
    // A property is said by its name and type, unless it needs a comment.
    requiredToBeDocumented: ["Class", "Interface", "TypeAlias", "Function", "Variable", "Method", "Accessor"],
  });
  const project = await application.convert();
  if (!project) return 1;
  application.validate(project);
  if (application.logger.hasErrors() || application.logger.hasWarnings()) return 1;
  await application.generateOutputs(project);
  return application.logger.hasErrors() ? 1 : 0;
});
