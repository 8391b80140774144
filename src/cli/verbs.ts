// A command whose verbs are each a module of their own, of which only the one that is asked for is loaded.

import type { Command } from "commander";

/** A verb of the command line. `summary` is what the list of verbs says, without loading it. */
export interface Verb {
  readonly name: string;
  readonly summary: string;
  /**
   * Adds it, with its flags, to what it is a verb of.
   * @param words those that follow it on the command line and are no flags: the first may name a verb of its own.
   */
  readonly register: (program: Command, words: readonly string[]) => Promise<void> | void;
}

/** Adds verbs to a command: whole where `words` ask for them, else as a line of the list. */
export async function addVerbs(program: Command, verbs: readonly Verb[], words: readonly string[]): Promise<void> {
  const [wanted, ...rest] = words;
  for (const verb of verbs) {
    if (verb.name === wanted || (wanted === "help" && rest.includes(verb.name))) await verb.register(program, rest);
    else program.command(verb.name).description(verb.summary);
  }
}
