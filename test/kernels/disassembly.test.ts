// What the compiler made of the kernels: every format's matrix product uses its level's own instructions, and no level uses
// those of a higher one. Reads the levels' objects of both architectures, before linking strips their symbols.

import { beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import type { DType } from "../../src/model/file.ts";
import { root } from "../../src/setup/checkout.ts";
import { ensureZig, zigEnvironment, zigJobs } from "../../src/setup/toolchain.ts";
import { tensorTypeNumbers } from "../support/gguf-writer.ts";

const dtypes = Object.keys(tensorTypeNumbers) as DType[];

interface Level {
  readonly name: string;
  readonly architecture: "x86-64" | "aarch64";
  /** What the product of a quantized weight must contain, all of it. */
  readonly integer: readonly RegExp[];
  /** What the product of a float weight must contain. */
  readonly float: readonly RegExp[];
  /** The same for weights of 16 bits, where it is something else. */
  readonly half?: readonly RegExp[];
  /** What must not stand anywhere in the level's object. */
  readonly never: readonly RegExp[];
}

// Instructions that came with SSE3 up to SSE4.2, of those that compilers use on vectors.
const aboveBaseline =
  /^(pshufb|pmaddubsw|psign[bwd]|pabs[bwd]|palignr|ph(add|sub)[wd]|pmulhrsw|pmulld|pmuldq|p(min|max)(sb|sd|uw|ud)|pmov[sz]x|pblend|blend|insertps|pinsr[bdq]|pextr[bdq]|extractps|ptest|round[ps]|dpp|packusdw|pcmpeqq|pcmpgtq|popcnt|haddp|movddup|movs[lh]dup|lddqu|crc32)/;
const vex = /^v(?!err|erw|mcall)/;
const tile = /^(tdp|tile)/;

const levels: readonly Level[] = [
  {
    name: "scalar",
    architecture: "x86-64",
    integer: [/./],
    float: [/^mulps .*%xmm/],
    never: [vex, tile, aboveBaseline],
  },
  {
    name: "x86_64_v2",
    architecture: "x86-64",
    integer: [/^pmaddubsw .*%xmm/, /^pmaddwd .*%xmm/],
    float: [/^mulps .*%xmm/],
    never: [vex, tile],
  },
  {
    name: "avx2",
    architecture: "x86-64",
    integer: [/^vpmaddubsw .*%ymm/, /^vpmaddwd .*%ymm/],
    float: [/^vfmadd\d+ps .*%ymm/],
    never: [/%zmm|%k[1-7]|%[xy]mm(1[6-9]|2\d|3[01])/, /^vpdp/, tile],
  },
  {
    name: "avx512",
    architecture: "x86-64",
    integer: [/^vpmaddubsw .*%zmm/, /^vpmaddwd .*%zmm/],
    float: [/^vfmadd\d+ps .*%zmm/],
    never: [/^vpdp/, /^vdpbf16/, tile],
  },
  {
    name: "avx512_vnni",
    architecture: "x86-64",
    integer: [/^vpdpbusd .*%zmm/],
    float: [/^vfmadd\d+ps .*%zmm/],
    half: [/^vpdpwssd .*%zmm/],
    never: [tile],
  },
  {
    name: "amx",
    architecture: "x86-64",
    integer: [/^tdpbssd .*%tmm/, /^vpdpbusd .*%zmm/],
    float: [/^vfmadd\d+ps .*%zmm/],
    half: [/^vpdpwssd .*%zmm/],
    never: [],
  },
  {
    name: "neon",
    architecture: "aarch64",
    integer: [/^smull\b.*\.8b/, /^smull2\b.*\.16b/, /^sadalp\b/],
    float: [/^fmla\b.*\.4s/],
    never: [/^[su]+dot\b/, /^[su]+mmla\b/],
  },
  {
    name: "neon_dotprod",
    architecture: "aarch64",
    integer: [/^sdot\b.*\.4s.*\.16b/],
    float: [/^fmla\b.*\.4s/],
    never: [/^usdot\b/, /^[su]+mmla\b/],
  },
  {
    name: "neon_i8mm",
    architecture: "aarch64",
    integer: [/^usdot\b.*\.4s.*\.16b/],
    float: [/^fmla\b.*\.4s/],
    never: [],
  },
];

interface Instruction {
  readonly address: number;
  /** Mnemonic and operands, separated by one space. */
  readonly text: string;
}

interface Code {
  readonly instructions: readonly Instruction[];
  /** By symbol: the first address and the first past the end. */
  readonly symbols: ReadonlyMap<string, readonly [number, number]>;
}

function objdump(...options: string[]): string {
  const result = Bun.spawnSync(["objdump", ...options], { stdout: "pipe", stderr: "pipe" });
  if (!result.success) throw new Error(`objdump ${options.join(" ")}: ${result.stderr.toString()}`);
  return result.stdout.toString();
}

function disassemble(path: string): Code {
  const symbols = new Map<string, readonly [number, number]>();
  for (const line of objdump("-t", path).split("\n")) {
    const match = /^([0-9a-f]+) .* F \.text\S*\s+([0-9a-f]+) (?:\.hidden )?(\S+)$/.exec(line);
    if (match === null) continue;
    const [, address = "", size = "", name = ""] = match;
    const start = Number.parseInt(address, 16);
    symbols.set(name, [start, start + Number.parseInt(size, 16)]);
  }
  const instructions: Instruction[] = [];
  for (const line of objdump("-d", "--no-show-raw-insn", path).split("\n")) {
    const match = /^\s*([0-9a-f]+):\s+(\S.*)$/.exec(line);
    if (match === null) continue;
    const [, address = "", text = ""] = match;
    instructions.push({ address: Number.parseInt(address, 16), text: text.replace(/\s+/g, " ") });
  }
  return { instructions, symbols };
}

/** Whether this machine's objdump knows the architecture: Debian's binutils-multiarch does, and LLVM's. */
function canDisassemble(architecture: Level["architecture"]): boolean {
  try {
    const known = objdump("--info");
    return known.includes(architecture === "x86-64" ? "elf64-x86-64" : "elf64-littleaarch64");
  } catch {
    return false;
  }
}

const available = new Map(levels.map(({ architecture }) => [architecture, canDisassemble(architecture)]));
for (const [architecture, can] of available) {
  if (!can)
    process.stderr.write(`disassembly of ${architecture}: not checked, objdump lacks it (binutils-multiarch has it)\n`);
}

beforeAll(async () => {
  const wanted = levels.filter(({ architecture }) => available.get(architecture)).map(({ name }) => name);
  if (wanted.length === 0) return;
  const zig = await ensureZig();
  const child = Bun.spawnSync([zig, "build", "levels", zigJobs, `-Dlevels=${wanted.join(",")}`], {
    cwd: root,
    env: zigEnvironment(),
    stdio: ["ignore", "inherit", "inherit"],
  });
  if (!child.success) throw new Error("zig build levels failed");
}, 600_000);

for (const level of levels) {
  describe.skipIf(available.get(level.architecture) !== true)(`level ${level.name}`, () => {
    let code: Code;
    beforeAll(() => {
      code = disassemble(join(root, "zig-out", "levels", `${level.name}.o`));
    }, 120_000);

    for (const dtype of dtypes) {
      const half = dtype === "F16" || dtype === "BF16" ? (level.half ?? level.float) : undefined;
      const wanted = half ?? (dtype === "F32" ? level.float : level.integer);
      test(`the product of ${dtype} weights uses the level's own instructions`, () => {
        const symbol = `tinyai_matmul_${dtype.toLowerCase()}_${level.name}`;
        const range = code.symbols.get(symbol);
        if (range === undefined) throw new Error(`${level.name}.o has no symbol ${symbol}`);
        const [start, end] = range;
        const body = code.instructions
          .filter(({ address }) => address >= start && address < end)
          .map(({ text }) => text);
        expect(body.length).toBeGreaterThan(50);
        for (const pattern of wanted) {
          expect(body.some((text) => pattern.test(text)) ? pattern.source : `${symbol} lacks ${pattern.source}`).toBe(
            pattern.source,
          );
        }
      });
    }

    test("no instruction of a higher level is used", () => {
      for (const pattern of level.never) {
        expect(code.instructions.filter(({ text }) => pattern.test(text)).slice(0, 3)).toEqual([]);
      }
    });
  });
}
