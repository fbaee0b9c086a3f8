// Where one writes. Enter sends, Shift+Enter begins a new line.

import { byId } from "./dom.js";
import { perform } from "./messages.js";
import { complain, during } from "./notice.js";

// Messenger's own sticker.
const LIKE = 369239263222822;

export function start(model) {
  const field = byId("message");
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    write(model, field);
  });
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    write(model, field);
  });
  field.addEventListener("input", () => fit(field));
  byId("send-picture").addEventListener("click", (event) => during(event.currentTarget, () => attach(model, "picture.svg")));
  byId("send-like").addEventListener("click", (event) => during(event.currentTarget, () => attach(model, "like.svg", LIKE)));
  fit(field);
}

/** Says something as the person. What could not be said comes back into the field. */
export function write(model, field, text = field.value) {
  if (!text.trim() || !model.person()) return;
  if (text === field.value) {
    field.value = "";
    fit(field);
  }
  perform(model, "message", { text }).catch((error) => {
    complain(error);
    field.value ||= text;
    fit(field);
  });
}

function attach(model, name, sticker) {
  const payload = { url: `${location.origin}/simulator/page/${name}` };
  if (sticker) payload.sticker_id = sticker;
  return perform(model, "message", { attachments: [{ type: "image", payload }] });
}

function fit(field) {
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight}px`;
  const empty = !field.value.trim();
  byId("send").hidden = empty;
  byId("send-like").hidden = !empty;
}
