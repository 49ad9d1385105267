/**
 * A ranking in the making: which answer stands in which tier. Pure functions from one state to the next, no page.
 *
 * Tier 1 is the best, and answers in one tier tie. A tier may stay empty while one works; `ranks` closes the gaps.
 * Every state holds the one before it, so undo is a step back.
 *
 * @typedef {object} Ranking
 * @property {readonly string[]} answers completion ids in the order shown: the first is A
 * @property {number} top how many tiers there are
 * @property {Readonly<Record<string, number>>} tiers where each placed answer stands
 * @property {readonly string[]} order placed answers, the one placed last at the end
 * @property {Readonly<Record<string, readonly string[]>>} flags what is wrong with an answer
 * @property {boolean} joining the next letter joins the last tier
 * @property {Ranking | null} before
 */

const ORDINALS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth"];

/** @returns {Ranking} nothing placed, nothing flagged */
export function begin(answers, top = answers.length) {
  return { answers: [...answers], top, tiers: {}, order: [], flags: {}, joining: false, before: null };
}

/** The next state: `state` with `change` in it, one undo away. */
export function step(state, change) {
  return { ...state, joining: false, ...change, before: state };
}

/** Back to the state before the last change; a tie that waits for its letter is called off first. */
export function undo(state) {
  return state.joining ? { ...state, joining: false } : (state.before ?? state);
}

/** @returns {string} A for the first answer shown, B for the second ... */
export function letterOf(state, answer) {
  return String.fromCharCode(65 + state.answers.indexOf(answer));
}

/** @returns {boolean} */
export function isPlaced(state, answer) {
  return Object.hasOwn(state.tiers, answer);
}

/** Put `answer` into `tier`, wherever it stood. */
export function place(state, answer, tier) {
  const known = state.answers.includes(answer) && tier >= 1 && tier <= state.top;
  if (!known || state.tiers[answer] === tier) return state;
  return put(state, state.tiers, answer, tier);
}

/** Type a letter: the answer goes behind the last tier, or into it after `tie`. One that has its place keeps it. */
export function type(state, letter) {
  const answer = state.answers[letter.toUpperCase().charCodeAt(0) - 65];
  if (answer === undefined || (isPlaced(state, answer) && !state.joining)) return state;
  return append(state, answer, state.joining);
}

/** The next letter joins the tier before it; said twice, it does not. Nothing to join, nothing happens. */
export function tie(state) {
  return state.order.length ? { ...state, joining: !state.joining } : state;
}

/** Move `answer` by so many tiers, -1 for one better; one without a place goes behind the last tier. */
export function move(state, answer, by) {
  if (!isPlaced(state, answer)) return append(state, answer, false);
  return place(state, answer, Math.min(state.top, Math.max(1, state.tiers[answer] + by)));
}

/** Take `answer` out of its tier; the one placed last when none is named. */
export function unplace(state, answer = state.order.at(-1)) {
  if (answer === undefined || !isPlaced(state, answer)) return state;
  return step(state, { tiers: omit(state.tiers, answer), order: state.order.filter((one) => one !== answer) });
}

/** Set the flag `name` on `answer`, or take it off. */
export function toggleFlag(state, answer, name) {
  const had = state.flags[answer] ?? [];
  const has = had.includes(name) ? had.filter((one) => one !== name) : [...had, name];
  const rest = omit(state.flags, answer);
  return step(state, { flags: has.length ? { ...rest, [answer]: has } : rest });
}

/** @returns {boolean} each answer has a tier or a flag */
export function isComplete(state) {
  return state.answers.every((answer) => isPlaced(state, answer) || Object.hasOwn(state.flags, answer));
}

/** @returns {Record<string, number | null>} 1 for the best tier in use, 2 for the next; null for what has no tier */
export function ranks(state) {
  const closed = close(state.tiers);
  return Object.fromEntries(state.answers.map((answer) => [answer, closed[answer] ?? null]));
}

/** @returns {string} for the live region: "B is now first, tied with D" */
export function sentence(state, answer) {
  const all = ranks(state);
  const rank = all[answer];
  if (rank === null) return `${letterOf(state, answer)} has no tier`;
  const ties = state.answers.filter((other) => other !== answer && all[other] === rank);
  const tied = ties.length ? `, tied with ${ties.map((other) => letterOf(state, other)).join(" and ")}` : "";
  return `${letterOf(state, answer)} is now ${ORDINALS[rank - 1]}${tied}`;
}

/** `table` without the key `name`. */
export function omit(table, name) {
  return Object.fromEntries(Object.entries(table).filter(([key]) => key !== name));
}

function append(state, answer, joining) {
  const others = omit(state.tiers, answer);
  const tiers = !joining && last(others) >= state.top ? close(others) : others;
  return put(state, tiers, answer, joining ? Math.max(1, last(tiers)) : last(tiers) + 1);
}

function put(state, tiers, answer, tier) {
  const order = [...state.order.filter((one) => one !== answer), answer];
  return step(state, { tiers: { ...tiers, [answer]: tier }, order });
}

function last(tiers) {
  return Math.max(0, ...Object.values(tiers));
}

/** The same order without empty tiers. */
function close(tiers) {
  const used = [...new Set(Object.values(tiers))].sort((a, b) => a - b);
  return Object.fromEntries(Object.entries(tiers).map(([answer, tier]) => [answer, used.indexOf(tier) + 1]));
}
