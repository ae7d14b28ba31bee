// One beam: its row in the overview, and its own view with the last lines of its log.

import { Words, arrange, attribute, element, icon } from "./dom.js";
import { age, bytes, clock, count, duration, percent } from "./format.js";
import { json } from "./feed.js";
import { realBeamId, realCaseId } from "./reveal.js";

const settings = JSON.parse(document.querySelector("meta[name=mqi-settings]").content);
const ENDED = new Set(["succeeded", "failed"]);
const AT_WORK = new Set(["starting", "running"]);
const REFRESH_MS = 1000;

export const ended = (beam) => ENDED.has(beam.state);
export const stateWord = (state) => settings.states[state]?.word ?? state;
export const caseLink = (caseId) => `#/case/${encodeURIComponent(caseId)}`;
export const beamLink = (beam) => `#/beam/${encodeURIComponent(beam.case_id)}/${encodeURIComponent(beam.beam_id)}`;

/** Describe in words what the beam is doing. */
export function explanation(beam, now) {
  const parts = [];
  if (beam.state === "failed") {
    parts.push(beam.reason_text ?? settings.states.failed.meaning);
    if (beam.dose_text !== null) parts.push(beam.dose_text);
  } else if (beam.state === "stalled") parts.push(stalledWords(beam, now));
  else if (beam.state === "expired") parts.push(`log unchanged for ${age(now - (beam.log_modified_at ?? now))}; the simulation has probably died`);
  else if (beam.state === "unreachable") parts.push(`${beam.source} does not answer; last known values`);
  else if (beam.state === "waiting") parts.push(beam.waiting_text ?? "no log yet");
  else if (beam.state === "succeeded") parts.push(tookWords(beam));
  else parts.push(settings.phases[beam.phase] ?? "starting");
  if (beam.state === "waiting" && beam.status !== null && beam.waiting_text?.includes(beam.status) !== true) parts.push(`database: ${beam.status}`);
  if (beam.output === "pending" || beam.output === "blocked") parts.push(beam.output_text);
  if (beam.buffered && AT_WORK.has(beam.state)) parts.push("log grows in blocks");
  if (beam.log_unmatched) parts.push("no line of its log is recognised");
  if (beam.status_mismatch) parts.push(`but the database says ${beam.status}`);
  return parts.join(" · ");
}

/** How long a run took; measured by the engine where the start of the run was not seen. */
function tookWords(beam) {
  if (beam.started_at !== null) return `took ${duration(beam.ended_at - beam.started_at)}`;
  return beam.engine_seconds === null ? "finished" : `took ${duration(beam.engine_seconds)}`;
}

function stalledWords(beam, now) {
  const stalled = `no progress for ${age(now - (beam.last_progress_at ?? beam.state_since))}`;
  return beam.batch_duration_seconds === null ? stalled : `${stalled}, a batch takes ${duration(beam.batch_duration_seconds)}`;
}

function runbook(beam) {
  if (beam.state === "waiting" && beam.needs_attention) return settings.runbooks.waiting;
  const reason = beam.reason ?? (beam.state === "stalled" || beam.state === "expired" ? "stalled" : null);
  return reason === null ? null : settings.runbooks[reason] ?? settings.runbooks.error;
}

const batches = (beam) =>
  beam.batches_total === null ? "–" : `${beam.batch_current} of ${beam.batches_total}`;

function timeLeft(beam, now) {
  if (ended(beam) || beam.state === "unreachable" || beam.expected_end === null) return "–";
  return duration(beam.expected_end - now);
}

function endWords(beam, now) {
  if (ended(beam)) return beam.ended_at === null ? "ended" : `ended ${clock(beam.ended_at, now)}`;
  return clock(beam.expected_end, now);
}

const logAge = (beam, now) => (beam.log_modified_at === null ? "no log" : `${age(now - beam.log_modified_at)} ago`);

function doseFile(beam) {
  if (beam.output_path === null) return beam.output_text ?? "–";
  return `${beam.output_path}, ${bytes(beam.output_size_bytes)}`;
}

/** A bar of the estimated progress with a mark for the share of started batches, and both as text. */
class Bar {
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
    this.started = new Words();
    this.node = element(
      "div",
      { class: "bar" },
      this.track,
      element("span", { class: "percent" }, this.estimate.node),
      element("span", { class: "started" }, this.started.node),
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
    this.started.set(beam.batches_total === null ? "" : `started ${started}`);
  }
}

/** The state as icon and word. */
class State {
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
  }
}

/** A beam's row in the overview; its nodes are made when they are first needed. */
export class Row {
  #node = null;

  constructor(beam) {
    this.beam = beam;
  }

  get node() {
    return (this.#node ??= this.#make());
  }

  get drawn() {
    return this.#node !== null && this.#node.isConnected;
  }

  #make() {
    const { beam } = this;
    this.state = new State();
    this.bar = new Bar();
    this.run = new Words();
    this.realId = new Words();
    this.what = new Words();
    this.batch = new Words();
    this.left = new Words();
    this.end = new Words();
    this.source = new Words();
    this.age = new Words();
    this.help = element("a", { class: "help", rel: "noreferrer", hidden: true }, "What to do");
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
    this.run.set(beam.run > 1 ? `run ${beam.run}` : "");
    this.batch.set(batches(beam));
    this.source.set(beam.log_path === null ? "" : beam.source);
    const help = runbook(beam);
    this.help.hidden = help === null;
    if (help !== null) {
      attribute(this.help, "href", help);
      attribute(this.help, "aria-label", `What to do about ${beam.beam_id}`);
    }
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
  }
}

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
  ["Expected end", (beam, now) => (ended(beam) ? "–" : clock(beam.expected_end, now))],
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
