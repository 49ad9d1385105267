/** The cards of the answers: full text, a radio group for tier or points, flags. */

import { FLAGS } from "./kinds.js";
import { isPlaced, letterOf, ranks } from "./ranking.js";
import { make, markEmpty, textOf, textWithShared } from "./texts.js";

/** A group of native radio buttons. `options` are [value, label]. @returns {HTMLFieldSetElement} */
export function radios(legend, options, onpick) {
  const group = make("fieldset", { className: "radios" }, make("legend", { textContent: legend }));
  for (const [value, label] of options) {
    const input = make("input", { type: "radio", name: legend, value });
    input.addEventListener("change", () => onpick(value));
    group.append(make("label", {}, input, make("span", { textContent: label })));
  }
  return group;
}

/** Check the button of `value`, or none. */
export function check(group, value) {
  for (const input of group.querySelectorAll("input")) input.checked = input.value === String(value);
}

export class Cards {
  /**
   * @param {HTMLElement} box
   * @param {HTMLTemplateElement} template
   * @param {{focus: (answer: string) => void, place: (answer: string, tier: number) => void,
   *   flag: (answer: string, name: string) => void, value: (name: string, number: number | null) => void,
   *   start: (text: string) => void}} on what a click does
   */
  constructor(box, template, on) {
    Object.assign(this, { box, template, on });
    this.cards = new Map();
  }

  /** Put the cards of an item in place of those before. */
  show(item, kind, kindName, settings) {
    Object.assign(this, { item, kind, kindName, settings });
    this.cards.clear();
    for (const answer of item.assignment.answers) this.cards.set(answer.id, this.#card(answer));
    this.box.replaceChildren(...this.cards.values());
    this.box.dataset.count = this.cards.size;
    this.paintTexts();
  }

  /** What the sheet says of each answer. */
  paint(sheet, focused) {
    const all = ranks(sheet);
    for (const [answer, card] of this.cards) {
      const flags = sheet.flags[answer] ?? [];
      card.classList.toggle("focused", answer === focused);
      card.classList.toggle("placed", isPlaced(sheet, answer));
      card.querySelector(".rank").textContent = this.kindName === "ranking" ? rankOf(answer, all) : "";
      check(card.querySelector(".points"), sheet.tiers[answer]);
      card.querySelector("summary").textContent = flags.length ? `Flags: ${flags.join(", ")}` : "Flags";
      for (const box of card.querySelectorAll(".flags input")) box.checked = flags.includes(box.value);
      const score = card.querySelector("select");
      if (score) score.value = sheet.values[answer] ?? "";
    }
  }

  /** The texts, with what they share marked when the settings ask for it. */
  paintTexts() {
    const { answers } = this.item.assignment;
    for (const { id, text } of answers) {
      const others = answers.filter((other) => other.id !== id).map((other) => other.text);
      const nodes = this.settings.shared ? textWithShared(text, others) : textOf(text);
      const box = this.cards.get(id).querySelector(".text");
      box.replaceChildren(nodes);
      markEmpty(box, text);
    }
  }

  /** Give a card the focus; the page stays where it is unless the card is to be seen. */
  focus(answer, { reveal = false } = {}) {
    this.cards.get(answer)?.focus({ preventScroll: !reveal });
  }

  openFlags(answer) {
    const menu = this.cards.get(answer).querySelector(".flags");
    menu.open = true;
    menu.querySelector("input").focus();
  }

  #card({ id, text }) {
    const card = this.template.content.cloneNode(true).firstElementChild;
    const letter = letterOf(this.item.sheet, id);
    card.dataset.answer = id;
    card.dataset.letter = letter;
    card.setAttribute("aria-label", `Answer ${letter}`);
    card.querySelector(".letter").textContent = letter;
    card.querySelector(".text").dir = "auto";
    card.querySelector("kbd").textContent = this.#keyHint(letter);
    card.querySelector(".points").append(...this.#points(id, letter, text));
    this.#fillFlags(card.querySelector(".flags"), id, letter, card);
    card.addEventListener("focusin", () => this.on.focus(id));
    card.addEventListener("click", () => this.on.focus(id));
    card.addEventListener("pointerenter", () => (this.leader = card));
    card.addEventListener("focusin", () => (this.leader = card));
    card.addEventListener("scroll", () => this.#scrollOthers(card));
    return card;
  }

  /** The key of the letter where it is another one. */
  #keyHint(letter) {
    const key = this.settings.keys[letter.charCodeAt(0) - 65]?.toUpperCase();
    return !this.settings.letters || key === letter ? "" : (key ?? "");
  }

  #points(id, letter, text) {
    if (this.kindName === "demonstration") {
      const button = make("button", { type: "button", textContent: `Start from ${letter}` });
      button.addEventListener("click", () => this.on.start(text));
      return [button];
    }
    const top = this.item.sheet.top;
    const options = Array.from({ length: top }, (_, place) => [place + 1, String(place + 1)]);
    const place = (tier) => this.on.place(id, tier);
    return top ? [radios(`${this.kind.scale} of ${letter}`, options, place)] : [];
  }

  #fillFlags(menu, id, letter, card) {
    menu.querySelector("legend").textContent = `Flags of ${letter}`;
    FLAGS.forEach((name, place) => {
      const input = make("input", { type: "checkbox", value: name });
      input.addEventListener("change", () => this.on.flag(id, name));
      const key = make("kbd", { textContent: this.settings.letters ? String(place + 1) : "" });
      const label = make("label", { className: "check" }, input, name.replace("-", " "), key);
      menu.querySelector("fieldset").append(label);
    });
    if (this.kindName === "ranking") menu.append(this.#score(id, letter));
    menu.addEventListener("keydown", (event) => this.#flagKey(event, menu, id, card));
  }

  #score(id, letter) {
    const options = ["", 1, 2, 3, 4, 5, 6, 7].map((value) => make("option", { value, textContent: value || "none" }));
    const select = make("select", {}, ...options);
    select.addEventListener("change", () => this.on.value(id, select.value ? Number(select.value) : null));
    return make("label", { textContent: `Points of ${letter}, if you like ` }, select);
  }

  /** In an open menu digits are flags; the key that opened it, or Escape, closes it. */
  #flagKey(event, menu, id, card) {
    const flag = FLAGS[Number(event.key) - 1];
    const isKey = this.settings.letters && !event.target.matches("select");
    const closes = event.key === "Escape" || (isKey && event.key.toLowerCase() === this.kind.flagKey);
    if (!menu.open || !(closes || (isKey && flag))) return;
    event.preventDefault();
    event.stopPropagation();
    if (!closes) return this.on.flag(id, flag);
    menu.open = false;
    card.focus({ preventScroll: true });
  }

  #scrollOthers(card) {
    if (!this.settings.linked || card !== this.leader) return;
    const share = card.scrollTop / Math.max(1, card.scrollHeight - card.clientHeight);
    for (const other of this.cards.values()) {
      if (other !== card) other.scrollTop = share * (other.scrollHeight - other.clientHeight);
    }
  }
}

/** "= 2" for a second place that is shared. */
function rankOf(answer, all) {
  if (all[answer] === null) return "";
  const isTied = Object.entries(all).some(([other, rank]) => other !== answer && rank === all[answer]);
  return `${isTied ? "= " : ""}${all[answer]}`;
}
