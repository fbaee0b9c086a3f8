// What a message shows: text, pictures, templates, and Messenger's own permission request.

import { h, link, webAddress, withLinks } from "./dom.js";
import { picture } from "./picture.js";
import { requestOf } from "./thread.js";

// Heading and button are Messenger's own and cannot be chosen by a Page (OTN). The exact words are not documented.
const HEADING = "Get Notified";
const BUTTON = "Notify Me";

/** The elements of a message. `act` has tap(item, payload, button) and notifyMe(item, button). */
export function contentOf(item, act) {
  const { content } = item;
  const parts = [];
  if (content.text) parts.push(h("p", { class: "bubble" }, withLinks(content.text)));
  for (const attachment of attachmentsOf(content)) parts.push(attachmentOf(item, attachment, act));
  return parts.length ? parts : [h("p", { class: "bubble faint" }, "(an empty message)")];
}

function attachmentsOf(content) {
  const many = Array.isArray(content.attachments) ? content.attachments : [];
  return content.attachment ? [content.attachment, ...many] : many;
}

function attachmentOf(item, attachment, act) {
  const payload = attachment?.payload ?? {};
  if (requestOf(item.content)) return request(item, payload, act);
  if (attachment.type === "image") return image(payload);
  if (payload.template_type === "button") return card(item, { text: payload.text, buttons: payload.buttons }, act);
  if (payload.template_type === "generic") return carousel(item, payload.elements ?? [], act);
  return file(attachment.type, payload);
}

function request(item, payload, act) {
  const button = h("button", { type: "button", class: "wide-button", onclick: (event) => act.notifyMe(item, event.currentTarget) }, BUTTON);
  if (item.tapped) {
    button.textContent = "✓ You will be notified";
    button.setAttribute("aria-disabled", "true");
  }
  return h("div", { class: "card request", role: "group", "aria-label": `${HEADING}: ${payload.title}` },
    h("div", { class: "card-text" }, h("p", { class: "card-heading" }, HEADING), h("p", {}, payload.title)),
    button);
}

function image(payload) {
  const sticker = Boolean(payload.sticker_id);
  const shown = picture(payload.url ?? "", sticker ? "Like" : "Picture");
  if (sticker) shown.classList.add("sticker");
  return h("div", { class: "media" }, shown);
}

function carousel(item, elements, act) {
  return h("ul", { class: "carousel", tabindex: "0", "aria-label": `${elements.length} cards` },
    elements.map((element) => h("li", {}, card(item, element, act))));
}

function card(item, { title, subtitle, image_url: imageUrl, text, buttons = [] }, act) {
  return h("div", { class: "card" },
    imageUrl ? picture(imageUrl, title ?? "Picture") : null,
    h("div", { class: "card-text" },
      title ? h("p", { class: "card-heading" }, title) : null,
      subtitle ? h("p", { class: "faint" }, subtitle) : null,
      text ? h("p", {}, withLinks(text)) : null),
    buttons.map((button) => cardButton(item, button, act)));
}

function cardButton(item, button, act) {
  const url = button.type === "web_url" ? webAddress(button.url) : null;
  if (url) return link(url, button.title, { class: "wide-button" });
  const tap = (event) => act.tap(item, button.payload, event.currentTarget);
  if (button.type === "postback") return h("button", { type: "button", class: "wide-button", onclick: tap }, button.title);
  const words = button.title ?? { account_link: "Log in", account_unlink: "Log out" }[button.type] ?? button.type;
  return h("button", { type: "button", class: "wide-button", "aria-disabled": "true", title: `${button.type}: not simulated` }, words);
}

function file(type, payload) {
  const url = webAddress(payload.url ?? "");
  const words = `${type ?? "attachment"}${url ? `: ${url.pathname.split("/").pop() || url.hostname}` : ""}`;
  return h("p", { class: "bubble file" }, url ? link(url, words) : words);
}
