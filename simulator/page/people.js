// Everybody one can be.

import { byId, h, say } from "./dom.js";
import { keyOf } from "./model.js";
import { complain } from "./notice.js";
import { show } from "./views.js";

const MOST = 100;
const SEARCH_FROM = 8;
const HUES = 8;
const IDEAS = ["Ben", "Chen", "Dara", "Emeka", "Fatima", "Goran", "Hana", "Ines", "Jonas", "Kim"];

export function start(model, store) {
  const become = (key) => {
    store.open(key).catch(complain);
    show("chat");
  };
  const redraw = () => draw(model, become);
  model.on("people clock", redraw);
  byId("people-search").addEventListener("input", redraw);
  byId("add-person").addEventListener("submit", (event) => {
    event.preventDefault();
    add(model, store).then(() => show("chat"), complain);
  });
}

/** What to call somebody. */
export function nameOf(person) {
  if (!person) return "Somebody";
  return [person.first_name, person.last_name].filter(Boolean).join(" ") || `Somebody …${person.psid.slice(-4)}`;
}

/** A round picture made of initials. */
export function avatar(name, element = h("span", { class: "avatar", "aria-hidden": "true" })) {
  const initials = name.split(/\s+/).slice(0, 2).map((word) => [...word][0] ?? "").join("").toUpperCase();
  say(element, initials);
  element.dataset.hue = [...name].reduce((sum, letter) => sum + letter.codePointAt(0), 0) % HUES;
  return element;
}

async function add(model, store) {
  const field = byId("new-name");
  const [first, ...rest] = (field.value.trim() || idea(model)).split(/\s+/);
  const wish = { first_name: first, page_id: byId("new-page").value || model.pages[0].page_id };
  if (rest.length) wish.last_name = rest.join(" ");
  await store.addPerson(wish);
  field.value = "";
}

function idea(model) {
  const taken = new Set([...model.people.values()].map((person) => person.first_name));
  return IDEAS.find((name) => !taken.has(name)) ?? `Guest ${model.people.size + 1}`;
}

function draw(model, become) {
  const list = byId("people-list");
  const search = byId("people-search");
  const wanted = search.value.trim().toLowerCase();
  const all = [...model.people.values()].filter((person) => `${nameOf(person)} ${person.psid}`.toLowerCase().includes(wanted));
  search.hidden = model.people.size < SEARCH_FROM;
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  const items = all.slice(0, MOST).map((person) => item(model, person, become));
  if (all.length > MOST) items.push(h("li", { class: "faint small" }, `${all.length - MOST} more: search for them`));
  list.replaceChildren(...items);
  if (focused) list.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  drawPages(model);
  const unread = [...model.unread.values()].reduce((sum, count) => sum + count, 0);
  byId("people-badge").hidden = !unread;
  say(byId("people-badge"), String(unread));
}

function item(model, person, become) {
  const key = keyOf(person);
  const unread = model.unread.get(key);
  const state = person.blocked ? "blocked the Page" : person.window_until > model.now() ? "window open" : "window closed";
  const onlyPage = model.pages.length < 2;
  return h("li", {}, h("button", {
    type: "button", class: "person", "data-key": key, "aria-current": key === model.active ? "true" : false, onclick: () => become(key),
  },
  avatar(nameOf(person)),
  h("span", { class: "person-text" },
    h("span", { class: "person-name" }, nameOf(person), unread ? h("span", { class: "badge" }, String(unread), h("span", { class: "sr" }, " unread")) : null),
    h("span", { class: "faint small" }, [onlyPage ? null : model.page(person).name, state, permissions(person)].filter(Boolean).join(" · ")),
    h("span", { class: "faint small preview" }, model.previews.get(key)?.text ?? ""))));
}

function permissions(person) {
  if (!person.permissions) return null;
  return person.permissions === 1 ? "1 permission" : `${person.permissions} permissions`;
}

function drawPages(model) {
  const select = byId("new-page");
  select.hidden = model.pages.length < 2;
  if (select.options.length !== model.pages.length) {
    select.replaceChildren(...model.pages.map((page) => h("option", { value: page.page_id }, page.name)));
  }
}
