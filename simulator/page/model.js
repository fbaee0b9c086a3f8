// What the page knows: people, the open thread, the journal, the time. Views listen to topics and read.

import { Thread } from "./thread.js";

const KEPT_ENTRIES = 2000;
const KEPT_PLACES = 5000;

export const keyOf = (person) => `${person.page_id}/${person.psid}`;

export class Model {
  people = new Map(); // by key, in the order in which they were made
  threads = new Map(); // by key; only those that were opened
  unread = new Map();
  previews = new Map();
  entries = [];
  notes = []; // lines in threads that are no messages: {seq, at, key or null for everybody, text}
  places = new Map(); // mid -> what the journal says about a message: {seq, rule}
  marks = new Map(); // mid -> what became of the webhook that tells of the person's message: {state}
  seen = new Map(); // by key; the Page marked everything before this entry as seen. Moments may go back, numbers do not
  typing = new Map(); // by key; since when the Page types, in real milliseconds
  repeated = new Set(); // the numbers of the webhooks that Messenger tries again
  pages = [];
  active = null;
  offset = 0;
  skew = 0; // simulated time minus this machine's
  bot = { state: "unknown", note: "" };
  connected = null; // whether the simulator answers; null before anybody knows
  faults = [];
  settings = {};

  #listeners = new Map();
  #pending = new Set();

  /** Calls `listener` soon after a topic changed, once for many changes. */
  on(topics, listener) {
    for (const topic of topics.split(" ")) {
      this.#listeners.set(topic, [...(this.#listeners.get(topic) ?? []), listener]);
    }
  }

  changed(...topics) {
    if (!this.#pending.size) requestAnimationFrame(() => this.#tell());
    topics.forEach((topic) => this.#pending.add(topic));
  }

  #tell() {
    const due = new Set([...this.#pending].flatMap((topic) => this.#listeners.get(topic) ?? []));
    this.#pending.clear();
    due.forEach((listener) => listener());
  }

  now() {
    return Date.now() / 1000 + this.skew;
  }

  person(key = this.active) {
    return this.people.get(key);
  }

  thread(key = this.active) {
    return this.threads.get(key);
  }

  page(person = this.person()) {
    return this.pages.find((page) => page.page_id === person?.page_id) ?? this.pages[0] ?? { name: "The Page" };
  }

  /** Notes that the app is on a Page, or no longer. */
  subscribe(pageId, subscribed) {
    const page = this.pages.find((one) => one.page_id === pageId);
    if (page) page.subscribed = subscribed;
    this.changed("bot");
  }

  /** The key of whoever an entry is about; old entries may lack the Page. */
  keyFor(entry) {
    if (!entry.psid) return null;
    if (entry.page_id) return `${entry.page_id}/${entry.psid}`;
    return [...this.people.keys()].find((key) => key.endsWith(`/${entry.psid}`)) ?? null;
  }

  // Changes

  forget() {
    for (const kept of [this.people, this.threads, this.unread, this.previews, this.places, this.marks, this.seen, this.typing, this.repeated]) kept.clear();
    Object.assign(this, { entries: [], notes: [], active: null, faults: [], bot: { state: "unknown", note: "" } });
    this.changed("people", "thread", "journal", "faults", "bot", "active");
  }

  setTime({ now, offset }) {
    this.skew = now - Date.now() / 1000;
    this.offset = offset;
    this.changed("clock");
  }

  keepPerson(person) {
    this.people.set(keyOf(person), person);
    this.changed("people", "person");
  }

  activate(key) {
    this.active = key;
    this.unread.delete(key);
    this.changed("active", "people", "person", "thread");
  }

  keepThread(key, messages) {
    const thread = this.threads.get(key) ?? new Thread();
    const notes = this.notes.filter((note) => note.key === null || note.key === key);
    thread.fill(messages, this.places, notes);
    this.threads.set(key, thread);
    this.changed("thread");
  }

  keepEntry(entry) {
    this.entries.push(entry);
    if (this.entries.length > KEPT_ENTRIES * 1.2) this.entries.splice(0, this.entries.length - KEPT_ENTRIES);
    this.changed("journal");
  }

  keepPlace(mid, place) {
    keep(this.places, mid, place);
  }

  /** What was delivered once stays so, whatever becomes of a repetition. */
  keepMark(mid, mark) {
    if (this.marks.get(mid)?.state !== "answers") keep(this.marks, mid, mark);
  }

  /** Whether an entry is of the time before the page was opened. */
  isPast(entry) {
    return entry.seq <= this.helloLast;
  }

  keepNote(note) {
    this.notes.push(note);
    for (const [key, thread] of this.threads) {
      if (note.key === null || note.key === key) thread.note(note);
    }
    this.changed("thread");
  }
}

function keep(map, mid, value) {
  map.set(mid, value);
  if (map.size > KEPT_PLACES) map.delete(map.keys().next().value);
}
