// Which instruction-set level a model's kernels have: one for all, but that operations may be switched off, whose kernels are those of
// the narrowest level then. Both may change while the model is loaded, between two steps.

import { checkBoolean, checkInteger, checkKeys, describe } from "../check.ts";
import { type ChosenLevel, chooseLevel } from "../engine/cpu.ts";
import type { Library } from "../engine/library.ts";
import type { EngineSettings } from "../engine/settings.ts";
import { OptionError } from "../errors.ts";
import { type Family, families, familyOf } from "../plan/layout.ts";
import type { Plan } from "../plan/plan.ts";
import { retune, type TunedModel } from "./retune.ts";

/** Operations whose wide kernels can be switched off. */
const simdOps = ["matmul", "conv", "activation", "attention"] as const satisfies readonly Family[];

/** Products; convolutions; activations and norms; attention with rotary positions and the keys and values it stores. */
export type SimdOp = (typeof simdOps)[number];

/** Option `simd` of `loadModel`. `TINYAI_SIMD` wins over all of it. */
export interface SimdOptions {
  /** 0 scalar, 1 128-bit, 2 256-bit, 3 the widest (default). */
  readonly level?: number | undefined;
  /** Whether products have kernels of that level; of the narrowest if not. Default true. */
  readonly matmul?: boolean | undefined;
  /** The same of convolutions. */
  readonly conv?: boolean | undefined;
  /** The same of activations and norms. */
  readonly activation?: boolean | undefined;
  /** The same of attention, with rotary positions and the keys and values that it stores. */
  readonly attention?: boolean | undefined;
}

/** What kernels a model has. */
export interface Simd extends Readonly<Record<SimdOp, boolean>> {
  /** 0 scalar, 1 128-bit, 2 256-bit, 3 the widest. */
  readonly level: number;
  /** The level's name: `avx512_vnni`. */
  readonly name: string;
  /** Why it is that one. */
  readonly reason: string;
  /** Names of the levels that operations' kernels have; `other` are those that cannot be switched off. */
  readonly levels: Readonly<Record<SimdOp | "other", string>>;
}

export interface CheckedSimd {
  readonly level: number | undefined;
  readonly off: ReadonlySet<SimdOp>;
}

/** What a model's kernels are set to. */
export interface SimdState {
  level: ChosenLevel;
  off: ReadonlySet<SimdOp>;
}

/** What of a model the functions below look at. */
interface SimdModel extends TunedModel {
  readonly plan: Plan;
  readonly simd: SimdState;
}

/** @throws {OptionError} if a field is out of its bounds, or none that is known. */
export function checkSimd(simd: SimdOptions = {}): CheckedSimd {
  checkKeys("simd", simd, ["level", ...simdOps]);
  const off = simdOps.filter((op) => simd[op] !== undefined && !checkBoolean(`simd.${op}`, simd[op]));
  return { level: simd.level === undefined ? undefined : checkLevel("simd.level", simd.level), off: new Set(off) };
}

function checkLevel(option: string, level: unknown): number {
  return checkInteger(option, level, 0, 3);
}

/** @throws {OptionError} if this CPU does not run the level. */
export function startSimd(library: Library, { level, off }: CheckedSimd): SimdState {
  const chosen = chooseLevel(library, level);
  return { level: chosen, off: chosen.forced ? new Set() : off };
}

/** Indexes into the library's levels. */
export function levelsOfSimd({ level, off }: SimdState): EngineSettings["levels"] {
  const of = (op: SimdOp) => (off.has(op) ? 0 : level.index);
  const [matmul, conv, activation, attention] = [of("matmul"), of("conv"), of("activation"), of("attention")];
  return { matmul, conv, activation, attention, other: level.index };
}

export function describeSimd({ library, simd }: Pick<SimdModel, "library" | "simd">): Simd {
  const { level, off } = simd;
  const on = (op: SimdOp) => !off.has(op);
  return {
    level: level.number,
    name: level.name,
    reason: level.reason,
    matmul: on("matmul"),
    conv: on("conv"),
    activation: on("activation"),
    attention: on("attention"),
    levels: levelNames(library, levelsOfSimd(simd)),
  };
}

export function levelNames(library: Library, levels: EngineSettings["levels"]): Readonly<Record<Family, string>> {
  const names = families.map((family) => [family, library.levels[levels[family]]?.name ?? ""] as const);
  return Object.fromEntries(names) as Record<Family, string>;
}

/** Such as `avx512_vnni`, or `avx512_vnni with attention at scalar`: the levels of all ops that the plan has. */
export function levelsInWords({ library, plan, simd }: Pick<SimdModel, "library" | "plan" | "simd">): string {
  const names = levelNames(library, levelsOfSimd(simd));
  const there = familiesOf(plan);
  const others = simdOps.filter((op) => there.has(op) && names[op] !== names.other);
  return others.length === 0 ? names.other : `${names.other} with ${others.join(", ")} at ${library.levels[0]?.name}`;
}

function familiesOf(plan: Plan): ReadonlySet<Family> {
  return new Set(plan.ops.map(({ kind }) => familyOf[kind]));
}

/** @throws {OptionError} if there is no such operation, or `TINYAI_SIMD` forces a level. */
export async function enableSimd(model: SimdModel, op: SimdOp, on: boolean): Promise<void> {
  if (!simdOps.includes(op)) {
    throw new OptionError("op", `is ${describe(op)}; one of ${simdOps.join(", ")} is expected`);
  }
  checkBoolean("on", on);
  const { simd } = model;
  checkNotForced(simd);
  const off = new Set(simd.off);
  if (on) off.delete(op);
  else off.add(op);
  await configureLevels(model, { off });
}

/** Products are tuned to their level. What is changed meanwhile builds on it; if it is refused, it is as it was. */
async function configureLevels(model: SimdModel, changes: Partial<SimdState>): Promise<void> {
  const { simd } = model;
  const before = { ...simd };
  Object.assign(simd, changes);
  try {
    await retune(model, { levels: levelsOfSimd(simd) });
  } catch (error) {
    Object.assign(simd, before);
    throw error;
  }
}

/** @throws {OptionError} if this CPU does not run the level, or `TINYAI_SIMD` forces one. */
export async function setSimdOptimizationLevel(model: SimdModel, level: number): Promise<void> {
  checkLevel("level", level);
  const { simd, library } = model;
  checkNotForced(simd);
  await configureLevels(model, { level: chooseLevel(library, level, "level") });
}

function checkNotForced({ level }: SimdState): void {
  if (!level.forced) return;
  throw new OptionError("TINYAI_SIMD", `forces all kernels to ${level.name}; unset it and load the model again`);
}

/** Which of these knobs change nothing for this model on this CPU, and why. */
export function simdWithoutEffect({
  library,
  plan,
  simd: { level },
}: Pick<SimdModel, "library" | "plan" | "simd">): { readonly knob: string; readonly reason: string }[] {
  if (level.forced) return [{ knob: "simd", reason: `TINYAI_SIMD forces all kernels to ${level.name}` }];
  const there = familiesOf(plan);
  const unused = simdOps.flatMap((op) => {
    if (!there.has(op)) return [{ knob: `simd.${op}`, reason: `the model has no op of this kind` }];
    return level.index === 0
      ? [{ knob: `simd.${op}`, reason: `all kernels are of the level ${level.name} already` }]
      : [];
  });
  const running = library.levels.filter(({ supported }) => supported);
  if (running.length > 1) return unused;
  return [...unused, { knob: "simd.level", reason: `of the library's levels this CPU runs ${level.name} alone` }];
}
