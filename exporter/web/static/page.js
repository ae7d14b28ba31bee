// The page: the known beams, which of them are shown, and drawing only what has changed.

import { Detail, Row, beamLink, caseLink, ended, explanation, stateWord } from "./beam.js";
import { Words, arrange, attribute, element, icon } from "./dom.js";
import { follow } from "./feed.js";
import { clock, countOfBeams, duration, exactClock, midnight, percent } from "./format.js";
import { offerIds, realBeamId, realCaseId } from "./reveal.js";

const FRAME_MS = 8; // drawing pauses after this, so that the browser stays responsive
const UNPOLLED_SECONDS = 60;
const CLOCK_SKEW_SECONDS = 2;
const ANNOUNCED_AT_MOST = 3;
const RANK = { failed: 0, expired: 1, stalled: 1, unreachable: 2, running: 3, starting: 3, waiting: 4, succeeded: 5 };
/** The database has reported a running simulation for a while, but there is no log. */
const isOverdue = (beam) => beam.state === "waiting" && beam.needs_attention;
const rank = (beam) => (isOverdue(beam) ? RANK.stalled : RANK[beam.state]);
const WORTH_ANNOUNCING = new Set(["failed", "stalled", "expired", "unreachable", "succeeded"]);
const TILES = [
  { id: "running", label: "Running", sign: "running", states: ["running", "starting"] },
  { id: "stalled", label: "Stalled", sign: "stalled", states: ["stalled", "expired"] },
  { id: "failed", label: "Failed", sign: "failed", states: ["failed"] },
  { id: "unreachable", label: "Unreachable", sign: "unreachable", states: ["unreachable"], rare: true },
  { id: "waiting", label: "Waiting", sign: "waiting", states: ["waiting"] },
  { id: "done", label: "Succeeded today", sign: "succeeded", states: ["succeeded"] },
];
const collator = new Intl.Collator(undefined, { numeric: true });
const byId = (id) => document.getElementById(id);

const keyOf = (thing) => JSON.stringify([thing.case_id, thing.beam_id]);

// Known beams

const rows = new Map(); // key -> Row
const cases = new Map(); // case id -> CaseGroup
let overview = null; // everything but the beams
let link = "";
let lostAt = 0;
let skew = 0;

/** Now by the exporter's clock. It stops while the connection is lost, as the values do. */
function now() {
  return (link === "lost" ? lostAt : Date.now() / 1000) + skew;
}

function setClock(at) {
  const difference = at - Date.now() / 1000;
  skew = Math.abs(difference) > CLOCK_SKEW_SECONDS ? difference : 0;
}

function applyState(state) {
  const { beams, ...rest } = state;
  setClock(state.at);
  overview = rest;
  const present = new Set();
  const before = rows.size > 0;
  for (const beam of beams) {
    const key = keyOf(beam);
    present.add(key);
    applyBeam(key, beam, before);
  }
  for (const key of [...rows.keys()]) if (!present.has(key)) removeBeam(key);
  redraw({ layout: true, rest: true });
}

function applyChange({ beams = [], gone = [], ...rest }) {
  setClock(rest.at);
  let layout = gone.length > 0 || view.sort !== "attention" || view.words.length > 0;
  for (const beam of beams) {
    const key = keyOf(beam);
    layout = layout || !rows.has(key) || "state" in beam || "expected_end" in beam || "needs_attention" in beam;
    applyBeam(key, beam, true);
  }
  for (const [case_id, beam_id] of gone) removeBeam(keyOf({ case_id, beam_id }));
  Object.assign(overview, rest);
  redraw({ layout, rest: layout || Object.keys(rest).length > 1 });
}

function applyBeam(key, beam, announced) {
  let row = rows.get(key);
  const before = row?.beam.state;
  if (row === undefined) {
    row = new Row(beam);
    rows.set(key, row);
    let group = cases.get(beam.case_id);
    if (group === undefined) cases.set(beam.case_id, (group = new CaseGroup(beam.case_id)));
    group.rows.push(row);
  } else Object.assign(row.beam, beam);
  row.searched = null;
  changedRows.add(row);
  if (announced && beam.state !== undefined && beam.state !== before) news.push(row.beam);
}

function removeBeam(key) {
  const row = rows.get(key);
  if (row === undefined) return;
  rows.delete(key);
  const group = cases.get(row.beam.case_id);
  group.rows.splice(group.rows.indexOf(row), 1);
  if (group.rows.length === 0) cases.delete(row.beam.case_id);
}

