// What to do about a beam: a few steps, and a text for IT.

import { explanation, situation, stateWord } from "./beam_words.js";
import { Words, attribute, copyText, element } from "./dom.js";
import { dateAndTime } from "./format.js";
import { settings } from "./settings.js";

/** What IT needs to know, to be sent by mail or read out on the telephone. */
function textForIt(beam, runbook, now) {
  const lines = [
    `Dose simulation: ${stateWord(beam.state)}`,
    `Case ${beam.case_id}, beam ${beam.beam_id}, run ${beam.run}`,
    `Since ${dateAndTime(beam.state_since)}: ${explanation(beam, now)}`,
    beam.reason === null ? null : `Reason: ${beam.reason}`,
    beam.failure_text === null ? null : `The log says: ${beam.failure_text}`,
    beam.log_path === null ? null : `Log: ${beam.log_path} (${beam.source})`,
    beam.hpc_job_id === null ? null : `Job: ${beam.hpc_job_id}`,
    `Page: ${location.href}`,
    `Runbook: ${runbook}`,
  ];
  return lines.filter((line) => line !== null).join("\n");
}

/** The part of a beam's page that says what to do. */
export class Advice {
  constructor() {
    this.steps = element("ol", {});
    this.text = new Words();
    this.copied = element("span", { role: "status" });
    const copy = element("button", { type: "button", class: "quiet" }, "Copy text for IT");
    copy.addEventListener("click", async () => {
      await copyText(this.text.node.data);
      this.copied.textContent = "Copied";
    });
    this.runbook = element("a", { rel: "noreferrer" }, "Runbook for operators");
    this.node = element(
      "section",
      { class: "advice", "aria-labelledby": "advice-title", hidden: true },
      element("h3", { id: "advice-title" }, "What to do"),
      this.steps,
      element("pre", { class: "for-it", tabindex: "0", role: "region", "aria-label": "Text for IT" }, this.text.node),
      element("p", { class: "buttons" }, copy, this.copied, this.runbook),
    );
  }

  update(beam, now) {
    const key = situation(beam);
    this.node.hidden = key === null;
    if (key === null) return;
    attribute(this.runbook, "href", settings.runbooks[key]);
    this.text.set(textForIt(beam, this.runbook.href, now));
    if (key === this.shown) return;
    this.shown = key;
    this.copied.textContent = "";
    this.steps.replaceChildren(...settings.advice[key].map((step) => element("li", {}, step)));
  }
}
