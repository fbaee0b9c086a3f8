// Which part of the page is seen. A narrow window shows one view, a wide one the chat and one view beside it.

import { keepingFocus } from "./dom.js";

const WIDE = matchMedia("(min-width: 760px)");
const WITH_PEOPLE = matchMedia("(min-width: 1120px)");

/** Whether a view can be seen now. */
export function visible(view) {
  if (!WIDE.matches) return document.body.dataset.view === view;
  if (view === "chat") return true;
  return view === "people" && WITH_PEOPLE.matches ? true : document.body.dataset.side === view;
}

/** Shows a view. */
export function show(view) {
  keepingFocus(document.body, () => {
    const { dataset } = document.body;
    dataset.view = view;
    if (view !== "chat") dataset.side = view;
    settle();
  });
}

export function start() {
  for (const button of buttons()) button.addEventListener("click", () => show(button.dataset.view));
  for (const query of [WIDE, WITH_PEOPLE]) query.addEventListener("change", settle);
  settle();
}

function settle() {
  const { dataset } = document.body;
  if (WITH_PEOPLE.matches && dataset.side === "people") dataset.side = "wire";
  for (const button of buttons()) {
    const current = WIDE.matches ? dataset.side : dataset.view;
    button.setAttribute("aria-current", String(button.dataset.view === current));
  }
  document.dispatchEvent(new Event("viewchange"));
}

const buttons = () => document.querySelectorAll(".views button");
