// Each entry of the journal in words: {way, group, title, who, said, outcome, tone, rule, why}. Pure.

import { FAULTS } from "./fault-texts.js";
import { preview } from "./events.js";
import { moment, offsetInWords, span } from "./time.js";

/** The groups that can be shown or hidden. */
export const GROUPS = [
  ["webhooks", "Webhooks", "what people did, as the bot is told", true],
  ["sends", "Sends", "messages of the bot that arrived", true],
  ["refused", "Refused", "calls that broke a rule, and faults that struck", true],
  ["calls", "Other", "typing, profiles, subscription", true],
  ["receipts", "Receipts", "webhooks about echoes, deliveries and reads", false],
  ["acts", "Acts", "what people, the clock and you did here", false],
];

/** The pages of Meta's documentation that rules name. */
export const SOURCES = [
  ["OTN", "/docs/messenger-platform/send-messages/one-time-notification"],
  ["FAQ", "/docs/messenger-platform/faq"],
  ["SEND", "/documentation/business-messaging/messenger-platform/send-messages"],
  ["HOOKS", "…/messenger-platform/webhooks"],
  ["ERR", "…/messenger-platform/error-codes"],
  ["RATE", "…/messenger-platform/overview/rate-limiting"],
  ["POLICY", "…/messenger-platform/policy"],
  ["ECHO", "…/webhooks/webhook-events/message-echoes"],
];

const RECEIPTS = ["message_echoes", "message_deliveries", "message_reads"];

const ACTS = {
  message: "wrote",
  quick_reply: "tapped a quick reply",
  postback: "tapped a button",
  notify_me: "tapped Notify Me: a permission was given",
  react: "reacted to a message",
  unreact: "took a reaction back",
  referral: "followed an m.me link",
  read: "read the conversation",
};

/** An entry in words. */
export const tell = (entry) => TELL[entry.kind]?.(entry) ?? { way: "here", group: "acts", title: entry.kind };

const TELL = { webhook: webhook, delivered, refused, lost_answer: lostAnswer, fault, graph, person, clock, control };

// To the bot

function webhook(entry) {
  const events = entry.events ?? [];
  const receipts = events.length > 0 && (entry.fields ?? []).every((field) => RECEIPTS.includes(field));
  return {
    way: "to",
    group: receipts && entry.status === 200 ? "receipts" : "webhooks",
    title: `Webhook: ${entry.by_hand ? "sent by hand" : events.map(eventName).join(", ") || "given up"}`,
    said: events.map(eventWords).filter(Boolean).join(" · "),
    ...answerOf(entry),
  };
}

function answerOf(entry) {
  const attempt = entry.attempt > 1 ? `, attempt ${entry.attempt}` : "";
  const next = entry.by_hand ? "sent by hand, it is not repeated" : "Messenger tries again (HOOKS)";
  if (entry.given_up) return { outcome: "given up", tone: "bad", rule: entry.given_up };
  if (entry.status === 200) return { outcome: `200${entry.ms === undefined ? "" : ` in ${Math.round(entry.ms)} ms`}${attempt}`, tone: "good", rule: windowWords(entry) };
  if (entry.status) return { outcome: `${entry.status}${attempt}`, tone: "bad", rule: `only 200 counts: ${next}` };
  return { outcome: `no answer${attempt}`, tone: "bad", rule: `${entry.note}: ${next}` };
}

/** What the acts that an entry tells of did to the messaging window. */
function windowWords(entry) {
  const windows = entry.windows ?? (entry.window ? [entry.window] : []);
  return [...new Set(windows.map((window) => windowRule(window, entry.at)))].join(" · ");
}

function windowRule({ rule, until }, now) {
  if (until === undefined) return rule;
  return `${rule}: ${until > now ? "open until" : "closed since"} ${moment(until, "short")}`;
}

function eventName(event) {
  if (event.message) return event.message.is_echo ? "echo" : event.message.quick_reply ? "quick reply" : "message";
  if (event.optin) return "opt-in by Notify Me";
  return ["postback", "referral", "reaction", "read", "delivery"].find((name) => event[name]) ?? "event";
}

function eventWords(event) {
  if (event.message) return quoted(preview(event.message));
  if (event.postback) return `${quoted(event.postback.title)}, payload ${event.postback.payload}`;
  if (event.optin) return `payload ${event.optin.payload}, with a new token ${short(event.optin.token_id)}`;
  if (event.reaction) return `${event.reaction.action} ${event.reaction.emoji ?? ""}`;
  if (event.referral) return event.referral.ref ? `ref ${event.referral.ref}` : "without a ref";
  return "";
}

// From the bot

function delivered(entry) {
  const token = entry.by_token ? ` with the token ${short(entry.token_id)}` : "";
  return { way: "from", group: "sends", title: `${sendName(entry)}${token}`, said: quoted(preview(entry.message)), outcome: "delivered", tone: "good", rule: entry.rule };
}

function refused(entry) {
  const code = `${entry.code}${entry.subcode ? `/${entry.subcode}` : ""}`;
  const title = entry.call ?? `${sendName(entry)}${entry.by_token ? ` with ${entry.token_id ? `the token ${short(entry.token_id)}` : "an unknown token"}` : ""}`;
  const said = entry.message ? quoted(safePreview(entry.message)) : entry.sender_action;
  return { way: "from", group: "refused", title, said, outcome: `${entry.status}, error ${code}`, tone: "bad", rule: entry.rule };
}

function lostAnswer(entry) {
  return { way: "from", group: "refused", title: "The answer was lost", outcome: "delivered, not told", tone: "odd", rule: `${faultName(entry.fault)}: the message arrived, and the bot does not know` };
}

function fault(entry) {
  const where = entry.field ? `on a webhook (${entry.field})` : "on a Graph call";
  return { way: entry.field ? "to" : "from", group: "refused", title: `A fault struck ${where}`, outcome: "fault", tone: "odd", rule: `${faultName(entry.fault)}. ${FAULTS[entry.fault]?.text ?? ""}` };
}

function graph(entry) {
  return { way: "from", group: "calls", title: entry.call ?? `Sender action: ${entry.sender_action}`, outcome: "200", tone: "good", rule: entry.rule };
}

function sendName(entry) {
  if (entry.permission_request) return "Permission request";
  if (entry.sender_action) return "Sender action";
  return entry.message?.attachment ? "Send, attachment" : "Send";
}

// Here

function person(entry) {
  const what = entry.did === "message" || entry.did === "quick_reply" ? quoted(preview(entry.message ?? {})) : entry.payload ?? "";
  return { way: "here", group: "acts", title: ACTS[entry.did] ?? entry.did, said: what, rule: windowWords(entry) };
}

function clock(entry) {
  const moved = entry.moved === undefined ? "" : entry.moved < 0 ? `, ${span(entry.moved)} back` : `, ${span(entry.moved)} on`;
  return { way: "here", group: "acts", title: `Simulated time was moved${moved}`, outcome: offsetInWords(entry.offset) || "real time" };
}

function control(entry) {
  const changes = Object.entries(entry.changed ?? {}).map(([name, value]) => `${name}: ${value}`);
  return { way: "here", group: "acts", title: "Changed", said: changes.join(", ") };
}

const faultName = (kind) => FAULTS[kind]?.title ?? kind;
const quoted = (text) => (text ? `“${text}”` : "");
const short = (id) => (id ? `…${id.slice(-6)}` : "");

/** A refused message may have any shape at all. */
function safePreview(message) {
  try {
    return preview(message);
  } catch {
    return "";
  }
}
