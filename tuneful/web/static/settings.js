/** What a labeler has set for this browser, kept in localStorage. A browser that keeps nothing forgets it. */

const NAME = "tuneful.labeling";

/**
 * @typedef {object} Settings
 * @property {boolean} letters whether single characters are keys at all
 * @property {string} keys the keys of the answers A to I
 * @property {number} size of the text, in percent
 * @property {boolean} linked cards scroll together
 * @property {boolean} shared what answers have in common is marked
 * @property {boolean} earlier the earlier turns are open
 */

const DEFAULTS = { letters: true, keys: "abcdefghi", size: 100, linked: false, shared: false, earlier: true };

/** @returns {Settings} */
export function loadSettings() {
  return { ...DEFAULTS, ...JSON.parse(recall(NAME) ?? "{}") };
}

export function saveSettings(settings) {
  remember(NAME, JSON.stringify(settings));
}

/** @returns {string | null} */
export function recall(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

export function remember(name, text) {
  try {
    localStorage.setItem(name, text);
  } catch {
    return;
  }
}

/** @returns {boolean} nine different letters */
export function areKeys(keys) {
  return /^[a-z]{9}$/.test(keys) && new Set(keys).size === 9;
}
