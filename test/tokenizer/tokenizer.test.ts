// What all kinds of tokenizer share: special tokens, streaming, and what is refused of a file.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ModelFileError, OptionError } from "../../src/errors.ts";
import type { StringTable } from "../../src/model/file.ts";
import { createTokenizer, type Tokenizer } from "../../src/tokenizer/index.ts";
import { SpecialTokens } from "../../src/tokenizer/special.ts";
import { TokenTable } from "../../src/tokenizer/table.ts";
import {
  bytePair,
  llamaPieces,
  metadataOf,
  type Piece,
  path,
  sentencePiece,
  stringArray,
  type,
} from "./vocabularies.ts";

const utf8 = new TextEncoder();

function llama(pieces: readonly Piece[], more: Record<string, unknown> = {}): Tokenizer {
  return createTokenizer(sentencePiece([...llamaPieces, ...pieces], { add_space_prefix: false, ...more }));
}

function words(tokenizer: Tokenizer, text: string, parseSpecial = false): string[] {
  const tokens = tokenizer.encode(text, { addSpecial: false, parseSpecial });
  return Array.from(tokens, (token) => tokenizer.tokenText(token));
}

/** Special tokens of a vocabulary that has no others. */
function specialTokens(names: readonly string[]): SpecialTokens {
  const texts = names.map((name) => utf8.encode(name));
  const offsets = Uint32Array.from([0, ...texts.map((_, id) => Buffer.concat(texts.slice(0, id + 1)).length)]);
  const table = TokenTable.build(new Uint8Array(Buffer.concat(texts)), offsets, () => {});
  return new SpecialTokens(table, [...names.keys()], () => false);
}

describe("special tokens", () => {
  test("are read in a text only if asked for; user-defined tokens always", () => {
    const pieces = [..."<s>[x]ab"].map((text) => ({ text }));
    const tokenizer = llama([...pieces, { text: "[x]", type: type.userDefined }]);
    expect(words(tokenizer, "a<s>[x]b")).toEqual(["a", "<", "s", ">", "[x]", "b"]);
    expect(words(tokenizer, "a<s>[x]b", true)).toEqual(["a", "<s>", "[x]", "b"]);
  });

  test("are found longest first, not leftmost first", () => {
    const special = specialTokens(["ab", "bcd"]);
    expect(special.split(utf8.encode("abcd"))).toEqual([
      { token: -1, start: 0, end: 1 },
      { token: 1, start: 1, end: 4 },
    ]);
  });

  test("are found as by searching for one after the other in what is left", () => {
    const texts = fc.string({ unit: fc.constantFrom("a", "b", "\n"), maxLength: 60 });
    const specials = fc.uniqueArray(fc.string({ unit: fc.constantFrom("a", "b", "\n"), minLength: 1, maxLength: 5 }), {
      maxLength: 12,
    });
    fc.assert(
      fc.property(specials, texts, (names, text) => {
        let parts: (string | number)[] = [text];
        const order = names
          .map((name, id) => ({ name, id }))
          .sort((a, b) => b.name.length - a.name.length || a.id - b.id);
        for (const { name, id } of order) {
          parts = parts.flatMap((part) =>
            typeof part === "number"
              ? [part]
              : part.split(name).flatMap((rest, index) => (index === 0 ? [rest] : [id, rest])),
          );
        }
        const found = specialTokens(names)
          .split(utf8.encode(text))
          .map(({ token, start, end }) => (token >= 0 ? token : text.slice(start, end)));
        expect(found).toEqual(parts.filter((part) => part !== ""));
      }),
      { numRuns: 500 },
    );
  });

  test("take the white space on their right in Phi-3, and leave it elsewhere", () => {
    const pieces: Piece[] = [{ text: "<|user|>", type: type.control }, { text: "▁" }, { text: "\n" }, { text: "a" }];
    expect(words(llama(pieces), "<|user|>\n a", true)).toEqual(["<|user|>", "\n", " ", "a"]);
    expect(words(llama(pieces, { "general.name": "Phi3 mini" }), "<|user|>\n a", true)).toEqual(["<|user|>", "a"]);
    expect(words(llama(pieces, { "general.name": "Phi3 mini" }), "<s> a", true)).toEqual(["<s>", " ", "a"]);
  });

  test("are left out of a decoded text unless asked for", () => {
    const tokenizer = llama([{ text: "a" }, { text: "[x]", type: type.userDefined }]);
    const a = tokenizer.vocabularySize - 2;
    expect(tokenizer.decode([1, a, 0, a + 1, 2])).toBe("a[x]");
    expect(tokenizer.decode([1, a, 0, a + 1, 2], { skipSpecial: false })).toBe("<s>a<unk>[x]</s>");
    expect([0, 1, 2, 3, a, a + 1].map((token) => tokenizer.isSpecial(token))).toEqual([
      true,
      true,
      true,
      false,
      false,
      false,
    ]);
  });

  test("end a generation by the file's ids and by the names that models use", () => {
    const tokenizer = createTokenizer(
      bytePair([], ["<|im_start|>", "<|im_end|>", "<|stop|>", "<|turn|>", "<|message|>"], {
        eos_token_id: 258,
        eot_token_id: 259,
        eom_token_id: 260,
      }),
    );
    expect(tokenizer.eosToken).toBe(258);
    expect(tokenizer.eosTokens).toEqual([257, 258, 259, 260]);
  });

  test("that end a generation are control tokens even where the file says otherwise", () => {
    const tokenizer = createTokenizer(bytePair([], ["<|im_end|>"], { token_type: undefined }));
    expect(tokenizer.isSpecial(256)).toBe(true);
    expect(words(tokenizer, "<|im_end|>")).not.toContain("<|im_end|>");
    expect(words(tokenizer, "<|im_end|>", true)).toEqual(["<|im_end|>"]);
  });

  test("are the first LLaMA's where a SentencePiece file names none", () => {
    const tokenizer = llama([]);
    expect([tokenizer.bosToken, tokenizer.eosToken, tokenizer.addBos, tokenizer.addEos]).toEqual([1, 2, true, false]);
  });
});

