// Elements of the page. Text only ever becomes text, never markup: names come from files.

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, string>} [attributes]
 * @param {readonly (Node | string)[]} [content]
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function element(tag, attributes = {}, content = []) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...content);
  return made;
}

/**
 * A block's frame: its title and how it is read.
 * @param {{ readonly id: string, readonly title: string, readonly note: string, readonly half: boolean }} block
 * @param {readonly Node[]} content
 * @returns {HTMLElement}
 */
export function frame({ id, title, note, half }, content) {
  const head = title === "" ? [] : [element("h3", {}, [title])];
  const words = note === "" ? [] : [element("p", { class: "note" }, [note])];
  return element("section", { class: half ? "block half" : "block", id }, [...head, ...words, ...content]);
}
