// One beam in full, with the last lines of its log.

import { Advice } from "./advice.js";
import { Words, arrange, attribute, element } from "./dom.js";
import { age, bytes, clock, count, duration, percent, rate } from "./format.js";
import { json } from "./feed.js";
import { batches, caseLink, ended, expectedEndExplained, explanation, logAge, timeLeft } from "./beam_words.js";
import { realBeamId, realCaseId } from "./reveal.js";
import { EarlierRuns } from "./recent.js";
import { Bar, State } from "./row.js";
import { settings } from "./settings.js";

const REFRESH_MS = 1000;
const WATCHED = new Set(["starting", "running", "stalled"]); // states of beams that can stall

const UNKNOWN = "–";

/** `10 of 24 (41 %)`. */
function startedWords(beam) {
  return beam.batches_total === null ? null : `${batches(beam)} (${percent(beam.progress_ratio)})`;
}

function stallWords(beam) {
  return WATCHED.has(beam.state) ? `${duration(beam.stall_threshold_seconds)} without progress` : null;
}

function engineWords(beam) {
  if (beam.dialect === "unknown") return null;
  return beam.buffered ? `${beam.dialect}, log grows in blocks` : beam.dialect;
}

/** The dose file that the output check found, or why there is none. */
function doseFile(beam) {
  return beam.output_path === null ? beam.output_text : `${beam.output_path}, ${bytes(beam.output_size_bytes)}`;
}

/** The dose grid's size, the maximum dose, and the number of dose files. */
function doseWords(beam) {
  if (beam.dose_path === null) return null;
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
  return known.map(([field, name]) => `${name} ${beam[field].toFixed(1)} s`).join(", ") || null;
}

/** Facts of a beam: name, what it means, and its value; a value that is null or unknown is not shown. */
const FACTS = [
  ["Time left", "Estimated from the batches that have finished.", (beam, now) => timeLeft(beam, now)],
  ["Expected end", "Now and the time left.", expectedEndExplained],
  ["Batches started", "The particles are simulated in batches, one after the other.", startedWords],
  ["Batches finished", "", (beam) => (beam.batches_total === null ? null : String(beam.batches_completed))],
  ["Phase", "What the simulation program is doing.", (beam) => (ended(beam) ? null : settings.phases[beam.phase])],
  ["Batch duration", "Mean of the batches of this run, without the first as soon as two others have finished.", (beam) => duration(beam.batch_duration_seconds)],
  ["Rate", "Histories: simulated particles.", (beam) => rate(beam.histories_per_second)],
  ["Started", "", (beam, now) => clock(beam.started_at, now)],
  ["Ended", "", (beam, now) => clock(beam.ended_at, now)],
  ["Last progress", "When the log last told of a batch or a phase.", (beam, now) => (ended(beam) || beam.last_progress_at === null ? null : `${age(now - beam.last_progress_at)} ago`)],
  ["Stalled after", "The beam counts as stalled when there is no progress for so long.", stallWords],
  ["Run", "A beam that is started again begins a new run.", (beam) => String(beam.run)],
  ["Histories", "Particles to simulate in this run.", (beam) => (beam.particles === null ? null : count(beam.particles))],
  ["Source", "Where its log is read.", (beam) => (beam.log_path === null ? null : beam.source)],
  ["Last log line", "When the log was last written.", logAge],
  ["Log size", "", (beam) => bytes(beam.log_size_bytes)],
  ["Engine", "The kind of simulation program, recognised from its log.", engineWords],
  ["MQI Communicator", "What its table says of the beam.", (beam) => beam.status_text],
  ["Job", "The scheduler's number of the job.", (beam) => beam.hpc_job_id],
  ["Log", "", (beam) => beam.log_path],
  ["Dose file", "Found by the exporter.", doseFile],
  ["Dose in the log", "What the simulation program says of the dose.", doseWords],
  ["Dose path in the log", "", (beam) => beam.dose_path],
  ["Engine timing", "Measured by the simulation program.", engineTimes],
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
    this.facts = FACTS.map(([name, meaning], number) =>
      element("div", {}, element("dt", { title: meaning || null }, name), element("dd", {}, this.values[number].node)),
    );
    this.lines = new Words("Loading");
    this.advice = new Advice();
    this.realId = new Words();
    this.realCaseId = new Words();
    this.title = element("h2", { tabindex: "-1" }, beam.beam_id, " ", element("span", { class: "real-id" }, this.realId.node));
    this.failureLine = element("p", { class: "failure", hidden: true }, this.failure.node);
    this.log = element(
      "pre",
      { class: "lines", tabindex: "0", role: "region", "aria-label": `Last lines of the log of ${beam.beam_id}` },
      this.lines.node,
    );
    this.earlier = new EarlierRuns();
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
      element("p", { class: "verdict" }, this.state.node, element("span", { class: "what" }, this.what.node)),
      this.bar.node,
      this.failureLine,
      this.advice.node,
      element(
        "dl",
        { class: "facts" },
        ...this.facts,
      ),
      this.why,
      element("h3", {}, "Last lines of the log"),
      this.log,
      this.earlier.node,
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
    this.tick(now);
    this.readLines();
    this.explain();
    this.earlier.update(beam, now);
  }

  tick(now) {
    this.what.set(explanation(this.beam, now));
    this.advice.update(this.beam, now);
    FACTS.forEach(([, , value], number) => {
      const text = value(this.beam, now) ?? UNKNOWN;
      this.facts[number].hidden = text === UNKNOWN;
      this.values[number].set(text);
    });
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
