// Writes a conversation as the prompt that a model was trained on, by the Jinja template in its file. It cuts no tokens: the
// result is encoded with `parseSpecial`, and without another beginning-of-text token where the template wrote one.

import type { Template } from "@huggingface/jinja";
import { OptionError } from "../errors.ts";

/** One message of a conversation. */
export interface ChatMessage {
  /** Who speaks, as the template knows them: `system`, `user`, `assistant`. */
  readonly role: string;
  readonly content: string;
}

/** What the template is told besides the messages. */
export interface ChatOptions {
  /** Ends the prompt where the model's answer begins. Default true. */
  readonly addGenerationPrompt?: boolean;
  /** The text of the beginning-of-text token. Default empty. */
  readonly bosToken?: string;
  /** The text of the end-of-text token. Default empty. */
  readonly eosToken?: string;
}

/** Numbers that `range` gives to a template: real ones count messages, tools and words. */
const rangeMax = 100_000;

/** The largest template, in UTF-16 units: the longest of known models have some 20,000. */
const templateLengthMax = 1_000_000;

/**
 * The prompt that `source`, a chat template in Jinja, makes of `messages`; undefined stands for a model without one. Jinja
 * is loaded at the first call: a program that does not chat does not wait for it.
 * @throws {OptionError} `messages` if there are none, one is malformed, or the template refuses them (roles that do not alternate,
 * say); `chatTemplate` if there is no template or it is not valid.
 */
export async function renderChat(
  source: string | undefined,
  messages: readonly ChatMessage[],
  options: ChatOptions = {},
): Promise<string> {
  if (source === undefined) {
    const advice = "write the prompt as plain text, or take a model that was tuned for conversations";
    throw new OptionError("chatTemplate", `the model's file has none, so it is most likely no chat model: ${advice}`);
  }
  if (source.length > templateLengthMax) {
    throw new OptionError("chatTemplate", `has ${source.length} characters; at most ${templateLengthMax} are read`);
  }
  checkMessages(messages);
  const { addGenerationPrompt = true, bosToken = "", eosToken = "" } = options;
  const template = await parseTemplate(source);
  try {
    return template.render({
      messages: messages.map(({ role, content }) => ({ role, content })),
      add_generation_prompt: addGenerationPrompt,
      bos_token: bosToken,
      eos_token: eosToken,
      bounded_range: boundedRange(),
    });
  } catch (cause) {
    // Templates say by an exception of their own that they do not take these messages.
    throw new OptionError("messages", `the model's chat template refuses them: ${messageOf(cause)}`, { cause });
  }
}

async function parseTemplate(source: string): Promise<Template> {
  const { Template } = await import("@huggingface/jinja");
  try {
    const template = new Template(source);
    renameRange(template.parsed);
    return template;
  } catch (cause) {
    throw new OptionError("chatTemplate", `is not valid Jinja: ${messageOf(cause)}`, { cause });
  }
}

/**
 * Jinja's `range`, which gives at most `rangeMax` numbers to one rendering: a hostile template could otherwise hold the
 * program for ever.
 */
function boundedRange(): (...bounds: unknown[]) => number[] {
  let left = rangeMax;
  return (...bounds) => {
    const numbers = bounds.filter((bound) => typeof bound === "number");
    const [start, stop, step = 1] = numbers.length === 1 ? [0, numbers[0]] : numbers;
    if (start === undefined || stop === undefined || step === 0) throw new Error("range takes one to three numbers");
    const count = Math.max(0, Math.ceil((stop - start) / step));
    left -= count;
    if (!(left >= 0)) throw new Error(`its loops ask for more than ${rangeMax} numbers`);
    return Array.from({ length: count }, (_, index) => start + index * step);
  };
}

/** Lets a parsed template call `bounded_range` where it says `range`; the library's own cannot be replaced. */
function renameRange(node: unknown): void {
  if (typeof node !== "object" || node === null) return;
  const named = node as { type?: unknown; value?: unknown };
  if (named.type === "Identifier" && named.value === "range") named.value = "bounded_range";
  for (const child of Object.values(node)) renameRange(child);
}

function checkMessages(messages: readonly ChatMessage[]): void {
  if (!Array.isArray(messages) || messages.length === 0) {
    throw new OptionError("messages", "at least one message, { role, content }, is expected");
  }
  for (const [index, message] of messages.entries()) {
    for (const name of ["role", "content"] as const) {
      const value: unknown = message?.[name];
      if (typeof value === "string") continue;
      throw new OptionError(
        `messages[${index}].${name}`,
        `is ${value === null ? "null" : typeof value}; a string is expected`,
      );
    }
  }
}

function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
