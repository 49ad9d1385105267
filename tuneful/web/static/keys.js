/**
 * What a key means on the labeling page. The letters of the answers come first; a command whose letter an answer has
 * is reached with Shift. Chords with Ctrl, Alt or Meta are left to the browser, but for undo and Ctrl+Enter.
 *
 * @typedef {{answer: number} | {digit: number} | {act: string} | {command: string}} Meaning
 */

/** Commands of every kind of task: key, and what it does. */
export const COMMANDS = {
  submit: ["Enter", "submit, when everything is said"],
  previous: ["[", "focus the answer before"],
  next: ["]", "focus the answer after"],
  flags: ["x", "flags of the focused answer"],
  unrateable: ["u", "unrateable: nobody can judge this item"],
  skip: ["s", "skip, with a reason"],
  undo: ["z", "open the last submit again"],
  extend: ["e", "more time for this item"],
  instructions: ["h", "instructions"],
  keys: ["?", "this list"],
};

const isLetter = (key) => /^[a-z]$/.test(key);

/** The key of a command as it is now, with so many answers on the page. */
export function keyOf(command, { kind, settings, count }) {
  if (command === "submit" && kind.submitKey) return kind.submitKey;
  const key = commandKey(command, { kind });
  if (!isLetter(key)) return key;
  return settings.keys.slice(0, count).includes(key) ? `Shift+${key.toUpperCase()}` : key.toUpperCase();
}

/**
 * @param {KeyboardEvent} event
 * @param {{kind: import("./kinds.js").Kind, settings: import("./settings.js").Settings, count: number}} page
 * @returns {Meaning | null}
 */
export function meaning(event, page) {
  if (event.isComposing || event.target.closest?.("dialog")) return null;
  if (isChord(event)) return chord(event);
  if (isTaken(event.target, event.key)) return null;
  const single = event.key.length === 1;
  if (single && !page.settings.letters) return null;
  const key = single ? event.key.toLowerCase() : event.key;
  const answer = page.settings.keys.slice(0, page.count).indexOf(key);
  if (isLetter(key) && answer >= 0 && !event.shiftKey) return { answer };
  if (Object.hasOwn(page.kind.keys, key)) return { act: key };
  if (/^[0-9]$/.test(key)) return { digit: Number(key) };
  const command = Object.keys(COMMANDS).find((name) => commandKey(name, page) === key);
  return command ? { command } : null;
}

function commandKey(name, { kind }) {
  return name === "flags" ? kind.flagKey : COMMANDS[name][0];
}

/** Whether the element under the key needs it: text fields take all keys, buttons Enter, radio groups the arrows. */
function isTaken(target, key) {
  if (target.closest?.("textarea, select, input:not([type=radio], [type=checkbox])")) return true;
  if (target.closest?.("button, a, summary")) return key === "Enter" || key === " ";
  if (target.matches?.("[type=checkbox]")) return key === "Enter" || key === " ";
  return Boolean(target.matches?.("input")) && (key === " " || key.startsWith("Arrow"));
}

function isChord(event) {
  return (event.ctrlKey || event.altKey || event.metaKey) && !event.getModifierState("AltGraph");
}

function chord(event) {
  const writes = event.target.matches?.("textarea, input:not([type=radio], [type=checkbox])");
  if (event.ctrlKey && event.key === "Enter") return { command: "submit" };
  if (event.ctrlKey && event.key === "z" && !writes) return { command: "back" };
  return null;
}
