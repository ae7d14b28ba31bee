// Numbers as text. Times are UTC epoch seconds, shown in the browser's time zone; its locale decides about the clock.

import { settings } from "./settings.js";

const two = (number) => String(number).padStart(2, "0");

/** `40 s`, `3 min 20 s`, `25 min`, `1 h 05 min`, `3 d 4 h`; an en dash where it is unknown. */
export function duration(seconds) {
  // No line breaks within it.
  return inWords(seconds).replaceAll(" ", "\u00a0");
}

function inWords(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  const minutes = Math.round(whole / 60);
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
  return `${Math.floor(minutes / 1440)} d ${Math.floor((minutes % 1440) / 60)} h`;
}

/** How long ago in one unit: `4 s`, `12 min`, `3 h`, `2 d`. */
export function age(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 48 * 3600) return `${Math.floor(whole / 3600)} h`;
  return `${Math.floor(whole / 86400)} d`;
}

/** `web.time_format`: "auto" is what the browser's locale has. */
const HOUR_CYCLES = { "24h": "h23", "12h": "h12" };
const HOURS = { hour: "2-digit", minute: "2-digit", hourCycle: HOUR_CYCLES[settings.time_format] };
const timeOfDay = new Intl.DateTimeFormat(undefined, HOURS);
const precise = new Intl.DateTimeFormat(undefined, { ...HOURS, second: "2-digit" });
const dayAndTime = new Intl.DateTimeFormat(undefined, {
  weekday: "short",
  day: "numeric",
  month: "short",
  ...HOURS,
});

/** When the day of a time began in the browser's time zone. */
export function midnight(at) {
  return new Date(at * 1000).setHours(0, 0, 0, 0) / 1000;
}

/** Time of day, with the date unless it is today. */
export function clock(at, now) {
  if (at === null || at === undefined) return "–";
  return (midnight(at) === midnight(now) ? timeOfDay : dayAndTime).format(at * 1000);
}

/** Time of day with seconds. */
export function exactClock(at) {
  return precise.format(at * 1000);
}

/** Date and time of day. */
export function dateAndTime(at) {
  return dayAndTime.format(at * 1000);
}

/** Whole percent, rounded down: 100 % means finished. */
export function percent(ratio) {
  return `${Math.floor(ratio * 100 + 1e-9)} %`;
}

/** `1 beam`, `2 beams`; `1 more beam`. */
export function countOfBeams(number, which = "") {
  return `${number} ${which}${number === 1 ? "beam" : "beams"}`;
}

/** `1 run`, `2 runs`. */
export const countOfRuns = (number) => `${number} ${number === 1 ? "run" : "runs"}`;

const dayOnly = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long", year: "numeric" });

/** `Today`, `Yesterday`, or the date of a day. */
export function dayName(day, now) {
  const today = midnight(now);
  if (day === today) return "Today";
  return day === midnight(today - 1) ? "Yesterday" : dayOnly.format(day * 1000);
}

/** `172.0 million` particles. */
export function count(number) {
  if (number === null) return "–";
  return number >= 1e6 ? `${(number / 1e6).toFixed(1)} million` : number.toLocaleString();
}

/** `143,000 per second`, to three digits. */
export function rate(number) {
  return number === null ? "–" : `${Number(number.toPrecision(3)).toLocaleString()} per second`;
}

/** `4.7 kB`. */
export function bytes(number) {
  if (number === null) return "–";
  if (number < 1000) return `${number} B`;
  return number < 1e6 ? `${(number / 1e3).toFixed(1)} kB` : `${(number / 1e6).toFixed(1)} MB`;
}
