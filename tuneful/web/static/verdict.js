/** Below the cards: the rail of tiers for a ranking, or the choices of a comparison and a yes or no. */

import { check, radios } from "./cards.js";
import { STRENGTHS, choiceOf, choose, setValue } from "./kinds.js";
import { isPlaced, letterOf } from "./ranking.js";
import { make } from "./texts.js";

/** Tiers side by side, the best first, each with the letters that stand in it; before them what has no tier yet. */
export class Rail {
  /**
   * @param {HTMLElement} box
   * @param {{pick: (tier: number, byPointer: boolean) => void, focusCard: (answer: string) => void}} on tier 0: none
   */
  constructor(box, on) {
    Object.assign(this, { box, on });
  }

  show(sheet, isRanking) {
    this.box.hidden = !isRanking;
    this.zones = isRanking ? Array.from({ length: sheet.top + 1 }, (_, tier) => this.#zone(tier)) : [];
    this.chips = new Map(sheet.answers.map((answer) => [answer, this.#chip(answer, letterOf(sheet, answer))]));
    this.box.replaceChildren(...this.zones);
  }

  paint(sheet, focused) {
    const active = document.activeElement;
    const last = Math.max(0, ...Object.values(sheet.tiers));
    for (const [tier, zone] of this.zones.entries()) {
      zone.classList.toggle("joining", sheet.joining && tier === last);
      const inside = sheet.answers.filter((answer) => (sheet.tiers[answer] ?? 0) === tier);
      zone.lastElementChild.replaceChildren(...inside.map((answer) => this.chips.get(answer)));
    }
    for (const [answer, chip] of this.chips) {
      const place = isPlaced(sheet, answer) ? `tier ${sheet.tiers[answer]}` : "no tier";
      chip.setAttribute("aria-label", `${chip.textContent}: ${place}`);
      chip.classList.toggle("focused", answer === focused);
    }
    if (active?.isConnected && active !== document.activeElement) active.focus({ preventScroll: true });
  }

  #zone(tier) {
    const name = tier ? String(tier) : "No tier";
    const button = make("button", { type: "button", className: "tier", textContent: name });
    const does = tier ? `Tier ${tier}: put the focused answer here` : "No tier: take the focused answer out";
    button.setAttribute("aria-label", does);
    const zone = make("div", { className: "zone" }, button, make("span", { className: "chips" }));
    zone.dataset.tier = tier;
    zone.addEventListener("click", ({ target, detail }) => target.closest(".chip") || this.on.pick(tier, detail > 0));
    return zone;
  }

  #chip(answer, letter) {
    const chip = make("button", { type: "button", className: "chip", textContent: letter });
    chip.dataset.answer = answer;
    chip.addEventListener("click", () => this.on.focusCard(answer));
    return chip;
  }
}

/** Radio groups for the kinds whose answer is a choice. */
export class Choices {
  /** @param {HTMLElement} box @param {(change: (sheet: object) => object) => void} onchange */
  constructor(box, onchange) {
    Object.assign(this, { box, onchange });
  }

  show(kindName, sheet) {
    this.groups = { comparison: () => this.#comparison(), binary: () => this.#binary(sheet) }[kindName]?.() ?? [];
    this.box.replaceChildren(...this.groups.map(([group]) => group));
    this.box.hidden = this.groups.length === 0;
  }

  paint(sheet) {
    for (const [group, read, isOpen] of this.groups) {
      check(group, read(sheet) ?? "");
      group.disabled = !isOpen(sheet);
    }
  }

  #comparison() {
    const choices = [
      ["A", "A is better"],
      ["tie", "both equally good"],
      ["B", "B is better"],
      ["bad", "both bad"],
    ];
    const strengths = STRENGTHS.map((label, place) => [place + 1, label]);
    const choice = radios("Which is better?", choices, (value) => this.onchange((sheet) => choose(sheet, value)));
    const setStrength = (value) => this.onchange((sheet) => setValue(sheet, "strength", value));
    const strength = radios("By how much, if you can say", strengths, setStrength);
    const isBetter = (sheet) => ["A", "B"].includes(choiceOf(sheet));
    return [
      [choice, choiceOf, () => true],
      [strength, (sheet) => sheet.values.strength, isBetter],
    ];
  }

  #binary({ criterion }) {
    const options = [
      [1, "yes"],
      [0, "no"],
    ];
    const pick = (value) => this.onchange((sheet) => setValue(sheet, criterion, value));
    return [[radios(criterion, options, pick), (sheet) => sheet.values[criterion], () => true]];
  }
}
