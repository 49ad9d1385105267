/**
 * The labeling page: an item is taken from the hand, judged, put into the outbox, and the next one is there at once.
 *
 * The server is never waited for between two items. What a labeler does is kept in this browser before it is sent,
 * so that a lost network, session or tab loses nothing.
 */

import { Desk } from "./desk.js";
import { Drafts, startClock, stopClock } from "./drafts.js";
import { Drawer } from "./drawer.js";
import { Hand } from "./hand.js";
import { connect } from "./http.js";
import { keyOf, meaning } from "./keys.js";
import { KINDS, blank, keep, restore, setValue, stepBack } from "./kinds.js";
import { watchLease } from "./lease.js";
import { Outbox, Shelf, uuid } from "./outbox.js";
import { Notices, askReason, showKeys } from "./panels.js";
import { failedText, questionText, showLesson } from "./quiz.js";
import { isPlaced, place, toggleFlag, unplace } from "./ranking.js";
import { loadSettings, saveSettings } from "./settings.js";
import { Standing, showCriteria } from "./standing.js";
import { shareWork } from "./tabs.js";
import { make } from "./texts.js";

const SEND_DRAFTS_EVERY = 5_000;
const KEPT = "Your work is kept in this browser and goes out by itself.";

const find = (selector) => document.querySelector(selector);
const say = (text) => (find("#live").textContent = text);

/** Said, and shown beside the submit button until the next thing that is done. */
function tell(text) {
  say(text);
  find("#told").textContent = text;
}

for (const name of ["keydown", "pointerdown"]) {
  document.addEventListener(name, ({ repeat }) => repeat || find("#told").replaceChildren(), true);
}

const main = find("#labeling");
const { project, rater, kind: kindName } = main.dataset;
const kind = KINDS[kindName];
const settings = loadSettings();
const server = connect(main);
const notices = new Notices(find("#notices"), say);
const standing = new Standing({ bar: find("#done"), count: find("#count"), badge: find("#outbox") });

/** @type {import("./hand.js").Held | null} the item on the page */
let current = null;
/** The quiz judgment whose lesson comes before the next item. @type {string | null} */
let awaited = null;
/** Another tab works, and this one only shows. */
let watching = false;
let hand, shelf, outbox, drafts, takeOver;

// What clicks and typing do to the sheet of the item.

const desk = new Desk(kindName, settings, {
  focus,
  focusCard,
  set,
  write,
  put: putInto,
  place: (answer, tier) => change(place(current.sheet, answer, tier), answer),
  flag: (answer, name) => change(toggleFlag(current.sheet, answer, name)),
  value: (name, number) => change(setValue(current.sheet, name, number)),
  choose: (chosen) => change(chosen(current.sheet), current.focused),
  start: (text) => current.sheet.text.trim() || write({ text }),
  pick(tier, byPointer) {
    putInto(current.focused, tier);
    if (byPointer) desk.cards.focus(current.focused); // so that keys are for the card, not for the button
  },
});
const drawer = new Drawer(find("#instructions"), find("[data-command=instructions]"), {
  get: server.get,
  project,
  onfirst: () => notices.tell("read", "Read the instructions before you begin.", { label: "Open them", act: read }),
  onread: () => notices.clear("read"),
});

function read() {
  drawer.toggle(true);
}

/** The next sheet of the item on the page; `about` is the answer that the live region speaks of. */
function change(sheet, about) {
  if (sheet === current.sheet) return;
  current.sheet = sheet;
  drafts.keep(current);
  desk.paint(current);
  if (sheet.joining) say("The next letter joins the last tier");
  else if (about) say(kind.sentence(sheet, about));
}

/** What is written is no step of undo: a text field has its own. */
function write(fields) {
  change({ ...current.sheet, ...fields });
}

function putInto(answer, tier) {
  change(tier ? place(current.sheet, answer, tier) : unplace(current.sheet, answer), answer);
  focus(answer);
}

function focus(answer) {
  if (current.focused === answer) return;
  current.focused = answer;
  desk.paint(current);
}

function focusCard(answer) {
  focus(answer);
  desk.cards.focus(answer, { reveal: true });
}

