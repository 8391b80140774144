// Which of a machine's limits a kernel runs into, and how near it comes to it: the bytes it moves over what memory or cache
// give, or its operations over what the instructions do (Williams et al. 2009).

/** What the machine does at most, in units a nanosecond: GB/s, GFLOP/s, GOP/s. `int16` and `bf16` are 0 where there are none. */
export interface Roofs {
  readonly memory: number;
  readonly cache: number;
  readonly float: number;
  readonly int8: number;
  readonly int16: number;
  readonly bf16: number;
}

export interface Cost {
  readonly bytes: number;
  readonly operations: number;
  readonly arithmetic: "float" | "int8" | "int16";
  readonly fromMemory: boolean;
}

export interface Verdict {
  readonly binds: keyof Roofs;
  readonly unit: "GB/s" | "GFLOP/s" | "GOP/s";
  /** In `unit`, as `roof`. */
  readonly achieved: number;
  readonly roof: number;
  /** Of the roof that is reached; above 1 where the roof was measured in a slower moment. */
  readonly share: number;
}

/** The roof that allows no shorter time, and what a run of `time_ns` reaches of it. */
export function judge({ bytes, operations, arithmetic, fromMemory }: Cost, roofs: Roofs, time_ns: number): Verdict {
  const source = fromMemory ? "memory" : "cache";
  // Where no instruction multiplies int16, the same products are of float32.
  const limit = arithmetic === "int16" && roofs.int16 === 0 ? "float" : arithmetic;
  const byBytes = bytes / roofs[source] >= operations / roofs[limit];
  const binds = byBytes ? source : limit;
  const achieved = (byBytes ? bytes : operations) / time_ns;
  const unit = byBytes ? "GB/s" : limit === "float" ? "GFLOP/s" : "GOP/s";
  return { binds, unit, achieved, roof: roofs[binds], share: achieved / roofs[binds] };
}
