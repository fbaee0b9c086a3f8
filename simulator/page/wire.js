// What went over the wire, both ways: the journal in words, filtered, each line with its JSON.

import { byId, h, say } from "./dom.js";
import { End } from "./end.js";
import { nameOf } from "./people.js";
import { moment } from "./time.js";
import { visible } from "./views.js";
import { GROUPS, SOURCES, tell } from "./words.js";

const AT_ONCE = 300;
const NEAR_END = 60;
const MARKS = { good: "✓", bad: "✗", odd: "⚡" };
const WAYS = { to: ["→", "to the bot"], from: ["←", "from the bot"], here: ["·", "here"] };

const groups = new Set(GROUPS.filter(([, , , on]) => on).map(([name]) => name));
const inWords = new WeakMap();
let end;
let told = 0; // the last entry that is in the list
let seen = 0; // the last entry that there was when the list was last in sight

export function start(model) {
  byId("wire-kinds").append(...GROUPS.map(([name, label, text]) => chip(name, label, text, () => redraw(model))));
  byId("wire-who").addEventListener("change", () => redraw(model));
  byId("sources").append(...SOURCES.flatMap(([name, where]) => [h("dt", {}, name), h("dd", {}, where)]));
  model.on("journal", () => draw(model));
  model.on("active", () => redraw(model));
  end = new End(byId("wire-scroll"), NEAR_END);
  document.addEventListener("viewchange", () => draw(model));
}

function chip(name, label, text, change) {
  return h("button", { type: "button", class: "chip", "aria-pressed": String(groups.has(name)), title: text, onclick: (event) => {
    if (!groups.delete(name)) groups.add(name);
    event.currentTarget.setAttribute("aria-pressed", String(groups.has(name)));
    change();
  } }, label);
}

function redraw(model) {
  told = 0;
  end.begin();
  byId("wire").replaceChildren();
  draw(model);
}

function draw(model) {
  const fresh = model.entries.filter((entry) => entry.seq > told);
  if (!model.entries.length) byId("wire").replaceChildren();
  const lines = fresh.map((entry) => ({ entry, words: wordsOf(entry) })).filter((line) => wanted(model, line));
  add(model, lines.slice(-AT_ONCE));
  count(model);
  told = model.entries.at(-1)?.seq ?? 0;
}

/** An entry in words, found once. */
function wordsOf(entry) {
  if (!inWords.has(entry)) inWords.set(entry, tell(entry));
  return inWords.get(entry);
}

function wanted(model, { entry, words }) {
  return groups.has(words.group) && concerns(model, entry);
}

/** Whether an entry is about whoever was chosen; what is about nobody concerns everybody on its Page. */
function concerns(model, entry) {
  const person = model.person();
  if (!person || byId("wire-who").value === "all") return true;
  if (entry.page_id && entry.page_id !== person.page_id) return false;
  if (!entry.psid && !entry.psids) return true;
  return entry.psid === person.psid || Boolean(entry.psids?.includes(person.psid));
}

function add(model, lines) {
  const list = byId("wire");
  list.append(...lines.map((line) => row(model, line)));
  while (list.children.length > AT_ONCE) list.firstElementChild.remove();
  end.stay();
  byId("wire-empty").hidden = list.children.length > 0;
  const hidden = model.entries.filter((entry) => !groups.has(wordsOf(entry).group) && concerns(model, entry)).length;
  say(byId("wire-hidden"), hidden ? `${hidden} of other kinds are hidden` : "");
}

function row(model, { entry, words }) {
  const [arrow, way] = WAYS[words.way];
  const who = nameFor(model, entry);
  const details = h("details", { class: `line ${words.way} ${words.tone ?? ""}` },
    h("summary", {},
      h("span", { class: "arrow", "aria-hidden": "true" }, arrow),
      h("span", { class: "line-text" },
        h("span", { class: "line-head" },
          h("span", { class: "sr" }, `${way}: `),
          h("span", { class: "line-title" }, words.title),
          words.outcome ? h("span", { class: "outcome" }, words.outcome) : null),
        h("span", { class: "faint small" }, [moment(entry.at, "second"), who].filter(Boolean).join(" · ")),
        words.said ? h("span", { class: "said" }, words.said) : null,
        words.rule ? h("span", { class: "rule" }, h("span", { "aria-hidden": "true" }, `${MARKS[words.tone] ?? ""} `), words.rule) : null)));
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(h("pre", { tabindex: "0" }, JSON.stringify(entry, null, 2)));
  });
  return h("li", {}, details);
}

function nameFor(model, entry) {
  if (entry.psids) return `${entry.psids.length} people`;
  const key = model.keyFor(entry);
  return key ? nameOf(model.people.get(key) ?? entry) : "";
}

/** The number on the tab: what went wrong and was not seen yet, whatever the list was drawn for since. */
function count(model) {
  const last = model.entries.at(-1)?.seq ?? 0;
  if (visible("wire") || last < seen) seen = last; // a simulator started anew counts from the beginning
  const unseen = model.entries.filter((entry) => entry.seq > seen && wentWrong(model, entry)).length;
  byId("wire-badge").hidden = !unseen;
  say(byId("wire-badge"), String(unseen));
}

function wentWrong(model, entry) {
  const words = wordsOf(entry);
  return Boolean(words.tone) && words.tone !== "good" && !model.isPast(entry) && wanted(model, { entry, words });
}
