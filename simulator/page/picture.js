// Pictures. Those of this machine are shown; others are not loaded, and say so.

import { h, link, webAddress } from "./dom.js";

const LOOPBACK = ["127.0.0.1", "localhost", "[::1]"];

/** A picture, or what stands in for one that cannot be shown. */
export function picture(address, alt) {
  const url = webAddress(address);
  if (!url) return fallback(null, alt, "without an address");
  if (url.origin !== location.origin && !LOOPBACK.includes(url.hostname)) {
    return fallback(url, alt, `at ${url.hostname}, not loaded: nothing is fetched from outside`);
  }
  const image = h("img", { src: url.href, alt, class: "picture", referrerpolicy: "no-referrer" });
  image.addEventListener("error", () => image.replaceWith(fallback(url, alt, "cannot be loaded")));
  return image;
}

function fallback(url, alt, why) {
  const icon = h("span", { class: "no-picture-icon", "aria-hidden": "true" });
  const text = h("span", {}, `${alt || "A picture"} (${why})`);
  return h("span", { class: "no-picture" }, icon, text, url ? link(url, "Open it", { "aria-label": `Open ${url.href}` }) : null);
}
