// The runs that ended today.

import { beamLink, ended } from "./beam_words.js";
import { arrange, byId, element, icon } from "./dom.js";
import { clock, duration, midnight } from "./format.js";
import { realBeamId } from "./reveal.js";
import { keyOf, rows, store } from "./store.js";
import { view } from "./view.js";

/** The runs that ended since midnight, newest first; those of one case if the view is of one. */
export function endedToday(at) {
  const since = midnight(at);
  const runs = new Map();
  const isShown = (run) => view.caseId === null || run.case_id === view.caseId;
  for (const run of store.overview.ended.filter(isShown)) runs.set(`${keyOf(run)} ${run.run}`, run);
  for (const { beam } of rows.values()) {
    const key = `${keyOf(beam)} ${beam.run}`;
    if (isShown(beam) && ended(beam) && beam.ended_at !== null && !runs.has(key)) runs.set(key, { ...beam, outcome: beam.state });
  }
  return [...runs.values()].filter((run) => run.ended_at >= since).sort((one, other) => other.ended_at - one.ended_at);
}

let endedShown = "";
export function drawEnded(runs, at) {
  const signature = runs
    .map((run) => `${keyOf(run)} ${run.run} ${run.outcome} ${run.reason_text} ${realBeamId(run.beam_id)}`)
    .join();
  if (signature === endedShown && byId("ended").firstChild !== null) return;
  endedShown = signature;
  const items = runs.map((run) => {
    const isShown = rows.has(keyOf(run));
    const realId = realBeamId(run.beam_id);
    const took = run.started_at === null ? "" : ` after ${duration(run.ended_at - run.started_at)}`;
    const outcome = run.outcome === "failed" ? `Failed${took}: ${run.reason_text ?? "unknown reason"}` : `Succeeded${took}`;
    return element(
      "li",
      {},
      element("time", { datetime: new Date(run.ended_at * 1000).toISOString() }, clock(run.ended_at, at)),
      element("span", { class: `state state-${run.outcome}` }, icon(run.outcome)),
      element(
        "span",
        { class: "text" },
        isShown ? element("a", { href: beamLink(run) }, run.beam_id) : element("strong", {}, run.beam_id),
        realId === "" ? "" : element("span", { class: "real-id" }, ` ${realId}`),
        run.run > 1 ? `, run ${run.run}` : "",
        element("span", { class: "what" }, ` ${outcome}`),
      ),
    );
  });
  if (items.length === 0) items.push(element("li", { class: "none" }, "No run has ended today."));
  arrange(byId("ended"), items);
}
