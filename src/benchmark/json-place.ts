// Where a text stops being JSON, for messages: parsers say what is wrong with it, but not where.

/** A text in quotes, another value, or a sign. */
const token =
  /"(?:[ !#-[\]-\uffff]|\\(?:["\\/bfnrt]|u[\da-fA-F]{4}))*"|(?:-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null)(?![\w.+-])|[{}[\],:]/y;
const space = /\s*/y;
const spaceAndComments = /(?:\s|\/\/[^\n]*|\/\*[\s\S]*?\*\/)*/y;

/** What may stand next: `item` is a value or the end of a list, `key` a name or the end of an object, `more` a comma or the end of either. */
type Wanted = "value" | "item" | "name" | "key" | "colon" | "more" | "nothing";

/**
 * The place of the first thing that cannot stand where it does, or the text's end if that comes too early: "line 3, column 9", columns
 * in UTF-16 units. Undefined: all of it is JSON.
 * @param withComments whether comments may stand between, and commas behind the last of a list or object.
 */
export function placeOfError(text: string, withComments: boolean): string | undefined {
  const open: string[] = [];
  const between = withComments ? spaceAndComments : space;
  let wanted: Wanted | undefined = "value";
  for (let at = 0; ; ) {
    between.lastIndex = at;
    at += between.exec(text)?.[0].length ?? 0;
    if (at === text.length) return wanted === "nothing" ? undefined : placeAt(text, at);
    token.lastIndex = at;
    const [found] = token.exec(text) ?? [];
    wanted = found === undefined ? undefined : next(found.charAt(0), wanted, open, withComments);
    if (found === undefined || wanted === undefined) return placeAt(text, at);
    at += found.length;
  }
}

/** What may stand behind a token that begins with `sign`; undefined: it cannot stand there. `open` are the brackets around it. */
function next(sign: string, wanted: Wanted, open: string[], withComments: boolean): Wanted | undefined {
  const isObject = open.at(-1) === "{";
  const mayEnd = wanted === "more" || wanted === (isObject ? "key" : "item");
  if (sign === (isObject ? "}" : "]") && open.length > 0 && mayEnd) {
    open.pop();
    return behind(open);
  }
  switch (wanted) {
    case "value":
    case "item":
      if ("}],:".includes(sign)) return undefined;
      if (sign !== "{" && sign !== "[") return behind(open);
      open.push(sign);
      return sign === "{" ? "key" : "item";
    case "name":
    case "key":
      return sign === '"' ? "colon" : undefined;
    case "colon":
      return sign === ":" ? "value" : undefined;
    case "more":
      if (sign !== ",") return undefined;
      if (isObject) return withComments ? "key" : "name";
      return withComments ? "item" : "value";
    case "nothing":
      return undefined;
  }
}

/** What may stand behind a value. */
function behind(open: readonly string[]): Wanted {
  return open.length === 0 ? "nothing" : "more";
}

function placeAt(text: string, at: number): string {
  let [line, from] = [1, 0];
  for (let end = text.indexOf("\n"); end >= 0 && end < at; end = text.indexOf("\n", from)) {
    line++;
    from = end + 1;
  }
  return `line ${line}, column ${at - from + 1}`;
}
