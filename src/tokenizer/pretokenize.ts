// Cuts a text into the words that byte-pair encoding may not merge across. Which regular expressions do that is named by
// the file's `tokenizer.ggml.pre`; a name that is not listed here is refused, since a guess gives other tokens and a worse model.
//
// The patterns are those of the models' own tokenizers as llama.cpp applies them. White space is Unicode's White_Space
// everywhere: JavaScript's \s has U+FEFF, which is none, and lacks U+0085. Letters and digits are those of the Unicode
// version that Bun has (17 in Bun 1.4.5); llama.cpp's tables are of version 15, so that the some 9,000 characters that came
// since (rare scripts) may be cut differently. On all others the two were compared and agree.

/** One pass over each piece that the pass before left. */
interface Pass {
  readonly pattern: RegExp;
  /** The pattern matches every character of any text; otherwise what lies between matches is a piece too. */
  readonly covers: boolean;
}

/** A family of byte-level tokenizers. */
export interface PreTokenizer {
  /** The family's name among those the project supports. */
  readonly name: string;
  readonly passes: readonly Pass[];
  /** A word that is a token as it stands is not merged from its bytes. */
  readonly ignoresMerges: boolean;
  /** Whether a beginning-of-text token is added when the file does not say. */
  readonly addsBos: boolean;
}

const gpt2Pass: Pass = {
  pattern:
    /'(?:[stmd]|re|ve|ll)| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu,
  covers: true,
};

/** Llama 3's and Qwen 2's pattern: they differ in how many digits stay together. */
function llama3Pass(digits: string): Pass {
  const source = [
    "'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])",
    "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+",
    digits,
    " ?[^\\p{White_Space}\\p{L}\\p{N}]+[\\r\\n]*",
    "\\p{White_Space}*[\\r\\n]+",
    "\\p{White_Space}+(?!\\P{White_Space})",
    "\\p{White_Space}+",
  ].join("|");
  return { pattern: new RegExp(source, "gu"), covers: true };
}

const families: readonly (PreTokenizer & { readonly aliases: readonly string[] })[] = [
  {
    name: "default",
    aliases: [],
    passes: [
      { pattern: /[\p{P}$+<=>^~|]+/gu, covers: false },
      gpt2Pass,
      { pattern: /\p{N}+/gu, covers: false },
      { pattern: /[0-9]{3}/gu, covers: false },
    ],
    ignoresMerges: false,
    addsBos: false,
  },
  {
    name: "gpt-2",
    aliases: ["phi-2", "gigachat", "a.x-4.0", "mellum", "exaone4"],
    passes: [gpt2Pass],
    ignoresMerges: false,
    addsBos: false,
  },
  {
    name: "llama-bpe",
    aliases: ["llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"],
    passes: [llama3Pass("\\p{N}{1,3}")],
    ignoresMerges: true,
    addsBos: true,
  },
  {
    name: "qwen2",
    aliases: ["deepseek-r1-qwen", "kormo", "f2llmv2", "megrez"],
    passes: [llama3Pass("\\p{N}")],
    ignoresMerges: false,
    addsBos: false,
  },
  {
    name: "smollm",
    aliases: [],
    passes: [{ pattern: /\p{N}/gu, covers: false }, gpt2Pass],
    ignoresMerges: false,
    addsBos: false,
  },
];

/** The names of the families that are supported. */
export const preTokenizerNames: readonly string[] = families.map((family) => family.name);

/** The pre-tokenizer of that name, or undefined. An alias is a name for which llama.cpp does exactly the same. */
export function findPreTokenizer(name: string): PreTokenizer | undefined {
  return families.find((family) => family.name === name || family.aliases.includes(name));
}

/** The words of `text`, none empty, in order; joined they are the text. */
export function splitWords(text: string, preTokenizer: PreTokenizer): readonly string[] {
  let pieces: readonly string[] = text === "" ? [] : [text];
  for (const pass of preTokenizer.passes) {
    const next: string[] = [];
    for (const piece of pieces) {
      if (pass.covers) appendAll(next, piece.match(pass.pattern) ?? []);
      else splitAround(piece, pass.pattern, next);
    }
    pieces = next;
  }
  return pieces;
}

// Not push(...pieces): a million arguments overflow the stack.
function appendAll(target: string[], pieces: readonly string[]): void {
  for (const piece of pieces) target.push(piece);
}

function splitAround(text: string, pattern: RegExp, target: string[]): void {
  let position = 0;
  for (const match of text.matchAll(pattern)) {
    if (match.index > position) target.push(text.slice(position, match.index));
    target.push(match[0]);
    position = match.index + match[0].length;
  }
  if (position < text.length) target.push(text.slice(position));
}
