// What nobody outside Meta knows: each question with an answer to choose.

import { Problem, get } from "./api.js";
import { byId, h, say, toggle } from "./dom.js";
import { complain } from "./notice.js";
import { GROUPS } from "./unknown-texts.js";

let defaults = null; // asked for once: a reload may find settings that were changed long ago

export function start(model, store) {
  const rows = new Map();
  model.on("settings", () => {
    if (!rows.size) build(model, store, rows);
    for (const [name, show] of rows) show(model.settings[name]);
    showCount(model).catch(complain);
  });
}

function build(model, store, rows) {
  for (const [title, settings] of GROUPS) {
    const list = h("ul", { class: "option-list" });
    for (const [name, [label, text]] of Object.entries(settings)) {
      if (!(name in model.settings)) continue;
      const change = (value) => store.changeSettings({ [name]: value });
      const { element, show } = control(name, label, model.settings[name], change);
      rows.set(name, show);
      list.append(h("li", {}, element, h("p", { class: "faint small", id: `about-${name}` }, text)));
    }
    byId("setting-list").append(h("h3", {}, title), list);
  }
}

function control(name, label, value, change) {
  if (typeof value !== "boolean") return field(name, label, value, change);
  const button = toggle(label, value, (on) => change(on).catch(complain), { "aria-describedby": `about-${name}` });
  return { element: button, show: (now) => button.setAttribute("aria-checked", String(now)) };
}

function field(name, label, value, change) {
  const input = h("input", { class: Array.isArray(value) ? "long" : "short", "aria-describedby": `about-${name}`, inputmode: typeof value === "number" ? "decimal" : "text" });
  let current = value;
  const show = (now) => {
    current = now;
    if (document.activeElement === input) return; // somebody is typing
    input.value = inWords(now);
  };
  input.addEventListener("change", async () => {
    try {
      await change(parse(label, input.value, value));
    } catch (error) {
      complain(error);
      input.value = inWords(current);
    }
  });
  return { element: h("label", { class: "field" }, h("span", {}, label), input), show };
}

const inWords = (value) => (Array.isArray(value) ? value.join(", ") : String(value));

/** What was typed, of the sort that the setting is. Throws Problem: an empty field is no number, not even 0. */
function parse(label, text, like) {
  if (Array.isArray(like)) return text.split(",").map((part) => numberIn(part, `“${label}” takes numbers with commas between them.`));
  return typeof like === "number" ? numberIn(text, `“${label}” takes a number.`) : text.trim();
}

function numberIn(text, otherwise) {
  const number = Number(text);
  if (!text.trim() || !Number.isFinite(number)) throw new Problem(otherwise);
  return number;
}

async function showCount(model) {
  defaults ??= await get("/settings/defaults");
  const changed = Object.keys(model.settings).filter((name) => String(model.settings[name]) !== String(defaults[name])).length;
  byId("unknowns-badge").hidden = !changed;
  say(byId("unknowns-badge"), String(changed));
}
