// The end of a list that grows: whoever is there stays there, whoever reads further up is left alone.

export class End {
  #box;
  #near; // pixels from the end that still count as there
  #size = ""; // of the box, when `stay` last looked
  #there = true;

  /** `growing`: what is in the box and may grow without a call of `stay`, as pictures do when they arrive. */
  constructor(box, near, ...growing) {
    this.#box = box;
    this.#near = near;
    // Where the reader was before something changed: measured when they scroll, not when a turned phone moves the text,
    // nor while the list is out of sight and has no place.
    box.addEventListener("scroll", () => {
      if (box.clientHeight && this.#measure() === this.#size) this.#look();
    }, { passive: true });
    const observer = new ResizeObserver(() => this.stay());
    for (const each of [box, ...growing]) observer.observe(each);
  }

  /** Shows the end, if that is where the reader is. */
  stay() {
    this.#size = this.#measure();
    if (this.#there) this.#box.scrollTop = this.#box.scrollHeight;
  }

  /** The reader is at the end from now on. */
  begin() {
    this.#there = true;
  }

  /** The reader has gone elsewhere. */
  leave() {
    this.#there = false;
  }

  #look() {
    const { scrollHeight, scrollTop, clientHeight } = this.#box;
    this.#there = scrollHeight - scrollTop - clientHeight < this.#near;
  }

  #measure() {
    return `${this.#box.clientWidth} ${this.#box.clientHeight}`;
  }
}
