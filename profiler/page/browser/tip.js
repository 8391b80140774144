// What is shown beside the pointer, or beside what has the keyboard's focus.

import { element } from "./dom.js";

/**
 * @param {import("../model.ts").Tip} tip
 * @returns {HTMLElement}
 */
export function tipContent(tip) {
  const lines = tip.lines.map(([name, figure]) =>
    element("tr", {}, [element("th", { scope: "row" }, [name]), element("td", {}, [figure])]),
  );
  return element("div", { class: "tip-content" }, [element("b", {}, [tip.title]), element("table", {}, lines)]);
}

const GAP = 14;

/** The one tip of all that is no chart: charts have ECharts' own, which looks the same. */
class FloatingTip {
  box = element("div", { class: "tip", role: "tooltip", hidden: "" });

  /**
   * @param {import("../model.ts").Tip} tip
   * @param {number} x of the viewport, as `y`
   * @param {number} y
   */
  show(tip, x, y) {
    this.box.replaceChildren(tipContent(tip));
    this.box.hidden = false;
    const { offsetWidth, offsetHeight } = this.box;
    const left = x + GAP + offsetWidth > innerWidth ? x - GAP - offsetWidth : x + GAP;
    const top = y + GAP + offsetHeight > innerHeight ? y - GAP - offsetHeight : y + GAP;
    this.box.style.left = `${Math.max(0, left)}px`;
    this.box.style.top = `${Math.max(0, top)}px`;
  }

  hide() {
    this.box.hidden = true;
  }

  /**
   * Shows what `tipOf` gives for the element under the pointer or with the focus, as long as it gives something.
   * @param {HTMLElement} area
   * @param {(target: Element) => import("../model.ts").Tip | undefined} tipOf
   */
  watch(area, tipOf) {
    area.addEventListener("pointermove", (event) => {
      const tip = event.target instanceof Element ? tipOf(event.target) : undefined;
      if (tip) this.show(tip, event.clientX, event.clientY);
      else this.hide();
    });
    area.addEventListener("pointerleave", () => this.hide());
    area.addEventListener("focusin", (event) => {
      if (!(event.target instanceof Element) || !event.target.matches(":focus-visible")) return;
      const tip = tipOf(event.target);
      const { left, bottom } = event.target.getBoundingClientRect();
      if (tip) this.show(tip, left, bottom - GAP / 2);
    });
    area.addEventListener("focusout", () => this.hide());
  }
}

export const floatingTip = new FloatingTip();