// Selection and order

const view = { tiles: new Set(), words: [], sort: "attention", caseId: null, beamKey: null };
let detail = null;

function readAddress() {
  const asked = new URLSearchParams(location.search);
  view.tiles = new Set((asked.get("show") ?? "").split(",").filter((id) => TILES.some((tile) => tile.id === id)));
  view.words = words(asked.get("find") ?? "");
  view.sort = asked.get("sort") ?? "attention";
  byId("find").value = asked.get("find") ?? "";
  byId("sort").value = view.sort;
  if (byId("sort").value === "") byId("sort").value = view.sort = "attention";
}

function writeAddress() {
  const asked = new URLSearchParams();
  if (view.tiles.size) asked.set("show", [...view.tiles].join(","));
  if (byId("find").value.trim()) asked.set("find", byId("find").value.trim());
  if (view.sort !== "attention") asked.set("sort", view.sort);
  const query = asked.toString();
  history.replaceState(null, "", `${location.pathname}${query ? `?${query}` : ""}${location.hash}`);
}

const words = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);

function readRoute() {
  const match = /^#\/(case|beam)\/([^/]*)(?:\/([^/]*))?$/.exec(location.hash);
  let parts = [null, null];
  try {
    if (match) parts = [match[2], match[3]].map((part) => (part === undefined ? null : decodeURIComponent(part)));
  } catch {
    // An invalid escape: no beam has this address.
  }
  const [caseId, beamId] = parts;
  const wasDetail = view.beamKey !== null;
  view.beamKey = match?.[1] === "beam" && beamId !== null ? keyOf({ case_id: caseId, beam_id: beamId }) : null;
  view.caseId = match?.[1] === "case" ? caseId : null;
  detail = null;
  redraw({ layout: true, rest: true });
  if (wasDetail && view.beamKey === null) byId("main").focus({ preventScroll: true });
}

function isSelected(row) {
  const { beam } = row;
  if (view.caseId !== null && beam.case_id !== view.caseId) return false;
  if (view.tiles.size && !TILES.some((tile) => view.tiles.has(tile.id) && tile.states.includes(beam.state))) return false;
  if (view.words.length === 0) return true;
  row.searched ??= [beam.case_id, beam.beam_id, beam.source, beam.status, beam.reason, beam.reason_text, beam.hpc_job_id]
    .concat(stateWord(beam.state), beam.failure_text)
    .join(" ")
    .toLowerCase();
  return view.words.every((word) => row.searched.includes(word));
}

const least = (numbers) => numbers.reduce((one, other) => Math.min(one, other), Infinity);
const ORDERS = {
  attention: (group) => [least(group.shown.map((row) => rank(row.beam))), soonest(group)],
  end: (group) => [soonest(group)],
  progress: (group) => [-group.ratio()],
  recent: (group) => [least(group.shown.map((row) => -row.beam.state_since))],
  case: () => [],
};

function soonest(group) {
  return least(group.shown.map((row) => (ended(row.beam) ? null : row.beam.expected_end) ?? Infinity));
}

function inOrder() {
  const groups = [...cases.values()].filter((group) => {
    group.shown = group.rows.filter(isSelected);
    return group.shown.length > 0;
  });
  for (const group of groups) {
    group.order = ORDERS[view.sort](group);
    group.shown.sort((one, other) => collator.compare(one.beam.beam_id, other.beam.beam_id));
  }
  return groups.sort((one, other) => {
    for (let place = 0; place < one.order.length; place++) {
      if (one.order[place] !== other.order[place]) return one.order[place] < other.order[place] ? -1 : 1;
    }
    return collator.compare(one.caseId, other.caseId);
  });
}

/** A case: a heading row and its beams. */
class CaseGroup {
  constructor(caseId) {
    this.caseId = caseId;
    this.rows = [];
    this.shown = [];
    this.summary = new Words();
    this.realId = new Words();
    this.end = new Words();
    this.headRow = element(
      "div",
      { role: "row", class: "row case" },
      element(
        "span",
        { role: "rowheader", class: "case-name", "aria-colspan": "5" },
        element("span", { class: "case-word" }, "Case "),
        element("a", { href: caseLink(caseId) }, caseId),
        " ",
        element("span", { class: "real-id" }, this.realId.node),
        element("span", { class: "case-summary" }, this.summary.node),
      ),
      element("span", { role: "cell", class: "case-end", "aria-colspan": "2" }, this.end.node),
    );
    this.node = element("div", { role: "rowgroup", class: "group" });
  }

