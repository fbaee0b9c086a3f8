// What else a person can do: begin, follow a link, block the Page, be out of reach.

import { anchor, byId, say, toggle } from "./dom.js";
import { perform } from "./messages.js";
import { complain } from "./notice.js";
import { nameOf } from "./people.js";

const STATES = [
  ["blocked", true, false, "Has blocked the Page", "Sends are refused with the error for a blocked person."],
  ["unreachable", true, false, "Can’t receive messages right now", "Sends are refused with 10/2018108."],
  ["thread_owner", "other", "app", "Another app controls the thread", "Webhooks go to standby; sends to the person are refused with 2018300."],
];

export function start(model, store) {
  const panel = byId("more-panel");
  const switches = STATES.map(([name, on, off, title, text]) => {
    const button = toggle(title, false, (wanted) => store.changePerson(model.person(), { [name]: wanted ? on : off }).catch(complain), { title: text });
    return { button, isOn: (person) => person[name] === on };
  });
  byId("person-switches").append(...switches.map(({ button }) => button));
  model.on("person active", () => {
    const person = model.person();
    if (!person) return;
    say(byId("more-name"), nameOf(person));
    for (const { button, isOn } of switches) button.setAttribute("aria-checked", String(isOn(person)));
  });
  panel.addEventListener("toggle", () => anchor(panel, byId("more-button")));
  onSubmit("get-started", panel, () => perform(model, "postback", { payload: byId("get-started-payload").value }));
  onSubmit("referral", panel, () => perform(model, "referral", { ref: byId("ref").value }));
}

function onSubmit(id, panel, work) {
  byId(id).addEventListener("submit", (event) => {
    event.preventDefault();
    panel.hidePopover();
    work().catch(complain);
  });
}
