// One conversation: messages and notes in the order of the journal. An item's `version` grows with each change.

export class Thread {
  items = [];
  readUpTo = undefined; // the last message of the Page that the person has looked at

  #byMid = new Map();

  /** Takes the simulator's thread over, and puts notes and what came meanwhile in their places. */
  fill(messages, places, notes) {
    const known = messages.map((message) => fromThread(message, places.get(message.mid)));
    const mids = new Set(known.map((item) => item.mid));
    const newer = this.items.filter((item) => item.mid && !mids.has(item.mid));
    this.items = [...known, ...newer, ...notes.map(fromNote)].sort((one, other) => one.seq - other.seq);
    this.#byMid = new Map(this.items.filter((item) => item.mid).map((item) => [item.mid, item]));
  }

  /** Adds a message, once. */
  add(item) {
    if (this.#byMid.has(item.mid)) return;
    this.#byMid.set(item.mid, item);
    this.items.push(item);
  }

  note(note) {
    this.items.push(fromNote(note));
  }

  /** Changes a message that is there. */
  change(mid, facts) {
    const item = this.#byMid.get(mid);
    if (item) Object.assign(item, facts, { version: item.version + 1 });
  }

  last(mine) {
    return this.items.findLast((item) => item.mid && (mine === undefined || item.mine === mine));
  }

  requests() {
    return this.items.filter((item) => requestOf(item.content));
  }
}

/** The permission request in a message's content, if it is one. */
export function requestOf(content) {
  const payload = content?.attachment?.payload;
  return payload?.template_type === "one_time_notif_req" ? payload : null;
}

function fromThread(message, place) {
  return {
    key: message.mid,
    mid: message.mid,
    seq: place?.seq ?? 0,
    at: message.timestamp / 1000,
    mine: message.direction === "in",
    content: message.content,
    byToken: message.by_token,
    rule: place?.rule,
    tapped: message.tapped === true,
    reactions: message.reactions ?? [],
    version: 0,
  };
}

function fromNote(note) {
  return { key: `note-${note.seq}`, seq: note.seq, at: note.at, note: note.text, version: 0 };
}
