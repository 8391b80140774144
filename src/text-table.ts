// Tables and figures as plain text, for a terminal.

/** Lines of columns as wide as their widest cell; those from `rightFrom` on are aligned to the right. */
export function formatTable(rows: readonly (readonly string[])[], rightFrom = Number.POSITIVE_INFINITY): string {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [column, cell] of row.entries()) widths[column] = Math.max(widths[column] ?? 0, Bun.stringWidth(cell));
  }
  const lines = rows.map((row) =>
    row
      .map((cell, column) => {
        const padding = " ".repeat((widths[column] ?? 0) - Bun.stringWidth(cell));
        return column >= rightFrom ? padding + cell : cell + padding;
      })
      .join("  ")
      .trimEnd(),
  );
  return `${lines.join("\n")}\n`;
}

export function grouped(value: number): string {
  return value.toLocaleString("en-US");
}

export function megabytes(bytes: number, digits = 1): string {
  return (bytes / 1e6).toFixed(digits);
}

/** Bytes in decimal units, three digits: `253 MB`. */
export function formatBytes(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1_000;
    unit += 1;
  }
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toPrecision(2)} ${units[unit]}`;
}
