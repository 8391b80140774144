// What NVIDIA's GPUs are doing, by the driver's own library (NVML), which is opened where there is one. Other makers' GPUs it does
// not know.

import { openForeign } from "./library.ts";

/** A GPU as it is now. What its driver does not tell, as of a part of a divided GPU, is null. */
export interface Gpu {
  readonly name: string;
  /** Percent of the last sampling period (1/6 to 1 s) in which something ran on it. */
  readonly utilization: number | null;
  /** Percent of that period in which its memory was read or written. */
  readonly memoryUtilization: number | null;
  /** In bytes. */
  readonly memoryTotal: number | null;
  readonly memoryUsed: number | null;
  readonly driver: string | null;
}

/** The GPUs of this machine, until it is closed. */
export interface GpuMeter {
  /** Cheap enough to poll: some calls a GPU. */
  read(): readonly Gpu[];
  close(): void;
}

// Devices are pointers that only the library looks into: 64 bits.
const symbolTable = {
  nvmlInit_v2: { args: [], returns: "u32" },
  nvmlShutdown: { args: [], returns: "u32" },
  nvmlSystemGetDriverVersion: { args: ["ptr", "u32"], returns: "u32" },
  nvmlDeviceGetCount_v2: { args: ["ptr"], returns: "u32" },
  nvmlDeviceGetHandleByIndex_v2: { args: ["u32", "ptr"], returns: "u32" },
  nvmlDeviceGetName: { args: ["u64", "ptr", "u32"], returns: "u32" },
  nvmlDeviceGetUtilizationRates: { args: ["u64", "ptr"], returns: "u32" },
  nvmlDeviceGetMemoryInfo: { args: ["u64", "ptr"], returns: "u32" },
} as const;

const success = 0;
/** Bytes that the longest name or version may have (NVML_DEVICE_NAME_V2_BUFFER_SIZE, NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE: 96, 80). */
const textBytes = 96;

function systemPath(): string | undefined {
  if (process.platform === "linux") return "libnvidia-ml.so.1";
  return process.platform === "win32" ? "nvml.dll" : undefined;
}

/** @param path of the library. @returns undefined where there is none, or it finds no driver. */
export function openGpus(path = systemPath()): GpuMeter | undefined {
  if (path === undefined) return undefined;
  const library = openForeign(path, symbolTable);
  if (!library) return undefined;
  const { symbols } = library;
  if (symbols.nvmlInit_v2() !== success) {
    library.close();
    return undefined;
  }
  const text = (read: (bytes: Uint8Array, length: number) => number): string | null => {
    const bytes = Buffer.alloc(textBytes);
    if (read(bytes, textBytes) !== success) return null;
    const end = bytes.indexOf(0);
    return bytes.toString("utf8", 0, end < 0 ? textBytes : end);
  };
  const driver = text(symbols.nvmlSystemGetDriverVersion);
  const count = new Uint32Array(1);
  if (symbols.nvmlDeviceGetCount_v2(count) !== success) count[0] = 0;
  const devices: { readonly handle: bigint; readonly name: string }[] = [];
  for (let index = 0; index < (count[0] ?? 0); index++) {
    const handle = new BigUint64Array(1);
    if (symbols.nvmlDeviceGetHandleByIndex_v2(index, handle) !== success) continue; // Another user's.
    const device = handle[0] ?? 0n;
    const name = text((bytes, length) => symbols.nvmlDeviceGetName(device, bytes, length));
    devices.push({ handle: device, name: name ?? `GPU ${index}` });
  }
  let isOpen = true;
  return {
    read: () => (isOpen ? devices.map(({ handle, name }) => ({ name, ...readDevice(handle), driver })) : []),
    close: () => {
      if (!isOpen) return;
      isOpen = false;
      symbols.nvmlShutdown();
      library.close();
    },
  };

  function readDevice(device: bigint) {
    const rates = new Uint32Array(2);
    const busy = symbols.nvmlDeviceGetUtilizationRates(device, rates) === success;
    // Total, free, used.
    const memory = new BigUint64Array(3);
    const told = symbols.nvmlDeviceGetMemoryInfo(device, memory) === success;
    return {
      utilization: busy ? (rates[0] ?? 0) : null,
      memoryUtilization: busy ? (rates[1] ?? 0) : null,
      memoryTotal: told ? Number(memory[0]) : null,
      memoryUsed: told ? Number(memory[2]) : null,
    };
  }
}

/** Null: there is none, as the first call found. */
let kept: GpuMeter | null | undefined;

/** The GPUs of this machine as they are now; none where there are none, or no driver's library. The first call opens it (some ms). */
export function readGpus(): readonly Gpu[] {
  if (kept === undefined) {
    kept = openGpus() ?? null;
    process.once("exit", () => kept?.close());
  }
  return kept?.read() ?? [];
}
