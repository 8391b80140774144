// Small vocabularies for the tests, as the metadata of a GGUF file would have them. It writes no file.

import { Metadata, type MetadataEntry, StringTable } from "../../src/model/file.ts";

/** A token's types by GGUF's numbers. */
export const type = { undefined: 0, normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/** The path in messages. */
export const path = "small.gguf";

/** An array of strings as a reader gives it. */
export function stringArray(texts: readonly (string | Uint8Array)[]): MetadataEntry {
  const parts = texts.map((text) => (typeof text === "string" ? new TextEncoder().encode(text) : text));
  const table = new StringTable(parts.length, (limit) => {
    const offsets = new Uint32Array(limit + 1);
    for (let index = 0; index < limit; index++) {
      offsets[index + 1] = (offsets[index] ?? 0) + (parts[index]?.length ?? 0);
    }
    return { bytes: new Uint8Array(Buffer.concat(parts.slice(0, limit))), offsets };
  });
  return { type: "string", isArray: true, value: table };
}

/** Metadata of the given entries; `tokenizer.ggml.` is put before names without a dot; undefined leaves a key out. */
export function metadataOf(values: Record<string, unknown>): Metadata {
  const entries = new Map<string, MetadataEntry>();
  for (const [name, value] of Object.entries(values)) {
    if (value === undefined) continue;
    entries.set(name.includes(".") ? name : `tokenizer.ggml.${name}`, entryOf(value));
  }
  return new Metadata(path, entries);
}

function entryOf(value: unknown): MetadataEntry {
  if (typeof value === "string") return { type: "string", isArray: false, value };
  if (typeof value === "boolean") return { type: "bool", isArray: false, value };
  if (typeof value === "number") return { type: "uint32", isArray: false, value };
  if (value instanceof Float32Array) return { type: "float32", isArray: true, value };
  if (value instanceof Int32Array) return { type: "int32", isArray: true, value };
  if (Array.isArray(value)) return stringArray(value);
  throw new TypeError(`no metadata type for ${String(value)}`);
}

/** One token of a SentencePiece vocabulary. */
export interface Piece {
  readonly text: string | Uint8Array;
  readonly score?: number;
  readonly type?: number;
}

/** `<unk>`, `<s>`, `</s>` and the 256 byte tokens, in the order of the first LLaMA. */
export const llamaPieces: readonly Piece[] = [
  { text: "<unk>", type: type.unknown },
  { text: "<s>", type: type.control },
  { text: "</s>", type: type.control },
  ...Array.from({ length: 256 }, (_, byte) => ({
    text: `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`,
    type: type.byte,
  })),
];

/** The metadata of a SentencePiece tokenizer. */
export function sentencePiece(pieces: readonly Piece[], more: Record<string, unknown> = {}): Metadata {
  return metadataOf({
    model: "llama",
    tokens: pieces.map((piece) => piece.text),
    scores: Float32Array.from(pieces, (piece) => piece.score ?? 0),
    token_type: Int32Array.from(pieces, (piece) => piece.type ?? type.normal),
    ...more,
  });
}

/** GPT-2's character for each byte, written out from its description: printable ones as they are, the others from U+0100 up. */
export const byteCharacters: readonly string[] = (() => {
  const printable = [
    ..."!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~",
  ];
  const latin = [..."¡¢£¤¥¦§¨©ª«¬®¯°±²³´µ¶·¸¹º»¼½¾¿ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖ×ØÙÚÛÜÝÞßàáâãäåæçèéêëìíîïðñòóôõö÷øùúûüýþÿ"];
  const own = new Set([...printable, ...latin].map((character) => character.charCodeAt(0)));
  let shifted = 0x100;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(own.has(byte) ? byte : shifted++));
})();

/** A text or bytes in the byte alphabet. */
export function inByteAlphabet(text: string | Uint8Array): string {
  const bytes = typeof text === "string" ? new TextEncoder().encode(text) : text;
  return Array.from(bytes, (byte) => byteCharacters[byte]).join("");
}

/** The metadata of a byte-level tokenizer: the 256 bytes, what `merges` make, then `more` tokens, control tokens. */
export function bytePair(
  merges: readonly (readonly [left: string, right: string])[],
  controls: readonly string[] = [],
  more: Record<string, unknown> = {},
): Metadata {
  const tokens = [...new Set([...byteCharacters, ...merges.map((pair) => pair.join("")), ...controls])];
  const isControl = new Set(controls);
  return metadataOf({
    model: "gpt2",
    pre: "gpt-2",
    tokens,
    token_type: Int32Array.from(tokens, (token) => (isControl.has(token) ? type.control : type.normal)),
    merges: merges.map((pair) => pair.join(" ")),
    ...more,
  });
}
