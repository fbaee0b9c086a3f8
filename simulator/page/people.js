// Everybody one can be.

import { byId, h, say } from "./dom.js";
import { keyOf } from "./model.js";
import { complain } from "./notice.js";
import { show } from "./views.js";

const MOST = 100;
const SEARCH_FROM = 8;
const HUES = 8;
const IDEAS = ["Ben", "Chen", "Dara", "Emeka", "Fatima", "Goran", "Hana", "Ines", "Jonas", "Kim"];

const rows = new Map(); // by key: the elements of each person who was shown

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
  forgetRows(model);
  const shown = all.slice(0, MOST).map((person) => rowOf(model, person, become));
  if (all.length > MOST) shown.push(h("li", { class: "faint small" }, `${all.length - MOST} more: search for them`));
  arrange(list, shown);
  drawPages(model);
  const unread = [...model.unread.values()].reduce((sum, count) => sum + count, 0);
  byId("people-badge").hidden = !unread;
  say(byId("people-badge"), String(unread));
}

/** The row of a person: always the same element, since a click on one that is replaced meanwhile is lost. */
function rowOf(model, person, become) {
  const key = keyOf(person);
  if (!rows.has(key)) rows.set(key, newRow(key, become));
  const row = rows.get(key);
  tell(row, model, person, key);
  return row.element;
}

function newRow(key, become) {
  const [name, count, unread, facts, preview] = Array.from({ length: 5 }, () => h("span"));
  const badge = h("span", { class: "badge" }, count, unread);
  const picture = avatar("");
  unread.className = "sr";
  facts.className = "faint small";
  preview.className = "faint small preview";
  const button = h("button", { type: "button", class: "person", onclick: () => become(key) },
    picture, h("span", { class: "person-text" }, h("span", { class: "person-name" }, name, badge), facts, preview));
  return { element: h("li", {}, button), button, picture, name, badge, count, unread, facts, preview };
}

function tell(row, model, person, key) {
  const unread = model.unread.get(key) ?? 0;
  const state = person.blocked ? "blocked the Page" : person.window_until > model.now() ? "window open" : "window closed";
  const page = model.pages.length < 2 ? null : model.page(person).name;
  if (key === model.active) row.button.setAttribute("aria-current", "true");
  else row.button.removeAttribute("aria-current");
  avatar(nameOf(person), row.picture);
  say(row.name, nameOf(person));
  row.badge.hidden = !unread;
  say(row.count, unread ? String(unread) : "");
  say(row.unread, unread ? " unread" : "");
  say(row.facts, [page, state, permissions(person)].filter(Boolean).join(" · "));
  say(row.preview, model.previews.get(key)?.text ?? "");
}

/** Makes `nodes` what the list shows, and moves none that stays. */
function arrange(list, nodes) {
  const wanted = new Set(nodes);
  for (const node of [...list.children]) if (!wanted.has(node)) node.remove();
  nodes.forEach((node, index) => {
    if (list.children[index] !== node) list.insertBefore(node, list.children[index] ?? null);
  });
}

/** Those who were forgotten by a reset have no row any more. */
function forgetRows(model) {
  for (const key of rows.keys()) if (!model.people.has(key)) rows.delete(key);
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
