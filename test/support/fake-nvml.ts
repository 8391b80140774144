// A made-up libnvidia-ml.so.1, compiled from a few lines of C: two GPUs, of which the second one's driver tells little, and a count of
// how often it was opened and shut down.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { runProgram } from "../../src/setup/python.ts";
import { findZig, zigEnvironment } from "../../src/setup/toolchain.ts";

const source = `
static void copy(char *to, const char *from) { while ((*to++ = *from++)); }
static int devices[2];
static int opened, closed, polls;
int nvmlInit_v2(void) { opened++; return 0; }
int nvmlShutdown(void) { closed++; return 0; }
int fake_open(void) { return opened - closed; }
int nvmlSystemGetDriverVersion(char *text, unsigned length) { if (length < 80) return 7; copy(text, "550.54"); return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = &devices[index]; return 0; }
int nvmlDeviceGetName(void *device, char *text, unsigned length) {
  if (length < 96) return 7;
  copy(text, device == &devices[0] ? "Imaginary A1" : "Imaginary A2");
  return 0;
}
int nvmlDeviceGetUtilizationRates(void *device, unsigned *rates) {
  if (device != &devices[0]) return 3;
  rates[0] = 40 + polls++;
  rates[1] = 7;
  return 0;
}
int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *memory) {
  if (device != &devices[0]) return 3;
  memory[0] = 80000000000ull; memory[1] = 75000000000ull; memory[2] = 5000000000ull;
  return 0;
}
`;

/** Compiles it into a folder; undefined where there is no Zig on this machine, or no Linux. */
export async function makeFakeNvml(folder: string): Promise<string | undefined> {
  const zig = process.platform === "linux" ? await findZig() : undefined;
  if (zig === undefined) return undefined;
  const path = join(folder, "libnvidia-ml.so.1");
  writeFileSync(join(folder, "nvml.c"), source);
  // Without the C library, which Zig would compile first.
  const flags = ["-shared", "-fPIC", "-nostdlib", "-fno-builtin", "-fno-sanitize=all"];
  const command = [zig, "cc", ...flags, "-o", path, join(folder, "nvml.c")];
  const { status, stderr } = await runProgram(command, { env: zigEnvironment() });
  if (status !== 0) throw new Error(`the made-up library could not be compiled: ${stderr}`);
  return path;
}