  ratio() {
    return this.rows.reduce((sum, row) => sum + row.beam.estimated_ratio, 0) / this.rows.length;
  }

  update(at) {
    const open = this.rows.filter((row) => !ended(row.beam));
    const ends = open.map((row) => row.beam.expected_end);
    this.realId.set(realCaseId(this.caseId));
    this.summary.set(`${countOfBeams(this.rows.length)} · ${percent(this.ratio())}`);
    const others = this.rows.some((row) => row.beam.state === "failed") ? "the others " : "";
    this.end.set(ends.length === 0 || ends.includes(null) ? "" : `${others}should finish at ${clock(Math.max(...ends), at)}`);
  }
}

// Drawing, a few milliseconds at a time

const changedRows = new Set();
let news = [];
let pendingLayout = null; // case groups that are still to be placed
let layoutIsStale = false;
let restIsStale = false;
let drawing = false;

function redraw({ layout = false, rest = false }) {
  if (layout) pendingLayout = null;
  layoutIsStale = layoutIsStale || layout;
  restIsStale = restIsStale || rest;
  if (drawing) return;
  drawing = true;
  // A hidden page gets no animation frames, but its title must be right.
  if (document.hidden) setTimeout(draw, 50);
  else requestAnimationFrame(draw);
}

function draw() {
  drawing = false;
  if (overview === null) return;
  const until = performance.now() + FRAME_MS;
  const at = now();
  byId("overview").hidden = view.beamKey !== null;
  byId("detail").hidden = view.beamKey === null;
  if (view.beamKey !== null) drawDetail(at);
  if (restIsStale) {
    restIsStale = false;
    drawRest(at);
  }
  if (view.beamKey !== null) return;
  if (layoutIsStale) {
    layoutIsStale = false;
    pendingLayout = { groups: inOrder(), next: 0 };
    drawNothing(pendingLayout.groups.length);
  }
  if (pendingLayout !== null) {
    const table = byId("table");
    while (pendingLayout.next < pendingLayout.groups.length) {
      if (performance.now() > until) return redraw({});
      const group = pendingLayout.groups[pendingLayout.next++];
      group.update(at);
      for (const row of group.shown) if (changedRows.delete(row) || !row.drawn) row.update(at);
      arrange(group.node, [group.headRow, ...group.shown.map((row) => row.node)]);
      const place = table.children[pendingLayout.next]; // after the head and the earlier groups
      if (place !== group.node) table.insertBefore(group.node, place ?? null);
    }
    while (table.children.length > pendingLayout.groups.length + 1) table.lastElementChild.remove();
    pendingLayout = null;
  }
  const touched = new Set();
  for (const row of changedRows) {
    if (performance.now() > until) return redraw({});
    changedRows.delete(row);
    if (!row.drawn) continue;
    row.update(at);
    touched.add(cases.get(row.beam.case_id));
  }
  for (const group of touched) group?.update(at);
  document.documentElement.dataset.drawn = String(rows.size);
}

function drawDetail(at) {
  const row = rows.get(view.beamKey);
  const container = byId("detail");
  if (row === undefined) {
    detail = null;
    arrange(container, [
      element("p", { class: "crumbs" }, element("a", { href: "#/" }, "All cases")),
      element("h2", {}, "No such beam"),
      element("p", {}, "It is unknown, or it ended long ago and is not shown any more."),
    ]);
  } else if (detail?.beam !== row.beam) {
    detail = new Detail(row.beam);
    detail.show(container, at);
  } else detail.update(at);
}

function drawNothing(groups) {
  const nothing = byId("nothing");
  nothing.hidden = groups > 0;
  byId("table").hidden = groups === 0;
  nothing.textContent = rows.size === 0 ? "No beams are known yet." : "No beam matches.";
  const restricted = view.tiles.size > 0 || view.words.length > 0 || view.caseId !== null;
  byId("clear").hidden = !restricted;
  byId("clear").textContent = view.caseId === null ? "Show all" : `Only case ${view.caseId}: show all`;
}

