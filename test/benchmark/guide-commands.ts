// The guide's benchmark commands as they are written there, and a folder in which its file names are there. It is not a test.

import { chmodSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { root } from "../../src/setup/checkout.ts";
import { type Finished, runProgram } from "../../src/setup/python.ts";

/** In an order in which each finds what those before it have made. */
export const guideCommands = {
  specs: "tinyai benchmark system --specs",
  environment: "tinyai benchmark verify --env",
  prepare: "tinyai benchmark prepare --model model.gguf --config benchmark_config.json",
  prepareAgain: "tinyai benchmark prepare --model model.tinyai --config benchmark_config.json",
  verify: "tinyai benchmark verify --model model.tinyai",
  run: "tinyai benchmark run --model model.tinyai --type inference",
  customized: `tinyai benchmark run \\
     --model model.tinyai \\
     --type inference \\
     --iterations 1000 \\
     --batch-size 8 \\
     --metrics latency throughput memory`,
  compareModels: `tinyai benchmark compare \\
     --models model_v1.tinyai model_v2.tinyai \\
     --type inference \\
     --config comparison_config.json`,
  analyze: "tinyai benchmark analyze --results benchmark_results.json",
  compareResults: `tinyai benchmark compare \\
     --results results_v1.json results_v2.json \\
     --output comparison_report.html`,
  trends: `tinyai benchmark trends \\
     --results results_*.json \\
     --metric latency \\
     --output trends.png`,
} as const;

/** Runs commands in a folder by a shell that finds `tinyai`. */
export class CommandFolder {
  readonly path: string;
  readonly #env: NodeJS.ProcessEnv;

  constructor(path: string, env: NodeJS.ProcessEnv) {
    this.path = path;
    const programs = join(path, "bin");
    mkdirSync(programs, { recursive: true });
    const program = join(programs, "tinyai");
    writeFileSync(program, `#!/bin/sh\nexec "${process.execPath}" "${join(root, "src/cli/main.ts")}" "$@"\n`);
    chmodSync(program, 0o755);
    this.#env = { ...env, PATH: `${programs}${delimiter}${process.env["PATH"]}` };
  }

  file(name: string): string {
    return join(this.path, name);
  }

  has(name: string): boolean {
    return existsSync(this.file(name));
  }

  /** @param interruptAfterS Ctrl-C comes after so many seconds. */
  run(command: string, interruptAfterS?: number): Promise<Finished> {
    const timed =
      interruptAfterS === undefined
        ? command
        : `timeout --foreground --preserve-status --signal=INT ${interruptAfterS} ${command.replace(/^tinyai/, this.file("bin/tinyai"))}`;
    return runProgram(["sh", "-c", timed], { cwd: this.path, env: this.#env });
  }
}
