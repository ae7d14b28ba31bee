// A beam's row in the overview, and its parts.

import { Words, attribute, element, icon } from "./dom.js";
import { percent } from "./format.js";
import { batches, beamLink, caseLink, endWords, ended, explanation, logAge, situation, stateWord, timeLeft } from "./beam_words.js";
import { realBeamId, realCaseId } from "./reveal.js";
import { settings } from "./settings.js";

/** A bar of the estimated progress with a mark for the share of started batches. */
export class Bar {
  constructor() {
    this.fill = element("span", { class: "fill" });
    this.tick = element("span", { class: "tick" });
    this.track = element(
      "div",
      { class: "track", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100" },
      this.fill,
      this.tick,
    );
    this.estimate = new Words();
    this.node = element(
      "div",
      { class: "bar" },
      this.track,
      element("span", { class: "percent" }, this.estimate.node),
    );
  }

  update(beam) {
    const estimate = percent(beam.estimated_ratio);
    const started = percent(beam.progress_ratio);
    if (estimate !== this.shown || beam.estimated_ratio !== this.ratio) {
      this.fill.style.transform = `scaleX(${beam.estimated_ratio})`;
      this.ratio = beam.estimated_ratio;
      this.shown = estimate;
    }
    this.tick.hidden = beam.batches_total === null;
    this.tick.style.left = `${100 * beam.progress_ratio}%`;
    attribute(this.track, "aria-label", `Estimated progress of ${beam.beam_id}`);
    attribute(this.track, "aria-valuenow", String(Math.floor(100 * beam.estimated_ratio)));
    attribute(this.track, "aria-valuetext", `${estimate}; batches started ${started}`);
    this.estimate.set(estimate);
  }
}

/** The state as icon and word. */
export class State {
  constructor() {
    this.word = new Words();
    this.sign = element("span", { class: "sign" });
    this.node = element("span", { class: "state" }, this.sign, this.word.node);
  }

  update(beam) {
    if (beam.state === this.shown) return;
    this.shown = beam.state;
    this.sign.replaceChildren(icon(beam.state));
    this.word.set(stateWord(beam.state));
    attribute(this.node, "class", `state state-${beam.state}`);
    attribute(this.node, "title", settings.states[beam.state]?.meaning ?? "");
  }
}

/** A beam's row in the overview; its nodes are made when they are first needed. */
export class Row {
  #node = null;

  constructor(beam) {
    this.beam = beam;
    this.namesCase = false; // whether it stands outside of its case
  }

  get node() {
    return (this.#node ??= this.#make());
  }

  get drawn() {
    return this.#node !== null;
  }

  /** Free the nodes: the row is far from the screen. */
  forget() {
    this.#node = null;
  }

  #make() {
    const { beam } = this;
    this.state = new State();
    this.bar = new Bar();
    this.run = new Words();
    this.realId = new Words();
    this.caseName = new Words();
    this.caseNode = element("a", { class: "of-case", href: caseLink(beam.case_id), hidden: true }, this.caseName.node);
    this.what = new Words();
    this.batch = new Words();
    this.left = new Words();
    this.end = new Words();
    this.source = new Words();
    this.age = new Words();
    this.help = element("a", { class: "help", href: beamLink(beam), "aria-label": `What to do about ${beam.beam_id}`, hidden: true }, "What to do");
    this.batchCell = element("span", { role: "cell", class: "number batch" }, this.batch.node);
    this.leftCell = element("span", { role: "cell", class: "number left" }, this.left.node);
    this.endCell = element("span", { role: "cell", class: "number end" }, this.end.node);
    return element(
      "div",
      { role: "row", class: "row beam" },
      element("span", { role: "cell", class: "state-cell" }, this.state.node),
      element(
        "span",
        { role: "rowheader", class: "name" },
        element("a", { href: beamLink(beam), class: "id" }, beam.beam_id),
        " ",
        element("span", { class: "real-id" }, this.realId.node),
        element("span", { class: "run" }, this.run.node),
        this.caseNode,
        element("span", { class: "what" }, this.what.node, " ", this.help),
      ),
      element("span", { role: "cell", class: "progress" }, this.bar.node),
      this.batchCell,
      this.leftCell,
      this.endCell,
      element(
        "span",
        { role: "cell", class: "log" },
        element("span", { class: "source" }, this.source.node),
        element("span", { class: "age" }, this.age.node),
      ),
    );
  }

  /** Show the beam's current values. */
  update(now) {
    const { beam, node } = this;
    this.state.update(beam);
    this.bar.update(beam);
    attribute(node, "data-state", beam.state);
    attribute(node, "data-attention", String(beam.needs_attention));
    this.realId.set(realBeamId(beam.beam_id));
    this.caseNode.hidden = !this.namesCase;
    this.caseName.set(this.namesCase ? `case ${beam.case_id} ${realCaseId(beam.case_id)}`.trim() : "");
    this.run.set(beam.run > 1 ? `run ${beam.run}` : "");
    this.batch.set(batches(beam));
    this.source.set(beam.log_path === null ? "" : beam.source);
    this.help.hidden = situation(beam) === null;
    this.tick(now);
  }

  /** Show what changes with time. */
  tick(now) {
    const beam = this.beam;
    this.what.set(explanation(beam, now));
    this.left.set(timeLeft(beam, now));
    this.end.set(endWords(beam, now));
    this.age.set(logAge(beam, now));
    attribute(this.batchCell, "data-known", String(beam.batches_total !== null));
    attribute(this.leftCell, "data-known", String(this.left.node.data !== "–"));
    attribute(this.endCell, "data-known", String(!ended(beam) && beam.expected_end !== null));
    attribute(this.endCell, "data-about", String(beam.expected_end_basis !== "pace"));
  }
}
