// Stop texts in a stream: found wherever the pieces end, and nothing of them is ever shown.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { StopFinder } from "../../src/generate/stop.ts";

/** Character by character: the text before the first stop text to be complete, the longest of those that end there. */
function expected(text: string, stops: readonly string[]): { text: string; stopped: boolean } {
  for (let end = 1; end <= text.length; end++) {
    const ending = stops.filter((stop) => text.slice(0, end).endsWith(stop)).map((stop) => stop.length);
    if (ending.length > 0) return { text: text.slice(0, end - Math.max(...ending)), stopped: true };
  }
  return { text, stopped: false };
}

function run(pieces: readonly string[], stops: readonly string[]): { text: string; stopped: boolean } {
  const finder = new StopFinder(stops);
  let text = "";
  for (const piece of pieces) {
    const found = finder.push(piece);
    text += found.text;
    if (found.stopped) return { text, stopped: true };
  }
  return { text: text + finder.finish(), stopped: false };
}

// Few letters, so that stop texts occur, overlap and begin one another.
const letters = (minLength: number, maxLength: number) =>
  fc.array(fc.constantFrom("a", "b", "c"), { minLength, maxLength }).map((list) => list.join(""));
const stopTexts = fc.array(letters(1, 4), { maxLength: 4 });

describe("stop texts", () => {
  test("cut the text at the first that is complete, however it comes in pieces", () => {
    fc.assert(
      fc.property(fc.array(letters(0, 6), { maxLength: 8 }), stopTexts, (pieces, stops) => {
        expect(run(pieces, stops)).toEqual(expected(pieces.join(""), stops));
      }),
      { numRuns: 2000 },
    );
  });

  test("hold back no more than what could still become one", () => {
    fc.assert(
      fc.property(letters(0, 12), stopTexts, (text, stops) => {
        const finder = new StopFinder(stops);
        const { text: shown, stopped } = finder.push(text);
        if (stopped) return;
        const held = text.slice(shown.length);
        expect(text.startsWith(shown)).toBe(true);
        if (held.length > 0) expect(stops.some((stop) => stop.startsWith(held))).toBe(true);
        expect(finder.finish()).toBe(held);
      }),
    );
  });

  test("may overlap one another", () => {
    expect(run(["ab", "cd"], ["abcd", "bc"])).toEqual({ text: "a", stopped: true });
    expect(run(["xab"], ["b", "ab"])).toEqual({ text: "x", stopped: true });
  });
});
