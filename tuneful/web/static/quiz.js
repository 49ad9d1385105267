/**
 * What a labeler is told of the quiz: where they stand in it, and what each question teaches.
 *
 * @typedef {object} Trying
 * @property {number} quiz known items that it asks
 * @property {number} pass_share what has to be right of the last so many
 * @property {number} answered may be more than it asks, when those were not enough
 * @property {number | null} right share right of the last so many
 */

import { make, markEmpty, textOf, turnsOf } from "./texts.js";

/** Rounded down, so that too little never looks like enough. */
const percent = (share) => `${Math.floor(100 * share + 1e-9)} %`;

const YES_NO = ["no", "yes"];

/** Above the question. @param {Trying} trying */
export function questionText(trying) {
  const { quiz, pass_share: enough, answered } = trying;
  if (answered >= quiz) return `One more question of the quiz. ${soFar(trying)}`;
  const rule = `With at least ${percent(enough)} right in all you pass, and go on to the items that count.`;
  return `Question ${answered + 1} of ${quiz} of the quiz. After each you see the known answer. ${rule}`;
}

/** After the last question there is. @param {Trying} trying */
export function failedText(trying) {
  const more = "Ask the lead of this project, who can give you more questions.";
  return `You have not passed the quiz yet. ${trying.answered ? `${soFar(trying)} ` : ""}${more}`;
}

function soFar({ quiz, pass_share: enough, right }) {
  const last = quiz === 1 ? "the last question" : `the last ${quiz} questions`;
  return `In ${last} ${percent(right)} was right; you pass with at least ${percent(enough)}.`;
}

/**
 * The question again, with the known answer beside one's own.
 * @param {Trying | null} trying null when the quiz is passed now
 */
export function showLesson(section, { assignment, body }, { right, ranks, values, why, passed }, trying, kindName) {
  const verdict = passed ? " You have passed: from here on your judgments count." : "";
  section.querySelector("h2").textContent = `${Math.round(100 * right)} % right.${verdict}`;
  const standing = section.querySelector("#lesson-quiz");
  standing.hidden = !trying;
  if (trying) {
    const { answered, quiz } = trying;
    standing.textContent =
      answered < quiz ? `That was question ${answered} of ${quiz} of the quiz.` : `Not passed yet. ${soFar(trying)}`;
  }
  section.querySelector("#lesson-why").textContent = why;
  section.querySelector("#lesson-prompt").replaceChildren(turnsOf(assignment.prompt));
  const shown = (said, id) => {
    const value = said.ranks?.[id] ?? said.values?.[id] ?? said.values?.[assignment.criterion];
    return String((kindName === "binary" ? YES_NO[value] : value) ?? "–");
  };
  const row = ({ id, text }, place) => {
    const letter = String.fromCharCode(65 + place);
    const cells = [body, { ranks, values }].map((said) => make("td", { textContent: shown(said, id) }));
    const box = make("div", { className: "text", dir: "auto", tabIndex: 0 }, textOf(text));
    markEmpty(box, text);
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", `Text of ${letter}`);
    return make("tr", {}, make("th", { scope: "row", textContent: letter }), ...cells, make("td", {}, box));
  };
  section.querySelector("tbody").replaceChildren(...assignment.answers.map(row));
  section.hidden = false;
  section.querySelector("button").focus({ preventScroll: true });
  scrollTo(0, 0);
}
