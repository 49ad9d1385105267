/** Texts of people and models as nodes. They may be hostile, so none of them is ever read as HTML. */

/** Characters that change what one reads and are not seen: controls, direction overrides, zero widths. */
const UNSEEN = /([\0-\x08\x0B\x0C\x0E-\x1F\x7F-\x9F\u200B\u202A-\u202E\u2060\u2066-\u2069\uFEFF]+)/;

/** Above this many a text is shown as it is, for each of them costs an element. */
const MOST_MARKED = 2000;

const SENTENCE = /[^.!?\n]+[.!?\n]*\s*|[.!?\n]+\s*/g;

/** An element with properties and children. @returns {HTMLElement} */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** @returns {DocumentFragment} `text`, with what is not seen named and kept from turning the rest around */
export function textOf(text) {
  const nodes = document.createDocumentFragment();
  const parts = text.split(UNSEEN);
  if (parts.length > 2 * MOST_MARKED) parts.splice(0, parts.length, text);
  parts.forEach((part, place) => {
    if (part) nodes.append(place % 2 ? unseen(part) : part);
  });
  return nodes;
}

function unseen(signs) {
  const span = make("span", { className: "unseen", textContent: signs });
  span.dataset.code = `U+${signs.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
  return span;
}

/** Marks the element of an answer in which there is nothing to read. */
export function markEmpty(element, text) {
  element.classList.toggle("empty", /^[ \t\r\n]*$/.test(text));
}

/** @returns {DocumentFragment} `text`, with the sentences marked that one of `others` has too */
export function textWithShared(text, others) {
  const elsewhere = new Set(others.flatMap((other) => sentences(other).map((one) => one.trim())));
  const nodes = document.createDocumentFragment();
  for (const sentence of sentences(text)) {
    const isShared = sentence.trim() && elsewhere.has(sentence.trim());
    nodes.append(isShared ? make("span", { className: "shared" }, textOf(sentence)) : textOf(sentence));
  }
  return nodes;
}

function sentences(text) {
  return text.match(SENTENCE) ?? [];
}

/** @returns {DocumentFragment} turns of a conversation */
export function turnsOf(messages) {
  const nodes = document.createDocumentFragment();
  for (const { role, content } of messages) {
    const text = make("div", { className: "text", dir: "auto" }, textOf(content));
    nodes.append(make("div", { className: "turn" }, make("span", { className: "role", textContent: role }), text));
  }
  return nodes;
}

/** The prompt: the last turn of the user is always in view, those before it can be folded away. */
export function showPrompt(earlier, asked, messages, isOpen) {
  const last = messages.findLastIndex(({ role }) => role === "user");
  const before = last < 0 ? messages.length - 1 : last;
  earlier.hidden = before <= 0;
  earlier.open = isOpen;
  earlier.querySelector("summary").textContent = `Earlier turns (${before})`;
  earlier.querySelector(".turns").replaceChildren(turnsOf(messages.slice(0, before)));
  asked.replaceChildren(turnsOf(messages.slice(before)));
}
