/**
 * What the browser keeps: drafts, judgments on their way, and the last ones sent. All of it lies in IndexedDB.
 *
 * A judgment stays in the outbox until the server has acknowledged it. It bears an id made here, so sending it twice,
 * from two tabs or after a lost answer, is sending it once. What the server refuses is kept and shown, never dropped.
 *
 * @typedef {object} Entry
 * @property {string} id of the judgment
 * @property {string} rater whose it is; another rater at this browser does not send it
 * @property {string} project
 * @property {object} assignment as it was claimed
 * @property {object} kept the sheet, to open it again
 * @property {string} path
 * @property {object} body
 * @property {number} at milliseconds since 1970
 * @property {boolean} [optional] not worth keeping when the server refuses it: an item given back that is not held
 * @property {string} [refused] why the server does not take it
 */

import { Refused, pause } from "./http.js";

const MONTH = 30 * 24 * 3600 * 1000;
const REMEMBERED = 10;
const LATER = [401, 403, 408, 429];

/** @returns {string} a random UUID, also where `crypto.randomUUID` is missing: pages that came over plain HTTP */
export function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** Drafts and entries on disk; in memory alone where the browser has no IndexedDB, and `lasting` is false then. */
export class Shelf {
  /** @param {IDBDatabase | null} database */
  constructor(database) {
    this.database = database;
    this.memory = { drafts: new Map(), outbox: new Map(), done: new Map() };
  }

  static async open() {
    const shelf = new Shelf(await openDatabase().catch(() => null));
    navigator.storage?.persist?.();
    for (const draft of await shelf.all("drafts")) {
      if (draft.at < Date.now() - MONTH) shelf.remove("drafts", draft.id);
    }
    return shelf;
  }

  get lasting() {
    return this.database !== null;
  }

  async put(store, row) {
    if (this.lasting) await this.#ask(store, "readwrite", (rows) => rows.put(row));
    else this.memory[store].set(row.id, row);
  }

  async remove(store, id) {
    if (this.lasting) await this.#ask(store, "readwrite", (rows) => rows.delete(id));
    else this.memory[store].delete(id);
  }

  async find(store, id) {
    return this.lasting ? this.#ask(store, "readonly", (rows) => rows.get(id)) : this.memory[store].get(id);
  }

  /** Rows in the order of their time. */
  async all(store) {
    const rows = this.lasting
      ? await this.#ask(store, "readonly", (found) => found.getAll())
      : [...this.memory[store].values()];
    return rows.sort((a, b) => a.at - b.at);
  }

  #ask(store, mode, question) {
    return new Promise((resolve, reject) => {
      const transaction = this.database.transaction(store, mode);
      const request = question(transaction.objectStore(store));
      transaction.commit();
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => reject(transaction.error);
    });
  }
}

function openDatabase() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open("tuneful", 1);
    request.onupgradeneeded = () => {
      for (const store of ["drafts", "outbox", "done"]) request.result.createObjectStore(store, { keyPath: "id" });
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** Judgments on their way, in the order in which they were made. */
export class Outbox {
  /**
   * @param {Shelf} shelf
   * @param {{rater: string, project: string, post: Function, onchange: () => void,
   *   onreceipt: (entry: Entry, receipt: object) => void, ontrouble: (error: Refused | null) => void}} options
   */
  constructor(shelf, options) {
    Object.assign(this, options);
    this.shelf = shelf;
    this.entries = [];
    this.done = [];
    this.tries = 0;
    addEventListener("online", () => this.deliver());
    document.addEventListener("visibilitychange", () => document.hidden || this.deliver());
  }

  /** Read what is kept of this rater and project. */
  async load() {
    const mine = (entry) => entry.rater === this.rater && entry.project === this.project;
    this.entries = (await this.shelf.all("outbox")).filter(mine);
    this.done = (await this.shelf.all("done")).filter(mine).slice(-REMEMBERED);
    this.onchange();
  }

  get waiting() {
    return this.entries.filter((entry) => !entry.refused);
  }

  get refused() {
    return this.entries.filter((entry) => entry.refused);
  }

  /** Keep `entry` and send it. Rejects when the browser could not keep it; it is sent all the same. */
  add(entry) {
    const whole = { ...entry, rater: this.rater, project: this.project, at: Date.now() };
    this.entries.push(whole);
    this.onchange();
    return this.shelf.put("outbox", whole).finally(() => void this.deliver());
  }

  /** Remember what was sent for an assignment, for the ten last ones, so that it can be opened again. */
  async remember(done) {
    this.done = [...this.done.filter((one) => one.id !== done.id), done];
    const whole = { ...done, rater: this.rater, project: this.project, at: Date.now() };
    await this.shelf.put("done", whole);
    for (const old of this.done.splice(0, this.done.length - REMEMBERED)) this.shelf.remove("done", old.id);
  }

  /** Take `entry` out. Where the browser cannot, it is sent again some day, which does no harm. */
  async drop(entry) {
    this.entries = this.entries.filter((one) => one.id !== entry.id);
    this.onchange();
    await this.shelf.remove("outbox", entry.id).catch(() => undefined);
  }

  /** Send everything that waits; what does not go out is tried again after growing waits. */
  async deliver() {
    this.asked = true;
    if (this.busy) return;
    this.busy = true;
    let trouble = null;
    while (this.asked) {
      this.asked = false;
      trouble = await this.#round();
    }
    this.busy = false;
    this.ontrouble(trouble);
    clearTimeout(this.timer);
    this.tries = trouble ? this.tries + 1 : 0;
    if (trouble) this.timer = setTimeout(() => this.deliver(), pause(this.tries - 1, trouble.wait));
  }

  /** One try for each entry. A revision is not sent before what it revises. @returns {Promise<Refused | null>} */
  async #round() {
    const held = new Set();
    let trouble = null;
    for (const entry of this.waiting) {
      if (held.has(entry.assignment.id)) continue;
      const error = await this.#send(entry);
      if (!error) continue;
      trouble = error;
      held.add(entry.assignment.id);
      if (error.status === 0 || error.status === 401) break;
    }
    return trouble;
  }

  async #send(entry) {
    let receipt;
    try {
      receipt = await this.post(entry.path, entry.body);
    } catch (error) {
      if (!isFinal(error)) return error instanceof Refused ? error : new Refused(0, error.message);
      await this.#refuse(entry, error.message);
      return null;
    }
    await this.drop(entry);
    this.onreceipt(entry, receipt);
    return null;
  }

  async #refuse(entry, why) {
    if (entry.optional) return this.drop(entry);
    entry.refused = why;
    this.onchange();
    return this.shelf.put("outbox", entry);
  }
}

function isFinal({ status }) {
  return status >= 400 && status < 500 && !LATER.includes(status);
}
