// Keeps the model up to date: follows the journal, and asks the control API for what the journal leaves out.

import { get, patch, personPath, post, remove } from "./api.js";
import { apply } from "./events.js";
import { keyOf } from "./model.js";
import { follow } from "./stream.js";
import { complain, hideLostConnection } from "./notice.js";

// Beyond this many, strangers in the journal (a load test) are not looked up one by one.
const MANY_PEOPLE = 500;
const SOON_MS = 60;
// A broadcast changes hundreds of people a second: those whom one is not can wait, and many are asked for at once.
const LATER_MS = 500;
const FEW = 5;
const WHO = "person";

/** What was asked for before a reset, or before the page found the simulator again. */
class Outdated extends Error {}

export class Store {
  #model;
  #asked = new Map();
  #stale = new Set(); // the keys of people whom one is not, and who have changed
  #beginnings = 0;

  constructor(model) {
    this.#model = model;
    this.ask = {
      person: (key, entry) => this.#askPerson(key, entry),
      people: () => this.#soon("people", () => this.loadPeople()),
      faults: () => this.#soon("faults", () => this.loadFaults()),
      settings: () => this.#soon("settings", () => this.loadSettings()),
    };
  }

  start() {
    const model = this.#model;
    follow({
      hello: (facts) => this.#greet(facts),
      reset: (facts) => this.#begin(facts),
      entry: (entry) => apply(model, entry, this.ask),
      lost: () => this.#noteConnection(false),
    });
  }

  #greet(facts) {
    this.#noteConnection(true);
    if (facts.resumed) this.#model.setTime(facts);
    else this.#begin(facts);
  }

  #noteConnection(connected) {
    if (this.#model.connected === connected) return; // the browser tries again every second
    this.#model.connected = connected;
    this.#model.changed("connection");
    hideLostConnection();
  }

  /** Everything anew: at the start, after a reset, and when the simulator was started again. */
  #begin(facts) {
    const model = this.#model;
    this.#beginnings += 1;
    this.#forgetWishes();
    model.forget();
    Object.assign(model, { pages: facts.pages, botAddress: facts.bot, clockIsShared: facts.clock_is_shared, helloLast: facts.last });
    model.setTime(facts);
    this.#do(async () => {
      await Promise.all([this.loadPeople(), this.loadFaults(), this.loadSettings()]);
      // Another tab may be about to do the same.
      if (!model.people.size) await this.addPerson({ first_name: "Ada", page_id: model.pages[0].page_id, only_first: true });
      if (!model.person()) await this.open(model.people.has(remembered()) ? remembered() : model.people.keys().next().value);
    });
  }

  async loadPeople() {
    for (const person of await this.#current(get("/people"))) this.#model.keepPerson(person);
  }

  async loadFaults() {
    this.#model.faults = await this.#current(get("/faults"));
    this.#model.changed("faults");
  }

  async loadSettings() {
    this.#model.settings = await this.#current(get("/settings"));
    this.#model.changed("settings");
  }

  /** Makes somebody and becomes them. */
  async addPerson(wish) {
    const person = await this.#current(post("/people", wish));
    this.#model.keepPerson(person);
    await this.open(keyOf(person));
  }

  /** Becomes a person: shows their thread. */
  async open(key) {
    const model = this.#model;
    model.activate(key);
    remember(key);
    const person = model.person(key);
    if (!model.threads.has(key)) model.keepThread(key, []);
    model.keepThread(key, await this.#current(get(personPath(person, "/thread"))));
    model.keepPerson(await this.#current(get(personPath(person))));
  }

  async changePerson(person, changes) {
    this.#model.keepPerson(await this.#current(patch(personPath(person), changes)));
  }

  async moveClock(wish) {
    this.#model.setTime(await post("/clock", wish));
  }

  async addFault(wish) {
    await post("/faults", wish);
    await this.loadFaults();
  }

  async removeFaults(ids) {
    for (const id of ids) await remove(`/faults/${id}`).catch(() => null); // it may have struck already
    await this.loadFaults();
  }

  async changeSettings(changes) {
    this.#model.settings = await this.#current(patch("/settings", changes));
    this.#model.changed("settings");
  }

  #askPerson(key, entry) {
    if (this.#model.isPast(entry)) return;
    const known = this.#model.people.get(key);
    if (known && key !== this.#model.active) return this.#askLater(key);
    if (!known && this.#model.people.size >= MANY_PEOPLE) return;
    const person = known ?? { psid: entry.psid, page_id: entry.page_id };
    if (!person.page_id) return;
    this.#soon(`person ${keyOf(person)}`, () => this.#loadPerson(person));
  }

  /** The more people there are, the more there is to fetch, and the less often it is. */
  #askLater(key) {
    this.#stale.add(key);
    this.#soon("others", () => this.#loadStale(), LATER_MS + this.#model.people.size);
  }

  async #loadStale() {
    const people = [...this.#stale].map((key) => this.#model.people.get(key)).filter(Boolean);
    this.#stale.clear();
    if (people.length > FEW) await this.loadPeople();
    else await Promise.all(people.map((person) => this.#loadPerson(person)));
  }

  async #loadPerson(person) {
    this.#model.keepPerson(await this.#current(get(personPath(person))));
  }

  /** An answer, unless everything was read anew meanwhile: after a reset, what it tells of is no more. */
  async #current(asked) {
    const beginnings = this.#beginnings;
    const [answer] = await Promise.allSettled([asked]);
    if (beginnings !== this.#beginnings) throw new Outdated("Everything was read anew meanwhile: look whether it is as you want it.");
    if (answer.status === "rejected") throw answer.reason;
    return answer.value;
  }

  /** After a reset, those who were to be asked for are no more. */
  #forgetWishes() {
    for (const timer of this.#asked.values()) clearTimeout(timer);
    this.#asked.clear();
    this.#stale.clear();
  }

  /** Does something once for many wishes of the same name. */
  #soon(name, work, wait = SOON_MS) {
    if (this.#asked.has(name)) return;
    this.#asked.set(name, setTimeout(() => {
      this.#asked.delete(name);
      this.#do(work);
    }, wait));
  }

  /** What nobody clicked for: while the simulator is gone, the header tells why it fails. */
  #do(work) {
    work().catch((error) => {
      if (this.#model.connected && !(error instanceof Outdated)) complain(error);
    });
  }
}

/** Keeps in this tab who one is, for when the page is loaded again. */
function remember(key) {
  try {
    sessionStorage.setItem(WHO, key);
  } catch {
    // Without storage the first person is who one is.
  }
}

function remembered() {
  try {
    return sessionStorage.getItem(WHO);
  } catch {
    return null;
  }
}
