// How a text is cut into pieces that a search finds.

import { expect, test } from "bun:test";
import { piecesOf } from "../../src/cli/pieces.ts";

const pieces = (text: string) => [...piecesOf(text)];

test("short paragraphs go together, long ones alone, each with its line", () => {
  const long = "word ".repeat(60).trim();
  expect(pieces(`# Head\n\nshort one\nof two lines\n\n\n${long}\n\n${long}\n\nend\n`)).toEqual([
    { line: 1, text: `# Head\n\nshort one\nof two lines\n\n${long}` },
    { line: 9, text: long },
    { line: 11, text: "end" },
  ]);
  expect(pieces("")).toEqual([]);
  expect(pieces(" \n\t\n")).toEqual([]);
});

test("what is longer than a model takes is cut between words, and nothing is lost", () => {
  const lines = Array.from({ length: 100 }, (_, index) => `line ${index} of a long paragraph that goes on`);
  const found = pieces(`\n${lines.join("\n")}`);
  expect(found.length).toBeGreaterThan(3);
  for (const { text } of found) expect(text.length).toBeLessThanOrEqual(1000);
  const split = (text: string) => text.split(/\s+/);
  expect(found.flatMap(({ text }) => split(text))).toEqual(split(lines.join(" ")));
  for (const { line, text } of found) expect(lines[line - 2]).toContain(text.split("\n")[0] ?? "");
});

test("a word that is longer is cut, but never within a character", () => {
  const found = pieces(`a${"😀".repeat(1500)}`);
  expect(found.map(({ text }) => text).join("")).toBe(`a${"😀".repeat(1500)}`);
  for (const { text } of found) expect(text.isWellFormed()).toBe(true);
});
