/** How long an item is the labeler's: told a minute before the end, with a key for more. */

const WARN_BEFORE = 60_000;

/**
 * Look at the time of the item in work and say what there is to say.
 *
 * @param {import("./hand.js").Held} item
 * @param {import("./panels.js").Notices} notices
 * @param {{label: string, act: () => void}} more the button for more time
 * @param {string} key that does the same
 */
export function watchLease(item, notices, more, key) {
  const left = item.until - Date.now();
  if (left > WARN_BEFORE && !item.lost) return notices.clear("lease");
  const seconds = Math.max(0, Math.ceil(left / 1000));
  if (!item.lost && seconds && notices.has("lease")) return notices.retell("lease", running(seconds, key));
  const over = `The time for this item is over. Press ${key} to ask for more; your judgment is kept in any case.`;
  const lost = "Another labeler may have this item by now. Go on if you like: your judgment is kept.";
  notices.tell("lease", item.lost ? lost : seconds ? running(seconds, key) : over, item.lost ? undefined : more);
}

function running(seconds, key) {
  return `This item is yours for ${seconds} s more. Press ${key} for more time.`;
}
