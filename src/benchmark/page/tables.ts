// The tables of benchmark pages: what each of several results was measured on and with, and its figures.

import type { TableBlock } from "../../../profiler/page/model.ts";
import { plain } from "../../../profiler/words.ts";
import { type Compared, type ComparedMetric, comparableMetrics } from "../comparable.ts";
import type { BenchmarkInfo } from "../results.ts";
import { figureText, numberText } from "./words.ts";

const unknown = "–";

type Row = readonly [name: string, of: (info: BenchmarkInfo) => unknown];

const onOff = (value: boolean | null | undefined) => (typeof value === "boolean" ? (value ? "on" : "off") : value);

const environmentRows: readonly Row[] = [
  ["model", ({ model }) => model],
  ["architecture", ({ model_details }) => model_details?.architecture],
  ["parameters", ({ model_details }) => model_details?.parameters],
  ["bytes", ({ model_details }) => model_details?.bytes],
  ["formats", ({ model_details }) => model_details && Object.keys(model_details.formats).join(", ")],
  ["SHA-256", ({ model_details }) => model_details?.sha256?.slice(0, 16)],
  ["measured", ({ timestamp }) => timestamp],
  ["TinyAI", ({ tinyai }) => tinyai],
  ["CPU", ({ system_info }) => system_info.cpu],
  ["cores", ({ fingerprint }) => fingerprint?.cores],
  ["memory", ({ system_info }) => system_info.memory],
  ["system", ({ system_info }) => system_info.os],
  ["Bun", ({ fingerprint }) => fingerprint?.bun],
  ["governor", ({ fingerprint }) => fingerprint?.governor],
  ["turbo", ({ fingerprint }) => onOff(fingerprint?.turbo)],
  ["virtualization", ({ fingerprint }) => fingerprint?.virtualization],
  ["machine's fingerprint", ({ fingerprint }) => fingerprint?.id],
  ["threads", ({ model_details, settings }) => model_details?.threads ?? settings?.threads],
  ["SIMD level", ({ model_details, settings }) => model_details?.simd ?? settings?.simd],
  ["batch sizes", ({ settings }) => settings?.batch_sizes.join(", ")],
  ["prompt tokens", ({ settings }) => settings?.prompt_tokens],
  ["generated tokens", ({ settings }) => settings?.generated_tokens],
  ["iterations", ({ settings }) => settings && (settings.iterations ?? "until precise enough")],
  ["seconds at most", ({ settings }) => settings?.time_s],
  ["precision", ({ settings }) => settings?.precision],
  ["warm-up", ({ settings }) => settings && (settings.warmup ?? "until steady")],
  ["loadings at least", ({ settings }) => settings?.loadings],
  ["seed", ({ settings }) => settings?.seed],
];

/** A row for each thing that is known of any, a column for each of the results. */
export function environmentTable(compared: readonly Compared[]): TableBlock {
  const rows = environmentRows.flatMap(([name, of]) => {
    const cells = compared.map(({ results }) => {
      const value = of(results.benchmark_info) ?? unknown;
      return typeof value === "number" ? value.toLocaleString("en-US") : plain(String(value));
    });
    return cells.every((cell) => cell === unknown) ? [] : [[name, ...cells]];
  });
  return table("environment-table", "", ["", ...compared.map(({ name }) => plain(name))], rows, 1);
}

/** A table for each batch size: its figures, a column for each of the results. */
export function figuresTable(compared: readonly Compared[]): TableBlock[] {
  const metrics = compared.map(({ results }) => comparableMetrics(results));
  const sizes = [...new Set(metrics.flat().map(({ batchSize }) => batchSize))];
  return sizes.map((size, place) => {
    const of = metrics.map((each) => each.filter(({ batchSize }) => batchSize === size));
    const names = [...new Set(of.flat().map(({ name }) => name))];
    const rows = names.map((name) => [name, ...of.map((each) => cell(each.find((metric) => metric.name === name)))]);
    const title = sizes.length > 1 && size !== null ? `Batch size ${size}` : "";
    return table(`figures-${place}`, title, ["", ...compared.map(({ name }) => plain(name))], rows, 1);
  });
}

function cell(metric: ComparedMetric | undefined): string {
  if (metric === undefined) return unknown;
  const { figure, unit, samples, part } = metric;
  if (samples === null || part !== null) return figureText(figure, unit);
  const least = samples.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
  const most = samples.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  return `${figureText(figure, unit)} (${numberText(least)} to ${numberText(most)})`;
}

function table(
  id: string,
  title: string,
  columns: readonly string[],
  rows: readonly (readonly string[])[],
  textColumns: number,
): TableBlock {
  return {
    type: "table",
    id,
    title,
    note: "",
    half: false,
    columns,
    textColumns,
    rows,
    interactive: null,
    folded: false,
  };
}
