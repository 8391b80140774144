// Two hundred texts that differ in all that tokenizers and encoders may stumble over, the same on every run.

/** What is written by hand: nothing, single words and signs, scripts, signs that are joined or control, odd spaces. */
const byHand = [
  "",
  " ",
  "a",
  "cat",
  "The quick brown fox jumps over the lazy dog.",
  "the quick brown fox jumps over the lazy dog",
  "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG!!!",
  "Pneumonoultramicroscopicsilicovolcanoconiosis",
  "x".repeat(100),
  "x".repeat(101),
  "don't can't won't I'm you're it's",
  "state-of-the-art e-mail co-operate",
  "3.14159 1,000,000 $5.99 50% 1e-10 0xff",
  "https://example.org/path?query=value&other=1#part",
  "user@example.org",
  "def main():\n    return [x**2 for x in range(10)]",
  '{"key": [1, 2.5, null, true], "other": {}}',
  "<p>Some <b>bold</b> text &amp; more</p>",
  "😀",
  "😀😃😄 I am happy 🎉🎉",
  "👩‍👩‍👧‍👦 family 👍🏽 thumbs 🏳️‍🌈 flag 🇩🇪",
  "I ❤ New York ❤️",
  "日本語の文章です。",
  "我喜欢在图书馆读书。",
  "한국어 문장입니다.",
  "東京 Tokyo 2024年",
  "𠀀𠀁 rare ideographs",
  "Привет, как дела?",
  "Γειά σου Κόσμε",
  "مرحبا بالعالم",
  "שלום עולם",
  "नमस्ते दुनिया",
  "สวัสดีชาวโลก",
  "Việt Nam có nhiều dấu",
  "Crème brûlée à la façon de l'été",
  "Crème bru\u0302le\u0301e in parts",
  "ÅNGSTRÖM ångström İstanbul ıĞğ ß ẞ ŒœÆæ",
  "ﬁ ﬂ ligatures and ½ ² ™ №",
  "ＦＵＬＬｗｉｄｔｈ　ｔｅｘｔ",
  "zero\u200bwidth\u200cjoin\u200der\ufeffmarks",
  "soft\u00adhyphen and no\u00a0break",
  "control \u0001\u0002\u001f\u007f\u0085\u009f characters",
  "a\u0000b",
  "\ufffd replaced",
  "tabs\tand\nlines\r\nand  more   spaces ",
  "\u2028line\u2029paragraph\u3000ideographic",
  "«guillemets» “quotes” ‘single’ — dash … dots",
  "∑∫√∞≠≤≥±×÷ αβγ",
  "♔♕♖ ☀☁☂ ①②③",
  "[bracketed] (round) {curly} <angle> ##hash ##ing",
  "__init__ snake_case camelCase PascalCase",
  "a.b.c...d!?e;f:g",
  "....................",
  "!",
  "和",
  "𝕄𝕒𝕥𝕙 𝓵𝓮𝓽𝓽𝓮𝓻𝓼",
  "e\u0301\u0302\u0303\u0304 stacked",
  "\u0301 alone",
  "ǅ ǆ titlecase",
  "Ⅷ roman ⅷ",
];

const words =
  "time year people way day man thing woman life child world school state family student group country problem hand part place case week company system program question work government number night point home water room mother area money story fact month lot right study book eye job word business issue side kind head house service friend father power hour game line end member law car city community name president team minute idea body information back parent face others level office door health person art war history party result change morning reason research girl guy moment air teacher force education".split(
    " ",
  );
const glue = ["of the", "and", "in a", "with", "for every", "is not", "was", "before", ", which", ". Then the"];
const odd = ["naïve", "東京", "🎉", "don't", "2024", "C++", "café", "ÜBER", "x-ray", "#tag"];
const textCount = 200;

/** The texts, all different. */
export function variedTexts(): string[] {
  let state = 7;
  const draw = (count: number) => {
    state = (state * 48_271) % 2_147_483_647;
    return state % count;
  };
  const pick = (list: readonly string[]) => list[draw(list.length)] ?? "";
  const texts = new Set(byHand);
  for (const length of [500, 260, 250, 128]) texts.add(Array.from({ length }, () => pick(words)).join(" "));
  while (texts.size < textCount) {
    const count = texts.size % 4 === 0 ? 1 : 2 + draw(40);
    const parts = Array.from({ length: count }, () => {
      const part = draw(8) === 0 ? pick(odd) : pick(words);
      return draw(3) === 0 ? `${part} ${pick(glue)}` : part;
    });
    texts.add(parts.join(" "));
  }
  return [...texts];
}
