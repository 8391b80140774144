// How benchmark pages and tables word their figures.

/** To four digits, with its unit: "12.31 ms". */
export function figureText(value: number, unit: string): string {
  const figure = numberText(value);
  return unit === "" ? figure : `${figure} ${unit}`;
}

/** To four digits at least; whole digits are never cut. */
export function numberText(value: number): string {
  if (!Number.isFinite(value)) return "–";
  const whole = Math.abs(value) < 1 ? 1 : Math.floor(Math.log10(Math.abs(value))) + 1;
  const decimals = Math.abs(value) > 0 && Math.abs(value) < 0.1 ? 5 : Math.max(0, 4 - whole);
  return value.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
}

export function percentText(part: number): string {
  return `${(100 * part).toFixed(1)} %`;
}

/** How sure an interval is: "95 %", "99.9 %". */
export function levelText(level: number): string {
  return `${Number((100 * level).toFixed(2))} %`;
}

/** A change with its sign: "+4.1 %". */
export function changeText(part: number): string {
  const text = percentText(Math.abs(part));
  return text === percentText(0) ? text : `${part < 0 ? "−" : "+"}${text}`;
}

/** "0.012", "below 0.001" */
export function pValueText(pValue: number): string {
  return pValue < 0.001 ? "below 0.001" : pValue.toFixed(3);
}

/** A metric with the batch size that it is of. */
export function metricText(metric: string, batchSize: number | null, several: boolean): string {
  return batchSize === null || !several ? metric : `${metric}, batch size ${batchSize}`;
}
