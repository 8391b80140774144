// What the profiler's callers load to write a page.

export { reportPage } from "./index.ts";
