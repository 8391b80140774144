// The public face of TinyAI.

export type {
  ImpactFigure,
  ImpactMetric,
  ImpactWork,
  OptimizationEffect,
  OptimizationImpact,
} from "../profiler/impact.ts";
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
  StepTimes,
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
  NativeCalls,
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
export { mergeProfiles, ProfileMergeError } from "../profiler/totals.ts";
export { type AnalysisOptions, createPerformanceAnalysis, type PerformanceAnalysis } from "./analysis.ts";
export { type BatchSizeRecommendation, recommendedBatchSize } from "./batch-size.ts";
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
export { type CpuFeature, cpu, type SimdCapabilities } from "./engine/cpu.ts";
export type { Candidate, PageCounts } from "./engine/engine.ts";
export type { EngineMemory, MemoryByPart, MemoryPart } from "./engine/footprint.ts";
export type { PrefetchKind } from "./engine/tuning.ts";
export type { RequestMetrics } from "./engine/work.ts";
export {
  BenchmarkFileError,
  DownloadError,
  EngineError,
  IndexFileError,
  LibraryError,
  MemoryLimitError,
  ModelFileError,
  OptionError,
  SessionFileError,
  TinyAIError,
} from "./errors.ts";
export { estimateMemory } from "./estimate.ts";
export type { GeneratedToken, GenerateResult, Piece, Prompt, Speculation, Timings } from "./generate/generate.ts";
export type { GenerateOptions, LookupOptions } from "./generate/options.ts";
export type { ScoreOptions, ScoreResult } from "./generate/score.ts";
export type { Session } from "./generate/session.ts";
export type { SessionPool, SessionPoolOptions } from "./generate/session-pool.ts";
export type { DType } from "./graph/dtype.ts";
export type { PoolingName } from "./graph/graph.ts";
export { analyzeOptimizationImpact, type ImpactOptions } from "./impact.ts";
export type { CacheConfiguration, CacheOptimization, CacheSource } from "./knobs/cache.ts";
export type { CacheStats } from "./knobs/cache-stats.ts";
export type { LayerScheduler } from "./knobs/layer-scheduler.ts";
export type { LimitOptions, Limits } from "./knobs/limits.ts";
export type { MemoryEstimate, MemoryEstimatePart } from "./knobs/memory-estimate.ts";
export type { MemoryLayout, TensorLayout } from "./knobs/memory-layout.ts";
export type { PerformanceMetrics, PerformanceMetricsOptions, WorkTotals } from "./knobs/performance-metrics.ts";
export type { PageGroup, ResourcePool } from "./knobs/pool.ts";
export type { SchedulerConfig, SchedulerOptions } from "./knobs/scheduler.ts";
export type { Simd, SimdOp, SimdOptions } from "./knobs/simd.ts";
export type { ThreadOptions } from "./knobs/threads.ts";
export type { MachineShare, ResourceUsage } from "./knobs/usage.ts";
export { loadModel, type PreparedModel, type PrepareOptions, prepareModel } from "./load.ts";
export type { LoadOptions } from "./load-options.ts";
export { Model } from "./loaded-model.ts";
export type { TuningSource } from "./model-tuning.ts";
export type { CheckpointPlan, CheckpointSegment } from "./plan/checkpoints.ts";
export type { ActivationForm, KvDType } from "./plan/formats.ts";
export type {
  KvGroupPlan,
  PackedMatrix,
  Plan,
  PlannedBuffer,
  PlannedOp,
  PlanOptions,
  WithoutEffect,
} from "./plan/plan.ts";
export type { Preparation } from "./prepared.ts";
export type {
  CacheUsage,
  Monitor,
  MonitorEvents,
  MonitorOptions,
  MonitorSample,
  ProfiledRun,
  ProfileOptions,
} from "./profiling/index.ts";
export { type QuantizedTensor, type QuantizeOptions, type QuantizeResult, quantizeModel } from "./quantize/quantize.ts";
export { type QuantizationType, quantizationTypes } from "./quantize/types.ts";
export type { ChatMessage } from "./tokenizer/chat.ts";
export type { DecodeOptions, EncodeOptions, StreamDecoder, Tokenizer } from "./tokenizer/index.ts";
export type { TuningChoice } from "./tuning.ts";