function drawRest(at) {
  const states = {};
  for (const { beam } of rows.values()) states[beam.state] = (states[beam.state] ?? 0) + 1;
  const today = endedToday(at);
  const numbers = {};
  for (const tile of TILES) numbers[tile.id] = tile.states.reduce((sum, state) => sum + (states[state] ?? 0), 0);
  numbers.done = today.filter((run) => run.outcome === "succeeded").length;
  for (const tile of TILES) {
    tile.number.set(String(numbers[tile.id]));
    attribute(tile.button, "aria-pressed", String(view.tiles.has(tile.id)));
    attribute(tile.button, "data-none", String(numbers[tile.id] === 0));
    tile.item.hidden = tile.rare === true && numbers[tile.id] === 0 && !view.tiles.has(tile.id);
  }
  const overdue = [...rows.values()].filter(({ beam }) => isOverdue(beam)).length;
  const trouble = numbers.failed + numbers.stalled + numbers.unreachable + overdue;
  const attention = trouble === 0 ? "" : `${trouble} ${trouble === 1 ? "needs" : "need"} attention, `;
  document.title = `${attention}${numbers.running} running – Dose simulations`;
  drawEnded(today, at);
  drawSources(at);
  drawBanners(at);
  announce(at);
}

function endedToday(at) {
  const since = midnight(at);
  const runs = new Map();
  for (const run of overview.ended) runs.set(`${keyOf(run)} ${run.run}`, run);
  for (const { beam } of rows.values()) {
    const key = `${keyOf(beam)} ${beam.run}`;
    if (ended(beam) && beam.ended_at !== null && !runs.has(key)) runs.set(key, { ...beam, outcome: beam.state });
  }
  return [...runs.values()].filter((run) => run.ended_at >= since).sort((one, other) => other.ended_at - one.ended_at);
}

let endedShown = "";
function drawEnded(runs, at) {
  const signature = runs
    .map((run) => `${keyOf(run)} ${run.run} ${run.outcome} ${run.reason_text} ${realBeamId(run.beam_id)}`)
    .join();
  if (signature === endedShown && byId("ended").firstChild !== null) return;
  endedShown = signature;
  const items = runs.map((run) => {
    const isShown = rows.has(keyOf(run));
    const realId = realBeamId(run.beam_id);
    const took = run.started_at === null ? "" : ` after ${duration(run.ended_at - run.started_at)}`;
    const outcome = run.outcome === "failed" ? `Failed${took}: ${run.reason_text ?? "unknown reason"}` : `Succeeded${took}`;
    return element(
      "li",
      {},
      element("time", { datetime: new Date(run.ended_at * 1000).toISOString() }, clock(run.ended_at, at)),
      element("span", { class: `state state-${run.outcome}` }, icon(run.outcome)),
      element(
        "span",
        { class: "text" },
        isShown ? element("a", { href: beamLink(run) }, run.beam_id) : element("strong", {}, run.beam_id),
        realId === "" ? "" : element("span", { class: "real-id" }, ` ${realId}`),
        run.run > 1 ? `, run ${run.run}` : "",
        element("span", { class: "what" }, ` ${outcome}`),
      ),
    );
  });
  if (items.length === 0) items.push(element("li", { class: "none" }, "No run has ended today."));
  arrange(byId("ended"), items);
}

