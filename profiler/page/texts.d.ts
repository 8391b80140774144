// The types of texts.js. Any type checker that reads this package stops here: it would take the files for modules.

/** Apache ECharts: lines, bars and points, minified. */
export const echarts: string;
/** The page's style sheet. */
export const style: string;
/** The page's modules, each before those that need it. */
export const modules: readonly string[];
