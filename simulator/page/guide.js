// For newcomers: what to type first, and what to try next. It follows from what has happened.

import { skipADay } from "./clock.js";
import { write } from "./composer.js";
import { byId, h, keepingFocus } from "./dom.js";
import { perform } from "./messages.js";
import { complain, during } from "./notice.js";
import { nameOf } from "./people.js";
import { requestOf } from "./thread.js";

const FIRST_WORDS = ["do you have the canvas backpack?", "what’s new?", "what am I signed up for?"];
const ANSWER = "yes please";
const HIDDEN = "guide-hidden";

export function start(model, store) {
  const redraw = () => {
    keepingFocus(byId("empty"), () => drawEmpty(model));
    keepingFocus(byId("guide"), () => drawGuide(model, store));
  };
  model.on("thread active person clock", redraw);
  setInterval(redraw, 1000);
}

function drawEmpty(model) {
  const box = byId("empty");
  const thread = model.thread();
  const empty = Boolean(thread) && !thread.items.some((item) => item.mid);
  if (box.hidden === !empty && box.dataset.of === model.active) return;
  box.hidden = !empty;
  box.dataset.of = model.active;
  if (!empty) return;
  const name = model.page().name;
  box.replaceChildren(
    h("p", { class: "empty-title" }, `You are ${nameOf(model.person())}, and ${name} has not heard from you yet.`),
    h("p", { class: "faint" }, "Your first message opens a window of 24 hours in which the Page may answer. Try one of these:"),
    h("div", { class: "buttons" },
      FIRST_WORDS.map((words) => h("button", { type: "button", onclick: () => write(model, byId("message"), words) }, words)),
      h("button", { type: "button", class: "primary", onclick: (event) => during(event.currentTarget, () => perform(model, "postback", { payload: byId("get-started-payload").value })) }, "Get Started")));
}

function drawGuide(model, store) {
  const box = byId("guide");
  const tip = isHidden() ? null : next(model);
  const key = tip ? `${model.active} ${tip.text} ${tip.code}` : "";
  if (box.dataset.of === key) return;
  box.dataset.of = key;
  box.hidden = !tip;
  if (!tip) return;
  box.replaceChildren(...[
    h("p", {}, tip.text),
    tip.code ? h("p", { class: "code-line" }, h("code", { tabindex: "0" }, tip.code), copyButton(tip.code)) : null,
    tip.skip ? h("button", { type: "button", onclick: (event) => during(event.currentTarget, () => skipADay(store)) }, "Skip 25 hours") : null,
    tip.reply ? h("p", {}, "Or answer, which opens the window again: ", replyButton(model, tip.reply)) : null,
    h("button", { type: "button", class: "icon-button close", "aria-label": "Hide these tips", onclick: hide }, "×"),
  ].filter(Boolean));
}

/** The next thing worth trying, or null. */
function next(model) {
  const [thread, person] = [model.thread(), model.person()];
  if (!thread || !person?.window_until) return null;
  const agreed = thread.requests().findLast((item) => item.tapped);
  const open = person.window_until > model.now();
  if (!agreed) return null;
  const code = command(model, person, requestOf(agreed.content).payload);
  if (open && person.permissions) return { text: "You agreed to one message. While the window is open the Page needs no permission, so let it close:", skip: true };
  if (open) return null;
  if (person.permissions) return { text: "The window is closed, but the permission pays for one message. In a second terminal:", code };
  const end = person.last_permission === "lapsed" ? "has lapsed: it was good for a year" : "is used";
  return { text: `The permission ${end}. The same command is refused now, before anything is sent:`, code, reply: ANSWER };
}

function command(model, person, payload) {
  const topic = /^otn:([a-z0-9][a-z0-9_-]*)/.exec(payload)?.[1] ?? "TOPIC";
  const isElsewhere = [...model.people.values()].some((other) => other.psid === person.psid && other.page_id !== person.page_id);
  const page = isElsewhere ? ` --page ${person.page_id}` : "";
  return `.venv/bin/otn send ${person.psid}${page} --topic ${topic} --text "It is back!"`;
}

function replyButton(model, words) {
  return h("button", { type: "button", onclick: () => write(model, byId("message"), words) }, words);
}

function copyButton(text) {
  return h("button", { type: "button", class: "quiet", onclick: async (event) => {
    const button = event.currentTarget;
    await navigator.clipboard.writeText(text).then(() => { button.textContent = "Copied"; }, complain);
  } }, "Copy");
}

function isHidden() {
  try {
    return localStorage.getItem(HIDDEN) === "yes";
  } catch {
    return false;
  }
}

function hide() {
  try {
    localStorage.setItem(HIDDEN, "yes");
  } catch {
    // Without storage it comes back with the next page.
  }
  keepingFocus(byId("guide"), () => { byId("guide").hidden = true; });
}
