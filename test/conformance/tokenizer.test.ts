// Token ids against llama.cpp's own: its published vectors for every vocabulary that TinyAI reads, and ids that
// llama-cpp-python gave for texts written for this test (fixtures/make_gemma_tokens.py), Gemma's among them.

import { describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pullModel } from "../../src/cli/pull.ts";
import { ModelFileError } from "../../src/errors.ts";
import { Metadata, type MetadataEntry } from "../../src/model/file.ts";
import { openGguf } from "../../src/model/gguf.ts";
import { createTokenizer, type Tokenizer } from "../../src/tokenizer/index.ts";
import { readVectors, vectorsFolder } from "./tokenizer-vectors.ts";

/** What llama.cpp said of one vocabulary, for each of the texts. */
interface Expected {
  readonly plain: readonly (readonly number[])[];
  readonly special: readonly (readonly number[])[];
  readonly ends: readonly number[];
  /** The SHA-256 of the special tokens' ids as a JSON array. */
  readonly specials_sha256: string;
}

interface GemmaFixture extends Expected {
  readonly model_sha256: string;
  readonly texts: readonly string[];
  readonly pieces: Readonly<Record<string, string>>;
}

interface VocabularyFixture {
  readonly vocabularies: readonly (Expected & { readonly vocabulary: string; readonly pre: string | null })[];
}

/** What Hugging Face's tokenizers gave with BERT's uncased vocabulary, for each way to clean a text. */
interface WordPieceFixture {
  readonly texts: readonly string[];
  readonly variants: readonly {
    readonly options: Readonly<Record<string, boolean | null>>;
    readonly ids: readonly (readonly number[])[];
  }[];
}

const gemma: GemmaFixture = readFixture("gemma-tokens.json");
const others: VocabularyFixture = readFixture("vocabulary-tokens.json");
const folder = await vectorsFolder();
const gemmaPath = process.env["TINYAI_TEST_GEMMA"] ?? (await pullModel("gemma3-270m")).path;

describe("llama.cpp's vectors", () => {
  for (const name of ["llama-bpe", "llama-spm", "gpt-2", "qwen2", "phi-3"]) {
    const { model, texts, ids } = readVectors(folder, name);
    const tokenizer = open(model);
    for (const [line, text] of texts.entries()) {
      test(`${name}, line ${line + 1}: ${JSON.stringify(text).slice(0, 60)}`, () => {
        expect([...tokenizer.encode(text, { addSpecial: false })]).toEqual([...(ids[line] ?? [])]);
        expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
      });
    }
  }

  // llama.cpp cuts words for starcoder and refact as for smollm, for which it has no vectors.
  for (const name of ["starcoder", "refact"]) {
    const { model, texts, ids } = readVectors(folder, name);
    const tokenizer = open(model, "smollm");
    for (const [line, text] of texts.entries()) {
      test(`smollm with ${name}'s vocabulary, line ${line + 1}: ${JSON.stringify(text).slice(0, 60)}`, () => {
        expect([...tokenizer.encode(text, { addSpecial: false })]).toEqual([...(ids[line] ?? [])]);
      });
    }
  }

  for (const name of ["deepseek-coder", "deepseek-llm", "falcon", "command-r", "qwen35", "starcoder", "mpt"]) {
    test(`${name}'s pre-tokenizer is refused by name`, () => {
      const path = join(folder, `ggml-vocab-${name}.gguf`);
      const pre = openGguf(path).metadata.string("tokenizer.ggml.pre");
      expect(() => open(path)).toThrow(ModelFileError);
      expect(() => open(path)).toThrow(`tokenizer.ggml.pre: pre-tokenizer "${pre}" is not supported`);
    });
  }

  // Case and accents are gone from what comes back.
  const bert = readVectors(folder, "bert-bge");
  const wordPiece = open(bert.model);
  for (const [line, text] of bert.texts.entries()) {
    test(`bert-bge, line ${line + 1}: ${JSON.stringify(text).slice(0, 60)}`, () => {
      expect([...wordPiece.encode(text, { addSpecial: false })]).toEqual([...(bert.ids[line] ?? [])]);
    });
  }

  test("nomic-bert-moe's tokenizer is refused by name", () => {
    expect(() => open(join(folder, "ggml-vocab-nomic-bert-moe.gguf"))).toThrow('tokenizer "t5" is not supported');
  });
});

