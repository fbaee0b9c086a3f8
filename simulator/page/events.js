// What each entry of the journal changes in the model. One function for each kind.

import { offsetInWords, span } from "./time.js";

const SHORT = 60;
// Of a message that was written while the app was not on the Page: it is not delivered later either.
const UNTOLD = { state: "untold" };
const SUBSCRIPTION = /^(POST|DELETE) .*\/subscribed_apps$/;

/** Applies an entry. `ask` has person(key), people(), faults() and settings(): what has to be asked for anew. */
export function apply(model, entry, ask) {
  model.keepEntry(entry);
  APPLY[entry.kind]?.(model, entry, ask);
}

const APPLY = {
  person: applyAct,
  delivered: applyDelivery,
  graph: applyGraph,
  webhook: applyWebhook,
  clock: applyClock,
  fault: (model, entry, ask) => ask.faults(),
  control: applyControl,
};

function applyAct(model, entry, ask) {
  const key = model.keyFor(entry);
  const thread = model.threads.get(key);
  if (entry.message) keepMessage(model, key, messageOf(entry, true));
  if (entry.message && model.page(entry).subscribed === false) model.keepMark(entry.mid, UNTOLD);
  else if (entry.did === "notify_me") thread?.change(entry.mid, { tapped: true });
  else if (entry.reactions) thread?.change(entry.mid, { reactions: entry.reactions });
  else if (entry.did === "referral") {
    const ref = entry.ref ? ` with ref=${entry.ref}` : "";
    model.keepNote({ seq: entry.seq, at: entry.at, key, text: `Followed an m.me link${ref}` });
  }
  model.changed("thread");
  ask.person(key, entry);
}

function applyDelivery(model, entry, ask) {
  const key = model.keyFor(entry);
  keepMessage(model, key, messageOf(entry, false));
  model.typing.delete(key);
  if (key !== model.active && !model.isPast(entry)) model.unread.set(key, (model.unread.get(key) ?? 0) + 1);
  model.changed("thread", "people");
  ask.person(key, entry);
}

function keepMessage(model, key, item) {
  model.keepPlace(item.mid, { seq: item.seq, rule: item.rule });
  model.previews.set(key, { text: preview(item.content), at: item.at });
  model.threads.get(key)?.add(item);
  model.changed("people");
}

function messageOf(entry, mine) {
  return {
    key: entry.mid,
    mid: entry.mid,
    seq: entry.seq,
    at: mine && entry.timestamp ? entry.timestamp / 1000 : entry.at,
    mine,
    content: entry.message,
    byToken: entry.by_token === true,
    rule: entry.rule,
    tapped: false,
    reactions: [],
    version: 0,
  };
}

function applyGraph(model, entry) {
  const [, method] = SUBSCRIPTION.exec(entry.call) ?? [];
  if (method) model.subscribe(entry.page_id, method === "POST");
  else applySenderAction(model, entry);
}

function applySenderAction(model, entry) {
  const key = model.keyFor(entry);
  if (!key || !entry.sender_action) return;
  if (entry.sender_action === "mark_seen") model.seen.set(key, entry.seq);
  else if (entry.sender_action === "typing_on" && !model.isPast(entry)) model.typing.set(key, Date.now());
  else model.typing.delete(key);
  model.changed("thread");
}

function applyWebhook(model, entry) {
  if (entry.by_hand) return;
  const state = entry.given_up ? "given up" : entry.status === 200 ? "answers" : "fails";
  if (state === "fails") model.repeated.add(entry.webhook);
  else model.repeated.delete(entry.webhook);
  if (!entry.given_up) model.bot = { state, status: entry.status, note: entry.note ?? "", at: entry.at };
  if (entry.unsubscribed) model.subscribe(entry.page_id, false);
  for (const event of entry.events ?? []) {
    const mid = event.message?.is_echo ? null : event.message?.mid ?? event.postback?.mid;
    if (mid) model.keepMark(mid, { state });
  }
  model.changed("bot", "thread");
}

function applyClock(model, entry, ask) {
  const text = entry.moved === undefined
    ? `Simulated time was moved: ${offsetInWords(entry.offset) || "back to real time"}`
    : entry.moved >= 0 ? `${span(entry.moved)} later` : `${span(entry.moved)} back`;
  model.keepNote({ seq: entry.seq, at: entry.at, key: null, text });
  if (model.isPast(entry)) return;
  model.typing.clear(); // it takes seconds, and any move is longer
  model.setTime({ now: entry.at, offset: entry.offset });
  ask.people(); // permissions lapse with time, and one that had lapsed is good again when time goes back
}

function applyControl(model, entry, ask) {
  const key = model.keyFor(entry);
  if (key) ask.person(key, entry);
  else ask.settings();
}

/** A message in a few words. */
export function preview(content) {
  const payload = content.attachment?.payload;
  const words = content.text ?? payload?.title ?? payload?.text ?? payload?.elements?.[0]?.title
    ?? attachmentWords(content.attachments?.[0] ?? content.attachment);
  return words.length > SHORT ? `${words.slice(0, SHORT)}…` : words;
}

function attachmentWords(attachment) {
  if (attachment?.payload?.sticker_id) return "👍";
  return attachment?.type ? `(${attachment.type})` : "(empty)";
}
