// Ctrl-C and SIGTERM, for verbs that have something to put in order first. A verb that asks for `interruption()` is told
// and gets time; one that does not ends at once. A second signal always ends at once.

const controller = new AbortController();
let asked = false;
let exitCode = 0;

/** A signal that is aborted when the user or the system asks the program to stop. Asking for it promises to end soon after. */
export function interruption(): AbortSignal {
  asked = true;
  return controller.signal;
}

/** The exit status that an interruption calls for, or 0 if there was none: 128 and the signal's number. */
export function interruptedExitCode(): number {
  return exitCode;
}

/** Starts listening; called once, by the program's entry. */
export function watchInterruptions(): void {
  for (const [name, number] of [
    ["SIGINT", 2],
    ["SIGTERM", 15],
  ] as const) {
    process.on(name, () => {
      const again = exitCode !== 0;
      exitCode = 128 + number;
      if (again || !asked) process.exit(exitCode);
      controller.abort();
    });
  }
}
