// The public face of TinyAI.

export type { Profile, WindowProfile } from "../profiler/index.ts";
export type { Report } from "../profiler/report.ts";
export { formatProfile } from "../profiler/table.ts";
export { formatReport } from "../profiler/terminal.ts";
export { type AnalysisOptions, createPerformanceAnalysis, type PerformanceAnalysis } from "./analysis.ts";
export { cpu } from "./engine/cpu.ts";
export type { Candidate } from "./engine/engine.ts";
export {
  DownloadError,
  EngineError,
  LibraryError,
  ModelFileError,
  OptionError,
  SessionFileError,
  TinyAIError,
} from "./errors.ts";
export type { GeneratedToken, GenerateResult, Piece, Prompt, Speculation, Timings } from "./generate/generate.ts";
export type { GenerateOptions, LookupOptions } from "./generate/options.ts";
export type { ScoreOptions, ScoreResult } from "./generate/score.ts";
export type { Session } from "./generate/session.ts";
export {
  type LoadOptions,
  loadModel,
  Model,
  type PreparedModel,
  type PrepareOptions,
  prepareModel,
} from "./load.ts";
export type { Preparation } from "./prepared.ts";
export type { Monitor, MonitorOptions, ProfiledRun, ProfileOptions } from "./profiling/index.ts";
export { type QuantizedTensor, type QuantizeOptions, type QuantizeResult, quantizeModel } from "./quantize/quantize.ts";
export { type QuantizationType, quantizationTypes } from "./quantize/types.ts";
export type { ChatMessage } from "./tokenizer/chat.ts";
export type { Tokenizer } from "./tokenizer/index.ts";
