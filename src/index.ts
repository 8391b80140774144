// The public face of TinyAI.

export type {
  CostRow,
  HistogramData,
  HistogramUnit,
  KindRow,
  LayerRow,
  OpRow,
  PhaseRow,
  Profile,
  ReportOptions,
  TableOptions,
  ThreadRow,
  TimeRow,
  TimeSpan,
  WindowProfile,
} from "../profiler/index.ts";
export type {
  Allocations,
  AmountRow,
  Bound,
  CacheCounts,
  CacheGeometry,
  CacheName,
  CacheStatistics,
  Finding,
  JavaScriptRow,
  JavaScriptShare,
  MachineInfo,
  MachineRoofs,
  MemoryCounts,
  MemoryOperations,
  OpMemoryRow,
  Region,
  Report,
  RequestRow,
  Roofline,
  RooflineRow,
  RunInfo,
  SystemSample,
  SystemUse,
} from "../profiler/report.ts";
export { formatProfile } from "../profiler/table.ts";
export { formatReport } from "../profiler/terminal.ts";
export { type AnalysisOptions, createPerformanceAnalysis, type PerformanceAnalysis } from "./analysis.ts";
export type { EmbedInput } from "./embed/embed.ts";
export { createIndex, openIndex } from "./embed/index.ts";
export type { Metric } from "./embed/index-file.ts";
export type { Matrix } from "./embed/matrix.ts";
export type { EmbedOptions, EmbedStreamOptions } from "./embed/options.ts";
export { similarity } from "./embed/similarity.ts";
export type {
  CreateIndexOptions,
  OpenIndexOptions,
  SearchHit,
  SearchOptions,
  VectorIndex,
} from "./embed/vector-index.ts";
export { cpu } from "./engine/cpu.ts";
export type { Candidate } from "./engine/engine.ts";
export {
  DownloadError,
  EngineError,
  IndexFileError,
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
export type { DType } from "./graph/dtype.ts";
export type { PoolingName } from "./graph/graph.ts";
export { loadModel, type PreparedModel, type PrepareOptions, prepareModel } from "./load.ts";
export type { LoadOptions } from "./load-options.ts";
export { Model } from "./loaded-model.ts";
export type { KvDType } from "./plan/formats.ts";
export type { KvGroupPlan, PackedMatrix, Plan, PlannedOp, PlanOptions } from "./plan/plan.ts";
export type { Preparation } from "./prepared.ts";
export type { Monitor, MonitorOptions, ProfiledRun, ProfileOptions } from "./profiling/index.ts";
export { type QuantizedTensor, type QuantizeOptions, type QuantizeResult, quantizeModel } from "./quantize/quantize.ts";
export { type QuantizationType, quantizationTypes } from "./quantize/types.ts";
export type { ChatMessage } from "./tokenizer/chat.ts";
export type { DecodeOptions, EncodeOptions, StreamDecoder, Tokenizer } from "./tokenizer/index.ts";
export type { TuningChoice } from "./tuning.ts";
