// The profiler's public face: events in, histograms and a profile out. It reads the engine's event layout and the program's
// op list; it knows no model, and imports nothing of src.

export { EVENT_BYTES, EVENT_WORDS, EventKind, EventWord, NO_OP, type OpInfo, ShareWord } from "./events.ts";
export {
  DurationHistogram,
  HIGHEST_AMOUNT,
  Histogram,
  type HistogramData,
  type HistogramUnit,
  SIGNIFICANT_DIGITS,
} from "./histogram.ts";
export {
  type CostRow,
  type KindRow,
  type LayerRow,
  type OpRow,
  type PhaseRow,
  type Profile,
  Profiler,
  type ProfilerOptions,
  type ThreadRow,
  type TimeRow,
} from "./profile.ts";
export type { RequestEnding, RequestReport, RequestSubmission } from "./requests.ts";
export type { FinishedStep, StepListener, StepShare } from "./steps.ts";
export { formatProfile, type TableOptions } from "./table.ts";
export type { StepTimes } from "./tally.ts";
export { formatReport, type ReportOptions } from "./terminal.ts";
export { mergeProfiles, ProfileMergeError } from "./totals.ts";
export {
  ProfilerWindows,
  type TimeSpan,
  WindowedHistogram,
  type WindowOptions,
  type WindowProfile,
} from "./windows.ts";
