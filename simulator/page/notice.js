// What went wrong, in words, where everybody sees and hears it.

import { Unreachable } from "./api.js";
import { byId, keepingFocus, say } from "./dom.js";

const SHOWN_MS = 12_000;
let timer;
let isOfConnection = false;

/** Shows an error until it is put away or was there long enough. */
export function complain(error) {
  show(error.message ?? String(error));
  isOfConnection = error instanceof Unreachable;
}

export function show(text) {
  say(byId("notice-text"), text);
  byId("notice").hidden = false;
  isOfConnection = false;
  clearTimeout(timer);
  timer = setTimeout(hide, SHOWN_MS);
}

export function hide() {
  keepingFocus(byId("notice"), () => { byId("notice").hidden = true; });
  say(byId("notice-text"), "");
}

/** Puts away that nobody answered: the header tells that, and for as long as it is so. Anything else stays. */
export function hideLostConnection() {
  if (isOfConnection) hide();
}

export function start() {
  byId("notice-close").addEventListener("click", hide);
}

/** Runs what a button does, with the button held down meanwhile. */
export async function during(button, work) {
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  try {
    await work();
  } catch (error) {
    complain(error);
  } finally {
    button.removeAttribute("aria-disabled");
  }
}
