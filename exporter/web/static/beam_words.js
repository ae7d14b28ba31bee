// A beam in words: what it is doing, when it ends, and where to read what to do.

import { age, clock, duration } from "./format.js";
import { settings } from "./settings.js";

const ENDED = new Set(["succeeded", "failed"]);
const AT_WORK = new Set(["starting", "running"]);

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
  else if (beam.state === "unreachable") parts.push(`${beam.source} cannot be reached; last known values`);
  else if (beam.state === "waiting") parts.push(beam.waiting_text ?? "no log yet");
  else if (beam.state === "succeeded") parts.push(tookWords(beam));
  else parts.push(settings.phases[beam.phase] ?? "starting");
  if (beam.state === "waiting" && beam.status_text !== null && beam.waiting_text?.includes(beam.status_text) !== true) {
    parts.push(`MQI Communicator: ${beam.status_text}`);
  }
  if (beam.output === "pending" || beam.output === "blocked") parts.push(beam.output_text);
  if (beam.buffered && AT_WORK.has(beam.state)) parts.push("log grows in blocks");
  if (beam.log_unmatched) parts.push("no line of its log is recognised");
  if (beam.status_mismatch) parts.push(`but MQI Communicator says: ${beam.status_text}`);
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

/** What is to be done about a beam, as a key of `settings.advice`; null where nothing is. */
export function situation(beam) {
  if (beam.state === "failed") return Object.hasOwn(settings.advice, beam.reason ?? "") ? beam.reason : "error";
  if (beam.state === "stalled" || beam.state === "expired") return beam.state;
  if (beam.state === "unreachable") return "source_down";
  return beam.state === "waiting" && beam.needs_attention ? "waiting" : null;
}

/** `5 of 18`. */
export const batches = (beam) =>
  beam.batches_total === null ? "–" : `${beam.batch_current} of ${beam.batches_total}`;

export function timeLeft(beam, now) {
  if (ended(beam) || beam.state === "unreachable" || beam.expected_end_basis !== "pace") return "–";
  return duration(beam.expected_end - now);
}

/** When a beam ended or is expected to end. */
export function endWords(beam, now) {
  if (ended(beam)) return beam.ended_at === null ? "ended" : `ended ${clock(beam.ended_at, now)}`;
  return expectedEnd(beam, now);
}

const BASIS_WORDS = {
  earlier_runs_of_the_beam: "from earlier runs of this beam",
  recent_runs_by_particles: "from recent runs, by their particles",
  recent_runs: "from recent runs",
};

/** `22:40`, or `about 22:40` where it does not come from the pace of the run itself. */
function expectedEnd(beam, now) {
  const end = clock(beam.expected_end, now);
  return beam.expected_end === null || beam.expected_end_basis === "pace" ? end : `about ${end}`;
}

/** The expected end, and what it is based on. */
export function expectedEndExplained(beam, now) {
  if (ended(beam)) return "–";
  const basis = BASIS_WORDS[beam.expected_end_basis];
  return basis === undefined ? expectedEnd(beam, now) : `${expectedEnd(beam, now)} (${basis})`;
}

/** How long ago the log was last written. */
export const logAge = (beam, now) => (beam.log_modified_at === null ? "no log" : `${age(now - beam.log_modified_at)} ago`);
