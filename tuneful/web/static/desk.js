/** The work on the page: prompt, cards, the rail or the choices, and the fields below them. */

import { Cards } from "./cards.js";
import { letDrag } from "./drag.js";
import { keyOf } from "./keys.js";
import { KINDS } from "./kinds.js";
import { showPrompt } from "./texts.js";
import { Choices, Rail } from "./verdict.js";

const find = (selector) => document.querySelector(selector);

/** Kinds in which people may say how sure they are. */
const SURE = ["ranking", "comparison"];

export class Desk {
  /**
   * @param {string} kindName
   * @param {import("./settings.js").Settings} settings
   * @param {Record<string, Function>} on what clicks and typing do; see Cards, Rail and below
   */
  constructor(kindName, settings, on) {
    Object.assign(this, { kindName, settings, kind: KINDS[kindName] });
    this.cards = new Cards(find("#cards"), find("#card"), on);
    this.rail = new Rail(find("#rail"), on);
    this.choices = new Choices(find("#choices"), on.choose);
    letDrag(find("#work"), on.put);
    new ResizeObserver(([{ target }]) => {
      find("#work").style.setProperty("--prompt-height", `${target.offsetHeight}px`);
    }).observe(find("#prompt"));
    find("#text").addEventListener("input", ({ target }) => on.write({ text: target.value }));
    find("#note").addEventListener("input", ({ target }) => on.write({ note: target.value }));
    const sure = find("#confidence");
    sure.addEventListener("change", () => on.value("confidence", Number(sure.value) || null));
    find("#earlier").addEventListener("toggle", ({ target }) => on.set("earlier", target.open));
  }

  /** What `meaning` and `keyOf` have to know of the page. */
  page(item) {
    return { kind: this.kind, settings: this.settings, count: item?.sheet.answers.length ?? 0 };
  }

  /** Put an item on the page, all of it. @param {import("./hand.js").Held} item */
  show(item) {
    const { assignment, sheet, opened } = item;
    find("#work").hidden = false;
    find("#work").dataset.item = assignment.item;
    showPrompt(find("#earlier"), find("#asked"), assignment.prompt, this.settings.earlier);
    this.cards.show(item, this.kind, this.kindName, this.settings);
    this.rail.show(sheet, this.kindName === "ranking");
    this.choices.show(this.kindName, sheet);
    find("#writing").hidden = this.kindName !== "demonstration";
    find("#confidence").parentElement.hidden = !SURE.includes(this.kindName);
    find("#leave").hidden = !opened;
    this.showKeys(item);
    this.paint(item);
  }

  hide() {
    find("#work").hidden = true;
  }

  /** What the sheet of the item says now. */
  paint({ sheet, focused }) {
    this.cards.paint(sheet, focused);
    this.rail.paint(sheet, focused);
    this.choices.paint(sheet);
    find("#text").value = sheet.text;
    find("#note").value = sheet.note;
    find("#confidence").value = sheet.values.confidence ?? "";
    find("#submit").disabled = !this.kind.isReady(sheet);
  }

  /** Text size, and the keys that the buttons name: letters of answers move them. */
  showKeys(item) {
    find("#labeling").style.setProperty("--text-size", this.settings.size / 100);
    for (const button of document.querySelectorAll("[data-command]")) {
      const key = keyOf(button.dataset.command, this.page(item));
      button.querySelector("kbd").textContent = this.settings.letters || key.endsWith("Enter") ? key : "";
    }
  }

  /** The keys are for the item, unless somebody is busy elsewhere on the page. */
  takeFocus({ focused }) {
    const active = document.activeElement;
    if (active !== document.body && !find("#labeling").contains(active)) return;
    if (this.kindName === "demonstration") find("#text").focus({ preventScroll: true });
    else this.cards.focus(focused);
  }
}
