// Byte-level byte-pair encoding against a merge loop that looks at every pair each time, and the pre-tokenizers against
// words written down from their definitions.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { createTokenizer, type Tokenizer } from "../../src/tokenizer/index.ts";
import { findPreTokenizer, preTokenizerNames, splitWords } from "../../src/tokenizer/pretokenize.ts";
import { byteCharacters, bytePair, inByteAlphabet } from "./vocabularies.ts";

type Merge = readonly [left: string, right: string];

/** GPT-2's pattern as it was published; the texts here have no white space on which JavaScript's \s and Unicode differ. */
const gpt2Pattern = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

/** The definition, taken literally: the neighbours with the lowest rank, of equals the leftmost, until none are listed. */
function naive(merges: readonly Merge[], text: string): string[] {
  const ranks = new Map<string, number>();
  for (const [rank, [left, right]] of merges.entries()) {
    if (!ranks.has(`${left} ${right}`)) ranks.set(`${left} ${right}`, rank);
  }
  return (text.match(gpt2Pattern) ?? []).flatMap((word) => {
    const symbols = [...inByteAlphabet(word)];
    for (;;) {
      let best = -1;
      let bestRank = Number.POSITIVE_INFINITY;
      for (let left = 0; left + 1 < symbols.length; left++) {
        const rank = ranks.get(`${symbols[left]} ${symbols[left + 1]}`);
        if (rank !== undefined && rank < bestRank) {
          best = left;
          bestRank = rank;
        }
      }
      if (best < 0) return symbols;
      symbols.splice(best, 2, `${symbols[best]}${symbols[best + 1]}`);
    }
  });
}

/** Merges of what there is already, some of them making the same token in two ways, some listed twice. */
const mergeLists = fc
  .array(fc.tuple(fc.nat({ max: 999 }), fc.nat({ max: 999 })), { maxLength: 60 })
  .map((choices): Merge[] => {
    const symbols = [..."abc'", ...inByteAlphabet(" é🦀1")];
    return choices.map(([first, second]) => {
      const left = symbols[first % symbols.length] ?? "a";
      const right = symbols[second % symbols.length] ?? "b";
      symbols.push(left + right);
      return [left, right];
    });
  });
const texts = fc.oneof(
  fc.string({ unit: fc.constantFrom("a", "b", "c", " ", "é", "🦀", "'", "s", "1", "\n", "."), maxLength: 60 }),
  fc.string({ unit: "binary" }).filter((text) => !/[\u0085\ufeff]/.test(text)),
);

describe("byte-level byte-pair encoding", () => {
  test("gives what the plain merge loop gives", () => {
    fc.assert(
      fc.property(mergeLists, texts, (merges, text) => {
        const metadata = bytePair(merges);
        const vocabulary = metadata.strings("tokenizer.ggml.tokens");
        const tokens = createTokenizer(metadata).encode(text);
        expect(Array.from(tokens, (token) => vocabulary[token])).toEqual(naive(merges, text));
      }),
      { numRuns: 300 },
    );
  });

  test("decodes what it encoded, whole and token by token, with each pre-tokenizer", () => {
    fc.assert(
      fc.property(
        mergeLists,
        fc.string({ unit: "binary" }),
        fc.constantFrom(...preTokenizerNames),
        (merges, text, pre) => {
          const tokenizer = createTokenizer(bytePair(merges, [], { pre, add_bos_token: false }));
          const tokens = tokenizer.encode(text);
          expect(tokenizer.decode(tokens)).toBe(text);
          const decoder = tokenizer.decoder();
          expect(Array.from(tokens, (token) => decoder.push(token)).join("") + decoder.finish()).toBe(text);
          expect([...tokens].every((token) => token < tokenizer.vocabularySize)).toBe(true);
        },
      ),
      { numRuns: 300 },
    );
  });

  test("merges by rank, not by length or place", () => {
    const merges: Merge[] = [
      ["b", "c"],
      ["a", "b"],
    ];
    expect(words(createTokenizer(bytePair(merges)), "abc")).toEqual(["a", "bc"]);
    expect(words(createTokenizer(bytePair(merges.toReversed())), "abc")).toEqual(["ab", "c"]);
  });

  test("keeps the first rank of a merge that is listed twice", () => {
    const tokenizer = createTokenizer(
      bytePair([], [], {
        tokens: [...byteCharacters, "ab", "bc"],
        token_type: undefined,
        merges: ["a b", "b c", "a b"],
      }),
    );
    expect(words(tokenizer, "abc")).toEqual(["ab", "c"]);
  });

  test("takes a word that is a token as it stands where the pre-tokenizer ignores merges, and only there", () => {
    // No merges lead to "abc".
    const withToken = (pre: string): Tokenizer => createTokenizer(bytePair([], ["abc"], { pre, add_bos_token: false }));
    expect(words(withToken("llama-bpe"), "abc")).toEqual(["abc"]);
    for (const pre of ["default", "gpt-2", "qwen2", "smollm"])
      expect(words(withToken(pre), "abc")).toEqual(["a", "b", "c"]);
  });

  test("merges through texts that are no tokens, and spells those that are left", () => {
    // "ab" is listed as a merge but is no token; "abc" is.
    const merges = ["a b", "ab c"];
    const tokens = [...byteCharacters, "abc"];
    const tokenizer = createTokenizer(bytePair([], [], { merges, tokens, token_type: undefined }));
    expect(words(tokenizer, "abc")).toEqual(["abc"]);
    expect(words(tokenizer, "ab")).toEqual(["a", "b"]);
  });

  test("adds the beginning-of-text token where the file or the pre-tokenizer asks for it", () => {
    const controls = ["<|begin|>"];
    const bos_token_id = 256;
    const first = (more: Record<string, unknown>): number | undefined =>
      createTokenizer(bytePair([], controls, { bos_token_id, ...more })).encode("a")[0];
    expect(first({ pre: "llama-bpe" })).toBe(256);
    expect(first({ pre: "gpt-2" })).not.toBe(256);
    expect(first({ pre: "gpt-2", add_bos_token: true })).toBe(256);
    expect(first({ pre: "llama-bpe", add_bos_token: false })).not.toBe(256);
  });

  test("is not slow on a long word", () => {
    const tokenizer = createTokenizer(
      bytePair([
        ["a", "a"],
        ["aa", "aa"],
      ]),
    );
    expect(tokenizer.encode("a".repeat(300_000)).length).toBe(75_000);
  });
});

