// Conversations as prompts: the model's own template renders them, and special tokens in the result are tokens.

import { type ChatMessage, renderChat } from "../tokenizer/chat.ts";
import { encodeText, type Generator } from "./generate.ts";

/** @throws {OptionError} if a message is malformed, or the model has no chat template. */
export async function encodeChat(generator: Generator, messages: readonly ChatMessage[]): Promise<Uint32Array> {
  const { tokenizer } = generator;
  const { bosToken, eosToken, chatTemplate } = tokenizer;
  const text = await renderChat(chatTemplate, messages, {
    ...(bosToken === undefined ? {} : { bosToken: tokenizer.tokenText(bosToken) }),
    ...(eosToken === undefined ? {} : { eosToken: tokenizer.tokenText(eosToken) }),
  });
  const tokens = encodeText(generator, text, { addSpecial: false, parseSpecial: true });
  // Most templates write the beginning-of-text token themselves.
  if (!tokenizer.addBos || bosToken === undefined || tokens[0] === bosToken) return tokens;
  return Uint32Array.of(bosToken, ...tokens);
}
