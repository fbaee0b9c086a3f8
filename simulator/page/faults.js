// Switches for what goes wrong. A fault that is on waits to strike; used up, it is off again.

import { byId, h, say, toggle } from "./dom.js";
import { FAULT_GROUPS, FAULTS } from "./fault-texts.js";
import { complain, show } from "./notice.js";

export function start(model, store) {
  const rows = new Map();
  for (const [group, title] of FAULT_GROUPS) {
    const list = h("ul", { class: "option-list" });
    for (const [kind, fault] of Object.entries(FAULTS)) {
      if (fault.group === group) list.append(row(model, store, kind, fault, rows));
    }
    byId("fault-list").append(h("h3", {}, title), list);
  }
  byId("faults-clear").addEventListener("click", () => store.removeFaults(model.faults.map((fault) => fault.id)).catch(complain));
  byId("fault-scope").addEventListener("submit", (event) => event.preventDefault());
  model.on("faults", () => draw(model, rows));
}

function row(model, store, kind, fault, rows) {
  const code = fault.asks ? h("input", { class: "short", "aria-label": "Error code", value: "100/2018001", pattern: "\\d+(/\\d+)?" }) : null;
  const state = h("span", { class: "option-state" });
  const change = (on) => (on ? arm(model, store, kind, fault, code) : disarm(model, store, kind)).catch(complain);
  const button = toggle(fault.title, false, change, { "aria-describedby": `fault-${kind}` });
  rows.set(kind, { button, state });
  return h("li", {}, h("div", { class: "option-head" }, button, code, state), h("p", { class: "faint small", id: `fault-${kind}` }, fault.text));
}

async function arm(model, store, kind, fault, code) {
  const count = byId("fault-count").value;
  const wish = { kind, count: count ? Number(count) : null, match: scope(model, fault), ...fault.more };
  if (code) {
    const [number, subcode] = code.value.split("/").map(Number);
    if (!Number.isInteger(number) || Number.isNaN(subcode)) return show("An error code is a number, or two with a slash: 100/2018001.");
    wish.code = number;
    if (subcode !== undefined) wish.subcode = subcode;
  }
  return store.addFault(wish);
}

function scope(model, fault) {
  const match = {};
  if (byId("fault-who").value === "one") Object.assign(match, { psid: model.person().psid, page_id: model.person().page_id });
  const sends = byId("fault-sends").value;
  if (sends && fault.group === "sends") match[sends] = true;
  return match;
}

function disarm(model, store, kind) {
  return store.removeFaults(model.faults.filter((fault) => fault.kind === kind).map((fault) => fault.id));
}

function draw(model, rows) {
  for (const [kind, { button, state }] of rows) {
    const armed = model.faults.filter((fault) => fault.kind === kind);
    button.setAttribute("aria-checked", String(armed.length > 0));
    say(state, armed.map(inWords).join("; "));
  }
  byId("faults-clear").hidden = !model.faults.length;
  byId("faults-badge").hidden = !model.faults.length;
  say(byId("faults-badge"), String(model.faults.length));
}

function inWords(fault) {
  const left = fault.count === null ? `waits, struck ${fault.struck}×` : fault.count === 1 ? "waits to strike once" : `waits to strike ${fault.count}×`;
  const only = [
    fault.match.psid && "one person",
    fault.match.by_token && "sends with a permission",
    fault.match.permission_request && "permission requests",
  ].filter(Boolean);
  return only.length ? `${left} (${only.join(", ")})` : left;
}
