// The conversation. Only the latest messages are in the document; a button brings earlier ones.

import { act } from "./api.js";
import { contentOf } from "./content.js";
import { byId, h, keepingFocus, say } from "./dom.js";
import { End } from "./end.js";
import { complain, during, show as showNotice } from "./notice.js";
import { nameOf } from "./people.js";
import { offer } from "./reactions.js";
import { moment } from "./time.js";
import { visible } from "./views.js";

const AT_ONCE = 200;
const GAP_SECONDS = 3600;
const TYPING_MS = 20_000;
const NEAR_END = 80;
const SETTLED_MS = 300;
const MARKS = {
  answers: "Delivered",
  fails: "Not delivered yet: Messenger tries again",
  "given up": "Not delivered: Messenger gave up",
  untold: "Not delivered: the app was not subscribed to the Page",
};

let limit = AT_ONCE;
let shownKey = null;
let shown = []; // what is in the list, oldest first: {key, version, node}
let end;

export function start(model) {
  end = new End(byId("scroll"), NEAR_END, byId("messages"));
  model.on("thread active", () => draw(model));
  model.on("person thread", () => drawMark(model));
  document.addEventListener("viewchange", () => settle(model));
  document.addEventListener("visibilitychange", () => settle(model));
  byId("earlier").addEventListener("click", () => showEarlier(model));
  setInterval(() => drawTyping(model), 1000);
}

/** Runs something a person does, and says when it could not reach the bot at all. */
export async function perform(model, what, wish) {
  const { webhook } = await act(model.person(), what, wish);
  if (webhook && !webhook.attempts && webhook.note) showNotice(`The bot was not told: ${webhook.note}.`);
}

function draw(model) {
  const thread = model.thread();
  if (!thread) return clear();
  if (shownKey !== model.active) begin(model.active);
  const items = thread.items.slice(-limit);
  update(model, items);
  byId("earlier").hidden = thread.items.length <= limit;
  drawTyping(model);
  drawQuickReplies(model);
  end.stay();
  settle(model);
}

function clear() {
  begin(null);
  byId("messages").replaceChildren();
  drawQuickRepliesOf(null);
}

function begin(key) {
  shownKey = key;
  shown = [];
  limit = AT_ONCE;
  end.begin();
  byId("messages").replaceChildren();
  // Another conversation is shown, not news to be read out.
  byId("scroll").setAttribute("aria-busy", "true");
  setTimeout(() => byId("scroll").removeAttribute("aria-busy"), SETTLED_MS);
}

/** Brings the list up to date: what is the same stays, what changed is replaced, the rest is added or dropped. */
function update(model, items) {
  const list = byId("messages");
  const first = shown.findIndex((row) => row.key === items[0]?.key);
  if (first < 0) {
    shown = [];
    list.replaceChildren();
  }
  shown.splice(0, Math.max(0, first)).forEach((row) => row.node.remove());
  const added = document.createDocumentFragment();
  items.forEach((item, index) => {
    const row = shown[index];
    if (row?.key === item.key && row.version === item.version) return;
    const node = render(model, item, items[index - 1]);
    const fresh = { key: item.key, version: item.version, node };
    if (row) swap(row.node, node);
    else added.append(node);
    shown[index] = fresh;
  });
  shown.splice(items.length).forEach((row) => row.node.remove());
  list.append(added);
}

/** Replaces a message without losing the place of whoever uses the keyboard. */
function swap(old, fresh) {
  const focused = old.contains(document.activeElement);
  const index = focused ? [...old.querySelectorAll("button, a")].indexOf(document.activeElement) : -1;
  old.replaceWith(fresh);
  if (focused) fresh.querySelectorAll("button, a")[index]?.focus({ preventScroll: true });
}

