// The control API: what the page can ask of the simulator. Problems are told in words.

export class Problem extends Error {}

/** Nobody answered: the simulator is gone, or was for a moment. */
export class Unreachable extends Problem {}

/** Calls below /simulator and gives the JSON of the answer. Throws Problem. */
export async function call(method, path, body) {
  const options = { method };
  if (body !== undefined) Object.assign(options, { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
  let answer;
  try {
    answer = await fetch(`/simulator${path}`, options);
  } catch {
    throw new Unreachable("The simulator does not answer. Is make run still up?");
  }
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Problem(told.error ?? `The simulator answered ${answer.status}.`);
  return told;
}

export const get = (path) => call("GET", path);
export const post = (path, body = {}) => call("POST", path, body);
export const patch = (path, body) => call("PATCH", path, body);
export const remove = (path) => call("DELETE", path);

/** The path of a person: a psid means nothing without its Page. */
export function personPath(person, rest = "") {
  return `/people/${encodeURIComponent(person.psid)}${rest}?page_id=${encodeURIComponent(person.page_id)}`;
}

/** Lets a person do something. The answer tells what became of the webhook's first attempt. */
export const act = (person, what, wish = {}) => post(personPath(person, `/${what}`), wish);
