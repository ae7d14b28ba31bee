// The list of beams, drawn a few milliseconds at a time. Only what has changed is drawn; of a very long list, only what
// is near the screen.

import { CaseHead, opensByItself } from "./case_head.js";
import { Words, arrange, byId, element } from "./dom.js";
import { countOfBeams } from "./format.js";
import { sections } from "./order.js";
import { cases, changedRows, rows as knownRows } from "./store.js";
import { isFiltered, view } from "./view.js";

const BLOCK_ROWS = 40;
const ALL_AT_MOST = 1000; // lists up to this length are drawn whole, so that the browser's own search finds everything
const ROW_PIXELS = 64; // estimated height of a row that is not drawn yet

const blocks = new Map(); // key -> Block
const drawnIn = new WeakMap(); // row -> Block
const waiting = new Set(); // blocks to draw
const heads = new Map(); // case id -> CaseHead
const chosen = new Map(); // case id -> whether the user has opened it
let isLong = false;
let redraw = () => {};

/** Whether the beams of a case are listed below its heading. */
function isOpen({ caseId, rows }) {
  return chosen.get(caseId) ?? (isFiltered() || view.caseId !== null || (!view.closed && opensByItself(rows)));
}

const nearby = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      const block = blocks.get(target.dataset.key);
      if (block === undefined) continue;
      block.near = isIntersecting;
      if (isLong && isIntersecting !== block.drawn) waiting.add(block);
    }
    redraw();
  },
  { rootMargin: "100% 0px" },
);

/** A part of the list: a heading and up to 40 rows, drawn and freed together. */
class Block {
  constructor(key) {
    this.node = element("div", { role: "rowgroup", class: "group", "data-key": key });
    this.near = false;
    this.drawn = false;
    nearby.observe(this.node);
  }

  show({ head, rows, namesCase }) {
    this.head = head;
    this.rows = rows;
    this.namesCase = namesCase;
    this.next = 0; // row to draw next
    this.node.classList.toggle("more", head === null);
    if (!this.drawn) this.node.style.minHeight = isLong ? `${ROW_PIXELS * (rows.length + (head === null ? 0 : 1))}px` : "";
    waiting.add(this);
  }

  /** @returns {boolean} false if it ran out of time. */
  draw(at, until) {
    if (isLong && !this.near) {
      this.free();
      return true;
    }
    for (; this.next < this.rows.length; this.next++) {
      if (performance.now() > until) return false;
      const row = this.rows[this.next];
      row.namesCase = this.namesCase;
      drawnIn.set(row, this);
      changedRows.delete(row);
      row.update(at);
    }
    this.next = 0;
    const nodes = this.rows.map((row) => row.node);
    arrange(this.node, this.head === null ? nodes : [this.head(at), ...nodes]);
    this.drawn = true;
    this.node.style.minHeight = "";
    return true;
  }

  free() {
    if (!this.drawn || this.node.contains(document.activeElement)) return;
    this.node.style.minHeight = `${this.node.offsetHeight}px`;
    this.node.replaceChildren();
    for (const row of this.rows) if (drawnIn.get(row) === this) row.forget();
    this.drawn = false;
  }
}

/** Make blocks of all that fits the filters, and put them in order. */
function layOut() {
  const found = sections();
  isLong = found.reduce((sum, section) => sum + section.rows.length, 0) > ALL_AT_MOST;
  byId("table").toggleAttribute("data-long", isLong);
  const nodes = [];
  const present = new Set();
  for (const { kind, group, rows } of found) {
    const listed = group === null || isOpen(group) ? rows : [];
    for (let start = 0; start === 0 || start < listed.length; start += BLOCK_ROWS) {
      const key = `${kind} ${start} ${group?.caseId ?? ""}`;
      let block = blocks.get(key);
      if (block === undefined) blocks.set(key, (block = new Block(key)));
      const head = start > 0 || kind === "beams" ? null : kind === "attention" ? () => attentionHead(rows) : (at) => caseHead(group, at);
      block.show({ head, rows: listed.slice(start, start + BLOCK_ROWS), namesCase: group === null });
      present.add(key);
      nodes.push(block.node);
    }
  }
  for (const [key, block] of blocks) {
    if (present.has(key)) continue;
    nearby.unobserve(block.node);
    blocks.delete(key);
    waiting.delete(block);
  }
  for (const caseId of heads.keys()) if (!cases.has(caseId)) heads.delete(caseId);
  arrange(byId("table"), [byId("table").firstElementChild, ...nodes]);
  const mayClose = found.filter((section) => section.kind === "case").length > 1;
  byId("close-cases").hidden = !mayClose;
  byId("close-cases").textContent = view.closed ? "Open all cases" : "Close all cases";
  return found.length;
}

const attentionCount = new Words();
const attentionNode = element(
  "div",
  { role: "row", class: "row case attention" },
  element(
    "span",
    { role: "rowheader", class: "case-name", "aria-colspan": "7" },
    element("strong", {}, "Needs attention"),
    " ",
    element("span", { class: "case-summary" }, attentionCount.node),
  ),
);

function attentionHead(rows) {
  attentionCount.set(countOfBeams(rows.length));
  return attentionNode;
}

function caseHead(group, at) {
  let head = heads.get(group.caseId);
  if (head?.group !== group) {
    head = new CaseHead(group, () => {
      chosen.set(group.caseId, !isOpen(group));
      redraw({ layout: true });
    });
    heads.set(group.caseId, head);
  }
  head.update(at, isOpen(group));
  return head.node;
}

/** Open all cases, or close them. */
export function closeCases(closed) {
  chosen.clear();
  view.closed = closed;
}

/** @param {(what?: {layout?: boolean}) => void} askToDraw called when something is to be drawn. */
export function startTable(askToDraw) {
  redraw = askToDraw;
}

let layoutDone = false;

/**
 * Draw the list.
 *
 * @param {number} at now.
 * @param {number} until when to stop (`performance.now()`).
 * @param {boolean} layout whether beams may have to move.
 * @returns {boolean} false if something is left to draw.
 */
export function drawTable(at, until, layout) {
  if (layout || !layoutDone) {
    drawNothing(layOut());
    layoutDone = true;
  }
  for (const block of waiting) {
    if (!block.draw(at, until)) return false;
    waiting.delete(block);
  }
  const touched = new Set();
  for (const row of changedRows) {
    if (performance.now() > until) return false;
    changedRows.delete(row);
    if (row.drawn) row.update(at);
    touched.add(row.beam.case_id);
  }
  for (const caseId of touched) {
    const head = heads.get(caseId);
    if (head?.node.isConnected) head.update(at, isOpen(head.group));
  }
  document.documentElement.dataset.drawn = String(knownRows.size);
  return true;
}

/** Show what changes with time. */
export function tickTable(at) {
  for (const block of blocks.values()) if (block.drawn) for (const row of block.rows) if (row.drawn) row.tick(at);
}

/** The number of listed beams that are not wholly above a height on the screen. */
export function beamsBelow(height) {
  let number = 0;
  for (const { node, rows, drawn } of blocks.values()) {
    const { top, bottom } = node.getBoundingClientRect();
    if (top >= height || (!drawn && bottom > height)) number += rows.length;
    else if (bottom > height) number += rows.filter((row) => row.node.getBoundingClientRect().bottom > height).length;
  }
  return number;
}

function drawNothing(number) {
  const nothing = byId("nothing");
  nothing.hidden = number > 0;
  byId("table").hidden = number === 0;
  nothing.textContent = knownRows.size === 0 ? "No beams are known yet." : "No beam matches.";
  byId("clear").hidden = !isFiltered() && view.caseId === null;
}
