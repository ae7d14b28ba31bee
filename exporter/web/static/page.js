// The page: what is known of the board, which part of it is shown, and drawing no more than has changed.

import { Detail, Row, beamLink, caseLink, ended, explanation, stateWord } from "./beam.js";
import { Words, arrange, attribute, element, icon } from "./dom.js";
import { follow } from "./feed.js";
import { clock, countOfBeams, duration, exactClock, midnight, percent } from "./format.js";
import { nameOfBeam, nameOfCase, offerNames } from "./names.js";

const FRAME_MS = 8; // of drawing before the browser gets a turn
const SILENT_SOURCE_SECONDS = 60;
const CLOCKS_DIFFER_SECONDS = 2;
const ANNOUNCED_AT_MOST = 3;
const RANK = { failed: 0, expired: 1, stalled: 1, unreachable: 2, running: 3, starting: 3, waiting: 4, succeeded: 5 };
/** A beam that the communicator has said to run for a while, and that has no log. */
const isOverdue = (beam) => beam.state === "waiting" && beam.needs_attention;
const rank = (beam) => (isOverdue(beam) ? RANK.stalled : RANK[beam.state]);
const WORTH_ANNOUNCING = new Set(["failed", "stalled", "expired", "unreachable", "succeeded"]);
const TILES = [
  { id: "running", label: "Running", sign: "running", states: ["running", "starting"] },
  { id: "stalled", label: "Stalled", sign: "stalled", states: ["stalled", "expired"] },
  { id: "failed", label: "Failed", sign: "failed", states: ["failed"] },
  { id: "unreachable", label: "Unreachable", sign: "unreachable", states: ["unreachable"], rare: true },
  { id: "waiting", label: "Waiting", sign: "waiting", states: ["waiting"] },
  { id: "done", label: "Done today", sign: "succeeded", states: ["succeeded"] },
];
const collator = new Intl.Collator(undefined, { numeric: true });
const byId = (id) => document.getElementById(id);

const keyOf = (thing) => JSON.stringify([thing.case_id, thing.beam_id]);

// What is known

const rows = new Map(); // key -> Row
const cases = new Map(); // case id -> CaseGroup
let board = null; // everything but the beams
let link = "";
let lostAt = 0;
let skew = 0;

/** Now, by the exporter's clock; it stands still while nothing is heard, as the values do. */
function now() {
  return (link === "lost" ? lostAt : Date.now() / 1000) + skew;
}

function tellTime(at) {
  const difference = at - Date.now() / 1000;
  skew = Math.abs(difference) > CLOCKS_DIFFER_SECONDS ? difference : 0;
}

function takeState(state) {
  const { beams, ...rest } = state;
  tellTime(state.at);
  board = rest;
  const there = new Set();
  const before = rows.size > 0;
  for (const beam of beams) {
    const key = keyOf(beam);
    there.add(key);
    takeBeam(key, beam, before);
  }
  for (const key of [...rows.keys()]) if (!there.has(key)) dropBeam(key);
  redraw({ layout: true, rest: true });
}

function takeChange({ beams = [], gone = [], ...rest }) {
  tellTime(rest.at);
  let layout = gone.length > 0 || view.sort !== "attention" || view.words.length > 0;
  for (const beam of beams) {
    const key = keyOf(beam);
    layout = layout || !rows.has(key) || "state" in beam || "expected_end" in beam || "needs_attention" in beam;
    takeBeam(key, beam, true);
  }
  for (const [case_id, beam_id] of gone) dropBeam(keyOf({ case_id, beam_id }));
  Object.assign(board, rest);
  redraw({ layout, rest: layout || Object.keys(rest).length > 1 });
}

function takeBeam(key, beam, tell) {
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
  stale.add(row);
  if (tell && beam.state !== undefined && beam.state !== before) news.push(row.beam);
}

function dropBeam(key) {
  const row = rows.get(key);
  if (row === undefined) return;
  rows.delete(key);
  const group = cases.get(row.beam.case_id);
  group.rows.splice(group.rows.indexOf(row), 1);
  if (group.rows.length === 0) cases.delete(row.beam.case_id);
}

// What is shown

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
    // A broken escape names nothing.
  }
  const [caseId, beamId] = parts;
  const wasDetail = view.beamKey !== null;
  view.beamKey = match?.[1] === "beam" && beamId !== null ? keyOf({ case_id: caseId, beam_id: beamId }) : null;
  view.caseId = match?.[1] === "case" ? caseId : null;
  detail = null;
  redraw({ layout: true, rest: true });
  if (wasDetail && view.beamKey === null) byId("main").focus({ preventScroll: true });
}

