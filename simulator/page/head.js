// Above the conversation: who talks to whom, the state of the window, and whether the bot is there.

import { byId, h, say } from "./dom.js";
import { avatar, nameOf } from "./people.js";
import { moment, span } from "./time.js";

let told = "";

export function start(model) {
  const redraw = () => draw(model);
  model.on("active person people clock", redraw);
  model.on("bot active", () => drawTrouble(model));
  setInterval(redraw, 1000);
}

function draw(model) {
  const person = model.person();
  if (!person) return;
  const page = model.page();
  say(byId("chat-title"), page.name);
  avatar(page.name, byId("page-avatar")).removeAttribute("data-hue");
  say(byId("you-are"), `You are ${nameOf(person)}`);
  const open = person.window_until > model.now();
  byId("window").dataset.state = open ? "open" : "closed";
  say(byId("window-text"), windowInWords(model, person, page));
  announce(open ? "The window is open." : "The window is closed.", person);
}

/** The state of the 24-hour window, and what may still be sent when it is closed. */
function windowInWords(model, person, page) {
  const left = (person.window_until ?? 0) - model.now();
  if (left > 0) return `Window open, closes in ${span(left)}${permissionsInWords(person)}`;
  if (person.permissions) return `Window closed since ${moment(person.window_until, "short")}${permissionsInWords(person)}`;
  if (!person.window_until) return `Window closed: ${page.name} may not write before ${nameOf(person)} does`;
  return `Window closed since ${moment(person.window_until, "short")}: ${page.name} may not write`;
}

function permissionsInWords(person) {
  if (!person.permissions) return "";
  return person.permissions === 1 ? " · 1 permission for one message" : ` · ${person.permissions} permissions for one message each`;
}

/** Says aloud only what changes for the same person. */
function announce(words, person) {
  const now = `${person.psid} ${words}`;
  const before = told;
  told = now;
  if (before !== now && before.startsWith(`${person.psid} `)) say(byId("window-news"), words);
}

function drawTrouble(model) {
  const box = byId("bot-trouble");
  const words = troubleInWords(model);
  if (box.textContent === words) return;
  box.hidden = !words;
  box.replaceChildren(...(words ? [h("p", {}, words)] : []));
}

function troubleInWords(model) {
  const page = model.page();
  if (page.subscribed === false) return `Messenger tells the bot nothing of ${page.name} any more: the app is not subscribed to it. ${subscribeInWords(model, page)}`;
  return model.bot.state === "fails" ? failureInWords(model) : "";
}

/** Failing for long is why Messenger takes an app off; taking it off may also have been asked for. */
function subscribeInWords(model, page) {
  const command = `otn page subscribe${model.pages.length > 1 ? ` ${page.page_id}` : ""}`;
  return `${model.bot.state === "fails" ? "Its webhook failed for too long: mend the bot, then run" : "To bring it back, run"}: ${command}`;
}

function failureInWords({ bot, botAddress, repeated }) {
  const again = repeated.size ? "Messenger repeats the webhook by itself." : "Messenger has given up on the webhook, and tries only what comes next.";
  if (bot.status === 403) return `The bot refused the webhook (403): it checks signatures with another app secret than the simulator’s. ${again}`;
  if (bot.status === 404) return `There is no webhook at ${botAddress} (404): is the channel in credentials.yml? ${again}`;
  if (bot.status) return `The bot answered the webhook with ${bot.status} instead of 200. ${again}`;
  return `No answer from the bot at ${botAddress}: ${bot.note}. Is it running? ${again}`;
}
