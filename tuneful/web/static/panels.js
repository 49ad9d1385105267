/** What stands around the work: notices and the dialogs of skipping and of keys. */

import { COMMANDS, keyOf } from "./keys.js";
import { areKeys } from "./settings.js";
import { make } from "./texts.js";

const REASONS = {
  skip: ["I cannot judge this subject", "too long", "not my language", "the instructions do not cover it", "other"],
  unrateable: ["no answer can be judged", "the prompt makes no sense", "answers of another prompt", "other"],
};

/** Lines that stay until they are true no more, one for each name. */
export class Notices {
  /** @param {HTMLElement} box @param {(text: string) => void} say for those who do not see them */
  constructor(box, say) {
    Object.assign(this, { box, say });
    this.shown = new Map();
  }

  /** @param {{label: string, act: () => void}} [way] out of it */
  tell(name, text, way = { label: "Got it", act: () => this.clear(name) }) {
    if (this.shown.get(name)?.firstChild.textContent === text) return;
    const button = make("button", { type: "button", textContent: way.label });
    button.addEventListener("click", way.act);
    const line = make("div", { className: "notice" }, make("span", { textContent: text }), button);
    if (this.has(name)) this.shown.get(name).replaceWith(line);
    else this.box.append(line);
    this.shown.set(name, line);
    this.say(text);
  }

  /** Another text for a notice that stands: its button keeps the focus, and nothing is said. */
  retell(name, text) {
    this.shown.get(name).firstChild.textContent = text;
  }

  has(name) {
    return this.shown.has(name);
  }

  clear(name) {
    this.shown.get(name)?.remove();
    this.shown.delete(name);
  }
}

/** Ask why an item is given back. @param {"skip" | "unrateable"} what @param {(reason: string) => void} onreason */
export function askReason(dialog, what, onreason) {
  const form = dialog.querySelector("form");
  dialog.querySelector("h2").textContent = what === "skip" ? "Skip this item" : "This item cannot be judged";
  const options = REASONS[what].map((reason) => make("option", { textContent: reason }));
  form.elements.reason.replaceChildren(...options);
  form.elements.words.value = "";
  dialog.returnValue = "";
  dialog.onclose = () => {
    const words = form.elements.words.value.trim();
    const reason = form.elements.reason.value + (words && `: ${words}`);
    if (dialog.returnValue) onreason(what === "skip" ? reason : `unrateable: ${reason}`);
  };
  dialog.querySelector("#skip-cancel").onclick = () => dialog.close();
  dialog.showModal();
}

/** The list of keys as they are now, and the settings; `onchange` is called with each new setting. */
export function showKeys(dialog, page, onchange) {
  const letters = page.settings.keys.slice(0, page.count).toUpperCase().split("").join(" ");
  const rows = page.kind.help.map(([key, does]) => [key === "A …" ? letters : key, does]);
  for (const [name, [, does]] of Object.entries(COMMANDS)) rows.push([keyOf(name, page), does]);
  rows.push(["Ctrl+Z", "take the last change back"]);
  const cells = ([key, does]) =>
    make("tr", {}, make("td", {}, make("kbd", { textContent: key })), make("td", { textContent: does }));
  dialog.querySelector("tbody").replaceChildren(...rows.map(cells));
  const form = dialog.querySelector("form");
  for (const field of form.querySelectorAll("[name]")) {
    const isBox = field.type === "checkbox";
    if (isBox) field.checked = page.settings[field.name];
    else field.value = page.settings[field.name];
    field.onchange = () => {
      const value = isBox ? field.checked : field.value;
      const fits = field.name !== "keys" || areKeys(value);
      field.setCustomValidity(fits ? "" : "Nine different letters, such as abcdefghi");
      if (fits) onchange(field.name, field.name === "size" ? Number(value) : value);
    };
  }
  dialog.showModal();
}
