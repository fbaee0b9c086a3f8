// Times and spans in words. All times are simulated; the zone is the reader's.

const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

const format = (options) => new Intl.DateTimeFormat("en-GB", options);
const FORMATS = {
  clock: format({ weekday: "short", day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" }),
  short: format({ weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" }),
  day: format({ weekday: "long", day: "numeric", month: "long", hour: "2-digit", minute: "2-digit" }),
  minute: format({ hour: "2-digit", minute: "2-digit" }),
  second: format({ hour: "2-digit", minute: "2-digit", second: "2-digit" }),
};

/** A moment (seconds since the epoch) in one of the forms above. */
export const moment = (seconds, form) => FORMATS[form].format(new Date(seconds * 1000));

const count = (number, unit) => `${number} ${unit}${number === 1 ? "" : "s"}`;

/** A span of seconds as one would say it: the two greatest units. */
export function span(seconds) {
  const total = Math.floor(Math.abs(seconds));
  if (total < MINUTE) return "less than a minute";
  const [days, hours, minutes] = [Math.floor(total / DAY), Math.floor((total % DAY) / HOUR), Math.floor((total % HOUR) / MINUTE)];
  if (days >= 7) return count(days, "day");
  if (days < 2) return listed([count(days * 24 + hours, "hour"), count(minutes, "minute")]);
  return listed([count(days, "day"), count(hours, "hour")]);
}

/** Those that are not nothing. */
const listed = (parts) => parts.filter((part) => !part.startsWith("0 ")).join(" ");

/** The distance between simulated and real time: "+25 h", "+8 days", or nothing. */
export function offsetInWords(seconds) {
  const sign = seconds < 0 ? "−" : "+";
  const size = Math.abs(seconds);
  if (size < 1) return "";
  if (size < MINUTE) return `${sign}${Math.round(size)} s`;
  if (size < HOUR) return `${sign}${Math.round(size / MINUTE)} min`;
  if (size < 4 * DAY) return `${sign}${Number((size / HOUR).toFixed(1))} h`;
  return `${sign}${Number((size / DAY).toFixed(1))} days`;
}
