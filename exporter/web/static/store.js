// What the exporter said last: the known beams, their cases, and everything else.

import { Row } from "./row.js";

const CLOCK_SKEW_SECONDS = 2;

export const rows = new Map(); // key -> Row
export const cases = new Map(); // case id -> Case
export const changedRows = new Set(); // rows with values that are not drawn yet
/** `overview`: everything but the beams; null until the first answer. `link`: "live", "polling" or "lost", since `lostAt`. */
export const store = { overview: null, link: "", lostAt: 0 };
let skew = 0;
let news = [];

export const keyOf = (thing) => JSON.stringify([thing.case_id, thing.beam_id]);

/** A case: all its beams. */
class Case {
  constructor(caseId) {
    this.caseId = caseId;
    this.rows = [];
  }

  /** Mean estimated progress of its beams. */
  ratio() {
    return this.rows.reduce((sum, row) => sum + row.beam.estimated_ratio, 0) / this.rows.length;
  }
}

/** Now by the exporter's clock. It stops while the connection is lost, as the values do. */
export function now() {
  return (store.link === "lost" ? store.lostAt : Date.now() / 1000) + skew;
}

function setClock(at) {
  const difference = at - Date.now() / 1000;
  skew = Math.abs(difference) > CLOCK_SKEW_SECONDS ? difference : 0;
}

/** Take over everything that the exporter knows. */
export function applyState(state) {
  const { beams, ...rest } = state;
  setClock(state.at);
  store.overview = rest;
  const present = new Set();
  const before = rows.size > 0;
  for (const beam of beams) {
    const key = keyOf(beam);
    present.add(key);
    applyBeam(key, beam, before);
  }
  for (const key of [...rows.keys()]) if (!present.has(key)) removeBeam(key);
}

const PLACING = ["state", "expected_end", "needs_attention"];

/**
 * Take over what has changed.
 *
 * @returns {{layout: boolean, rest: boolean}} whether the order of beams may have changed, and whether anything else has.
 */
export function applyChange({ beams = [], gone = [], ...rest }) {
  setClock(rest.at);
  let layout = gone.length > 0;
  for (const beam of beams) {
    const key = keyOf(beam);
    layout = layout || !rows.has(key) || PLACING.some((field) => field in beam);
    applyBeam(key, beam, true);
  }
  for (const [case_id, beam_id] of gone) removeBeam(keyOf({ case_id, beam_id }));
  Object.assign(store.overview, rest);
  return { layout, rest: layout || Object.keys(rest).length > 1 };
}

function applyBeam(key, beam, announced) {
  let row = rows.get(key);
  const before = row?.beam.state;
  if (row === undefined) {
    row = new Row(beam);
    rows.set(key, row);
    let group = cases.get(beam.case_id);
    if (group === undefined) cases.set(beam.case_id, (group = new Case(beam.case_id)));
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
  changedRows.delete(row);
  const group = cases.get(row.beam.case_id);
  group.rows.splice(group.rows.indexOf(row), 1);
  if (group.rows.length === 0) cases.delete(row.beam.case_id);
}

/** The beams that have changed state since the last call. */
export function takeNews() {
  const taken = news;
  news = [];
  return taken;
}
