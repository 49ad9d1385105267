/**
 * The five kinds of task: what their keys do to a sheet, when it can be handed in, and what it says then. Pure.
 *
 * A sheet is a ranking in the making with what the other kinds need beside it. An answer's `tier` is its place in a
 * ranking or comparison and its points in a rating.
 *
 * @typedef {import("./ranking.js").Ranking & {criterion: string, values: Record<string, number>, text: string,
 *   note: string}} Sheet
 *
 * @typedef {object} Kind
 * @property {(count: number) => number} top tiers or points that an answer can get; 0: it gets none
 * @property {string} scale what the numbers on a card are called
 * @property {(sheet: Sheet, answer: string) => Sheet} letter
 * @property {(sheet: Sheet, digit: number, answer: string) => Sheet} digit
 * @property {Record<string, (sheet: Sheet, answer: string) => Sheet>} keys
 * @property {string} flagKey
 * @property {string} [submitKey] where Enter alone does not submit
 * @property {(sheet: Sheet) => boolean} isReady
 * @property {(sheet: Sheet) => {ranks?: object, values?: object, text?: string}} said
 * @property {(sheet: Sheet, answer: string) => string} sentence
 * @property {[string, string][]} help key and what it does
 */

import { begin, isComplete, isPlaced, letterOf, move, omit, place } from "./ranking.js";
import { ranks, sentence, step, tie, type, undo, unplace } from "./ranking.js";

export const FLAGS = ["gibberish", "unsafe", "refusal", "wrong-language", "truncated", "error"];

export const STRENGTHS = ["slightly better", "better", "much better"];

const same = (sheet) => sheet;

const back = (sheet) => (sheet.joining ? tie(sheet) : unplace(sheet));

const ranking = {
  top: (count) => count,
  scale: "Tier",
  letter: (sheet, answer) => type(sheet, letterOf(sheet, answer)),
  digit: (sheet, digit, answer) => place(sheet, answer, digit),
  keys: {
    "=": tie,
    Backspace: back,
    ArrowLeft: (sheet, answer) => move(sheet, answer, -1),
    ArrowRight: (sheet, answer) => move(sheet, answer, 1),
  },
  flagKey: "x",
  isReady: isComplete,
  said: (sheet) => ({ ranks: ranks(sheet), values: sheet.values }),
  sentence,
  help: [
    ["A …", "put that answer into the next tier"],
    ["=", "the next letter joins the tier before"],
    ["1 … 9", "put the focused answer into that tier"],
    ["← →", "move the focused answer one tier"],
    ["Backspace", "take out the answer placed last"],
  ],
};

const comparison = {
  top: () => 0,
  scale: "",
  letter: (sheet, answer) => choose(sheet, letterOf(sheet, answer)),
  digit: (sheet, digit) => strengthen(sheet, digit),
  keys: {
    "=": (sheet) => choose(sheet, "tie"),
    x: (sheet) => choose(sheet, "bad"),
    Backspace: (sheet) => choose(sheet, null),
  },
  flagKey: "f",
  isReady: isComplete,
  said: (sheet) => ({ ranks: ranks(sheet), values: sheet.values }),
  sentence: (sheet) => {
    const choice = choiceOf(sheet);
    const strength = sheet.values.strength ? STRENGTHS[sheet.values.strength - 1] : "better";
    return { tie: "Both are equally good", bad: "Both are bad" }[choice] ?? (choice ? `${choice} is ${strength}` : "");
  },
  help: [
    ["A …", "that answer is better"],
    ["1 2 3", "by how much"],
    ["=", "both are equally good"],
    ["X", "both are bad"],
    ["Backspace", "take the choice back"],
  ],
};

const binary = {
  top: () => 0,
  scale: "",
  letter: same,
  digit: (sheet, digit) => (digit <= 1 ? setValue(sheet, sheet.criterion, digit) : sheet),
  keys: {
    y: (sheet) => setValue(sheet, sheet.criterion, 1),
    n: (sheet) => setValue(sheet, sheet.criterion, 0),
    Backspace: (sheet) => setValue(sheet, sheet.criterion, null),
  },
  flagKey: "x",
  isReady: (sheet) => Object.hasOwn(sheet.values, sheet.criterion),
  said: (sheet) => ({ values: sheet.values }),
  sentence: (sheet) => ["No", "Yes"][sheet.values[sheet.criterion]] ?? "",
  help: [
    ["1 or Y", "yes"],
    ["0 or N", "no"],
  ],
};

