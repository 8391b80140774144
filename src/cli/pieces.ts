// Cuts a text into pieces that a model can take whole and a search can show: paragraphs, short ones together, long ones in parts.

/** A piece and the line that it begins in, from 1. */
export interface TextPiece {
  readonly line: number;
  readonly text: string;
}

/** Paragraphs go together until they have so many characters: a headline alone says little. */
const charactersLeast = 200;
/** What small models take whole: MiniLM reads 256 tokens, each of about four characters. */
const charactersMost = 1000;

/** The pieces of `text` in their order. Paragraphs are what empty lines part. */
export function* piecesOf(text: string): Generator<TextPiece> {
  let held: { line: number; text: string } | undefined;
  for (const part of partsOf(text)) {
    if (held && held.text.length + part.text.length + 2 > charactersMost) {
      yield held;
      held = undefined;
    }
    if (held) held.text += `\n\n${part.text}`;
    else held = { ...part };
    if (held.text.length < charactersLeast) continue;
    yield held;
    held = undefined;
  }
  if (held) yield held;
}

/** Paragraphs; of longer ones parts of at most `charactersMost`, between words where there are some. */
function* partsOf(text: string): Generator<TextPiece> {
  for (const { line, text: paragraph } of paragraphsOf(text)) {
    let at = line;
    let rest = paragraph;
    while (rest.length > charactersMost) {
      const end = breakBefore(rest, charactersMost);
      yield { line: at, text: rest.slice(0, end).trimEnd() };
      const next = rest.slice(end).trimStart();
      at += countLines(rest.slice(0, rest.length - next.length));
      rest = next;
    }
    yield { line: at, text: rest };
  }
}

/** Lines between empty ones. */
function* paragraphsOf(text: string): Generator<TextPiece> {
  let begin = 0;
  const lines = text.split(/\r?\n/);
  for (let end = 0; end <= lines.length; end++) {
    if (end < lines.length && lines[end]?.trim() !== "") continue;
    if (end > begin) yield { line: begin + 1, text: lines.slice(begin, end).join("\n").trim() };
    begin = end + 1;
  }
}

function countLines(text: string): number {
  return text.split("\n").length - 1;
}

/** The last place of a space up to `most`; `most` itself if there is none in the second half, but never within a character. */
function breakBefore(text: string, most: number): number {
  for (let end = most; end > most / 2; end--) if (/\s/.test(text.charAt(end))) return end;
  const last = text.charCodeAt(most - 1);
  return last >= 0xd800 && last <= 0xdbff ? most - 1 : most;
}
