// What the user wants to see: filters, order, case or beam. It is kept in the address.

import { stateWord } from "./beam_words.js";
import { byId } from "./dom.js";
import { keyOf } from "./store.js";

export const TILES = [
  { id: "running", label: "Running", sign: "running", states: ["running", "starting"] },
  { id: "stalled", label: "Stalled", sign: "stalled", states: ["stalled", "expired"] },
  { id: "failed", label: "Failed", sign: "failed", states: ["failed"] },
  { id: "unreachable", label: "Unreachable", sign: "unreachable", states: ["unreachable"], rare: true },
  { id: "waiting", label: "Waiting", sign: "waiting", states: ["waiting"] },
  { id: "done", label: "Succeeded today", sign: "succeeded", states: ["succeeded"] },
];

/** `closed`: cases are closed unless they were opened. `wall`: for a screen on a wall. */
export const view = { tiles: new Set(), words: [], sort: "attention", closed: false, wall: false, caseId: null, ids: [null, null], beamKey: null, recent: false };

const splitWords = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);

/** Set the text that is looked for. */
export function find(text) {
  view.words = splitWords(text);
}

/** Whether only some beams of a case may be shown. */
export const isFiltered = () => view.tiles.size > 0 || view.words.length > 0;

/** Read filters and order from the address. */
export function readAddress() {
  const asked = new URLSearchParams(location.search);
  view.tiles = new Set((asked.get("show") ?? "").split(",").filter((id) => TILES.some((tile) => tile.id === id)));
  find(asked.get("find") ?? "");
  view.sort = asked.get("sort") ?? "attention";
  view.closed = asked.get("cases") === "closed";
  view.wall = asked.has("wall");
  byId("find").value = asked.get("find") ?? "";
  byId("sort").value = view.sort;
  if (byId("sort").value === "") byId("sort").value = view.sort = "attention";
  document.documentElement.toggleAttribute("data-wall", view.wall);
}

/** Keep filters and order in the address. */
export function writeAddress() {
  const asked = new URLSearchParams();
  if (view.tiles.size) asked.set("show", [...view.tiles].join(","));
  if (byId("find").value.trim()) asked.set("find", byId("find").value.trim());
  if (view.sort !== "attention") asked.set("sort", view.sort);
  if (view.closed) asked.set("cases", "closed");
  if (view.wall) asked.set("wall", "1");
  const query = asked.toString();
  history.replaceState(null, "", `${location.pathname}${query ? `?${query}` : ""}${location.hash}`);
}

/** Read case, beam or the history from the address: `#/case/ID`, `#/beam/CASE/BEAM`, `#/recent`. */
export function readRoute() {
  view.recent = location.hash === "#/recent";
  const match = /^#\/(case|beam)\/([^/]*)(?:\/([^/]*))?$/.exec(location.hash);
  let parts = [null, null];
  try {
    if (match) parts = [match[2], match[3]].map((part) => (part === undefined ? null : decodeURIComponent(part)));
  } catch {
    // An invalid escape: no beam has this address.
  }
  const [caseId, beamId] = parts;
  view.beamKey = match?.[1] === "beam" && beamId !== null ? keyOf({ case_id: caseId, beam_id: beamId }) : null;
  view.caseId = match?.[1] === "case" ? caseId : null;
  view.ids = parts;
}

/** Whether a row fits the filters. */
export function isSelected(row) {
  const { beam } = row;
  if (view.caseId !== null && beam.case_id !== view.caseId) return false;
  if (view.tiles.size && !TILES.some((tile) => view.tiles.has(tile.id) && tile.states.includes(beam.state))) return false;
  if (view.words.length === 0) return true;
  row.searched ??= [beam.case_id, beam.beam_id, beam.source, beam.status_text, beam.reason, beam.reason_text, beam.hpc_job_id]
    .concat(stateWord(beam.state), beam.failure_text)
    .join(" ")
    .toLowerCase();
  return view.words.every((word) => row.searched.includes(word));
}