function wanted(row) {
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
    group.shown = group.rows.filter(wanted);
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
    this.realId.set(nameOfCase(this.caseId));
    this.summary.set(`${countOfBeams(this.rows.length)} · ${percent(this.ratio())}`);
    const which = this.rows.some((row) => row.beam.state === "failed") ? "the others done" : "all done";
    this.end.set(ends.length === 0 || ends.includes(null) ? "" : `${which} ${clock(Math.max(...ends), at)}`);
  }
}

// Drawing, a few milliseconds at a time

const stale = new Set(); // rows whose beam has changed
let news = [];
let plan = null;
let layoutIsStale = false;
let restIsStale = false;
let drawing = false;

function redraw({ layout = false, rest = false }) {
  if (layout) plan = null;
  layoutIsStale = layoutIsStale || layout;
  restIsStale = restIsStale || rest;
  if (drawing) return;
  drawing = true;
  // A page that is not seen gets no frames, and its title must be right all the same.
  if (document.hidden) setTimeout(draw, 50);
  else requestAnimationFrame(draw);
}
function draw() {
  drawing = false;
  if (board === null) return;
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
    plan = { groups: inOrder(), next: 0 };
    drawNothing(plan.groups.length);
  }
  if (plan !== null) {
    const table = byId("table");
    while (plan.next < plan.groups.length) {
      if (performance.now() > until) return redraw({});
      const group = plan.groups[plan.next++];
      group.update(at);
      for (const row of group.shown) if (stale.delete(row) || !row.drawn) row.update(at);
      arrange(group.node, [group.headRow, ...group.shown.map((row) => row.node)]);
      const place = table.children[plan.next]; // behind the head and the groups before
      if (place !== group.node) table.insertBefore(group.node, place ?? null);
    }
    while (table.children.length > plan.groups.length + 1) table.lastElementChild.remove();
    plan = null;
  }
  const touched = new Set();
  for (const row of stale) {
    if (performance.now() > until) return redraw({});
    stale.delete(row);
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
      element("p", {}, "It is not known, or has left the board a while after its end."),
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
  nothing.textContent = rows.size === 0 ? "No beams are known yet." : "No beam fits what you look for.";
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
  const wanting = trouble === 0 ? "" : `${trouble} ${trouble === 1 ? "needs" : "need"} attention, `;
  document.title = `${wanting}${numbers.running} running – Dose simulations`;
  drawEnded(today, at);
  drawSources(at);
  drawBanners(at);
  announce(at);
}

function endedToday(at) {
  const since = midnight(at);
  const runs = new Map();
  for (const run of board.ended) runs.set(`${keyOf(run)} ${run.run}`, run);
  for (const { beam } of rows.values()) {
    const key = `${keyOf(beam)} ${beam.run}`;
    if (ended(beam) && beam.ended_at !== null && !runs.has(key)) runs.set(key, { ...beam, outcome: beam.state });
  }
  return [...runs.values()].filter((run) => run.ended_at >= since).sort((one, other) => other.ended_at - one.ended_at);
}

let endedShown = "";
function drawEnded(runs, at) {
  const signature = runs
    .map((run) => `${keyOf(run)} ${run.run} ${run.outcome} ${run.reason_text} ${nameOfBeam(run.beam_id)}`)
    .join();
  if (signature === endedShown && byId("ended").firstChild !== null) return;
  endedShown = signature;
  const items = runs.map((run) => {
    const there = rows.has(keyOf(run));
    const realId = nameOfBeam(run.beam_id);
    const took = run.started_at === null ? "" : ` after ${duration(run.ended_at - run.started_at)}`;
    const said = run.outcome === "failed" ? `Failed${took}: ${run.reason_text ?? "no reason known"}` : `Done${took}`;
    return element(
      "li",
      {},
      element("time", { datetime: new Date(run.ended_at * 1000).toISOString() }, clock(run.ended_at, at)),
      element("span", { class: `state state-${run.outcome}` }, icon(run.outcome)),
      element(
        "span",
        { class: "said" },
        there ? element("a", { href: beamLink(run) }, run.beam_id) : element("strong", {}, run.beam_id),
        realId === "" ? "" : element("span", { class: "real-id" }, ` ${realId}`),
        run.run > 1 ? `, run ${run.run}` : "",
        element("span", { class: "what" }, ` ${said}`),
      ),
    );
  });
  if (items.length === 0) items.push(element("li", { class: "none" }, "No run has ended today."));
  arrange(byId("ended"), items);
}

const health = (source, at) => {
  if (source.up === null) return ["waiting", "not looked at yet"];
  if (!source.up) return ["unreachable", "does not answer"];
  if (silent(source, at)) return ["expired", "is not being looked at"];
  return source.folders_missing.length > 0 ? ["stalled", `answers, but ${missingWords(source)}`] : ["succeeded", "answers"];
};
function missingWords({ folders_missing: folders }) {
  return folders.length === 1 ? `the folder ${folders[0]} does not exist` : `${folders.length} folders do not exist: ${folders.join(", ")}`;
}
const silent = (source, at) => source.up === true && at - (source.last_poll_at ?? at) > SILENT_SOURCE_SECONDS;

