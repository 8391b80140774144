// What a page such as report.html shows, as plain data: sections of sentences, tables, charts and the two drawings that are no charts. Every
// figure comes worded (words.ts), so that the page's own script computes nothing and needs no library but the one that draws.

import type { EChartsOption } from "echarts";
import type { Finding } from "../report.ts";

/** What is shown when something is pointed at: a heading, then lines of a name and a figure. */
export interface Tip {
  readonly title: string;
  readonly lines: readonly (readonly [name: string, figure: string])[];
}

/** The whole page. Texts from outside are as they were; whatever draws them must not take them for markup. */
export interface Page {
  readonly title: string;
  readonly subtitle: string;
  /** What is read first. */
  readonly facts: readonly Fact[];
  /** What the findings are called. */
  readonly findingsTitle: string;
  readonly findings: readonly FindingText[];
  /** Said where there is no finding. */
  readonly noFindings: string;
  readonly sections: readonly PageSection[];
  readonly footer: string;
  /** The name under which the page's data are saved as JSON. */
  readonly fileName: string;
}

/** A figure, what it is, and what stands behind it. */
export interface Fact {
  readonly name: string;
  readonly figure: string;
  /** In small letters behind the figure; may be empty. */
  readonly unit: string;
  readonly note: string;
}

export interface FindingText {
  /** The last three are of what is compared. */
  readonly severity: Finding["severity"] | "better" | "worse" | "undecided";
  readonly text: string;
  readonly evidence: string;
  readonly knob: string;
}

export interface PageSection {
  readonly id: string;
  readonly title: string;
  readonly words: readonly string[];
  /** Why nothing was recorded and how to record it; null: it was. */
  readonly missing: string | null;
  readonly blocks: readonly Block[];
}

export type Block = ChartBlock | TableBlock | IcicleBlock | HeatBlock;

interface Titled {
  /** Unique on the page. */
  readonly id: string;
  readonly title: string;
  /** How it is to be read; may be empty. */
  readonly note: string;
  /** Whether two such blocks may stand side by side. */
  readonly half: boolean;
}

/**
 * A chart of ECharts. In its option, `var(--name)` stands for a colour of the page, and data items have a `tip`. What cannot be data
 * stands beside it: the words of ticks whose values say nothing, such as logarithms.
 */
export interface ChartBlock extends Titled {
  readonly type: "chart";
  /** CSS pixels. */
  readonly height: number;
  readonly option: EChartsOption;
  readonly ticks: { readonly x?: readonly Tick[]; readonly y?: readonly Tick[] };
}

export interface Tick {
  readonly at: number;
  readonly text: string;
}

/** A text, or what a cell is sorted by and how it reads. */
export type Cell = string | readonly [value: number | null, text: string];

/** A table; those with a filter can be sorted and searched, the others stand as they are. */
export interface TableBlock extends Titled {
  readonly type: "table";
  readonly columns: readonly string[];
  /** The first columns that hold words and stand on the left. */
  readonly textColumns: number;
  readonly rows: readonly (readonly Cell[])[];
  readonly interactive: {
    /** Sorted by it at first, largest on top. */
    readonly sortedBy: number;
    /** Drawn as a bar behind its figure: a share from 0 to 1. */
    readonly shareColumn: number;
    /** Rows shown until all are asked for. */
    readonly shown: number;
    /** Said where no row has what is searched. */
    readonly none: string;
  } | null;
  /** Whether it is closed at first. */
  readonly folded: boolean;
}

/** Time taken apart, each piece as wide as its part of the one above. */
export interface IcicleBlock extends Titled {
  readonly type: "icicle";
  readonly root: Piece;
}

export interface Piece {
  readonly name: string;
  readonly ns: number;
  readonly tip: Tip;
  /** A colour of the page. */
  readonly color: string;
  readonly parts: readonly Piece[];
}

/** A row for each role of an op, a column for each layer, in as many measures as were taken. */
export interface HeatBlock extends Titled {
  readonly type: "heat";
  readonly columns: readonly string[];
  readonly rows: readonly string[];
  /** By row, then column; null: there is no such op. */
  readonly measures: readonly {
    readonly name: string;
    readonly cells: readonly (readonly (readonly [value: number, text: string] | null)[])[];
  }[];
}

/** The colours that `var(--c0)` and so on stand for. */
export const COLORS = 10;
