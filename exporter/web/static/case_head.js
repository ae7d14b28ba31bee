// The heading of a case in the list of beams, with a button that closes the case.

import { caseLink, ended, stateWord } from "./beam_words.js";
import { Words, attribute, element } from "./dom.js";
import { clock, countOfBeams, percent } from "./format.js";
import { realCaseId } from "./reveal.js";

const OPEN_AT_MOST = 50; // larger cases are closed until they are opened

export class CaseHead {
  /**
   * @param {object} group the case.
   * @param {() => void} toggle called when the user opens or closes it.
   */
  constructor(group, toggle) {
    this.group = group;
    this.summary = new Words();
    this.realId = new Words();
    this.end = new Words();
    this.fold = element("button", { type: "button", class: "fold", "aria-label": `Beams of case ${group.caseId}` });
    this.fold.addEventListener("click", toggle);
    this.node = element(
      "div",
      { role: "row", class: "row case" },
      element(
        "span",
        { role: "rowheader", class: "case-name", "aria-colspan": "5" },
        this.fold,
        element("span", { class: "case-word" }, "Case "),
        element("a", { href: caseLink(group.caseId) }, group.caseId),
        " ",
        element("span", { class: "real-id" }, this.realId.node),
        element("span", { class: "case-summary" }, this.summary.node),
      ),
      element("span", { role: "cell", class: "case-end", "aria-colspan": "2" }, this.end.node),
    );
  }

  update(at, isOpen) {
    const { rows, caseId } = this.group;
    const open = rows.filter((row) => !ended(row.beam));
    const ends = open.map((row) => row.beam.expected_end);
    attribute(this.fold, "aria-expanded", String(isOpen));
    this.realId.set(realCaseId(caseId));
    this.summary.set([countOfBeams(rows.length), percent(this.group.ratio()), isOpen ? attention(rows) : states(rows)].filter(Boolean).join(" · "));
    const others = rows.some((row) => row.beam.state === "failed") ? "the others " : "";
    this.end.set(ends.length === 0 || ends.includes(null) ? "" : `${others}should finish at ${clock(Math.max(...ends), at)}`);
  }
}

/** Whether a case is open unless the user has chosen. */
export const opensByItself = (rows) => rows.length <= OPEN_AT_MOST;

function attention(rows) {
  const number = rows.filter((row) => row.beam.needs_attention).length;
  return number === 0 ? "" : `${number} ${number === 1 ? "needs" : "need"} attention`;
}

/** `2 running, 1 failed`. */
function states(rows) {
  const numbers = new Map();
  for (const { beam } of rows) numbers.set(beam.state, (numbers.get(beam.state) ?? 0) + 1);
  return [...numbers].map(([state, number]) => `${number} ${stateWord(state).toLowerCase()}`).join(", ");
}
