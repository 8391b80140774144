// WordPiece: cleaning, words, the longest pieces. What is expected is written out, or computed by an encoder that works on
// characters and regular expressions instead of bytes and tables.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ModelFileError } from "../../src/errors.ts";
import { createTokenizer, type Tokenizer } from "../../src/tokenizer/index.ts";
import { metadataOf, path, type } from "./vocabularies.ts";

const special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"];

/** A tokenizer of `pieces` as BERT spells them, behind the special tokens. */
function bert(pieces: readonly string[], more: Record<string, unknown> = {}): Tokenizer {
  const spelled = pieces.map((piece) => (/^##./.test(piece) ? piece.slice(2) : `▁${piece}`));
  return createTokenizer(
    metadataOf({
      model: "bert",
      tokens: [...special, ...spelled],
      token_type: Int32Array.from([...special.map(() => type.control), ...spelled.map(() => type.normal)]),
      unknown_token_id: 1,
      cls_token_id: 2,
      seperator_token_id: 3,
      ...more,
    }),
  );
}

/** Tokens' texts as BERT spells them, without those around the text. */
function pieces(tokenizer: Tokenizer, text: string): string[] {
  return Array.from(tokenizer.encode(text, { addSpecial: false }), (token) => {
    const piece = tokenizer.tokenText(token);
    if (tokenizer.isSpecial(token)) return piece;
    return piece.startsWith(" ") ? piece.slice(1) : `##${piece}`;
  });
}

describe("words", () => {
  const tokenizer = bert(["un", "##aff", "##able", "able", "##a", "a", "b", ",", "「", "中", "国", "²", "é", "e"]);

  test("are cut into the longest pieces from left to right, and are unknown as a whole where that leads nowhere", () => {
    expect(pieces(tokenizer, "unaffable")).toEqual(["un", "##aff", "##able"]);
    expect(pieces(tokenizer, "able unable")).toEqual(["able", "un", "##able"]);
    expect(pieces(tokenizer, "unaffably a")).toEqual(["[UNK]", "a"]);
    expect(pieces(tokenizer, "affable")).toEqual(["[UNK]"]);
  });

  test("end at white space and around signs and ideographs", () => {
    expect(pieces(tokenizer, "a,b\n\tb\u00a0a\u2028b")).toEqual(["a", ",", "b", "b", "a", "b"]);
    expect(pieces(tokenizer, "a「中国」b")).toEqual(["a", "「", "中", "国", "[UNK]", "b"]);
    expect(pieces(tokenizer, "²a")).toEqual(["²", "##a"]);
  });

  test("lose control characters, accents and capitals", () => {
    expect(pieces(tokenizer, "UN\u0000a\u200bFF\u00adablé\ufffd")).toEqual(["un", "##aff", "##able"]);
    expect(pieces(tokenizer, "É e\u0301")).toEqual(["e", "e"]);
  });

  test("keep what the file wants kept", () => {
    const cased = bert(["A", "a", "é", "e"], { "tokenizer.ggml.normalizer.lowercase": false });
    expect(pieces(cased, "A a é É")).toEqual(["A", "a", "é", "[UNK]"]);
    const accented = bert(["é", "e"], {
      "tokenizer.ggml.normalizer.strip_accents": true,
      "tokenizer.ggml.normalizer.lowercase": false,
    });
    expect(pieces(accented, "é E")).toEqual(["e", "[UNK]"]);
    const whole = bert(["中国"], { "tinyai.tokenizer.handle_chinese_chars": false });
    expect(pieces(whole, "中国")).toEqual(["中国"]);
    const dirty = bert(["a\u0001b", "ab"], { "tinyai.tokenizer.clean_text": false });
    expect(pieces(dirty, "a\u0001b")).toEqual(["a\u0001b"]);
  });

  test("of more characters than the file allows are unknown", () => {
    const long = bert(["a", "##a", "é", "##é"], { "tokenizer.ggml.normalizer.strip_accents": false });
    expect(pieces(long, "a".repeat(100))).toHaveLength(100);
    expect(pieces(long, "é".repeat(100))).toHaveLength(100);
    expect(pieces(long, "a".repeat(101))).toEqual(["[UNK]"]);
    expect(pieces(bert(["a", "##a"], { "tinyai.tokenizer.max_input_chars_per_word": 2 }), "aa aaa")).toEqual([
      "a",
      "##a",
      "[UNK]",
    ]);
  });

  test("that hold the mark of a word's beginning are not taken for one", () => {
    expect(pieces(bert(["a", "b"]), "a▁b ▁ ▁a")).toEqual(["[UNK]", "[UNK]", "[UNK]"]);
  });

  test("are not cut within a character", () => {
    const half = Uint8Array.of(0xe2, 0x96, 0x81, 0xd1);
    const metadata = metadataOf({ model: "bert", tokens: [...special, half, Uint8Array.of(0x8f)] });
    expect([...createTokenizer(metadata).encode("я")]).toEqual([2, 1, 3]);
  });

  test("at whose end a sigma stands are spelled as elsewhere", () => {
    expect(pieces(bert(["οδοσ"]), "ΟΔΟΣ")).toEqual(["οδοσ"]);
  });

  test("are cut as by an encoder that works on characters", () => {
    const vocabulary = ["a", "b", "ab", "aab", "##a", "##b", "##ba", "##é", "é", ".", "、", "中"];
    const slow = (text: string): string[] =>
      text
        .replaceAll(/[^\P{C}\n]/gu, "")
        .replaceAll("中", " 中 ")
        .toLowerCase()
        .split(/\s+/u)
        .flatMap((word) => word.split(/([.、!])/))
        .filter((word) => word !== "")
        .flatMap((word) => {
          const found: string[] = [];
          for (let from = 0; from < word.length; ) {
            const ends = Array.from({ length: word.length - from }, (_, index) => word.length - index);
            const end = ends.find((to) => vocabulary.includes((from > 0 ? "##" : "") + word.slice(from, to)));
            if (end === undefined) return ["[UNK]"];
            found.push((from > 0 ? "##" : "") + word.slice(from, end));
            from = end;
          }
          return found;
        });
    const fast = bert(vocabulary, { "tokenizer.ggml.normalizer.strip_accents": false });
    const characters = fc.constantFrom(..."aAbbabéÉ.、!中 \n\u0001\u200b\u3000");
    fc.assert(
      fc.property(fc.string({ unit: characters, maxLength: 40 }), (text) => {
        expect(pieces(fast, text)).toEqual(slow(text));
      }),
      { numRuns: 2000 },
    );
  });
});

describe("texts", () => {
  const tokenizer = bert(["a", "##b", "c"]);

  test("stand between the tokens for their beginning and end, the empty one too", () => {
    expect([...tokenizer.encode("c ab")]).toEqual([2, 6, 4, 5, 3]);
    expect([...tokenizer.encode("")]).toEqual([2, 3]);
    expect([...tokenizer.encode("[SEP]", { parseSpecial: true })]).toEqual([2, 3, 3]);
    expect([...tokenizer.encode("[SEP]")]).toEqual([2, 1, 1, 1, 3]);
  });

  test("come back with a space before each word", () => {
    expect(tokenizer.decode(tokenizer.encode(" c  ab"))).toBe("c ab");
  });

  test("that are cut short keep their last token", () => {
    const tokens = tokenizer.encode("c c c c");
    expect([...tokenizer.truncate(tokens, 4)]).toEqual([2, 6, 6, 3]);
    expect(tokenizer.truncate(tokens, 6)).toBe(tokens);
    expect([...tokenizer.truncate(tokenizer.encode("c c c", { addSpecial: false }), 2)]).toEqual([6, 6]);
  });
});

test("a vocabulary without the tokens around a text is refused", () => {
  const metadata = metadataOf({ model: "bert", tokens: ["[UNK]", "▁a"], unknown_token_id: 0 });
  expect(() => createTokenizer(metadata)).toThrow(ModelFileError);
  expect(() => createTokenizer(metadata)).toThrow(
    `${path}: tokenizer.ggml.cls_token_id: is missing, and no token is called [CLS]`,
  );
  const outside = { model: "bert", tokens: [...special, "▁a"], cls_token_id: 5 };
  expect(() => createTokenizer(metadataOf(outside))).toThrow("from 0 to 4");
});
