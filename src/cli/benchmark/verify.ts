// `tinyai benchmark verify`: whether this machine is in a state to measure on (`--env`), and whether a model is ready to be measured
// (`--model`).

import type { Command } from "commander";
import { checkEnvironment, type EnvironmentReport } from "../../benchmark/environment.ts";
import { type ModelVerification, verifyModel } from "../../benchmark/verify-model.ts";
import { OptionError } from "../../errors.ts";
import { printable } from "../../model/file.ts";
import { formatTable } from "../../text-table.ts";
import { interruption } from "../interrupt.ts";
import { modelHelp, printJson } from "../model.ts";
import { startProgress } from "../progress.ts";

interface Flags {
  readonly env?: boolean;
  readonly model?: string;
  readonly strict?: boolean;
  readonly json?: boolean;
}

/** A check as it is shown. */
interface Shown {
  readonly name: string;
  readonly verdict: string;
  readonly found: string;
  readonly remedy?: string | undefined;
}

/** Adds `tinyai benchmark verify`. */
export function registerVerify(benchmark: Command): void {
  benchmark
    .command("verify")
    .description("whether this machine (--env), or a model (--model), is ready to be measured")
    .option("--env", "look at this machine: load, frequency, heat, memory, disks, clocks, noise (takes two seconds)")
    .option("--strict", "with --env: end with status 1 if there is a warning")
    .option("--model <model>", `look at a model's hash, layout, weights, memory and logits: ${modelHelp}`)
    .option("--json", "print what was found as one JSON document")
    .addHelpText(
      "after",
      `
Examples:
  tinyai benchmark verify --env
  tinyai benchmark verify --env --strict --json
  tinyai benchmark verify --model gemma3-270m
  tinyai benchmark verify --model model.tinyai --env

"unknown" is what the system does not tell. Ends with status 0 with warnings, 1 with --strict and a warning, and 1 if a check of a
model fails.`,
    )
    .action(verify);
}

async function verify(flags: Flags): Promise<void> {
  const { env = false, model, strict = false } = flags;
  if (!env && model === undefined) {
    throw new OptionError("verify", "there is nothing to look at; give --env, --model MODEL, or both");
  }
  if (strict && !env) throw new OptionError("--strict", "is about warnings of --env, which is not given");
  const signal = interruption();
  const environment = env ? await lookAtMachine(signal) : undefined;
  // One of both that is damaged does not take the other's findings away.
  if (environment && !flags.json) process.stdout.write(formatEnvironment(environment));
  const verification = model === undefined ? undefined : await lookAtModel(model, signal);
  if (verification && !flags.json) process.stdout.write(formatModel(verification));
  const hasWarning = environment?.findings.some(({ verdict }) => verdict === "warning") ?? false;
  if (flags.json) {
    printJson({
      ...(environment && { environment: { ok: !hasWarning, ...documentOf(environment) } }),
      ...(verification && { model: verification }),
    });
  }
  if ((strict && hasWarning) || verification?.ok === false) process.exitCode = 1;
}

async function lookAtMachine(signal: AbortSignal): Promise<EnvironmentReport> {
  const progress = startProgress({ label: "looking at this machine", unit: "seconds" });
  try {
    const report = await checkEnvironment({ signal });
    progress.done();
    return report;
  } catch (error) {
    progress.failed();
    if (signal.aborted) process.stderr.write("interrupted before everything was looked at\n");
    throw error;
  }
}

async function lookAtModel(model: string, signal: AbortSignal): Promise<ModelVerification> {
  const progress = startProgress({ label: `looking at ${printable(model)}`, unit: "seconds", total: 1 });
  try {
    const verification = await verifyModel(model, { signal, onProgress: (share) => progress.update(share) });
    progress.done();
    return verification;
  } catch (error) {
    progress.failed();
    if (signal.aborted) process.stderr.write("interrupted before everything was looked at\n");
    throw error;
  }
}

function documentOf({ findings, noise, robustNoise }: EnvironmentReport) {
  return { noise, robust_noise: robustNoise, findings };
}

function formatEnvironment({ findings }: EnvironmentReport): string {
  const count = (verdict: string): number => findings.filter((finding) => finding.verdict === verdict).length;
  const [warnings, unknown] = [count("warning"), count("unknown")];
  const sum =
    warnings === 0
      ? `Nothing is amiss${unknown > 0 ? " of what the system tells" : ""}: this machine can be measured on.`
      : `${warnings === 1 ? "One warning" : `${warnings} warnings`}: figures that are measured now can be wrong.`;
  return `${formatChecks(findings)}${sum}${unknown > 0 ? ` ${unknown} unknown.` : ""}\n`;
}

function formatModel({ path, sha256, checks, ok }: ModelVerification): string {
  const shown = checks.map(({ name, verdict, evidence }) => ({ name, verdict, found: evidence }));
  const sum = ok ? "is ready to be measured" : "is not ready to be measured";
  return `${formatChecks(shown)}${printable(path)} ${sum}; its SHA-256 is ${sha256}.\n`;
}

function formatChecks(checks: readonly Shown[]): string {
  return formatTable(
    checks.flatMap(({ name, verdict, found, remedy }) => [
      [verdict, name, printable(found, Number.POSITIVE_INFINITY)],
      ...(remedy === undefined ? [] : [["", "", `→ ${remedy}`]]),
    ]),
  );
}
