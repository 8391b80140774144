// A convolution's sizes as an op carries them: eight numbers of two 16-bit halves each. The mirror of `table.Convolution.of` in
// zig/kernels/table.zig.

import type { ConvolutionShape } from "../graph/graph.ts";

/** An op's parameters. The builder has seen to it that every size fits. */
export function convolutionNumbers(shape: ConvolutionShape): number[] {
  const { size, outSize, channels, outputs, kernel, stride, dilation, padding, groups } = shape;
  const pairs = [size, [channels, outputs], kernel, stride, dilation, padding, outSize, [groups, 0]] as const;
  return pairs.map(([low, high]) => low + high * 2 ** 16);
}
