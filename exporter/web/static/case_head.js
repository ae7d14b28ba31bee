// The heading of a case in the list of beams, with a button that closes the case.

import { caseLink, ended, stateWord } from "./beam_words.js";
import { Words, attribute, element } from "./dom.js";
import { clock, countOfBeams, percent } from "./format.js";
import { realCaseId } from "./reveal.js";
import { tellMeWords, toggleTellMe } from "./tell_me.js";

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
    this.tellMe = new Words();
    this.tell = element(
      "button",
      { type: "button", class: "tell", title: `When case ${group.caseId} is done, or a beam of it fails or stalls` },
      this.tellMe.node,
    );
    this.tell.addEventListener("click", async () => {
      await toggleTellMe(group.caseId);
      this.tellMe.set(tellMeWords(group.caseId));
    });
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
      element("span", { role: "cell", class: "case-end", "aria-colspan": "2" }, element("span", { class: "when" }, this.end.node), this.tell),
    );
  }

  update(at, isOpen) {
    const { rows, caseId } = this.group;
    const open = rows.filter((row) => !ended(row.beam));
    attribute(this.fold, "aria-expanded", String(isOpen));
    this.tell.hidden = open.length === 0;
    this.tellMe.set(tellMeWords(caseId));
    this.realId.set(realCaseId(caseId));
    this.summary.set([countOfBeams(rows.length), percent(this.group.ratio()), isOpen ? attention(rows) : states(rows)].filter(Boolean).join(" · "));
    this.end.set(caseEnd(open.map((row) => row.beam), rows.some((row) => row.beam.state === "failed"), at));
  }
}

/** `done about 22:40`; with a beam whose end is unknown: `the others about 21:58; beam_2 stalled`. */
function caseEnd(open, someFailed, at) {
  const known = open.filter((beam) => beam.expected_end !== null);
  if (known.length === 0) return "";
  const unknown = open.filter((beam) => beam.expected_end === null);
  const end = `about ${clock(Math.max(...known.map((beam) => beam.expected_end)), at)}`;
  if (unknown.length === 0) return someFailed ? `the others done ${end}` : `done ${end}`;
  const [first] = unknown;
  const more = unknown.length === 1 ? "" : ` and ${unknown.length - 1} more`;
  return `the others ${end}; ${first.beam_id} ${stateWord(first.state).toLowerCase()}${more}`;
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
