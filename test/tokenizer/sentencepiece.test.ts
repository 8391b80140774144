// SentencePiece against a merge loop that looks at every pair each time.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { OptionError } from "../../src/errors.ts";
import { createTokenizer, type Tokenizer } from "../../src/tokenizer/index.ts";
import { llamaPieces, type Piece, sentencePiece, type } from "./vocabularies.ts";

function tokenizerOf(pieces: readonly Piece[], more: Record<string, unknown> = {}): Tokenizer {
  return createTokenizer(sentencePiece([...llamaPieces, ...pieces], more));
}

/** The definition, taken literally: the neighbours with the highest score, of equals the leftmost, until none make a token. */
function naive(pieces: readonly Piece[], text: string): number[] {
  const all = [...llamaPieces, ...pieces];
  const ids = new Map(all.map((piece, id) => [String(piece.text), id]));
  const symbols = [...text.replaceAll(" ", "▁")];
  for (;;) {
    let best = -1;
    let bestScore = Number.NEGATIVE_INFINITY;
    for (let left = 0; left + 1 < symbols.length; left++) {
      const id = ids.get(`${symbols[left]}${symbols[left + 1]}`);
      if (id === undefined) continue;
      const score = Math.fround(all[id]?.score ?? 0);
      if (score > bestScore) {
        best = left;
        bestScore = score;
      }
    }
    if (best < 0) break;
    symbols.splice(best, 2, `${symbols[best]}${symbols[best + 1]}`);
  }
  return symbols.flatMap((symbol) => {
    const id = ids.get(symbol);
    return id !== undefined ? [id] : Array.from(new TextEncoder().encode(symbol), (byte) => byte + 3);
  });
}

const pieceTexts = fc.string({ unit: fc.constantFrom("a", "b", "c", "▁", "é", "🦀"), minLength: 1, maxLength: 6 });
const vocabularies = fc
  .uniqueArray(pieceTexts, { maxLength: 40 })
  // Few scores, so that many are equal.
  .chain((texts) =>
    fc.tuple(...texts.map((text) => fc.record({ text: fc.constant(text), score: fc.integer({ min: -5, max: 5 }) }))),
  );
const texts = fc.oneof(
  fc.string({ unit: fc.constantFrom("a", "b", "c", " ", "é", "🦀"), maxLength: 40 }),
  fc.string({ unit: "binary" }),
);

