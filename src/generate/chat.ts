// Conversations as prompts: the model's own template renders them, and special tokens in the result are tokens.

import { type ChatMessage, renderChat } from "../tokenizer/chat.ts";
import type { Tokenizer } from "../tokenizer/index.ts";

/** @throws {OptionError} if a message is malformed, or the model has no chat template. */
export async function encodeChat(tokenizer: Tokenizer, messages: readonly ChatMessage[]): Promise<Uint32Array> {
  const { bosToken, eosToken, chatTemplate } = tokenizer;
  const text = await renderChat(chatTemplate, messages, {
    ...(bosToken === undefined ? {} : { bosToken: tokenizer.tokenText(bosToken) }),
    ...(eosToken === undefined ? {} : { eosToken: tokenizer.tokenText(eosToken) }),
  });
  const tokens = tokenizer.encode(text, { addSpecial: false, parseSpecial: true });
  // Most templates write the beginning-of-text token themselves.
  if (!tokenizer.addBos || bosToken === undefined || tokens[0] === bosToken) return tokens;
  return Uint32Array.of(bosToken, ...tokens);
}