describe("a stream decoder", () => {
  const tokenizer = llama([{ text: "▁" }, { text: "a" }, { text: "🦀x" }]);
  const byte = (value: number): number => value + 3;

  test("gives a character split over tokens with its last token", () => {
    const decoder = tokenizer.decoder();
    const crab = [0xf0, 0x9f, 0xa6, 0x80].map((value) => decoder.push(byte(value)));
    expect(crab).toEqual(["", "", "", "🦀"]);
    expect(decoder.finish()).toBe("");
  });

  test("gives U+FFFD for what is no UTF-8, and for what was not completed", () => {
    const decoder = tokenizer.decoder();
    expect(decoder.push(byte(0xff))).toBe("\ufffd");
    expect(decoder.push(byte(0xf0)) + decoder.push(byte(0x9f))).toBe("");
    expect(decoder.push(byte(0x41))).toBe("\ufffdA");
    expect(decoder.push(byte(0xe2))).toBe("");
    expect(decoder.finish()).toBe("\ufffd");
    expect(decoder.push(byte(0x42))).toBe("B");
  });

  test("gives in all what decoding at once gives, and what TextDecoder makes of the bytes", () => {
    const tokens = fc.array(fc.nat({ max: tokenizer.vocabularySize - 1 }), { maxLength: 40 });
    fc.assert(
      fc.property(tokens, fc.boolean(), (ids, skipSpecial) => {
        const decoder = tokenizer.decoder({ skipSpecial });
        const streamed = ids.map((id) => decoder.push(id)).join("") + decoder.finish();
        const shown = ids.filter((id) => !skipSpecial || !tokenizer.isSpecial(id));
        const bytes = Buffer.concat(shown.map((id) => tokenizer.tokenBytes(id)));
        expect(streamed).toBe(new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes));
        expect(tokenizer.decode(ids, { skipSpecial })).toBe(streamed);
      }),
      { numRuns: 500 },
    );
  });

  test("keeps a byte order mark", () => {
    const tokens = [...utf8.encode("\ufeffa")].map(byte);
    expect(tokenizer.decode(tokens)).toBe("\ufeffa");
    const decoder = tokenizer.decoder();
    expect(tokens.map((token) => decoder.push(token)).join("")).toBe("\ufeffa");
  });

  test("refuses what is no token", () => {
    for (const token of [-1, 0.5, Number.NaN, tokenizer.vocabularySize]) {
      expect(() => tokenizer.decode([token])).toThrow(OptionError);
      expect(() => tokenizer.decoder().push(token)).toThrow("is no token");
      expect(() => tokenizer.tokenText(token)).toThrow(OptionError);
      expect(() => tokenizer.isSpecial(token)).toThrow(OptionError);
    }
  });

  test("shows nothing for unused and undefined tokens", () => {
    const odd = llama([
      { text: "x", type: type.unused },
      { text: "y", type: type.undefined },
    ]);
    expect(odd.decode([odd.vocabularySize - 2, odd.vocabularySize - 1])).toBe("");
  });
});

