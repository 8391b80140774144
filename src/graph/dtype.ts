// The formats a tensor's values can have, by ggml's names. The container's reader (src/model) and the planner (src/plan)
// both build on this list.

export type { DType } from "../model/file.ts";