const rating = {
  top: () => 7,
  scale: "Points",
  letter: same,
  digit: (sheet, digit, answer) => place(sheet, answer, digit),
  keys: {
    Backspace: back,
    ArrowLeft: (sheet, answer) => (isPlaced(sheet, answer) ? move(sheet, answer, -1) : sheet),
    ArrowRight: (sheet, answer) => (isPlaced(sheet, answer) ? move(sheet, answer, 1) : sheet),
  },
  flagKey: "x",
  isReady: isComplete,
  said: (sheet) => ({ values: { ...sheet.values, ...sheet.tiers } }),
  sentence: (sheet, answer) => {
    const points = sheet.tiers[answer];
    return `${letterOf(sheet, answer)} has ${points === undefined ? "no points" : `${points} of 7 points`}`;
  },
  help: [
    ["A …", "focus that answer"],
    ["1 … 7", "give the focused answer so many points"],
    ["← →", "one point less or more"],
    ["Backspace", "take the last points back"],
  ],
};

const demonstration = {
  top: () => 0,
  scale: "",
  letter: same,
  digit: same,
  keys: {},
  flagKey: "x",
  submitKey: "Ctrl+Enter",
  isReady: (sheet) => sheet.text.trim() !== "",
  said: (sheet) => ({ text: sheet.text }),
  sentence: () => "",
  help: [],
};

/** @type {Record<string, Kind>} */
export const KINDS = { ranking, comparison, binary, rating, demonstration };

/** @returns {Sheet} of an assignment, with nothing said */
export function blank(kind, assignment) {
  const answers = assignment.answers.map((answer) => answer.id);
  const sheet = begin(answers, kind.top(answers.length));
  return { ...sheet, criterion: assignment.criterion, values: {}, text: "", note: "" };
}

/** What a draft keeps of a sheet: plain JSON, without the way to it. */
export function keep({ tiers, order, flags, values, text, note }) {
  return { tiers, order, flags, values, text, note };
}

/** @returns {Sheet} as it was kept; what does not belong to these answers is left out */
export function restore(sheet, kept) {
  const known = ([answer]) => sheet.answers.includes(answer);
  const ofAnswers = (table) => Object.fromEntries(Object.entries(table ?? {}).filter(known));
  const { values, text, note } = { ...sheet, ...kept };
  const order = (kept.order ?? []).filter((answer) => sheet.answers.includes(answer));
  return { ...sheet, tiers: ofAnswers(kept.tiers), order, flags: ofAnswers(kept.flags), values, text, note };
}

/** Undo what was chosen last; what was written stays. */
export function stepBack(sheet) {
  return { ...undo(sheet), text: sheet.text, note: sheet.note };
}

/** Set a number of the sheet, or take it off with null. */
export function setValue(sheet, name, value) {
  if ((sheet.values[name] ?? null) === value) return sheet;
  const rest = omit(sheet.values, name);
  return step(sheet, { values: value === null ? rest : { ...rest, [name]: value } });
}

/** What a comparison says now. @returns {"A" | "B" | "tie" | "bad" | null} */
export function choiceOf(sheet) {
  const [a, b] = sheet.answers.map((answer) => sheet.tiers[answer]);
  if (a === undefined) return null;
  if (a === b) return sheet.values.both_bad ? "bad" : "tie";
  return a < b ? "A" : "B";
}

/** Choose in a comparison; null takes the choice back. How much better stays only where one is. */
export function choose(sheet, choice) {
  if (choiceOf(sheet) === choice) return sheet;
  const [a, b] = sheet.answers;
  const places = { A: [1, 2], B: [2, 1], tie: [1, 1], bad: [1, 1] }[choice];
  const better = choice === "A" || choice === "B";
  const rest = omit(better ? sheet.values : omit(sheet.values, "strength"), "both_bad");
  return step(sheet, {
    tiers: places ? { [a]: places[0], [b]: places[1] } : {},
    order: places ? [a, b] : [],
    values: choice === "bad" ? { ...rest, both_bad: 1 } : rest,
  });
}

function strengthen(sheet, digit) {
  const better = ["A", "B"].includes(choiceOf(sheet));
  return better && digit >= 1 && digit <= STRENGTHS.length ? setValue(sheet, "strength", digit) : sheet;
}
