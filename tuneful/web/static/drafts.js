/** Work that is not handed in yet: kept in this browser at each change, on the server every few seconds. */

import { keep } from "./kinds.js";

export class Drafts {
  /**
   * @param {import("./outbox.js").Shelf} shelf
   * @param {(path: string, body: object) => Promise<any>} post
   * @param {{onunkept: (error: Error) => void, ontrouble: (error: Error) => void}} told
   */
  constructor(shelf, post, told) {
    Object.assign(this, { shelf, post, told });
  }

  /** @param {import("./hand.js").Held} item */
  keep(item) {
    item.unsent = item.changed = true;
    this.shelf.put("drafts", { id: item.assignment.id, ...draftOf(item) }).catch(this.told.onunkept);
  }

  /** To the server, when there is something new. What was handed in has its judgment there. */
  async send(item) {
    if (!item.unsent || item.opened) return;
    item.unsent = false;
    try {
      await this.post(`/a/${item.assignment.id}/draft`, { content: draftOf(item) });
    } catch (error) {
      item.unsent = true;
      this.told.ontrouble(error);
    }
  }

  /** The newest draft of an assignment, ours or the server's. */
  async find(assignment) {
    const ours = await this.shelf.find("drafts", assignment.id).catch(() => undefined);
    const drafts = [ours, assignment.draft].filter(Boolean);
    return drafts.sort((a, b) => (b.at ?? 0) - (a.at ?? 0))[0];
  }

  drop(assignment) {
    return this.shelf.remove("drafts", assignment.id);
  }
}

function draftOf(item) {
  return { ...keep(item.sheet), spent: spentOn(item), at: Date.now() };
}

/** Count the time of an item from now; a hidden page does not count. */
export function startClock(item) {
  if (item && !document.hidden) item.since ??= performance.now();
}

export function stopClock(item) {
  if (!item) return;
  item.spent = spentOn(item);
  item.since = undefined;
}

function spentOn({ spent, since }) {
  return spent + (since === undefined ? 0 : performance.now() - since);
}
