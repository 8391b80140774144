// What JavaScript does for a model, by kind: all that those who do it need to know of who records it.

import type { JavaScriptRow } from "./report.ts";

export const javaScriptRows = [
  "tokenizing",
  "submitting",
  "records",
  "detokenizing",
  "consumer",
  "profiling",
  "garbageCollection",
] as const satisfies readonly JavaScriptRow["name"][];

/** Work that says when it begins and ends, by its place in `javaScriptRows`: what is compared and kept at every token is a number. */
export const JavaScriptWork = { tokenizing: 0, submitting: 1, records: 2, detokenizing: 3, profiling: 5 } as const;
export type JavaScriptWork = (typeof JavaScriptWork)[keyof typeof JavaScriptWork];
