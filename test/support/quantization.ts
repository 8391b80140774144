// The file type with which a test has a matrix quantized to the format that it wants.

import type { QuantizationType } from "../../src/index.ts";
import type { DType } from "../../src/model/file.ts";

/** The file type whose matrices without a rule of their own have the format. */
export const typeOf: Readonly<Record<Exclude<DType, "F32">, QuantizationType>> = {
  F16: "F16",
  BF16: "BF16",
  Q4_0: "Q4_0",
  Q4_1: "Q4_1",
  Q5_0: "Q5_0",
  Q5_1: "Q5_1",
  Q8_0: "Q8_0",
  Q2_K: "Q2_K",
  Q3_K: "Q3_K_S",
  Q4_K: "Q4_K_S",
  Q5_K: "Q5_K_S",
  Q6_K: "Q6_K",
  IQ4_NL: "IQ4_NL",
  IQ4_XS: "IQ4_XS",
};