/** How far the clock of a source is off, where that is more than the few seconds that nobody needs to know of. */
function clockOffset(source) {
  const seconds = source.clock_offset_seconds ?? 0;
  if (Math.abs(seconds) <= 5) return "";
  return ` · its clock is ${duration(Math.abs(seconds))} ${seconds < 0 ? "behind" : "ahead"} (times shown are corrected)`;
}

let sourcesShown = "";
function drawSources(at) {
  const found = board.sources.map((source) => [source, ...health(source, at), clockOffset(source)]);
  const database = board.database;
  const signature = JSON.stringify([found.map(([source, , ...texts]) => [source.name, source.kind, source.beams, ...texts, source.reason]), database?.up]);
  if (signature === sourcesShown) return;
  sourcesShown = signature;
  const items = found.map(([source, state, text, offset]) => {
    const where = source.kind === "ssh" ? "over SSH" : "this machine";
    const reason = source.reason ? `: ${source.reason}` : "";
    return item(source.name, state, `${text} · ${countOfBeams(source.beams)} · ${where}${offset}${reason}`);
  });
  if (database) items.push(item("database", database.up ? "succeeded" : "failed", database.up ? "takes progress" : "does not take progress"));
  arrange(byId("sources"), items);
}

const item = (name, state, text) =>
  element(
    "li",
    {},
    element("span", { class: `state state-${state}` }, icon(state)),
    element("span", { class: "said" }, element("strong", {}, name), element("span", { class: "what" }, ` ${text}`)),
  );

let bannersShown = "";
function drawBanners(at) {
  const banners = [];
  if (link === "lost") {
    const since = board === null ? "" : ` since ${exactClock(lostAt)}. What you see is from then`;
    banners.push(["failed", `No connection to the exporter${since}.`, "Trying again."]);
  }
  for (const source of board?.sources ?? []) {
    if (source.up === false) {
      const since = source.last_poll_at === null ? "" : ` since ${clock(source.last_poll_at, at)}`;
      banners.push(["unreachable", `${source.name} does not answer${since}.`, `Its beams show what was known last.${source.reason ? ` Reason: ${source.reason}.` : ""}`]);
    } else if (link !== "lost" && silent(source, at)) {
      banners.push(["expired", `${source.name} has not been looked at since ${clock(source.last_poll_at, at)}.`, "Its beams may be further than shown."]);
    }
  }
  for (const source of board?.sources ?? []) {
    if (source.folders_missing.length === 0) continue;
    banners.push(["stalled", `${source.name}: ${missingWords(source)}.`, "No log can be found there: check log_path, or create the folder."]);
  }
  if (board?.database?.up === false) {
    banners.push(["stalled", "The database does not take progress.", "The communicator's own screens are behind; this page is not."]);
  }
  if (board?.beams_dropped) {
    const are = board.beams_dropped === 1 ? "is" : "are";
    banners.push(["stalled", `${countOfBeams(board.beams_dropped, "more ")} ${are} not shown.`, "max_beams is reached."]);
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
  const told = news.filter((beam) => WORTH_ANNOUNCING.has(beam.state));
  news = [];
  if (told.length === 0) return;
  byId("announcer").textContent =
    told.length > ANNOUNCED_AT_MOST
      ? `${told.length} beams have changed their state.`
      : told.map((beam) => `${beam.beam_id}: ${stateWord(beam.state)}, ${explanation(beam, at)}.`).join(" ");
}

// What people do

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
      // Not remembered, then.
    }
    show();
  });
}

function listenToPeople() {
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

/** Every second, and only what is in view of the reader changes by more than its text. */
function tick() {
  if (board === null || document.hidden) return;
  const at = now();
  if (detail !== null) return detail.tick(at);
  for (const group of cases.values()) for (const row of group.shown) if (row.drawn) row.tick(at);
  drawSources(at);
  drawBanners(at);
}

const LINKS = { live: "Live", polling: "Every 3 seconds", lost: "Not connected" };

makeTiles();
chooseTheme();
offerNames(byId("names"), () => {
  for (const row of rows.values()) stale.add(row);
  redraw({ layout: true, rest: true });
});
listenToPeople();
readAddress();
readRoute();
setInterval(tick, 1000);
follow({
  state: takeState,
  change: takeChange,
  link(next) {
    if (next === "lost") lostAt = Date.now() / 1000;
    link = next;
    document.documentElement.dataset.link = next;
    byId("connection").textContent = LINKS[next];
    drawBanners(now());
  },
});
