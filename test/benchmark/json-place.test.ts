// Where a text stops being JSON.

import { expect, test } from "bun:test";
import { placeOfError } from "../../src/benchmark/json-place.ts";
import { guideResults } from "../support/benchmark-results.ts";

const whole = JSON.stringify({ ...guideResults, more: ['a\\"\u00e9\n', true, null, -1.5e-3, [], {}, [[0]]] }, null, 2);

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** Counted by hand: the lines before, and the letters of its own. */
function place(text: string, at: number): string {
  let [line, column] = [1, 1];
  for (const letter of text.slice(0, at)) [line, column] = letter === "\n" ? [line + 1, 1] : [line, column + 1];
  return `line ${line}, column ${column}`;
}

test("there is one exactly where the parser finds that a text is no JSON", () => {
  const changed = [...whole].flatMap((_, at) => {
    const [before, after] = [whole.slice(0, at), whole.slice(at + 1)];
    return [before, `${before}${after}`, ...[",", '"', "]", "}", "1", "x"].map((sign) => `${before}${sign}${after}`)];
  });
  expect(changed.filter((text) => (placeOfError(text, false) === undefined) !== isJson(text))).toEqual([]);
  expect(changed.filter((text) => !isJson(text)).length).toBeGreaterThan(1000);
});

test("it is where the first thing stands that cannot", () => {
  const end = /[,:[\]{}]/g;
  for (const { index } of whole.replace(/"(?:[^"\\]|\\.)*"/g, (text) => "_".repeat(text.length)).matchAll(end)) {
    const text = `${whole.slice(0, index)} @${whole.slice(index)}`;
    expect(placeOfError(text, false)).toBe(place(text, index + 1));
  }
  expect(placeOfError('{"a": 1} x', false)).toBe("line 1, column 10");
  expect(placeOfError('{\n  "a" 1}', false)).toBe("line 2, column 7");
  expect(placeOfError('{\n  "a": [1', false)).toBe("line 2, column 10");
});

test("comments and commas at ends are none where they may stand", () => {
  const text = '// one\n{ /* two\n*/ "a": [1, 2,], // three\n}';
  expect(placeOfError(text, true)).toBeUndefined();
  expect(placeOfError(text, false)).toBe("line 1, column 1");
  expect(placeOfError(`${text} "b"`, true)).toBe("line 4, column 3");
});
