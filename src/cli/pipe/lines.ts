// Bytes as they come, cut into lines of text. A line that is too long or is no UTF-8 is told as such, and the next is read on.

/** A line without its end, or what is wrong with it. */
export type Line = { readonly text: string } | { readonly problem: string };

const newline = 10;

/** The lines of a stream; of one that is longer than `bytesMax` nothing is kept. What follows the last line's end is a line too. */
export async function* linesOf(chunks: AsyncIterable<Uint8Array>, bytesMax: number): AsyncGenerator<Line, void> {
  let pieces: Uint8Array[] = [];
  let bytes = 0;
  const keep = (piece: Uint8Array) => {
    bytes += piece.length;
    if (bytes <= bytesMax) pieces.push(piece);
    else pieces = [];
  };
  const end = (): Line => {
    const line = bytes > bytesMax ? { problem: `is longer than ${bytesMax} bytes` } : decode(Buffer.concat(pieces));
    pieces = [];
    bytes = 0;
    return line;
  };
  for await (const chunk of chunks) {
    let begin = 0;
    for (let at = chunk.indexOf(newline); at >= 0; at = chunk.indexOf(newline, begin)) {
      keep(chunk.subarray(begin, at));
      yield end();
      begin = at + 1;
    }
    // The stream may use the chunk's memory again.
    if (begin < chunk.length) keep(chunk.slice(begin));
  }
  if (bytes > 0) yield end();
}

function decode(line: Uint8Array): Line {
  try {
    return { text: new TextDecoder("utf-8", { fatal: true }).decode(line) };
  } catch {
    return { problem: "is no UTF-8" };
  }
}
