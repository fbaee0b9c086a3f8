// Simulated time: the clock, the panel that moves it, and whether the simulator is there.

import { post } from "./api.js";
import { anchor, byId, h, say } from "./dom.js";
import { complain, during } from "./notice.js";
import { moment, offsetInWords } from "./time.js";

const HOUR = 3600;
const DAY = 24 * HOUR;
const SKIPS = [
  ["Skip 1 hour", HOUR],
  ["Skip 25 hours", 25 * HOUR],
  ["Skip 8 days", 8 * DAY],
  ["Skip a year", 366 * DAY],
];

export function start(model, store) {
  const panel = byId("time-panel");
  const buttons = SKIPS.map(([name, seconds]) => skipButton(name, () => store.moveClock({ advance: seconds })));
  const back = skipButton("Back to real time", () => store.moveClock({ offset: 0 }));
  byId("skips").append(...buttons, back);
  panel.addEventListener("toggle", () => anchor(panel, byId("time-button")));
  byId("skip-a-day").addEventListener("click", (event) => during(event.currentTarget, () => skipADay(store)));
  byId("reset").addEventListener("click", () => reset(byId("reset")));
  model.on("clock", () => show(model));
  model.on("connection", () => showConnection(model));
  setInterval(() => show(model), 1000);
}

/** Lets 25 hours pass: offered in more than one place. */
export function skipADay(store) {
  return store.moveClock({ advance: 25 * HOUR });
}

function skipButton(name, work) {
  return h("button", { type: "button", onclick: (event) => during(event.currentTarget, work) }, name);
}

function show(model) {
  const thisYear = new Date(model.now() * 1000).getFullYear() === new Date().getFullYear();
  say(byId("clock"), moment(model.now(), thisYear ? "short" : "clock"));
  say(byId("offset"), offsetInWords(model.offset) || "real time");
  byId("time-button").classList.toggle("moved", Math.abs(model.offset) >= 1);
  byId("time-shared").hidden = model.clockIsShared !== false;
}

function showConnection(model) {
  const element = byId("connection");
  say(element, model.connected ? "" : "The simulator does not answer. Is make run still up?");
  element.classList.toggle("lost", !model.connected);
}

/** Twice, since what is forgotten does not come back. */
function reset(button) {
  if (button.dataset.sure) {
    post("/reset").catch(complain);
    delete button.dataset.sure;
    say(button, "Reset");
    return;
  }
  button.dataset.sure = "yes";
  say(button, "Forget everybody?");
  button.addEventListener("blur", () => {
    delete button.dataset.sure;
    say(button, "Reset");
  }, { once: true });
}
