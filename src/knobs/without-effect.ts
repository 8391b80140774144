// Knobs that change nothing in a loaded model, in its program or on this CPU: each kind of knob has a function that says so.

import type { ModelParts } from "../loaded-model.ts";
import type { WithoutEffect } from "../plan/plan.ts";
import { cacheWithoutEffect } from "./cache.ts";
import { limitsWithoutEffect } from "./limits.ts";
import { simdWithoutEffect } from "./simd.ts";

/** What the scheduler has to say stands in the plan already. */
const kinds: readonly ((parts: ModelParts) => readonly WithoutEffect[])[] = [
  simdWithoutEffect,
  cacheWithoutEffect,
  limitsWithoutEffect,
  keptWithoutEffect,
];

function keptWithoutEffect({ plan }: ModelParts): WithoutEffect[] {
  if (plan.kvGroups.length > 0) return [];
  const reason = "texts are computed whole, and the model keeps no keys and values";
  return [
    { knob: "kvCache", reason },
    { knob: "prefixCache", reason },
  ];
}

export function withoutEffect(parts: ModelParts): readonly WithoutEffect[] {
  return kinds.flatMap((reasons) => reasons(parts));
}