describe("a token table", () => {
  test("finds every text and no other, also when made again from its arrays", () => {
    const texts = fc.uniqueArray(fc.string({ unit: "binary", minLength: 1 }), { minLength: 1, maxLength: 200 });
    fc.assert(
      fc.property(texts, fc.string({ unit: "binary" }), (names, other) => {
        const entry = stringArray(names).value as StringTable;
        const { bytes, offsets } = entry.bytes();
        const built = TokenTable.build(bytes, offsets, () => {
          throw new Error("no text is there twice");
        });
        const table = new TokenTable(built.bytes, built.offsets, built.slots);
        for (const [id, name] of names.entries()) expect(table.findText(name)).toBe(id);
        expect(table.findText(other)).toBe(names.indexOf(other));
        expect(table.findText("")).toBe(-1);
      }),
    );
  });
});

test("a token table finds two texts with a space between as it finds the whole, and no other two", () => {
  // Enough that a slot and the seven bits of the hash in it agree by chance for tens of those that are not there.
  const count = 20_000;
  const leftOf = (right: number): string => (right % 2 === 0 ? "even" : "odd");
  const names = Array.from({ length: count }, (_, right) => `${leftOf(right)} ${right}`);
  const { bytes, offsets } = (stringArray(names).value as StringTable).bytes();
  const table = TokenTable.build(bytes, offsets, () => {});
  const wrong: string[] = [];
  for (const left of ["even", "odd"]) {
    for (let right = 0; right < count; right++) {
      const joined = utf8.encode(`${left}${right}`);
      const found = table.findSpaced(joined, 0, left.length, joined.length);
      if (found !== (left === leftOf(right) ? right : -1)) wrong.push(`${left} ${right}`);
    }
  }
  expect(wrong).toEqual([]);
});

