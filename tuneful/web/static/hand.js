/**
 * The items in the labeler's hand: the one in work and two more, claimed ahead, so that the next is there at once.
 *
 * @typedef {object} Held
 * @property {object} assignment as the server gave it
 * @property {number} until end of the lease, milliseconds since 1970; Infinity for one that was judged already
 * @property {import("./kinds.js").Sheet} sheet
 * @property {number} lease how long it was given for, milliseconds
 * @property {number} spent milliseconds that it was in view
 * @property {boolean} [changed] there is a draft of it
 * @property {boolean} [unsent] a newer one than the server has
 * @property {string} [focused] the answer that digits and arrows are for
 * @property {{judgment: string | null}} [opened] it was handed in before, with this judgment, and is open again
 * @property {boolean} [lost] its place was given away
 */

import { Refused, pause } from "./http.js";

const AHEAD = 2;
const LOOK_AGAIN = 30;

/** Assignments that a claim may name. */
const MOST = 10;

export class Hand {
  /**
   * @param {{claim: (besides: string[]) => Promise<{assignment: object | null}>, extend: (id: string) =>
   *   Promise<{lease_seconds: number}>, unsent: () => object[], take: (assignment: object) => Promise<Held>,
   *   onchange: () => void}} options unsent: assignments whose judgment the server may not have yet
   */
  constructor(options) {
    Object.assign(this, options);
    this.held = [];
    this.aside = new Set();
    this.tries = 0;
  }

  /** The item in work. @returns {Held | undefined} */
  get first() {
    return this.held[0];
  }

  /** Put an item before all others. */
  putFirst(item) {
    this.held.unshift(item);
  }

  drop(item) {
    this.held = this.held.filter((one) => one !== item);
  }

  /**
   * Claim until enough items wait, one at a time; what fails is tried again. Asked while a claim is on its way, it looks
   * once more after it: what the claim found may be from before the quiz was passed, or an item set free.
   */
  async fill() {
    clearTimeout(this.timer);
    this.again = this.busy;
    if (this.busy || this.stopped) return;
    this.busy = true;
    try {
      do {
        this.again = false;
        while (this.held.length <= AHEAD && (await this.#one()));
      } while (this.again);
      this.trouble = null;
      this.tries = 0;
    } catch (error) {
      this.trouble = error;
      this.tries += 1;
    }
    this.busy = false;
    const wait = this.trouble ? pause(this.tries, this.trouble.wait) : 1000 * LOOK_AGAIN;
    if (this.trouble || this.empty) this.timer = setTimeout(() => this.fill(), wait);
    this.onchange();
  }

  /** Let go of everything: another tab works now. */
  stop() {
    this.stopped = true;
    clearTimeout(this.timer);
  }

  /** Begin the lease anew. An item that is not in hand any more is marked as lost. @returns {Promise<boolean>} */
  async prolong(item) {
    try {
      const { lease_seconds: seconds } = await this.extend(item.assignment.id);
      item.until = Date.now() + 1000 * seconds;
      item.lost = false;
    } catch (error) {
      if (!(error instanceof Refused) || error.status !== 409) return false;
      item.lost = true;
    }
    return !item.lost;
  }

  /** One claim. @returns {Promise<boolean>} whether there was an item */
  async #one() {
    const unsent = this.unsent();
    const live = this.held.filter((one) => !one.opened).map((one) => one.assignment);
    const besides = new Set([...[...live, ...unsent].map((one) => one.id), ...this.aside]);
    const { assignment } = await this.claim([...besides].slice(0, MOST));
    this.empty = assignment === null;
    if (this.empty || this.stopped || besides.has(assignment.id)) return false;
    await this.#put(assignment, unsent);
    return true;
  }

  /** An item that we hold under a lease that is over comes back under a new one: the work on it goes on. */
  async #put(assignment, unsent) {
    const isSame = (one) => one.item === assignment.item;
    const known = this.held.find((one) => isSame(one.assignment));
    if (known) {
      const { until } = await this.take(assignment);
      Object.assign(known, { assignment, until, lost: false });
    } else if (unsent.some(isSame)) {
      this.aside.add(assignment.id);
    } else {
      this.held.push(await this.take(assignment));
      this.onchange();
    }
  }
}
