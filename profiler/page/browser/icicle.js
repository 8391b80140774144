// Time taken apart: bars below the bar that they are parts of. One piece at a time has the whole width; what it is part of
// stands above it and leads back.

import { element, frame } from "./dom.js";
import { floatingTip } from "./tip.js";

/** @typedef {import("../model.ts").Piece} Piece */

/** Narrower pieces are not drawn: part of the width. */
const NARROWEST = 1 / 1500;
const ROW_HEIGHT = 24;

/**
 * @param {import("../model.ts").IcicleBlock} block
 * @returns {HTMLElement}
 */
export function icicleView(block) {
  const back = element("button", { type: "button" }, ["back"]);
  const path = element("span", { class: "note", "aria-live": "polite" });
  const area = element("div", { class: "icicle", role: "group", "aria-label": block.title });
  area.style.height = `${depthOf(block.root) * ROW_HEIGHT}px`;

  /** From the root to the piece that has the whole width. @type {Piece[]} */
  let open = [block.root];
  /** @type {Map<Element, { piece: Piece, way: readonly Piece[] }>} */
  const pieces = new Map();

  const draw = () => {
    pieces.clear();
    area.replaceChildren();
    const focus = /** @type {Piece} */ (open.at(-1));
    for (const [depth, piece] of open.slice(0, -1).entries()) add(piece, open.slice(0, depth + 1), 0, 1, 1, true);
    addAll(focus, open, 0, 1);
    back.disabled = open.length === 1;
    path.textContent = open.map(({ name }) => name).join(" › ");
    floatingTip.hide();
  };

  /**
   * A piece and what it is made of.
   * @param {Piece} piece
   * @param {readonly Piece[]} way from the root to the piece
   * @param {number} left part of the width
   * @param {number} width
   */
  const addAll = (piece, way, left, width) => {
    if (width < NARROWEST) return;
    const whole = /** @type {Piece} */ (open.at(-1)).ns;
    add(piece, way, left, width, piece.ns / whole, false);
    let at = left;
    for (const part of piece.parts) {
      const size = (part.ns / piece.ns) * width;
      addAll(part, [...way, part], at, size);
      at += size;
    }
  };

  /**
   * @param {Piece} piece
   * @param {readonly Piece[]} way
   * @param {number} left
   * @param {number} width
   * @param {number} share of the piece that has the whole width
   * @param {boolean} outer
   */
  const add = (piece, way, left, width, share, outer) => {
    const figure = outer || share === 1 ? "" : ` ${(share * 100).toFixed(1)} %`;
    const view = element("button", { type: "button", tabindex: "-1", "aria-label": piece.name + figure });
    if (width > 0.02) view.append(element("span", {}, [piece.name]), figure);
    view.className = outer ? "piece outer" : "piece";
    view.style.setProperty("--own", piece.color);
    view.style.left = `${left * 100}%`;
    view.style.width = `${width * 100}%`;
    view.style.top = `${(way.length - 1) * ROW_HEIGHT}px`;
    if (pieces.size === 0) view.tabIndex = 0;
    pieces.set(view, { piece, way });
    area.append(view);
  };

  /** @param {readonly Piece[]} way */
  const goTo = (way) => {
    // Into what has no parts there is no way; it is shown where it stands.
    open = [...way];
    draw();
    focusOn(open.at(-1));
  };

  /** @param {Piece | undefined} piece */
  const focusOn = (piece) => {
    for (const [view, found] of pieces) {
      if (!(view instanceof HTMLElement)) continue;
      view.tabIndex = found.piece === piece ? 0 : -1;
      if (found.piece === piece) view.focus({ preventScroll: true });
    }
  };

  const goBack = () => {
    if (open.length > 1) goTo(open.slice(0, -1));
  };

  back.addEventListener("click", goBack);
  area.addEventListener("click", (event) => {
    const found =
      event.target instanceof Element ? pieces.get(/** @type {Element} */ (event.target.closest(".piece"))) : undefined;
    if (found && found.piece !== open.at(-1)) goTo(found.way);
  });
  area.addEventListener("keydown", (event) => {
    const found = event.target instanceof Element ? pieces.get(event.target) : undefined;
    if (!found) return;
    const drawn = [...pieces.values()];
    const level = drawn.filter(({ way }) => way.length === found.way.length);
    const place = level.indexOf(found);
    const next = {
      ArrowLeft: level[place - 1]?.piece,
      ArrowRight: level[place + 1]?.piece,
      ArrowUp: found.way.at(-2),
      ArrowDown: drawn.find(({ way }) => way.at(-2) === found.piece)?.piece,
    }[event.key];
    if (event.key === "Escape") goBack();
    else if (next) focusOn(next);
    else return;
    event.preventDefault();
  });
  floatingTip.watch(area, (target) => pieces.get(/** @type {Element} */ (target.closest(".piece")))?.piece.tip);
  draw();
  return frame(block, [element("div", { class: "controls" }, [back, path]), area]);
}

/**
 * @param {Piece} piece
 * @returns {number}
 */
function depthOf(piece) {
  return 1 + Math.max(0, ...piece.parts.map(depthOf));
}
