// Sources and database: their health in the list of sources, and banners for what is wrong.

import { arrange, byId, element, icon } from "./dom.js";
import { clock, countOfBeams, duration, exactClock } from "./format.js";
import { store } from "./store.js";
import { settings } from "./settings.js";

const UNPOLLED_SECONDS = 60;

const health = (source, at) => {
  if (source.up === null) return ["waiting", "not polled yet"];
  if (!source.up) return ["unreachable", "cannot be reached"];
  if (isUnpolled(source, at)) return ["expired", "is not polled"];
  return source.folders_missing.length > 0 ? ["stalled", `answers, but ${missingWords(source)}`] : ["succeeded", "answers"];
};
function missingWords({ folders_missing: folders }) {
  return folders.length === 1 ? `the folder ${folders[0]} does not exist` : `${folders.length} folders do not exist: ${folders.join(", ")}`;
}
const isUnpolled = (source, at) => source.up === true && at - (source.last_poll_at ?? at) > UNPOLLED_SECONDS;

/** How far the clock of a source is off, if by more than a few seconds. */
function clockOffset(source) {
  const seconds = source.clock_offset_seconds ?? 0;
  if (Math.abs(seconds) <= 5) return "";
  return ` · its clock is ${duration(Math.abs(seconds))} ${seconds < 0 ? "behind" : "ahead"} (times shown are corrected)`;
}

let sourcesShown = "";
export function drawSources(at) {
  const found = store.overview.sources.map((source) => [source, ...health(source, at), clockOffset(source)]);
  const database = store.overview.database;
  const signature = JSON.stringify([found.map(([source, , ...texts]) => [source.name, source.kind, source.beams, ...texts, source.reason]), database?.up]);
  if (signature === sourcesShown) return;
  sourcesShown = signature;
  const items = found.map(([source, state, text, offset]) => {
    const where = source.kind === "ssh" ? "over SSH" : "this machine";
    const reason = source.reason ? `: ${source.reason}` : "";
    return item(source.name, state, `${text} · ${countOfBeams(source.beams)} · ${where}${offset}${reason}`);
  });
  if (database) items.push(item("database", database.up ? "succeeded" : "failed", database.up ? "accepts progress" : "does not accept progress"));
  arrange(byId("sources"), items);
}

const item = (name, state, text) =>
  element(
    "li",
    {},
    element("span", { class: `state state-${state}` }, icon(state)),
    element("span", { class: "text" }, element("strong", {}, name), element("span", { class: "what" }, ` ${text}`)),
  );

let bannersShown = "";
export function drawBanners(at) {
  const banners = [];
  if (store.link === "lost") {
    const since = store.overview === null ? "" : ` since ${exactClock(store.lostAt)}. These are the values from then`;
    banners.push(["failed", `No connection to the exporter${since}.`, "Trying again."]);
  }
  for (const source of store.overview?.sources ?? []) {
    if (source.up === false) {
      const what = source.last_poll_at === null ? "cannot be reached" : `has not been reached since ${clock(source.last_poll_at, at)}`;
      banners.push(["unreachable", `${source.name} ${what}.`, `${source.reason ? `Reason: ${source.reason}. ` : ""}Its beams show the last known values.`, "what-to-do#source_down"]);
    } else if (store.link !== "lost" && isUnpolled(source, at)) {
      banners.push(["expired", `${source.name} has not been polled since ${clock(source.last_poll_at, at)}.`, "Its beams may have progressed further."]);
    }
  }
  for (const source of store.overview?.sources ?? []) {
    if (source.folders_missing.length === 0) continue;
    banners.push(["stalled", `${source.name}: ${missingWords(source)}.`, "No log can be found there: check log_path, or create the folder.", settings.runbooks.folder_missing]);
  }
  if (store.overview?.database?.up === false) {
    banners.push(["stalled", "Progress cannot be written to the database.", "The communicator's screens show old values; this page is up to date."]);
  }
  if (store.overview?.beams_dropped) {
    const are = store.overview.beams_dropped === 1 ? "is" : "are";
    banners.push(["stalled", `${countOfBeams(store.overview.beams_dropped, "more ")} ${are} not shown.`, "max_beams is reached."]);
  }
  const signature = JSON.stringify(banners);
  if (signature === bannersShown) return;
  bannersShown = signature;
  arrange(
    byId("banners"),
    banners.map(([state, what, consequence, help]) => {
      const text = element("span", {}, element("strong", {}, what), ` ${consequence} `);
      if (help !== undefined) text.append(element("a", { class: "help", href: help }, "What to do"));
      return element("p", { class: `banner state-${state}` }, icon(state), text);
    }),
  );
}
