// The types of picture-files.js. Any type checker that reads this package stops here: it would take the files for modules.

/** resvg's WebAssembly. */
export const resvg: string;
/** Files of the typeface that `typeface` of picture.ts names. */
export const fonts: readonly string[];
