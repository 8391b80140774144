// Ctrl-C and SIGTERM, for verbs that have something to put in order first. A verb that asks for `interruption()` is told
// and gets time; one that does not ends at once. A second signal always ends at once. What only computes has nothing to put in order, and
// no turn for a handler either: there the system ends the program.

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

const onInterrupt = () => interrupt(2);
const onTerminate = () => interrupt(15);

function interrupt(number: number): void {
  const again = exitCode !== 0;
  exitCode = 128 + number;
  if (again || !asked) process.exit(exitCode);
  controller.abort();
}

/** Starts listening; called once, by the program's entry. */
export function watchInterruptions(): void {
  process.on("SIGINT", onInterrupt);
  process.on("SIGTERM", onTerminate);
}

/** What `work` gives, which writes nothing: a signal ends the program meanwhile, even where it computes without a pause. */
export async function endingAtOnce<Result>(work: () => Result | Promise<Result>): Promise<Result> {
  process.off("SIGINT", onInterrupt);
  process.off("SIGTERM", onTerminate);
  try {
    return await work();
  } finally {
    watchInterruptions();
  }
}
