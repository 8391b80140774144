// Distributions, beside scipy 1.17.1: st.norm.cdf, 2 * st.norm.sf, st.norm.ppf, st.t.ppf, st.beta.cdf.

import { expect, test } from "bun:test";
import {
  incompleteBeta,
  normalBelow,
  normalBeyond,
  normalQuantile,
  studentQuantile,
} from "../../../src/benchmark/statistics/normal.ts";

const near = (value: number, expected: number) => expect(Math.abs(value / expected - 1)).toBeLessThan(1e-9);

test("parts of a normal distribution are those of scipy", () => {
  near(normalBelow(-6), 9.865876450376946e-10);
  near(normalBelow(-1.5), 0.06680720126885807);
  near(normalBelow(0.3), 0.6179114221889526);
  near(normalBelow(2.1), 0.9821355794371834);
});

test("chances far out are those of scipy", () => {
  near(normalBeyond(0.5), 0.6170750774519738);
  near(normalBeyond(-1.96), 0.04999579029644087);
  near(normalBeyond(3), 0.0026997960632601866);
  near(normalBeyond(8), 1.244192114854348e-15);
  near(normalBeyond(20), 5.507248237212311e-89);
});

test("quantiles are those of scipy", () => {
  near(normalQuantile(1e-6), -4.753424308822899);
  near(normalQuantile(0.025), -1.9599639845400545);
  near(normalQuantile(0.6), 0.2533471031357997);
  near(normalQuantile(0.9999), 3.719016485455709);
  near(studentQuantile(0.975, 1), 12.706204736174694);
  near(studentQuantile(0.975, 5), 2.5705818356363146);
  near(studentQuantile(0.975, 29.5), 2.043724966772122);
  near(studentQuantile(0.9, 3), 1.637744353696209);
  near(studentQuantile(0.995, 1000), 2.580754698065951);
});

test("parts of a beta distribution are those of scipy", () => {
  near(incompleteBeta(0.3, 2, 5), 0.5798250000000003);
  near(incompleteBeta(0.95, 190, 11), 0.5830671820811709);
  near(incompleteBeta(0.5, 0.5, 0.5), 0.5);
  near(incompleteBeta(0.99, 9900, 101), 0.5265625340581556);
  near(incompleteBeta(0.02, 1, 60), 0.7024468573078793);
});
