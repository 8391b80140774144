// Tables: those that stand as they are, and those that are sorted by a click on a column and searched.

import { element, frame } from "./dom.js";

/** @typedef {import("../model.ts").TableBlock} TableBlock */
/** @typedef {import("../model.ts").Cell} Cell */

/**
 * @param {TableBlock} block
 * @returns {HTMLElement}
 */
export function tableView(block) {
  if (block.interactive) return frame(block, searched(block, block.interactive));
  if (!block.folded) return frame(block, [fixed(block)]);
  const details = element("details", {}, [element("summary", {}, [block.title])]);
  // Filled when it is first opened: a large report has many rows that nobody looks at.
  details.addEventListener("toggle", () => details.append(...content()), { once: true });
  const content = () => [...(block.note === "" ? [] : [element("p", { class: "note" }, [block.note])]), fixed(block)];
  return element("section", { class: "block folded", id: block.id }, [details]);
}

/** @param {Cell} cell */
const textOf = (cell) => (typeof cell === "string" ? cell : cell[1]);

/** @param {TableBlock} block */
function fixed(block) {
  const titles = block.columns.some((title) => title !== "");
  const head = element(
    "tr",
    {},
    block.columns.map((title, column) => headView(block, column, title)),
  );
  const rows = block.rows.map((cells) => rowView(block, cells));
  const table = element("table", { class: titles ? "figures" : "pairs" }, [
    ...(titles ? [element("thead", {}, [head])] : []),
    element("tbody", {}, rows),
  ]);
  return element("div", { class: "scroll" }, [table]);
}

/**
 * @param {TableBlock} block
 * @param {number} column
 * @param {Node | string} content
 */
function headView({ textColumns }, column, content) {
  return element("th", column < textColumns ? { scope: "col", class: "words" } : { scope: "col" }, [content]);
}

/**
 * @param {TableBlock} block
 * @param {readonly Cell[]} cells
 */
function rowView({ textColumns, interactive }, cells) {
  return element(
    "tr",
    {},
    cells.map((cell, column) => {
      const text = textOf(cell);
      if (column === 0) return element("th", { scope: "row", title: text }, [text]);
      const view = element("td", column < textColumns ? { class: "words", title: text } : {}, [text]);
      if (interactive?.shareColumn === column && typeof cell !== "string") {
        view.classList.add("share");
        view.style.setProperty("--share", `${(cell[0] ?? 0) * 100}%`);
      }
      return view;
    }),
  );
}

/**
 * @param {TableBlock} block
 * @param {NonNullable<TableBlock["interactive"]>} behaviour
 */
function searched(block, behaviour) {
  const state = { column: behaviour.sortedBy, down: true, words: "", all: false };
  const body = element("tbody");
  const filter = element("input", {
    type: "search",
    placeholder: "filter by name",
    "aria-label": `filter ${block.title}`,
  });
  const status = element("span", { class: "note", "aria-live": "polite" });
  const more = element("button", { type: "button" }, ["show all"]);
  const heads = block.columns.map((title, column) => {
    const button = element("button", { type: "button" }, [title]);
    button.addEventListener("click", () => {
      // Figures begin with the largest, words with the first.
      state.down = state.column === column ? !state.down : !isWords(block, column);
      state.column = column;
      update();
    });
    return headView(block, column, button);
  });
  const update = () => {
    const words = state.words.toLowerCase().split(/\s+/);
    const found = block.rows.filter((cells) => {
      const text = cells
        .filter((cell) => typeof cell === "string")
        .join(" ")
        .toLowerCase();
      return words.every((word) => text.includes(word));
    });
    found.sort((a, b) => compare(a[state.column] ?? "", b[state.column] ?? "", state.down));
    const shown = state.all ? found : found.slice(0, behaviour.shown);
    const none = element("td", { class: "none", colspan: `${block.columns.length}` }, [behaviour.none]);
    body.replaceChildren(
      ...(shown.length > 0 ? shown.map((cells) => rowView(block, cells)) : [element("tr", {}, [none])]),
    );
    for (const [column, head] of heads.entries()) {
      head.setAttribute("aria-sort", column !== state.column ? "none" : state.down ? "descending" : "ascending");
    }
    const of = found.length > 0 ? found.length : block.rows.length;
    status.textContent = `${shown.length} of ${of} ${of === 1 ? "row" : "rows"}`;
    more.hidden = found.length <= behaviour.shown;
    more.textContent = state.all ? `show ${behaviour.shown}` : "show all";
  };
  filter.addEventListener("input", () => {
    state.words = filter.value;
    update();
  });
  more.addEventListener("click", () => {
    state.all = !state.all;
    update();
  });
  update();
  const table = element("table", { class: "figures sortable" }, [
    columnsView(block),
    element("thead", {}, [element("tr", {}, heads)]),
    body,
  ]);
  return [
    element("div", { class: "controls" }, [filter, status, more]),
    element("div", { class: "scroll tall" }, [table]),
  ];
}

/**
 * The columns' widths, which are of all rows, so that they stay as they are whichever are shown: of a column of figures that of the
 * longest one, or of the longest word above it with the mark of what is sorted. Those on the left share what room is left.
 * @param {TableBlock} block
 */
function columnsView({ columns, textColumns, rows }) {
  const widths = columns.map((title, column) => {
    if (column < textColumns) return 0;
    const texts = rows.map((cells) => textOf(cells[column] ?? "").length);
    return texts.reduce((a, b) => Math.max(a, b), Math.max(...title.split(" ").map((word) => word.length + 1.6)));
  });
  const group = element("colgroup", {}, []);
  for (const width of widths) {
    const column = element("col");
    if (width > 0) column.style.width = `calc(${width}ch + 0.9em)`;
    group.append(column);
  }
  return group;
}

/**
 * @param {TableBlock} block
 * @param {number} column
 */
function isWords(block, column) {
  return block.rows.every((cells) => typeof cells[column] === "string");
}

/**
 * What is not known comes last, whichever way the others stand.
 * @param {Cell} a
 * @param {Cell} b
 * @param {boolean} down
 */
function compare(a, b, down) {
  const [one, other] = [a, b].map((cell) => (typeof cell === "string" ? cell : cell[0]));
  if (one === other) return 0;
  if (one === null || one === undefined) return 1;
  if (other === null || other === undefined) return -1;
  const order =
    typeof one === "number" && typeof other === "number"
      ? one - other
      : String(one).localeCompare(String(other), "en", { numeric: true });
  return down ? -order : order;
}
