// The history of runs: "Recent", the earlier runs of a beam, and cases and beams that have left the list.

import { beamLink, caseLink } from "./beam_words.js";
import { arrange, element, icon } from "./dom.js";
import { json } from "./feed.js";
import { clock, countOfRuns, dayName, duration, midnight } from "./format.js";
import { settings } from "./settings.js";

const RUNS_AT_FIRST = 200;
const RUNS_AT_MOST = 10000;

/** Ask for runs, newest first; null where no history is kept. */
async function runsOf(query) {
  return settings.history ? (await json(`api/v1/runs?${new URLSearchParams(query)}`)).runs : null;
}

/** `Succeeded`, or `Failed: the graphics card reported an error`. */
function outcome(run) {
  return run.outcome === "succeeded" ? "Succeeded" : `Failed: ${run.reason_text ?? "unknown reason"}`;
}

const took = (run) => (run.started_at === null ? "–" : duration(run.ended_at - run.started_at));

function runRow(run, now, { withBeam }) {
  return element(
    "tr",
    {},
    element("td", {}, element("time", { datetime: new Date(run.ended_at * 1000).toISOString() }, clock(run.ended_at, withBeam ? run.ended_at : now))),
    ...(withBeam
      ? [
          element("td", {}, element("a", { href: caseLink(run.case_id) }, run.case_id)),
          element("th", { scope: "row" }, element("a", { href: beamLink(run) }, run.beam_id)),
        ]
      : []),
    element("td", { class: "number" }, String(run.run)),
    element("td", {}, element("span", { class: `state state-${run.outcome}` }, icon(run.outcome)), ` ${outcome(run)}`),
    element("td", { class: "number" }, took(run)),
    element("td", { class: "number" }, run.batches === null ? "–" : String(run.batches)),
  );
}

function runTable(runs, now, { withBeam, caption }) {
  const heads = ["Ended", ...(withBeam ? ["Case", "Beam"] : []), "Run", "Outcome", "Took", "Batches"];
  return element(
    "div",
    { class: "scroll", role: "region", "aria-label": caption, tabindex: "0" },
    element(
      "table",
      { class: "runs" },
      element("caption", {}, caption),
      element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))),
      element("tbody", {}, ...runs.map((run) => runRow(run, now, { withBeam }))),
    ),
  );
}

/** One table for each day. */
function byDay(runs, now) {
  const days = new Map();
  for (const run of runs) {
    const day = midnight(run.ended_at);
    if (!days.has(day)) days.set(day, []);
    days.get(day).push(run);
  }
  return [...days].map(([day, its]) => runTable(its, now, { withBeam: true, caption: `${dayName(day, now)}: ${countOfRuns(its.length)}` }));
}

const crumbs = () => element("p", { class: "crumbs" }, element("a", { href: "#/" }, "All cases"));
const csvLink = (query) => element("a", { href: `api/v1/runs?${new URLSearchParams({ ...query, format: "csv" })}`, download: "" }, "CSV");

async function fill(node, load, failed = "The history of runs cannot be loaded.") {
  try {
    arrange(node, await load());
  } catch {
    arrange(node, [element("p", {}, failed)]);
  }
}

/** The page of all recent runs. */
export function drawRecent(container, now, limit = RUNS_AT_FIRST) {
  const list = element("div", {}, "Loading");
  const title = element("h2", { tabindex: "-1" }, "Recent runs");
  arrange(container, [crumbs(), title, list]);
  fill(list, async () => {
    const runs = await runsOf({ limit });
    if (runs === null) return [element("p", {}, "No history of runs is kept. The administrator turns it on with state.file.")];
    if (runs.length === 0) return [element("p", {}, "No run has ended yet.")];
    const older = element("button", { type: "button", class: "quiet" }, "Show older runs");
    older.addEventListener("click", () => drawRecent(container, now, Math.min(limit * 5, RUNS_AT_MOST)));
    const more = runs.length === limit && limit < RUNS_AT_MOST ? [older] : [];
    return [element("p", { class: "tools" }, csvLink({ limit })), ...byDay(runs, now), ...more];
  });
}

/** A case or a beam that is not in the list: what the history knows of it. */
export function drawGone(container, caseId, beamId, now) {
  const what = beamId === null ? `Case ${caseId}` : beamId;
  const list = element("div", {}, "Loading");
  arrange(container, [crumbs(), element("h2", { tabindex: "-1" }, what), list]);
  const query = beamId === null ? { case: caseId } : { case: caseId, beam: beamId };
  fill(list, async () => {
    const runs = (await runsOf(query)) ?? [];
    if (runs.length === 0) return [element("p", {}, "It is unknown, or it ended long ago and is not kept any more.")];
    return [
      element("p", {}, `Not in the list any more. Its runs: `, csvLink(query)),
      runTable(runs, now, { withBeam: beamId === null, caption: countOfRuns(runs.length) }),
    ];
  });
}

/** The earlier runs of a beam, below its facts. */
export class EarlierRuns {
  constructor() {
    this.node = element("section", { class: "earlier", hidden: true });
    this.asked = "";
  }

  /** Ask again when the beam's run has changed or ended. */
  update(beam, now) {
    const key = `${beam.run} ${beam.ended_at}`;
    if (key === this.asked) return;
    this.asked = key;
    fill(
      this.node,
      async () => {
        const found = (await runsOf({ case: beam.case_id, beam: beam.beam_id, limit: 20 })) ?? [];
        const runs = found.filter((run) => run.run !== beam.run || run.ended_at !== beam.ended_at);
        this.node.hidden = runs.length === 0;
        const last = runs.find((run) => run.outcome === "succeeded" && run.started_at !== null);
        return [
          element("h3", {}, "Earlier runs"),
          ...(last === undefined ? [] : [element("p", {}, `It took ${took(last)} last time.`)]),
          runTable(runs, now, { withBeam: false, caption: countOfRuns(runs.length) }),
        ];
      },
      "Earlier runs cannot be loaded.",
    );
  }
}
