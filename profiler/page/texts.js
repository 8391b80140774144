// What the page is made of, as text, so that it is also in a compiled program.

import echarts from "echarts/dist/echarts.common.min.js" with { type: "text" };
import charts from "./browser/charts.js" with { type: "text" };
import dom from "./browser/dom.js" with { type: "text" };
import heat from "./browser/heat.js" with { type: "text" };
import icicle from "./browser/icicle.js" with { type: "text" };
import main from "./browser/main.js" with { type: "text" };
import style from "./browser/page.css" with { type: "text" };
import tables from "./browser/tables.js" with { type: "text" };
import tip from "./browser/tip.js" with { type: "text" };

const modules = [dom, tip, charts, tables, icicle, heat, main];

export { echarts, modules, style };