function render(model, item, before) {
  if (item.note) return h("li", { class: "note" }, h("span", {}, item.note), " ", h("span", { class: "faint" }, moment(item.at, "day")));
  const who = item.mine ? nameOf(model.person()) : model.page().name;
  const pause = !before || Math.abs(item.at - before.at) > GAP_SECONDS && !before.note;
  const node = h("li", { class: `message ${item.mine ? "mine" : "theirs"}`, "data-mid": item.mid },
    pause ? h("p", { class: "pause" }, moment(item.at, "day")) : null,
    h("span", { class: "sr" }, `${who}, ${moment(item.at, "minute")}: `),
    h("div", { class: "row" },
      h("div", { class: "content" }, contentOf(item, actions(model)), reactionsOf(item)),
      reactButton(model, item)),
    item.byToken ? h("p", { class: "paid" }, "Paid for with the permission: one message, now used") : null);
  return node;
}

function reactionsOf(item) {
  if (!item.reactions.length) return null;
  return h("span", { class: "reactions" }, h("span", { class: "sr" }, "Reaction: "), item.reactions.join(" "));
}

function reactButton(model, item) {
  return h("button", {
    type: "button", class: "react icon-button", "aria-label": item.reactions.length ? "Change the reaction" : "React", "aria-haspopup": "menu",
    onclick: (event) => offer(event.currentTarget, item, (wish) => perform(model, "reaction", { mid: item.mid, ...wish })),
  }, "☺");
}

function actions(model) {
  return {
    tap: (item, payload, button) => during(button, () => perform(model, "tap", { mid: item.mid, payload })),
    notifyMe: (item, button) => during(button, () => perform(model, "notify-me", { mid: item.mid })),
  };
}

/** What became of the person's last message, as long as nothing followed it. */
function drawMark(model) {
  const last = model.thread()?.last();
  const mark = byId("mark");
  const words = last?.mine ? markInWords(model, last) : "";
  mark.classList.toggle("bad", words.startsWith("Not delivered"));
  say(mark, words);
}

function markInWords(model, item) {
  // A message without a place is older than what the page knows of the journal.
  const place = model.places.get(item.mid)?.seq ?? 0;
  if (model.seen.get(model.active) > place) return `Seen by ${model.page().name}`;
  const mark = model.marks.get(item.mid);
  return MARKS[mark?.state] ?? "Sent";
}

function drawTyping(model) {
  const typing = Date.now() - (model.typing.get(model.active) ?? 0) < TYPING_MS;
  byId("typing").hidden = !typing;
  say(byId("typing-text"), typing ? `${model.page().name} is typing` : "");
  if (typing) end.stay();
}

/** Quick replies belong to the last message: the next one takes them away. */
function drawQuickReplies(model) {
  const last = model.thread().last();
  drawQuickRepliesOf(last && !last.mine ? last : null, model);
}

function drawQuickRepliesOf(item, model) {
  const box = byId("quick-replies");
  const replies = item?.content.quick_replies ?? [];
  const key = replies.length ? item.mid : "";
  if (box.dataset.of === key) return;
  box.dataset.of = key;
  keepingFocus(box, () => {
    box.hidden = !replies.length;
    box.replaceChildren(...replies.map((reply) => quickReply(model, item, reply)));
  });
}

function quickReply(model, item, reply) {
  if (reply.content_type !== "text") {
    return h("button", { type: "button", "aria-disabled": "true", title: "not simulated" }, reply.content_type.replace("user_", "My ").replace("_", " "));
  }
  const tap = (event) => during(event.currentTarget, () => perform(model, "tap", { mid: item.mid, payload: reply.payload }));
  return h("button", { type: "button", onclick: tap }, reply.title);
}

function showEarlier(model) {
  const box = byId("scroll");
  const before = box.scrollHeight - box.scrollTop;
  limit += AT_ONCE;
  shown = [];
  byId("messages").replaceChildren();
  end.leave();
  draw(model);
  box.scrollTop = box.scrollHeight - before;
  box.focus({ preventScroll: true });
}

/** Tells the bot that its messages were read, when they can be seen; not those of before the page was opened. */
function settle(model) {
  const thread = model.thread();
  const last = thread?.last(false);
  if (!last || last.mid === thread.readUpTo || !visible("chat") || document.hidden) return;
  thread.readUpTo = last.mid;
  const person = model.person();
  if (person.blocked || !(model.places.get(last.mid)?.seq > model.helloLast)) return;
  act(person, "read").catch(complain);
}
