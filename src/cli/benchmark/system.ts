// `tinyai benchmark system`: what this machine is.

import type { Command } from "commander";
import { type CacheSpecs, type SystemSpecs, systemSpecs } from "../../benchmark/specs.ts";
import { formatBytes, formatTable } from "../../text-table.ts";
import { printJson } from "../model.ts";

/** Adds `tinyai benchmark system`. */
export function registerSystem(benchmark: Command): void {
  benchmark
    .command("system")
    .description("what this machine is: CPU, caches, memory, disks, network, GPU, limits")
    .option("--specs", "show that, which is also what is shown without it")
    .option("--json", "print it as one JSON document")
    .addHelpText(
      "after",
      `
Examples:
  tinyai benchmark system --specs
  tinyai benchmark system --specs --json

To measure it: tinyai benchmark run --type system`,
    )
    .action(async (flags: { readonly json?: boolean }) => {
      const specs = await systemSpecs();
      const text = flags.json ? undefined : formatSpecs(specs);
      if (text === undefined) printJson(specs);
      else process.stdout.write(text);
      for (const what of specs.missing) process.stderr.write(`${what}: the system did not tell, or not in time\n`);
      // The programs that were asked may hang for ever.
      if (specs.missing.length > 0) process.stdout.write("", () => process.exit());
    });
}

function formatSpecs(specs: SystemSpecs): string {
  const { cpu, memory, disks, working_folder: folder, network, gpus, system } = specs;
  const rows: [name: string, ...found: string[]][] = [
    ["CPU", cpu.model],
    [
      "",
      `${counted(cpu.sockets, "socket")}, ${counted(cpu.cores, "core")}, ${counted(cpu.threads, "thread")}, ${cpu.usable} usable, ${cpu.architecture}`,
    ],
    ["frequency", frequencies(cpu)],
    [
      "governor",
      `${system.governor ?? "unknown"}, turbo ${system.turbo === null ? "unknown" : system.turbo ? "on" : "off"}`,
    ],
    ...listed("caches", cpu.caches.map(formatCache), true),
    ["SIMD", cpu.features.join(" ") || "none that kernels use"],
    ["levels", cpu.levels.map(({ name, usable }) => (usable ? name : `(${name})`)).join(" ")],
    [
      "",
      `${cpu.level} by default${cpu.levels.every(({ usable }) => usable) ? "" : "; this CPU does not run those in brackets"}`,
    ],
    ["memory", formatMemory(memory)],
    ...memory.modules.map(({ bytes, type, megatransfers, ecc }): [string, string] => {
      const speed = megatransfers === null ? "" : `-${megatransfers}`;
      return ["", `${formatBytes(bytes)} ${type}${speed}${ecc ? " ECC" : ""}`];
    }),
    ...listed(
      "disks",
      disks.map(({ device, kind, model, bytes }) =>
        [device, kind, formatBytes(bytes), model].filter(Boolean).join(", "),
      ),
      specs.missing.includes("disks"),
    ),
    ["working folder", `${folder.path}, ${folder.file_system ?? "unknown"} on ${folder.device ?? "unknown"}`],
    ["", `${formatBytes(folder.free)} of ${formatBytes(folder.bytes)} free`],
    ...listed(
      "network",
      network.map(({ name, type, state, speed, mtu }) => {
        const rate = speed === null ? "speed unknown" : `${speed} Mbit/s`;
        return `${name}, ${type}, ${state}, ${type === "loopback" ? "" : `${rate}, `}MTU ${mtu ?? "unknown"}`;
      }),
      specs.missing.includes("network interfaces"),
    ),
    ...listed("GPU", gpus.map(formatGpu), specs.missing.includes("graphics")),
    ["system", `${system.kernel}${system.distribution === null ? "" : `, ${system.distribution}`}`],
    ["clock", system.clock ?? "unknown"],
    ["container", system.container ?? "none that shows"],
    ["hypervisor", system.hypervisor ?? "none that shows"],
    [
      "group limits",
      `${system.cpu_limit === null ? "no CPU limit" : `${system.cpu_limit} CPUs`}, ${system.memory_limit === null ? "no memory limit" : formatBytes(system.memory_limit)}`,
    ],
    ["Bun", system.bun],
    ["TinyAI", system.tinyai],
  ];
  return formatTable(rows);
}

/** Lines under one name. `isUnknown`: that there are none may be since the system did not tell. */
function listed(name: string, lines: readonly string[], isUnknown = false): [string, string][] {
  return lines.length === 0
    ? [[name, isUnknown ? "unknown" : "none"]]
    : lines.map((line, index) => [index === 0 ? name : "", line]);
}

function counted(count: number | null, what: string): string {
  if (count === null) return `${what}s unknown`;
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}

function frequencies({ frequency }: SystemSpecs["cpu"]): string {
  const parts = Object.entries({ now: frequency.current, base: frequency.base, "at most": frequency.max });
  return parts
    .map(([name, hertz]) => `${name} ${hertz === null ? "unknown" : `${(hertz / 1e9).toFixed(2)} GHz`}`)
    .join(", ");
}

function formatCache({ level, type, bytes, ways, line_bytes, count, shared_by }: CacheSpecs): string {
  const name = `L${level}${{ data: "d", instruction: "i", unified: "" }[type]}`;
  const size = bytes % 2 ** 20 === 0 ? `${bytes / 2 ** 20} MiB` : `${bytes / 2 ** 10} KiB`;
  const sharing = shared_by === 1 ? "of one thread each" : `shared by ${shared_by} threads`;
  return `${name.padEnd(3)} ${count} × ${size}, ${ways ?? "?"} ways, lines of ${line_bytes ?? "?"} bytes, ${sharing}`;
}

function formatMemory({ total, available, swap, huge_pages }: SystemSpecs["memory"]): string {
  const parts = [`${formatBytes(total)} (${(total / 2 ** 30).toFixed(1)} GiB)`];
  parts.push(available === null ? "available unknown" : `${formatBytes(available)} available`);
  parts.push(swap === null ? "swap unknown" : swap === 0 ? "no swap" : `${formatBytes(swap)} swap`);
  if (huge_pages !== null) parts.push(`huge pages: ${huge_pages}`);
  return parts.join(", ");
}

function formatGpu({ name, driver, memory_total, memory_used, utilization }: SystemSpecs["gpus"][number]): string {
  const parts = [name];
  if (memory_total !== null) {
    const used = memory_used === null ? "" : `${formatBytes(memory_used)} of `;
    parts.push(`${used}${formatBytes(memory_total)}${memory_used === null ? "" : " used"}`);
  }
  parts.push(utilization === null ? "utilisation unknown" : `${utilization} % busy`);
  if (driver !== null) parts.push(`driver ${driver}`);
  return parts.join(", ");
}
