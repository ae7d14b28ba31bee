// In which order beams are shown, and under which headings.

import { ended } from "./beam_words.js";
import { cases } from "./store.js";
import { isSelected, view } from "./view.js";

/** States that may need attention. An unreachable beam stays in its case: a banner names its source. */
const RANK = { failed: 0, stalled: 1, expired: 1, waiting: 2 };
/** On a wall, a beam that holds a computer comes before one that has failed and may have been seen already. */
const WALL_RANK = { ...RANK, failed: 2 };
const REST = 3;
const collator = new Intl.Collator(undefined, { numeric: true });

function rank(beam) {
  return beam.needs_attention ? ((view.wall ? WALL_RANK : RANK)[beam.state] ?? REST) : REST;
}

const CASE_RANK = { unreachable: 0, running: 1, starting: 1, waiting: 2 };
const end = (beam) => (ended(beam) ? null : beam.expected_end) ?? Infinity;
const least = (numbers) => numbers.reduce((one, other) => Math.min(one, other), Infinity);

/** Orders of single beams. */
const BEAM_ORDERS = {
  end: (beam) => [Number(ended(beam)), end(beam), -(beam.ended_at ?? 0)],
  progress: (beam) => [-beam.estimated_ratio],
  recent: (beam) => [-beam.state_since],
};

function compare(one, other) {
  for (let place = 0; place < one.length; place++) if (one[place] !== other[place]) return one[place] < other[place] ? -1 : 1;
  return 0;
}

function sorted(list, order, ...ids) {
  return list
    .map((thing) => ({ thing, keys: order(thing) }))
    .sort((one, other) => {
      let result = compare(one.keys, other.keys);
      for (const id of ids) result ||= collator.compare(id(one.thing), id(other.thing));
      return result;
    })
    .map(({ thing }) => thing);
}

const caseIdOf = (row) => row.beam.case_id;
const beamIdOf = (row) => row.beam.beam_id;

/**
 * The beams that fit the filters, under their headings.
 *
 * By default, beams that need attention come first, whatever their case; below, each case has its other beams. The orders
 * by end, progress and change are of single beams, without cases.
 *
 * @returns {{kind: "attention" | "case" | "beams", group: object | null, rows: object[]}[]}
 */
export function sections() {
  const groups = [];
  for (const group of cases.values()) {
    const rows = group.rows.filter(isSelected);
    if (rows.length > 0) groups.push({ kind: "case", group, rows });
  }
  const order = BEAM_ORDERS[view.sort];
  if (order !== undefined) {
    const rows = sorted(groups.flatMap((section) => section.rows), (row) => order(row.beam), caseIdOf, beamIdOf);
    return rows.length > 0 ? [{ kind: "beams", group: null, rows }] : [];
  }
  if (view.sort === "case" || view.caseId !== null) {
    const byRank = view.sort === "case" ? () => [] : (row) => [rank(row.beam)];
    for (const section of groups) section.rows = sorted(section.rows, byRank, beamIdOf);
    return sorted(groups, () => [], (section) => section.group.caseId);
  }
  const first = [];
  for (const section of groups) {
    first.push(...section.rows.filter((row) => rank(row.beam) < REST));
    section.rows = sorted(section.rows.filter((row) => rank(row.beam) === REST), () => [], beamIdOf);
  }
  const others = sorted(
    groups.filter((section) => section.rows.length > 0),
    ({ rows }) => [least(rows.map((row) => CASE_RANK[row.beam.state] ?? 3)), least(rows.map((row) => end(row.beam)))],
    (section) => section.group.caseId,
  );
  if (first.length === 0) return others;
  const attention = sorted(first, (row) => [rank(row.beam), -row.beam.state_since], caseIdOf, beamIdOf);
  return [{ kind: "attention", group: null, rows: attention }, ...others];
}