describe("SentencePiece", () => {
  test("gives what the plain merge loop gives", () => {
    fc.assert(
      fc.property(vocabularies, texts, (pieces, text) => {
        const tokenizer = tokenizerOf(pieces, { add_space_prefix: false });
        expect([...tokenizer.encode(text, { addSpecial: false })]).toEqual(naive(pieces, text));
      }),
      { numRuns: 300 },
    );
  });

  test("decodes what it encoded, whole and token by token", () => {
    fc.assert(
      fc.property(vocabularies, texts, fc.boolean(), (pieces, text, addSpacePrefix) => {
        // Every real vocabulary has the mark; without it a space would be spelled as the mark's bytes.
        const withMark = [{ text: "▁", score: -9 }, ...pieces.filter(({ text }) => text !== "▁")];
        const tokenizer = tokenizerOf(withMark, { add_space_prefix: addSpacePrefix });
        // The mark stands for a space, so that a text with the mark in it comes back with spaces.
        const expected = text.replaceAll("▁", " ");
        const tokens = tokenizer.encode(text);
        expect(tokenizer.decode(tokens)).toBe(expected);
        const decoder = tokenizer.decoder();
        expect(Array.from(tokens, (token) => decoder.push(token)).join("") + decoder.finish()).toBe(expected);
        expect([...tokens].every((token) => token < tokenizer.vocabularySize)).toBe(true);
      }),
      { numRuns: 300 },
    );
  });

  test("merges the highest score first, and of equal scores the leftmost", () => {
    const pieces = ["a", "b", "c"].map((text) => ({ text }));
    const ab = { text: "ab", score: 1 };
    const bc = { text: "bc", score: 2 };
    const words = (list: readonly Piece[]): string[] => {
      const tokenizer = tokenizerOf(list, { add_space_prefix: false });
      return Array.from(tokenizer.encode("abc", { addSpecial: false }), (token) => tokenizer.tokenText(token));
    };
    expect(words([...pieces, ab, bc])).toEqual(["a", "bc"]);
    expect(words([...pieces, { ...ab, score: 2 }, bc])).toEqual(["ab", "c"]);
  });

  test("puts a space before the first word and after special tokens, where the file does not say otherwise", () => {
    const pieces = [{ text: "▁" }, { text: "x" }, { text: "▁x", score: 1 }, { text: "<sep>", type: type.userDefined }];
    const words = (more: Record<string, unknown>): string[] => {
      const tokenizer = tokenizerOf(pieces, more);
      return Array.from(tokenizer.encode("x<sep>x"), (token) => tokenizer.tokenText(token));
    };
    expect(words({})).toEqual(["<s>", " x", "<sep>", " x"]);
    expect(words({ add_space_prefix: false })).toEqual(["<s>", "x", "<sep>", "x"]);
  });

  test("keeps the first space of tokens that go on from an earlier text", () => {
    const tokenizer = tokenizerOf([{ text: "▁x" }]);
    const token = tokenizer.vocabularySize - 1;
    expect(tokenizer.decode([token, token])).toBe("x x");
    expect(tokenizer.decode([token, token], { keepLeadingSpace: true })).toBe(" x x");
    expect(tokenizer.decode([1, token])).toBe("x");
  });

  test("gives only the beginning-of-text token for the empty text", () => {
    expect([...tokenizerOf([]).encode("")]).toEqual([1]);
    expect([...tokenizerOf([]).encode("", { addSpecial: false })]).toEqual([]);
    expect([...tokenizerOf([], { add_bos_token: false }).encode("")]).toEqual([]);
    expect([...tokenizerOf([], { add_eos_token: true }).encode("")]).toEqual([1, 2]);
  });

  test("writes a character without a token as its bytes", () => {
    const tokens = tokenizerOf([], { add_space_prefix: false }).encode("é", { addSpecial: false });
    expect([...tokens]).toEqual([3 + 0xc3, 3 + 0xa9]);
  });

  test("writes a character without a token and bytes as the unknown token, or refuses it", () => {
    const pieces: Piece[] = [{ text: "<unk>", type: type.unknown }, { text: "<s>", type: type.control }, { text: "a" }];
    const tokenizer = createTokenizer(sentencePiece(pieces, { add_space_prefix: false }));
    expect([...tokenizer.encode("aéa")]).toEqual([1, 2, 0, 2]);
    const named = sentencePiece([{ text: "a" }], {
      add_bos_token: false,
      unknown_token_id: 0,
      add_space_prefix: false,
    });
    expect([...createTokenizer(named).encode("é")]).toEqual([0]);
    const unnamed = sentencePiece([{ text: "a" }], { add_bos_token: false, add_space_prefix: false });
    expect(() => createTokenizer(unnamed).encode("aé")).toThrow(OptionError);
    expect(() => createTokenizer(unnamed).encode("aé")).toThrow('no token for "é"');
  });

  test("is not slow on a long text without a space", () => {
    // A loop over all pairs for each merge would take hours.
    const pieces = [{ text: "a" }, { text: "aa", score: 3 }, { text: "aaaa", score: 2 }];
    const tokenizer = tokenizerOf(pieces, { add_space_prefix: false });
    const tokens = tokenizer.encode("a".repeat(300_000), { addSpecial: false });
    expect(tokens.length).toBe(75_000);
    expect(tokenizer.decode(tokens).length).toBe(300_000);
  });

  test("works the same after a long text", () => {
    const tokenizer = tokenizerOf([{ text: "a" }, { text: "aa" }], { add_space_prefix: false });
    const before = tokenizer.encode("aaa b");
    tokenizer.encode("ab".repeat(100_000));
    expect(tokenizer.encode("aaa b")).toEqual(before);
  });

  test("refuses half a character, saying where", () => {
    const tokenizer = tokenizerOf([]);
    expect(() => tokenizer.encode("ab\ud83d")).toThrow(OptionError);
    expect(() => tokenizer.encode("ab\ud83d")).toThrow("lone surrogate U+D83D) at index 2");
    expect(() => tokenizer.encode("\udc00x")).toThrow("lone surrogate U+DC00) at index 0");
  });
});
