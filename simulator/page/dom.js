// Builds elements. Data becomes text or a plain attribute, never markup: nothing in these files parses HTML.

/** An element with attributes (`onclick`-like ones are listeners) and children; empty ones are left out. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** Sets text only where it differs, so that nothing is read out twice. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** An address that may become a link: http and https only. */
export function webAddress(text) {
  try {
    const url = new URL(text);
    return url.protocol === "http:" || url.protocol === "https:" ? url : null;
  } catch {
    return null;
  }
}

/** A link that opens elsewhere and tells the other side nothing. */
export function link(url, text, attributes = {}) {
  return h("a", { href: url.href, target: "_blank", rel: "noopener noreferrer", ...attributes }, text);
}

/** Text whose web addresses are links. */
export function withLinks(text) {
  return text.split(/(https?:\/\/[^\s<>"']+)/).map((part, index) => {
    const url = index % 2 ? webAddress(part) : null;
    return url ? link(url, part) : part;
  });
}

/**
 * Changes what is shown in `box`. Whoever was there, and whose place is gone, goes on in the message
 * field, or where that is not seen, at the button of the view that is. A finger stays where it is: on a phone, the
 * message field would bring the keyboard up.
 */
export function keepingFocus(box, change) {
  const focused = box.contains(document.activeElement) ? document.activeElement : null;
  const isTouched = matchMedia("(pointer: coarse)").matches && !focused?.matches(":focus-visible");
  change();
  if (!focused || isTouched || focused.isConnected && focused.checkVisibility()) return;
  const field = byId("message");
  (field.checkVisibility() ? field : document.querySelector(".views [aria-current=true]")).focus();
}

/** A switch: a button that is on or off. */
export function toggle(label, on, change, attributes = {}) {
  const button = h("button", { type: "button", role: "switch", "aria-checked": String(on), class: "switch", ...attributes },
    h("span", { class: "switch-track", "aria-hidden": "true" }), h("span", {}, label));
  button.addEventListener("click", () => change(button.getAttribute("aria-checked") !== "true", button));
  return button;
}

/** Puts a popover beside the button that opened it, inside the window. */
export function anchor(popover, button) {
  const edge = 8;
  const from = button.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = popover;
  const left = Math.min(Math.max(edge, from.left), innerWidth - width - edge);
  const below = from.bottom + edge;
  const top = below + height <= innerHeight ? below : Math.max(edge, from.top - height - edge);
  Object.assign(popover.style, { left: `${Math.max(edge, left)}px`, top: `${top}px` });
}