describe("pre-tokenizers", () => {
  const cut = (name: string, text: string): readonly string[] => {
    const preTokenizer = findPreTokenizer(name);
    if (preTokenizer === undefined) throw new Error(`no pre-tokenizer ${name}`);
    return splitWords(text, preTokenizer);
  };

  test("gpt-2 keeps one space with a word, digits together and contractions apart", () => {
    expect(cut("gpt-2", "I'll  go1234 'S it's!\n\n x")).toEqual([
      "I",
      "'ll",
      " ",
      " go",
      "1234",
      " '",
      "S",
      " it",
      "'s",
      "!",
      "\n\n",
      " x",
    ]);
  });

  test("llama-bpe cuts digits by threes and takes line ends with punctuation", () => {
    expect(cut("llama-bpe", "I'LL go12345 (x)!\n\n  y\n z")).toEqual([
      "I",
      "'LL",
      " go",
      "123",
      "45",
      " (",
      "x",
      ")!\n\n",
      " ",
      " y",
      "\n",
      " z",
    ]);
  });

  test("qwen2 cuts every digit by itself", () => {
    expect(cut("qwen2", "in 2024.")).toEqual(["in", " ", "2", "0", "2", "4", "."]);
  });

  test("smollm cuts digits before anything else, and a space before them stays alone", () => {
    expect(cut("smollm", "in 2024 't")).toEqual(["in", " ", "2", "0", "2", "4", " '", "t"]);
  });

  test("default cuts punctuation first, and three ASCII digits at a time", () => {
    expect(cut("default", "a, b's 1234567 12٣456")).toEqual([
      "a",
      ",",
      " b",
      "'",
      "s",
      " ",
      "123",
      "456",
      "7",
      " ",
      "12٣",
      "456",
    ]);
  });

  test("count as white space what Unicode does: U+0085 is, U+FEFF is not", () => {
    for (const name of preTokenizerNames) {
      expect(cut(name, "a\u0085\u0085b").join("|")).not.toContain("a\u0085");
      expect(cut(name, "..\ufeff..")).toHaveLength(name === "default" ? 3 : 1);
    }
  });

  test("lose and add nothing, whatever the text", () => {
    fc.assert(
      fc.property(fc.constantFrom(...preTokenizerNames), fc.string({ unit: "binary" }), (name, text) => {
        const pieces = cut(name, text);
        expect(pieces.join("")).toBe(text);
        expect(pieces).not.toContain("");
      }),
    );
  });

  test("have the aliases that llama.cpp treats the same, and no others", () => {
    for (const alias of ["llama3", "llama-v3", "falcon3", "pixtral", "lfm2"])
      expect(findPreTokenizer(alias)?.name).toBe("llama-bpe");
    expect(findPreTokenizer("deepseek-r1-qwen")?.name).toBe("qwen2");
    for (const other of ["", "llama4", "gpt-4o", "tekken", "starcoder", "qwen35", "Qwen2"]) {
      expect(findPreTokenizer(other)).toBeUndefined();
    }
  });
});

function words(tokenizer: Tokenizer, text: string): string[] {
  return Array.from(tokenizer.encode(text), (token) => tokenizer.tokenText(token));
}
