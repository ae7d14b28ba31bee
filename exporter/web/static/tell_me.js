// "Tell me": a message of the browser when a case is done, or when one of its beams fails or stalls, while the page is open.

import { caseLink, ended, stateWord } from "./beam_words.js";
import { arrange, byId, element } from "./dom.js";
import { cases } from "./store.js";

const KEY = "mqi-tell-me";
const TROUBLE = new Set(["failed", "stalled", "expired"]);
const KEPT_AT_MOST = 5;
const watched = new Set(load());
let told = []; // messages that the user has not closed

function load() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY) ?? "[]");
  } catch {
    return []; // Storage is forbidden: the choice is lost when the page is reloaded.
  }
}

function save() {
  try {
    sessionStorage.setItem(KEY, JSON.stringify([...watched]));
  } catch {
    // As above.
  }
}

const mayNotify = () => "Notification" in window && Notification.permission === "granted";

/** What the button of a case says. */
export function tellMeWords(caseId) {
  if (!watched.has(caseId)) return "Tell me";
  return mayNotify() ? "Will tell you" : "Will tell you on this page";
}

/** Begin or stop to watch a case. Browsers allow notifications over HTTPS or on the same machine only. */
export async function toggleTellMe(caseId) {
  if (!watched.delete(caseId)) {
    watched.add(caseId);
    if ("Notification" in window && Notification.permission === "default") await Notification.requestPermission();
  }
  save();
}

/**
 * Tell of watched cases.
 *
 * @param {object[]} news beams that have changed state.
 */
export function tell(news) {
  for (const caseId of watched) {
    const group = cases.get(caseId);
    if (group === undefined) continue;
    if (group.rows.every((row) => ended(row.beam))) {
      watched.delete(caseId);
      save();
      const failed = group.rows.filter((row) => row.beam.state === "failed").length;
      const outcome = failed === 0 ? "all beams succeeded" : `${group.rows.length - failed} succeeded, ${failed} failed`;
      say(caseId, `Case ${caseId} is done: ${outcome}.`);
      continue;
    }
    for (const beam of news) {
      if (beam.case_id !== caseId || !TROUBLE.has(beam.state)) continue;
      say(caseId, `Case ${caseId}: ${beam.beam_id} ${stateWord(beam.state).toLowerCase()}.`);
    }
  }
}

function say(caseId, text) {
  told = [{ caseId, text }, ...told].slice(0, KEPT_AT_MOST);
  drawTold();
  if (!mayNotify()) return;
  try {
    const message = new Notification(text, { tag: caseId });
    message.addEventListener("click", () => {
      window.focus();
      location.hash = caseLink(caseId);
    });
  } catch {
    // Some browsers on phones show notifications of apps only; the page has the text.
  }
}

/** The newest message, for the title of the page. */
export const newestMessage = () => told[0]?.text ?? "";

function drawTold() {
  arrange(
    byId("told"),
    told.map((message) => {
      const close = element("button", { type: "button", class: "quiet" }, "OK");
      close.addEventListener("click", () => {
        told = told.filter((other) => other !== message);
        drawTold();
      });
      return element("p", { class: "banner" }, element("a", { href: caseLink(message.caseId) }, message.text), close);
    }),
  );
}
