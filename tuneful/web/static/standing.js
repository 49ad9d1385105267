/** Where the labeler stands: how much is done, how fast, and what has not gone out yet. */

import { make } from "./texts.js";

const PACE_OF = 10;

const REMINDERS = {
  helpful: "does what was asked",
  honest: "true, and says what it does not know",
  harmless: "hurts nobody",
};

export class Standing {
  /** @param {{bar: HTMLProgressElement, count: HTMLElement, badge: HTMLElement}} places */
  constructor(places) {
    Object.assign(this, places);
    this.progress = { mine: 0, items: 0, done: 0, wanted: 0, have: 0 };
    this.paces = [];
    /** @type {import("./quiz.js").Trying | null} while there is a quiz to pass */
    this.quiz = null;
  }

  /** @param {import("./outbox.js").Outbox} outbox */
  show({ waiting, refused }) {
    const { mine, items, done, wanted, have } = this.progress;
    const unsent = waiting.filter(({ body }) => body.id && !body.replaces).length;
    this.count.textContent = `${mine + unsent} by you${this.#pace()} · ${done} of ${items} items finished`;
    Object.assign(this.bar, { max: wanted || 1, value: have });
    const parts = [waiting.length && `${waiting.length} waiting`, refused.length && `${refused.length} refused`];
    this.badge.textContent = parts.filter(Boolean).join(", ");
    this.badge.hidden = this.badge.textContent === "";
  }

  /** What a claim tells that was asked before the last answer went out is old. */
  learn(quiz) {
    if (!quiz || !(this.quiz?.answered > quiz.answered)) this.quiz = quiz;
  }

  #pace() {
    const recent = this.paces.slice(-PACE_OF).sort((a, b) => a - b);
    return recent.length ? ` · ${Math.round(recent[recent.length >> 1])} s an item` : "";
  }
}

/** What is judged, with a reminder of what the usual words mean. */
export function showCriteria(box, criteria) {
  const text = (name) => (Object.hasOwn(REMINDERS, name) ? `${name}: ${REMINDERS[name]}` : name);
  const badge = (words) => make("span", { className: "badge", textContent: words, title: words });
  box.replaceChildren(...criteria.map((name) => badge(text(name))));
}
