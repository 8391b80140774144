// The heat map: a table whose cells are the darker, the larger their figure. One measure is shown at a time.

import { element, frame } from "./dom.js";
import { floatingTip } from "./tip.js";

/** Columns that may all have their name above them. */
const NAMES_MAX = 40;

/**
 * @param {import("../model.ts").HeatBlock} block
 * @returns {HTMLElement}
 */
export function heatView(block) {
  const every = Math.ceil(block.columns.length / NAMES_MAX);
  const table = element("table", { class: "heat" });
  const least = element("span", {}, ["0"]);
  const most = element("span");
  /** @type {Map<Element, import("../model.ts").Tip>} */
  const tips = new Map();

  /** @param {number} chosen */
  const draw = (chosen) => {
    const cells = block.measures[chosen]?.cells ?? [];
    const known = cells.flat().filter((cell) => cell !== null);
    const largest = known.reduce((a, b) => (b[0] > a[0] ? b : a), /** @type {const} */ ([0, "0"]));
    most.textContent = largest[1];
    tips.clear();
    const head = block.columns.map((name, column) =>
      element("th", { scope: "col" }, [column % every === 0 ? name : ""]),
    );
    const rows = block.rows.map((role, row) => {
      const views = block.columns.map((layer, column) => {
        const cell = cells[row]?.[column] ?? null;
        if (cell === null) return element("td", { class: "none" });
        const view = element("td", {}, [element("span", {}, [cell[1]])]);
        view.style.setProperty("--heat", `${largest[0] === 0 ? 0 : (cell[0] / largest[0]) * 100}%`);
        const lines = block.measures.map(
          ({ name, cells }) => /** @type {const} */ ([name, cells[row]?.[column]?.[1] ?? "–"]),
        );
        tips.set(view, { title: `${role}, layer ${layer}`, lines });
        return view;
      });
      return element("tr", {}, [element("th", { scope: "row", title: role }, [role]), ...views]);
    });
    table.replaceChildren(
      element("thead", {}, [element("tr", {}, [element("th", { scope: "col" }, ["layer"]), ...head])]),
      element("tbody", {}, rows),
    );
  };

  const choices = block.measures.map(({ name }, place) => {
    const input = element("input", { type: "radio", name: block.id, value: `${place}` });
    input.checked = place === 0;
    input.addEventListener("change", () => draw(place));
    return element("label", {}, [input, name]);
  });
  floatingTip.watch(table, (target) => tips.get(/** @type {Element} */ (target.closest("td"))));
  draw(0);
  const scale = element("span", { class: "scale" }, [least, element("i"), most]);
  return frame(block, [
    element("div", { class: "controls", role: "radiogroup", "aria-label": "measure" }, [...choices, scale]),
    element("div", { class: "scroll" }, [table]),
  ]);
}
