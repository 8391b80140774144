// What a picture is drawn with, as files' paths, so that they are also in a compiled program: resvg, and the typeface Inter in pieces
// that hold Europe's letters.

import cyrillic from "@fontsource/inter/files/inter-cyrillic-400-normal.woff2" with { type: "file" };
import greek from "@fontsource/inter/files/inter-greek-400-normal.woff2" with { type: "file" };
import latin from "@fontsource/inter/files/inter-latin-400-normal.woff2" with { type: "file" };
import bold from "@fontsource/inter/files/inter-latin-600-normal.woff2" with { type: "file" };
import extended from "@fontsource/inter/files/inter-latin-ext-400-normal.woff2" with { type: "file" };
import resvg from "@resvg/resvg-wasm/index_bg.wasm" with { type: "file" };

const fonts = [latin, bold, extended, greek, cyrillic];

export { fonts, resvg };