function focusBy(step) {
  const { answers } = current.sheet;
  focusCard(answers[(answers.indexOf(current.focused) + step + answers.length) % answers.length]);
}

/** A setting of the labeler's; the item is shown anew with it. */
function set(name, value) {
  if (settings[name] === value) return;
  settings[name] = value;
  saveSettings(settings);
  if (current && name !== "earlier") desk.show(current);
}

// What keys do.

document.addEventListener("keydown", (event) => {
  const isOurs = event.target === document.body || main.contains(event.target);
  const meant = isOurs && !watching ? meaning(event, desk.page(current)) : null;
  if (meant && act(meant, event.repeat)) event.preventDefault();
});

/** @returns {boolean} whether the key was for us */
function act(meant, repeated) {
  if (meant.command) return runCommand(meant.command, repeated);
  if (!current) return false;
  if (meant.answer !== undefined) typeLetter(current.sheet.answers[meant.answer]);
  else if (meant.digit !== undefined) giveDigit(meant.digit);
  else pressKey(meant.act);
  return true;
}

function typeLetter(answer) {
  change(kind.letter(current.sheet, answer), answer);
  focus(answer);
  desk.cards.focus(answer);
}

/** Tier or points for the focused answer; the focus goes on to the next that has none. */
function giveDigit(digit) {
  const { focused } = current;
  change(kind.digit(current.sheet, digit, focused), focused);
  const { answers } = current.sheet;
  const after = [...answers.slice(answers.indexOf(focused)), ...answers];
  const open = after.find((answer) => !isPlaced(current.sheet, answer));
  if (kind.scale && isPlaced(current.sheet, focused) && open) focusCard(open);
}

function pressKey(key) {
  const { sheet, focused } = current;
  change(kind.keys[key](sheet, focused), key === "Backspace" ? sheet.order.at(-1) : focused);
}

const COMMANDS = {
  undo: openLast,
  instructions: () => drawer.toggle(),
  keys: () => showKeys(find("#keys-dialog"), desk.page(current), set),
};
const COMMANDS_OF_ITEM = {
  submit,
  extend,
  previous: () => focusBy(-1),
  next: () => focusBy(1),
  flags: () => desk.cards.openFlags(current.focused),
  back: () => change(stepBack(current.sheet), current.focused),
  skip: () => askWhy("skip"),
  unrateable: () => askWhy("unrateable"),
};

/** A key that is held down runs its command once. */
function runCommand(name, repeated = false) {
  const command = COMMANDS[name] ?? (current && COMMANDS_OF_ITEM[name]);
  if (command && !repeated) command();
  return Boolean(command);
}

for (const button of document.querySelectorAll("[data-command]")) {
  button.addEventListener("click", () => runCommand(button.dataset.command));
}
find("#leave").addEventListener("click", () => finish(current));
find("#lesson-next").addEventListener("click", () => {
  find("#lesson").hidden = true;
  advance();
});

// The item on the page.

/** @param {import("./hand.js").Held} item */
function show(item) {
  stopClock(current);
  current = item;
  item.focused ??= item.sheet.answers[0];
  notices.clear("lease");
  find("#pause").hidden = true;
  find("#told").replaceChildren();
  desk.show(item);
  tellQuiz(item);
  desk.takeFocus(item);
  scrollTo(0, 0);
  startClock(item);
  if (item.restored) tell("Your draft is back");
  item.restored = false;
  if (!item.opened && item.until - Date.now() < item.lease / 2) hand.prolong(item);
}

function tellQuiz({ assignment }) {
  const line = find("#quiz");
  line.hidden = !assignment.quiz || !standing.quiz;
  if (!line.hidden) say((line.textContent = questionText(standing.quiz)));
}

function advance() {
  stopClock(current);
  current = null;
  standing.show(outbox);
  showNext();
  hand.fill();
}

function showNext() {
  if (current) return;
  if (hand.first && !isBlocked()) show(hand.first);
  else showPause();
}

/** A lesson of the quiz comes before the next item. */
function isBlocked() {
  return awaited !== null || !find("#lesson").hidden;
}

function showPause() {
  const pause = find("#pause");
  desk.hide();
  pause.hidden = !find("#lesson").hidden;
  const text = pauseText();
  if (pause.textContent !== text) pause.replaceChildren(make("p", { textContent: text }));
}

