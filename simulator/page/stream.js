// The journal as it grows. The browser connects again by itself and says where it was.

/** Follows the journal. `on` has hello(facts), entry(entry), reset(facts) and lost(). */
export function follow(on) {
  const source = new EventSource("/simulator/stream");
  source.addEventListener("hello", (event) => on.hello(JSON.parse(event.data)));
  source.addEventListener("reset", (event) => on.reset(JSON.parse(event.data)));
  source.addEventListener("message", (event) => on.entry(JSON.parse(event.data)));
  source.addEventListener("error", () => on.lost());
  return source;
}
