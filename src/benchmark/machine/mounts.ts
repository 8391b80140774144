// File systems that are mounted, as Linux tells of them, and which of them holds a folder. Elsewhere nothing is known here.

import { readText } from "./system-files.ts";

export interface Mount {
  readonly folder: string;
  readonly device: string;
  /** Its type, such as ext4. */
  readonly fileSystem: string;
}

/** In the order in which they were mounted. */
export function findMounts(root = "/"): Mount[] {
  const mounts: Mount[] = [];
  for (const line of readText(root, "proc/self/mountinfo").split("\n")) {
    const [place = "", system = ""] = line.split(" - ");
    const folder = place.split(" ")[4];
    const [fileSystem = "", device = ""] = system.split(" ");
    // Spaces and their like are written as numbers.
    const plain = folder?.replace(/\\(\d{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
    if (plain !== undefined && fileSystem !== "") mounts.push({ folder: plain, device, fileSystem });
  }
  return mounts;
}

/** The one that holds a folder: the nearest around it. @param path whole, with no links in it. */
export function mountOf(path: string, mounts: readonly Mount[] = findMounts()): Mount | undefined {
  const around = mounts.filter(({ folder }) => path === folder || path.startsWith(folder.replace(/[/\\]?$/, "/")));
  // Of several on one folder, the last one is seen.
  return around.reduce<Mount | undefined>(
    (nearest, each) => (each.folder.length >= (nearest?.folder.length ?? 0) ? each : nearest),
    undefined,
  );
}
