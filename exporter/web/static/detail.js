// One beam in full, with the last lines of its log.

import { Words, arrange, attribute, element } from "./dom.js";
import { age, bytes, clock, count, duration } from "./format.js";
import { json } from "./feed.js";
import { batches, caseLink, doseFile, ended, expectedEndExplained, explanation, logAge, runbook, settings, timeLeft } from "./beam_words.js";
import { realBeamId, realCaseId } from "./reveal.js";
import { Bar, State } from "./row.js";

const REFRESH_MS = 1000;

/** The dose grid's size, the maximum dose, and the number of dose files. */
function doseWords(beam) {
  if (beam.dose_path === null) return "–";
  const parts = [beam.dose_dimensions ?? "written"];
  if (beam.dose_max_gy !== null) parts.push(`maximum ${Number(beam.dose_max_gy.toPrecision(4))} Gy`);
  if (beam.doses_written > 1) parts.push(`the last of ${beam.doses_written}`);
  return parts.join(", ");
}

const ENGINE_PARTS = [
  ["engine_initialization_seconds", "initialization"],
  ["engine_simulation_seconds", "simulation"],
  ["engine_output_seconds", "output"],
  ["engine_seconds", "total"],
];

/** Durations measured by the engine. */
function engineTimes(beam) {
  const known = ENGINE_PARTS.filter(([field]) => beam[field] !== null);
  return known.map(([field, name]) => `${name} ${beam[field].toFixed(1)} s`).join(", ") || "–";
}

const FACTS = [
  ["Time left", timeLeft],
  ["Expected end", expectedEndExplained],
  ["Batch", batches],
  ["Batches finished", (beam) => String(beam.batches_completed)],
  ["Phase", (beam) => settings.phases[beam.phase] ?? "–"],
  ["Batch duration", (beam) => duration(beam.batch_duration_seconds)],
  ["Started", (beam, now) => clock(beam.started_at, now)],
  ["Ended", (beam, now) => clock(beam.ended_at, now)],
  ["Last progress", (beam, now) => (beam.last_progress_at === null ? "–" : `${age(now - beam.last_progress_at)} ago`)],
  ["Stalled after", (beam) => `${duration(beam.stall_threshold_seconds)} without progress`],
  ["Run", (beam) => String(beam.run)],
  ["Particles", (beam) => count(beam.particles)],
  ["Source", (beam) => beam.source],
  ["Last log line", logAge],
  ["Log size", (beam) => bytes(beam.log_size_bytes)],
  ["Engine", (beam) => (beam.buffered ? `${beam.dialect}, log grows in blocks` : beam.dialect)],
  ["Database", (beam) => beam.status ?? "–"],
  ["Job", (beam) => beam.hpc_job_id ?? "–"],
  ["Log", (beam) => beam.log_path ?? "–"],
  ["Dose file", doseFile],
  ["Dose in the log", doseWords],
  ["Dose path in the log", (beam) => beam.dose_path ?? "–"],
  ["Engine timing", engineTimes],
];

/** One beam in full. The last lines of its log are requested when the log has grown. */
export class Detail {
  constructor(beam) {
    this.beam = beam;
    this.state = new State();
    this.bar = new Bar();
    this.what = new Words();
    this.failure = new Words();
    this.values = FACTS.map(() => new Words());
    this.lines = new Words("Loading");
    this.help = element("a", { class: "help", rel: "noreferrer", hidden: true }, "What to do");
    this.realId = new Words();
    this.realCaseId = new Words();
    this.title = element("h2", { tabindex: "-1" }, beam.beam_id, " ", element("span", { class: "real-id" }, this.realId.node));
    this.failureLine = element("p", { class: "failure", hidden: true }, this.failure.node);
    this.log = element(
      "pre",
      { class: "lines", tabindex: "0", role: "region", "aria-label": `Last lines of the log of ${beam.beam_id}` },
      this.lines.node,
    );
    this.reasons = element("div", { class: "reasons" });
    this.why = element("details", { class: "why" }, element("summary", {}, "Why?"), this.reasons);
    this.why.addEventListener("toggle", () => this.explain());
    this.nodes = [
      element(
        "p",
        { class: "crumbs" },
        element("a", { href: "#/" }, "All cases"),
        " / ",
        element("a", { href: caseLink(beam.case_id) }, beam.case_id),
        " ",
        element("span", { class: "real-id" }, this.realCaseId.node),
      ),
      this.title,
      element("p", { class: "verdict" }, this.state.node, element("span", { class: "what" }, this.what.node, " ", this.help)),
      this.bar.node,
      this.failureLine,
      element(
        "dl",
        { class: "facts" },
        ...FACTS.map(([name], number) =>
          element("div", {}, element("dt", {}, name), element("dd", {}, this.values[number].node)),
        ),
      ),
      this.why,
      element("h3", {}, "Last lines of the log"),
      this.log,
    ];
    this.seen = "";
    this.asking = false;
  }

  show(container, now) {
    arrange(container, this.nodes);
    this.update(now);
    this.title.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }

  update(now) {
    const beam = this.beam;
    this.state.update(beam);
    this.bar.update(beam);
    attribute(this.bar.node, "data-state", beam.state);
    this.realId.set(realBeamId(beam.beam_id));
    this.realCaseId.set(realCaseId(beam.case_id));
    this.failureLine.hidden = beam.failure_text === null;
    this.failure.set(beam.failure_text ?? "");
    const help = runbook(beam);
    this.help.hidden = help === null;
    if (help !== null) attribute(this.help, "href", help);
    this.tick(now);
    this.readLines();
    this.explain();
  }

  tick(now) {
    this.what.set(explanation(this.beam, now));
    FACTS.forEach(([, value], number) => this.values[number].set(value(this.beam, now)));
  }

  /** Show by which evidence and rules the beam was judged, while "Why?" is open. */
  async explain() {
    const { beam } = this;
    if (!this.why.open || this.explaining) return;
    this.explaining = true;
    try {
      const path = `api/v1/beams/${encodeURIComponent(beam.case_id)}/${encodeURIComponent(beam.beam_id)}/explain`;
      const { sections } = await json(path);
      const text = JSON.stringify(sections);
      if (text !== this.explained) {
        this.explained = text;
        this.reasons.replaceChildren(
          ...sections.flatMap(({ title, lines }) => [
            element("h3", {}, title),
            element("ul", {}, ...lines.map((line) => element("li", {}, line))),
          ]),
        );
      }
    } catch {
      this.reasons.replaceChildren("The explanation could not be loaded.");
      this.explained = "";
    }
    this.explaining = false;
  }

  async readLines() {
    const { beam } = this;
    const grown = `${beam.run} ${beam.log_size_bytes} ${beam.log_modified_at}`;
    if (this.asking || grown === this.seen) return;
    this.asking = true;
    try {
      const path = `api/v1/beams/${encodeURIComponent(beam.case_id)}/${encodeURIComponent(beam.beam_id)}`;
      const answer = await json(path);
      const { log } = this;
      const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
      this.lines.set(answer.recent_lines.join("\n") || "The log is empty, or there is none yet.");
      if (atEnd) log.scrollTop = log.scrollHeight;
      this.seen = grown;
    } catch {
      if (this.seen === "") this.lines.set("The last lines cannot be loaded.");
    }
    setTimeout(() => {
      this.asking = false;
      this.readLines();
    }, REFRESH_MS);
  }
}
