// What `tinyai/benchmark` gives programs: benchmarks as the command line runs them, and what can be said of their results.

export { BenchmarkFileError } from "../errors.ts";
export {
  type Analysis,
  type AnalysisFinding,
  type AnalyzedFigure,
  analyzeResults,
  type BatchScaling,
  type SampleFigures,
} from "./analysis.ts";
export { type Checklist, type ChecklistItem, checklistOf, type ItemState } from "./checklist.ts";
export type { Compared } from "./comparable.ts";
export type { CompareResultsOptions, ComparisonReport, MetricComparison } from "./compare.ts";
export { compareResults } from "./compare.ts";
export { type BenchmarkConfig, parseBenchmarkConfig, readBenchmarkConfig, resolveSettings } from "./config.ts";
export {
  checkEnvironment,
  type EnvironmentFinding,
  type EnvironmentOptions,
  type EnvironmentReport,
  type EnvironmentWatch,
  watchEnvironment,
} from "./environment.ts";
export { machineFingerprint, sameMachine, systemInfo } from "./fingerprint.ts";
export { type PrepareBenchmarkOptions, type PreparedBenchmark, prepareBenchmark } from "./prepare.ts";
export type * from "./results.ts";
export { metricOf, metricsOf } from "./results.ts";
export { parseResults, readResults, writeResults } from "./results-file.ts";
export type { RunOptions } from "./run.ts";
export { runBenchmark } from "./run.ts";
export { type SystemSpecs, systemSpecs } from "./specs.ts";
export { statisticsOf } from "./statistics/describe.ts";
export type { Comparison } from "./statistics/verdict.ts";
export { type CompareOptions, compareSamples } from "./statistics/verdict.ts";
export { writeTrends } from "./trend-file.ts";
export { trendsText } from "./trend-words.ts";
export {
  readTrendFiles,
  type TrendChange,
  type TrendFile,
  type TrendMark,
  type TrendOptions,
  type TrendPoint,
  type TrendSeries,
  type Trends,
  trendsOf,
} from "./trends.ts";
export type { CompareModelsOptions } from "./turns.ts";
export { compareModels } from "./turns.ts";
export { type ModelCheck, type ModelVerification, type VerifyOptions, verifyModel } from "./verify-model.ts";