function pauseText() {
  if (watching) return "The work is in the other tab.";
  if (awaited) return "Looking at your answer …";
  if (hand.trouble || outbox.waiting.length) return "Waiting for the server …";
  if (!hand.empty) return "Fetching the next item …";
  return standing.quiz ? failedText(standing.quiz) : "There is nothing left for you here just now. Thank you.";
}

document.addEventListener("visibilitychange", () => (document.hidden ? stopClock(current) : startClock(current)));

// Handing in, giving back, opening again.

function submit() {
  const item = current;
  const { assignment, sheet, opened } = item;
  if (!kind.isReady(sheet)) return tell("Not everything is said yet");
  if (opened && !item.changed) return finish(item);
  stopClock(item);
  const seconds = Math.round(item.spent / 100) / 10;
  const said = { ranks: {}, values: {}, text: "", ...kind.said(sheet), flags: sheet.flags, note: sheet.note };
  const body = { id: uuid(), ...said, seconds, replaces: opened?.judgment ?? null, instructions: drawer.id };
  if (assignment.quiz) awaited = body.id;
  else standing.paces.push(seconds);
  putOut(item, { id: body.id, path: `/a/${assignment.id}/submit`, body }, body.id);
}

function askWhy(what) {
  const item = current;
  if (item.opened?.judgment) return notices.tell("judged", "This item is judged already; leave it or change it.");
  askReason(find("#skip-dialog"), what, (reason) => item === current && giveBack(item, reason));
}

function giveBack(item, reason) {
  stopClock(item);
  const path = `/a/${item.assignment.id}/skip`;
  putOut(item, { id: uuid(), path, body: { reason }, optional: true }, null);
}

/** Into the outbox, and on to the next. The draft goes when the outbox has the judgment. */
function putOut(item, entry, judgment) {
  const { assignment, sheet, refused } = item;
  const kept = { ...keep(sheet), spent: item.spent };
  const last = { id: assignment.id, assignment, kept, judgment };
  const added = [outbox.add({ ...entry, assignment, kept }), assignment.quiz ? null : outbox.remember(last)];
  const unkept = "This browser could not keep your judgment; leave the page open until it is sent.";
  Promise.all(added)
    .then(() => drafts.drop(assignment))
    .catch(() => notices.tell("shelf", unkept));
  if (refused) outbox.drop(refused).then(() => notices.clear(refused.id));
  item.handedIn = true;
  finish(item);
}

/** Done with an item. One that was opened and left goes back to those that can be opened. */
function finish(item) {
  if (item.opened?.from && !item.handedIn) outbox.done.push(item.opened.from);
  hand.drop(item);
  advance();
}

/** Open the last item that was handed in or given back; what is said of it now replaces what was said. */
function openLast() {
  const last = isBlocked() ? undefined : outbox.done.pop();
  if (!last) return tell("There is nothing to open again");
  const refused = outbox.refused.find((entry) => entry.id === last.judgment);
  if (refused) return openRefused(refused);
  open(last, { opened: { judgment: last.judgment, from: last } });
  tell("The last item is open again");
}

function openRefused(entry) {
  if (hand.held.some((item) => item.refused === entry)) return;
  open(entry, { opened: { judgment: entry.body.replaces }, refused: entry, changed: true });
}

function open({ assignment, kept }, how) {
  const sheet = restore(blank(kind, assignment), kept);
  hand.putFirst({ assignment, sheet, spent: kept.spent, until: Infinity, ...how });
  show(hand.first);
}

// What comes from the server.

/** @returns {Promise<import("./hand.js").Held>} */
async function take(assignment) {
  const kept = await drafts.find(assignment);
  const lease = 1000 * assignment.lease_seconds;
  const sheet = kept ? restore(blank(kind, assignment), kept) : blank(kind, assignment);
  return { assignment, until: Date.now() + lease, lease, sheet, spent: kept?.spent ?? 0, restored: Boolean(kept) };
}

