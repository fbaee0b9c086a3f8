// Reactions: one menu for all messages, opened beside the one that is reacted to.

import { anchor, byId, h } from "./dom.js";
import { complain } from "./notice.js";

// The names are Messenger's (webhooks, message_reactions).
const REACTIONS = [
  ["love", "❤️"],
  ["smile", "😆"],
  ["wow", "😮"],
  ["sad", "😢"],
  ["angry", "😠"],
  ["like", "👍"],
  ["dislike", "👎"],
];

let opener = null;
let chosen = () => {};

export function start() {
  const panel = byId("reaction-panel");
  panel.append(...REACTIONS.map(([name, emoji]) => h("button", { type: "button", role: "menuitemradio", "aria-label": name, "data-emoji": emoji,
    onclick: (event) => choose(panel, event.currentTarget, { reaction: name, emoji }) }, emoji)));
  panel.addEventListener("keydown", (event) => step(panel, event));
}

/** Offers the reactions to a message beside its button; the one that is there is taken back by choosing it again. */
export function offer(button, item, react) {
  const panel = byId("reaction-panel");
  opener = button;
  chosen = react;
  for (const option of panel.children) option.setAttribute("aria-checked", String(item.reactions.includes(option.dataset.emoji)));
  panel.showPopover();
  anchor(panel, button);
  panel.firstElementChild.focus();
}

function choose(panel, option, wish) {
  const taken = option.getAttribute("aria-checked") === "true";
  panel.hidePopover();
  opener?.focus();
  chosen(taken ? { action: "unreact" } : { action: "react", ...wish }).catch(complain);
}

function step(panel, event) {
  const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!by) return;
  event.preventDefault();
  const options = [...panel.children];
  const next = options.indexOf(document.activeElement) + by;
  options[(next + options.length) % options.length].focus();
}
