// The page: draws the view that the address asks for, and keeps it up to date.

import { explanation, stateWord } from "./beam_words.js";
import { Detail } from "./detail.js";
import { Words, arrange, attribute, byId, element, icon } from "./dom.js";
import { drawEnded, endedToday } from "./ended.js";
import { follow } from "./feed.js";
import { clock, countOfBeams } from "./format.js";
import { drawGone, drawRecent } from "./recent.js";
import { offerIds, realCaseId } from "./reveal.js";
import { drawBanners, drawSources } from "./sources.js";
import { applyChange, applyState, changedRows, now, rows, store, takeNews } from "./store.js";
import { beamsBelow, closeCases, drawTable, startTable, tickTable } from "./table.js";
import { newestMessage, tell } from "./tell_me.js";
import { TILES, find, readAddress, readRoute, view, writeAddress } from "./view.js";

const FRAME_MS = 8; // drawing pauses after this, so that the browser stays responsive
const ANNOUNCED_AT_MOST = 3;
const WORTH_ANNOUNCING = new Set(["failed", "stalled", "expired", "unreachable", "succeeded"]);
const ORDERED_BY_PROGRESS = new Set(["progress", "recent"]);

let detail = null;
let layoutIsStale = false;
let restIsStale = false;
let drawing = false;
let otherShown = "";

function redraw({ layout = false, rest = false } = {}) {
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
  if (store.overview === null) return;
  const until = performance.now() + FRAME_MS;
  const at = now();
  const other = otherView();
  byId("overview").hidden = other !== "";
  byId("detail").hidden = other === "";
  if (other === "beam") drawDetail(at);
  else detail = null;
  if (other !== "beam" && other !== otherShown) {
    if (other === "recent") drawRecent(byId("detail"), at);
    else if (other !== "") drawGone(byId("detail"), ...view.ids, at);
  }
  otherShown = other;
  if (restIsStale) {
    restIsStale = false;
    drawRest(at);
  }
  if (other !== "") return;
  const layout = layoutIsStale;
  layoutIsStale = false;
  if (!drawTable(at, until, layout)) redraw();
}

/** What is shown instead of the list: "beam", "recent", or the address of what has left the list; "" for the list. */
function otherView() {
  if (view.recent) return "recent";
  const isGone = view.beamKey === null ? view.caseId !== null && !hasCase(view.caseId) : !rows.has(view.beamKey);
  if (isGone) return `gone ${location.hash}`;
  return view.beamKey === null ? "" : "beam";
}

const hasCase = (caseId) => [...rows.values()].some(({ beam }) => beam.case_id === caseId);

function drawDetail(at) {
  const row = rows.get(view.beamKey);
  const container = byId("detail");
  if (detail?.beam !== row.beam) {
    detail = new Detail(row.beam);
    detail.show(container, at);
  } else detail.update(at);
}

function drawRest(at) {
  const states = {};
  let trouble = 0;
  for (const { beam } of rows.values()) {
    if (view.caseId !== null && beam.case_id !== view.caseId) continue;
    states[beam.state] = (states[beam.state] ?? 0) + 1;
    if (beam.needs_attention && beam.state !== "unreachable") trouble += 1;
  }
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
  announce(at);
  const beam = rows.get(view.beamKey)?.beam;
  if (newestMessage() !== "") document.title = newestMessage();
  else if (beam !== undefined) document.title = `${beam.beam_id}: ${stateWord(beam.state)} – Dose simulations`;
  else {
    const attention = trouble === 0 ? "" : `${trouble} ${trouble === 1 ? "needs" : "need"} attention, `;
    const unreachable = numbers.unreachable === 0 ? "" : `${numbers.unreachable} unreachable, `;
    const name = view.caseId === null ? "Dose simulations" : `Case ${view.caseId}`;
    document.title = `${attention}${unreachable}${numbers.running} running – ${name}`;
  }
  byId("case-title").hidden = view.caseId === null;
  byId("case-name").textContent = [`Case ${view.caseId}`, realCaseId(view.caseId)].join(" ").trim();
  const last = store.overview.summary.expected_end;
  byId("all-done").hidden = last === null || view.caseId !== null;
  const others = numbers.failed + numbers.stalled + numbers.unreachable > 0 ? "All other beams" : "All beams";
  byId("all-done").textContent = `${others} are expected to be done about ${clock(last, at)}.`;
  drawEnded(today, at);
  drawSources(at);
  drawBanners(at);
}

function announce(at) {
  const news = takeNews();
  tell(news);
  const announced = news.filter((beam) => WORTH_ANNOUNCING.has(beam.state));
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

/** Copy the address of what is shown. Browsers allow that on HTTPS and on this machine only. */
function offerLink() {
  const button = byId("copy-link");
  button.hidden = navigator.clipboard === undefined;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(location.href);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy link"), 2000);
  });
}

function listenToUser() {
  byId("tools").addEventListener("submit", (event) => event.preventDefault());
  byId("find").addEventListener("input", (event) => {
    find(event.target.value);
    writeAddress();
    redraw({ layout: true });
  });
  byId("sort").addEventListener("change", (event) => {
    view.sort = event.target.value;
    writeAddress();
    redraw({ layout: true });
  });
  byId("close-cases").addEventListener("click", () => {
    closeCases(!view.closed);
    writeAddress();
    redraw({ layout: true });
  });
  byId("clear").addEventListener("click", () => {
    view.tiles.clear();
    find("");
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
  window.addEventListener("hashchange", () => {
    const wasDetail = otherView() !== "";
    readRoute();
    detail = null;
    redraw({ layout: true, rest: true });
    if (wasDetail && otherView() === "") byId("main").focus({ preventScroll: true });
  });
}

/** Every second: update texts that change with time. */
function tick() {
  if (store.overview === null || document.hidden) return;
  const at = now();
  if (detail !== null) return detail.tick(at);
  tickTable(at);
  if (view.wall) drawWall(at);
  drawSources(at);
  drawBanners(at);
}

/** A wall screen has nobody who scrolls: it says what is below. */
function drawWall(at) {
  byId("wall").hidden = false;
  const below = beamsBelow(byId("wall").getBoundingClientRect().top);
  byId("wall-time").textContent = clock(at, at);
  byId("below").textContent = below === 0 ? "" : `${countOfBeams(below, "more ")} below`;
}

const LINKS = { live: "Live", polling: "Every 3 seconds", lost: "Not connected" };

makeTiles();
chooseTheme();
offerIds(byId("reveal"), () => {
  for (const row of rows.values()) changedRows.add(row);
  redraw({ layout: true, rest: true });
});
startTable(redraw);
offerLink();
listenToUser();
readAddress();
readRoute();
setInterval(tick, 1000);
follow({
  state(state) {
    applyState(state);
    redraw({ layout: true, rest: true });
  },
  change(change) {
    const { layout, rest } = applyChange(change);
    redraw({ layout: layout || view.words.length > 0 || ORDERED_BY_PROGRESS.has(view.sort), rest });
  },
  link(next) {
    if (next === "lost") store.lostAt = Date.now() / 1000;
    store.link = next;
    document.documentElement.dataset.link = next;
    byId("connection").textContent = LINKS[next];
    drawBanners(now());
  },
});