async function claim(besides) {
  const answer = await server.post(`/p/${project}/claim`, { besides });
  standing.progress = answer.progress;
  standing.learn(answer.quiz);
  standing.show(outbox);
  const newest = answer.assignment?.instructions;
  if (newest && drawer.id && newest !== drawer.id) loadInstructions();
  return answer;
}

function onreceipt(entry, receipt) {
  standing.progress = receipt.progress ?? standing.progress;
  if (receipt.late) {
    const counts = receipt.counted ? "and counts" : "but does not count, for others had judged the item";
    notices.tell("late", `A judgment came after its time was over. It is kept ${counts}.`);
  }
  if (entry.id === awaited) awaited = null;
  if (receipt.feedback) teach(entry, receipt);
  showNext();
  hand.fill();
  standing.show(outbox);
}

function teach(entry, { feedback, quiz }) {
  standing.learn(quiz);
  stopClock(current);
  current = null;
  showLesson(find("#lesson"), entry, feedback, quiz, kindName);
}

function onoutbox() {
  for (const entry of outbox.refused) {
    const way = { label: "Open it again", act: () => openRefused(entry) };
    notices.tell(entry.id, `The server refused a judgment: ${entry.refused}. It is kept here.`, way);
    if (entry.id === awaited) awaited = null;
  }
  standing.show(outbox);
  if (hand) showNext();
}

function onhand() {
  if (hand.trouble || !outbox.waiting.length) ontrouble(hand.trouble);
  showNext();
}

function ontrouble(error) {
  if (!error) return notices.clear("trouble");
  if (error.status === 401) {
    const act = () => location.assign(`/login?next=${encodeURIComponent(location.pathname)}`);
    return notices.tell("trouble", `You are logged out. ${KEPT}`, { label: "Log in", act });
  }
  const why = error.status ? `The server said: ${error.message}.` : "The server cannot be reached.";
  notices.tell("trouble", `${why} ${KEPT}`, { label: "Try now", act: retry });
}

function retry() {
  outbox.deliver();
  hand.fill();
}

function loadInstructions() {
  return drawer.load().catch(ontrouble);
}

// Time and tabs.

function tick() {
  if (!current || current.opened || watching) return;
  watchLease(current, notices, { label: "More time", act: extend }, keyOf("extend", desk.page(current)));
}

/** More time for this item, and for those that wait behind it. */
async function extend() {
  const item = current;
  if (!item || item.opened) return;
  const isMore = await hand.prolong(item);
  for (const other of hand.held) if (isMore && other !== item && !other.opened) hand.prolong(other);
  tick();
  tell(isMore ? "You have more time for this item" : "There is no more time for this item");
}

/** Another tab of this project works now: this one only shows. */
function watch() {
  watching = true;
  hand?.stop();
  stopClock(current);
  find(".desk").inert = find(".bar").inert = true;
  if (!current) showPause();
  const text = "This project is open in another tab; here it is read-only.";
  notices.tell("tab", text, { label: "Work here instead", act: takeWork });
}

function takeWork() {
  takeOver();
  return work();
}

async function work() {
  watching = false;
  find(".desk").inert = find(".bar").inert = false;
  notices.clear("tab");
  await outbox.load();
  if (watching) return;
  hand = new Hand({
    claim,
    take,
    extend: (id) => server.post(`/a/${id}/extend`, {}),
    unsent: () => outbox.entries.map((entry) => entry.assignment),
    onchange: onhand,
  });
  advance();
  outbox.deliver();
}

async function start() {
  showCriteria(find("#criteria"), JSON.parse(main.dataset.criteria));
  shelf = await Shelf.open();
  if (!shelf.lasting) notices.tell("shelf", "This browser keeps nothing: leave the page open until all is sent.");
  const unkept = (error) => notices.tell("shelf", `This browser keeps no drafts: ${error.message}`);
  drafts = new Drafts(shelf, server.post, { onunkept: unkept, ontrouble });
  outbox = new Outbox(shelf, { rater, project, post: server.post, onchange: onoutbox, onreceipt, ontrouble });
  takeOver = shareWork(`tuneful ${project} ${rater}`, watch);
  await work();
  loadInstructions();
  setInterval(tick, 1000);
  setInterval(() => current && !watching && drafts.send(current), SEND_DRAFTS_EVERY);
}

start();