describe("a file's tokenizer is refused, naming the key, if", () => {
  const good = { model: "gpt2", pre: "gpt-2", tokens: ["a", "b", "ab", "<x>"], merges: ["a b"] };
  const cases: readonly (readonly [name: string, changes: Record<string, unknown>, key: string, problem: string])[] = [
    ["it names no model", { model: undefined }, "model", "is missing"],
    ["its model is unknown", { model: "t5" }, "model", 'tokenizer "t5" is not supported; llama'],
    ["its model is no string", { model: 3 }, "model", "a string is expected"],
    [
      "its pre-tokenizer is unknown",
      { pre: "tekken" },
      "pre",
      'pre-tokenizer "tekken" is not supported; default, gpt-2, llama-bpe, qwen2, smollm are',
    ],
    ["its pre-tokenizer has control characters in its name", { pre: "a\u001b[31m" }, "pre", '"a\\u{1b}[31m"'],
    ["it names no pre-tokenizer", { pre: undefined }, "pre", "is missing"],
    ["it has no tokens", { tokens: [] }, "tokens", "has no tokens"],
    ["it lacks tokens", { tokens: undefined }, "tokens", "is missing"],
    ["its tokens are no strings", { tokens: Int32Array.of(1, 2) }, "tokens", "an array of strings is expected"],
    ["two tokens are the same", { tokens: ["a", "b", "a"] }, "tokens", 'tokens 0 and 2 have the same text "a"'],
    ["it lacks merges", { merges: undefined }, "merges", "is missing"],
    ["a merge is one text", { merges: ["a b", "ab"] }, "merges", 'merge 1 is "ab"; two texts'],
    ["a merge is empty", { merges: [""] }, "merges", 'merge 0 is ""'],
    ["types are too few", { token_type: Int32Array.of(1, 1) }, "token_type", "has 2 entries for 4 tokens"],
    ["types are too many", { token_type: new Int32Array(5) }, "token_type", "has 5 entries for 4 tokens"],
    ["a type is unknown", { token_type: Int32Array.of(1, 1, 7, 1) }, "token_type", "token 2 has type 7"],
    ["a type is negative", { token_type: Int32Array.of(-1, 1, 1, 1) }, "token_type", "token 0 has type -1"],
    ["a type is no whole number", { token_type: Float32Array.of(1, 1, 1.5, 1) }, "token_type", "token 2 has type 1.5"],
    ["scores are too few", { scores: new Float32Array(3) }, "scores", "has 3 entries for 4 tokens"],
    ["a score is no number", { scores: Float32Array.of(0, Number.NaN, 0, 0) }, "scores", "token 1 has no number"],
    [
      "a byte token is not well formed",
      { tokens: ["a", "b", "ab", "<0x-1>"], token_type: Int32Array.of(1, 1, 1, 6) },
      "tokens",
      'token 3 is a byte token but its text is "<0x-1>"',
    ],
    [
      "a byte token is no number",
      { tokens: ["a", "b", "ab", "<0xZZ>"], token_type: Int32Array.of(1, 1, 1, 6) },
      "tokens",
      'its text is "<0xZZ>"',
    ],
    [
      "the beginning-of-text id is beyond the vocabulary",
      { bos_token_id: 4 },
      "bos_token_id",
      "is 4; an id of the vocabulary, from 0 to 3",
    ],
    ["the end-of-text id is no whole number", { eos_token_id: "2" }, "eos_token_id", "a number is expected"],
    [
      "an id that is not used is beyond the vocabulary",
      { padding_token_id: 2 ** 32 - 1 },
      "padding_token_id",
      "is 4294967295",
    ],
    ["a fill-in id is beyond the vocabulary", { fim_pre_token_id: 99 }, "fim_pre_token_id", "is 99"],
    [
      "a beginning-of-text token is asked for but not named",
      { add_bos_token: true },
      "bos_token_id",
      "is missing, but tokenizer.ggml.add_bos_token asks for",
    ],
    [
      "an end-of-text token is asked for but not named",
      { add_eos_token: true },
      "eos_token_id",
      "is missing, but tokenizer.ggml.add_eos_token asks for",
    ],
    ["a flag is no boolean", { add_bos_token: 1 }, "add_bos_token", "a boolean is expected"],
  ];

  test("nothing, when it is whole", () => {
    expect(createTokenizer(metadataOf(good)).vocabularySize).toBe(4);
  });

  for (const [name, changes, key, problem] of cases) {
    test(name, () => {
      let error: unknown;
      try {
        createTokenizer(metadataOf({ ...good, ...changes }));
      } catch (caught) {
        error = caught;
      }
      if (!(error instanceof ModelFileError)) throw new Error(`not refused: ${String(error)}`);
      expect(error.field).toBe(`tokenizer.ggml.${key}`);
      expect(error.message).toContain(problem);
      expect(error.path).toBe(path);
    });
  }
});

test("an empty token's text is made one that no text holds by chance", () => {
  const tokenizer = llama([{ text: "" }, { text: "a" }]);
  expect(words(tokenizer, "aa")).toEqual(["a", "a"]);
  expect(tokenizer.tokenText(tokenizer.vocabularySize - 2)).toBe(`[EMPTY_${tokenizer.vocabularySize - 2}]`);
});
