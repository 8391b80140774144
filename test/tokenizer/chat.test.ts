// Conversations as prompts, with templates written here.

import { describe, expect, test } from "bun:test";
import { OptionError } from "../../src/errors.ts";
import { type ChatMessage, renderChat } from "../../src/tokenizer/chat.ts";

const turns = [
  "{{ bos_token }}",
  "{%- for message in messages -%}",
  "{%- if message['role'] == 'tool' -%}{{ raise_exception('no tools here') }}{%- endif -%}",
  "<|{{ message.role }}|>\n{{ message.content | trim }}{{ eos_token + '\\n' }}",
  "{%- endfor -%}",
  "{%- if add_generation_prompt %}<|assistant|>\n{% endif -%}",
].join("");

const messages: readonly ChatMessage[] = [
  { role: "system", content: "Be brief." },
  { role: "user", content: " Hi {{ messages }} <|user|>\n" },
];

describe("a chat template", () => {
  test("writes the messages and where the answer begins", async () => {
    expect(await renderChat(turns, messages, { bosToken: "<s>", eosToken: "</s>" })).toBe(
      "<s><|system|>\nBe brief.</s>\n<|user|>\nHi {{ messages }} <|user|></s>\n<|assistant|>\n",
    );
  });

  test("leaves the answer's beginning out if told to", async () => {
    const text = await renderChat(turns, [{ role: "user", content: "Hi" }], { addGenerationPrompt: false });
    expect(text).toBe("<|user|>\nHi\n");
  });

  test("is missed with an error that says so", async () => {
    await expect(renderChat(undefined, messages)).rejects.toThrow(OptionError);
    await expect(renderChat(undefined, messages)).rejects.toThrow("chatTemplate: the model's file has none");
  });

  test("that is no Jinja is refused", async () => {
    await expect(renderChat("{% for x in %}", messages)).rejects.toThrow(OptionError);
    await expect(renderChat("{% if %}{{", messages)).rejects.toThrow("chatTemplate: is not valid Jinja");
    await expect(renderChat("x".repeat(1_000_001), messages)).rejects.toThrow("1000001 characters");
  });

  test("may refuse messages, and its reason is told", async () => {
    const refused = renderChat(turns, [{ role: "tool", content: "4" }]);
    await expect(refused).rejects.toThrow(OptionError);
    await expect(refused).rejects.toThrow("messages: the model's chat template refuses them: no tools here");
  });

  test("is not asked about messages that are none", async () => {
    await expect(renderChat(turns, [])).rejects.toThrow("messages: at least one");
    const wrong = [{ role: "user", content: "Hi" }, { role: "user" }] as unknown as readonly ChatMessage[];
    await expect(renderChat(turns, wrong)).rejects.toThrow("messages[1].content: is undefined; a string is expected");
    await expect(renderChat(turns, [null] as unknown as readonly ChatMessage[])).rejects.toThrow("messages[0].role");
  });

  test("counts with range, but not without end", async () => {
    const counting = "{% for i in range(3) %}{{ i }}{% endfor %} {% for i in range(5, 0, -2) %}{{ i }}{% endfor %}";
    expect(await renderChat(counting, messages)).toBe("012 531");
    const endless = "{% for i in range(1000000000) %}{% endfor %}";
    await expect(renderChat(endless, messages)).rejects.toThrow("its loops ask for more than");
    const nested = "{% for i in range(1000) %}{% for j in range(1000) %}{% endfor %}{% endfor %}";
    await expect(renderChat(nested, messages)).rejects.toThrow("its loops ask for more than");
  });
});