const health = (source, at) => {
  if (source.up === null) return ["waiting", "not polled yet"];
  if (!source.up) return ["unreachable", "does not answer"];
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
function drawSources(at) {
  const found = overview.sources.map((source) => [source, ...health(source, at), clockOffset(source)]);
  const database = overview.database;
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
function drawBanners(at) {
  const banners = [];
  if (link === "lost") {
    const since = overview === null ? "" : ` since ${exactClock(lostAt)}. These are the values from then`;
    banners.push(["failed", `No connection to the exporter${since}.`, "Trying again."]);
  }
  for (const source of overview?.sources ?? []) {
    if (source.up === false) {
      const what = source.last_poll_at === null ? "does not answer" : `has not answered since ${clock(source.last_poll_at, at)}`;
      banners.push(["unreachable", `${source.name} ${what}.`, `Its beams show the last known values.${source.reason ? ` Reason: ${source.reason}.` : ""}`]);
    } else if (link !== "lost" && isUnpolled(source, at)) {
      banners.push(["expired", `${source.name} has not been polled since ${clock(source.last_poll_at, at)}.`, "Its beams may have progressed further."]);
    }
  }
  for (const source of overview?.sources ?? []) {
    if (source.folders_missing.length === 0) continue;
    banners.push(["stalled", `${source.name}: ${missingWords(source)}.`, "No log can be found there: check log_path, or create the folder."]);
  }
  if (overview?.database?.up === false) {
    banners.push(["stalled", "Progress cannot be written to the database.", "The communicator's screens show old values; this page is up to date."]);
  }
  if (overview?.beams_dropped) {
    const are = overview.beams_dropped === 1 ? "is" : "are";
    banners.push(["stalled", `${countOfBeams(overview.beams_dropped, "more ")} ${are} not shown.`, "max_beams is reached."]);
  }
  const signature = JSON.stringify(banners);
  if (signature === bannersShown) return;
  bannersShown = signature;
  arrange(
    byId("banners"),
    banners.map(([state, what, consequence]) =>
      element("p", { class: `banner state-${state}` }, icon(state), element("span", {}, element("strong", {}, what), ` ${consequence}`)),
    ),
  );
}

function announce(at) {
  const announced = news.filter((beam) => WORTH_ANNOUNCING.has(beam.state));
  news = [];
  if (announced.length === 0) return;
  byId("announcer").textContent =
    announced.length > ANNOUNCED_AT_MOST
      ? `${announced.length} beams have changed state.`
      : announced.map((beam) => `${beam.beam_id}: ${stateWord(beam.state)}, ${explanation(beam, at)}.`).join(" ");
}

// User input

function makeTiles() {
  for (const tile of TILES) {
    tile.number = new Words("0");
    tile.button = element(
      "button",
      { type: "button", class: `tile state-${tile.sign}`, "aria-pressed": "false" },
      element("span", { class: "tile-number" }, icon(tile.sign), element("span", {}, tile.number.node)),
      element("span", { class: "tile-label" }, tile.label),
    );
    tile.button.addEventListener("click", () => {
      if (!view.tiles.delete(tile.id)) view.tiles.add(tile.id);
      writeAddress();
      redraw({ layout: true, rest: true });
    });
    tile.item = element("li", {}, tile.button);
  }
  arrange(byId("summary"), TILES.map((tile) => tile.item));
}

function chooseTheme() {
  const themes = ["auto", "dark", "light"];
  const root = document.documentElement;
  const show = () => (byId("theme").textContent = `Theme: ${root.dataset.theme ?? "auto"}`);
  show();
  byId("theme").addEventListener("click", () => {
    const next = themes[(themes.indexOf(root.dataset.theme ?? "auto") + 1) % themes.length];
    if (next === "auto") delete root.dataset.theme;
    else root.dataset.theme = next;
    try {
      localStorage.setItem("mqi-theme", next);
    } catch {
      // Storage is forbidden: the choice is lost when the page is closed.
    }
    show();
  });
}

function listenToUser() {
  byId("tools").addEventListener("submit", (event) => event.preventDefault());
  byId("find").addEventListener("input", (event) => {
    view.words = words(event.target.value);
    writeAddress();
    redraw({ layout: true });
  });
  byId("sort").addEventListener("change", (event) => {
    view.sort = event.target.value;
    writeAddress();
    redraw({ layout: true });
  });
  byId("clear").addEventListener("click", () => {
    view.tiles.clear();
    view.words = [];
    byId("find").value = "";
    if (view.caseId !== null) location.hash = "#/";
    writeAddress();
    redraw({ layout: true, rest: true });
    byId("find").focus();
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target instanceof HTMLElement && event.target.matches("input, select, textarea");
    if (event.key === "/" && !typing && view.beamKey === null) {
      event.preventDefault();
      byId("find").focus();
    } else if (event.key === "Escape" && view.beamKey !== null) location.hash = "#/";
  });
  window.addEventListener("hashchange", readRoute);
}

/** Every second: update texts that change with time. */
function tick() {
  if (overview === null || document.hidden) return;
  const at = now();
  if (detail !== null) return detail.tick(at);
  for (const group of cases.values()) for (const row of group.shown) if (row.drawn) row.tick(at);
  drawSources(at);
  drawBanners(at);
}

const LINKS = { live: "Live", polling: "Every 3 seconds", lost: "Not connected" };

makeTiles();
chooseTheme();
offerIds(byId("reveal"), () => {
  for (const row of rows.values()) changedRows.add(row);
  redraw({ layout: true, rest: true });
});
listenToUser();
readAddress();
readRoute();
setInterval(tick, 1000);
follow({
  state: applyState,
  change: applyChange,
  link(next) {
    if (next === "lost") lostAt = Date.now() / 1000;
    link = next;
    document.documentElement.dataset.link = next;
    byId("connection").textContent = LINKS[next];
    drawBanners(now());
  },
});