describe("Hugging Face's tokenizers with BERT's vocabulary", () => {
  const { texts, variants }: WordPieceFixture = readFixture("wordpiece-tokens.json");
  for (const { options, ids } of variants) {
    const { lowercase = true, strip_accents: strips, clean_text: cleans, handle_chinese_chars: splits } = options;
    const tokenizer = open(join(folder, "ggml-vocab-bert-bge.gguf"), {
      "tokenizer.ggml.normalizer.lowercase": lowercase ?? true,
      "tokenizer.ggml.normalizer.strip_accents": strips ?? lowercase ?? true,
      "tinyai.tokenizer.clean_text": cleans ?? true,
      "tinyai.tokenizer.handle_chinese_chars": splits ?? true,
    });
    test(`give the same ids for all texts with ${JSON.stringify(options)}`, () => {
      expect(texts.length).toBeGreaterThan(150);
      for (const [index, text] of texts.entries()) {
        expect({ text, ids: [...tokenizer.encode(text)] }).toEqual({ text, ids: [...(ids[index] ?? [])] });
      }
    });
  }
});

describe("Gemma's vocabulary", () => {
  test("is the one that the fixture was made with", () => {
    expect(createHash("sha256").update(readFileSync(gemmaPath)).digest("hex")).toBe(gemma.model_sha256);
  });

  const tokenizer = open(gemmaPath);
  compare(tokenizer, gemma);

  test("each token's bytes are llama.cpp's", () => {
    expect(Object.keys(gemma.pieces).length).toBeGreaterThan(800);
    for (const [token, hex] of Object.entries(gemma.pieces)) {
      expect({ token, hex: Buffer.from(tokenizer.tokenBytes(Number(token))).toString("hex") }).toEqual({ token, hex });
    }
  });
});

for (const expected of others.vocabularies) {
  const { vocabulary, pre } = expected;
  describe(`${vocabulary}'s vocabulary${pre === null ? "" : ` with pre-tokenizer ${pre}`}`, () => {
    compare(open(join(folder, `ggml-vocab-${vocabulary}.gguf`), pre ?? undefined), expected);
  });
}

function compare(tokenizer: Tokenizer, expected: Expected): void {
  for (const [index, text] of gemma.texts.entries()) {
    test(`text ${index}: ${JSON.stringify(text).slice(0, 60)}`, () => {
      expect([...tokenizer.encode(text)]).toEqual([...(expected.plain[index] ?? [])]);
      expect([...tokenizer.encode(text, { parseSpecial: true })]).toEqual([...(expected.special[index] ?? [])]);
      // A SentencePiece vocabulary writes spaces as this mark: a text that has it comes back with spaces.
      if (!text.includes("▁")) expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
      const decoder = tokenizer.decoder();
      const streamed = Array.from(tokenizer.encode(text), (token) => decoder.push(token)).join("") + decoder.finish();
      expect(streamed).toBe(tokenizer.decode(tokenizer.encode(text)));
    });
  }

  test("the same tokens end a generation, and the same are special", () => {
    expect([...tokenizer.eosTokens]).toEqual([...expected.ends]);
    const ids = Array.from({ length: tokenizer.vocabularySize }, (_, id) => id).filter((id) => tokenizer.isSpecial(id));
    expect(createHash("sha256").update(JSON.stringify(ids)).digest("hex")).toBe(expected.specials_sha256);
  });
}

/** The tokenizer of a file, with another pre-tokenizer than it names, or with further settings. */
function open(path: string, more: string | Readonly<Record<string, boolean>> = {}): Tokenizer {
  const { metadata } = openGguf(path);
  const entries = new Map<string, MetadataEntry>();
  for (const key of metadata.keys()) {
    const entry = metadata.entry(key);
    if (entry !== undefined) entries.set(key, entry);
  }
  if (typeof more === "string") entries.set("tokenizer.ggml.pre", { type: "string", isArray: false, value: more });
  else for (const [key, value] of Object.entries(more)) entries.set(key, { type: "bool", isArray: false, value });
  return createTokenizer(new Metadata(path, entries));
}

function readFixture<Content>(name: string): Content {
  return JSON.parse(readFileSync(join(import.meta.dir, "fixtures", name), "utf8"));
}
