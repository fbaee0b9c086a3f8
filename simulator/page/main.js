// Starts everything. Reading order: model, events, store; then the views, one file each.

import * as clock from "./clock.js";
import * as composer from "./composer.js";
import * as faults from "./faults.js";
import * as guide from "./guide.js";
import * as head from "./head.js";
import * as messages from "./messages.js";
import { Model } from "./model.js";
import * as more from "./more.js";
import * as notice from "./notice.js";
import * as people from "./people.js";
import * as reactions from "./reactions.js";
import { Store } from "./store.js";
import * as unknowns from "./unknowns.js";
import * as views from "./views.js";
import * as wire from "./wire.js";

const model = new Model();
const store = new Store(model);

notice.start();
for (const view of [views, clock, people, head, messages, reactions, composer, more, guide, wire, faults, unknowns]) {
  view.start(model, store);
}
store.start();
