// The ids behind pseudonyms, for users who may see them: only in this page's memory, and only while they are shown.

import { json } from "./feed.js";

const NONE = { cases: {}, beams: {} };
let ids = NONE;

export const realCaseId = (caseId) => ids.cases[caseId] ?? "";
export const realBeamId = (beamId) => ids.beams[beamId] ?? "";

/**
 * Let a button show and hide ids.
 *
 * @param {HTMLButtonElement | null} button the button; null where no user may see ids.
 * @param {() => void} changed called when the ids are shown or hidden.
 */
export function offerIds(button, changed) {
  button?.addEventListener("click", async () => {
    const hide = button.getAttribute("aria-pressed") === "true";
    ids = NONE;
    let label = "Show ids";
    if (!hide) {
      try {
        ids = await json("api/v1/names");
        label = "Hide ids";
      } catch {
        label = "You may not see ids";
      }
    }
    button.setAttribute("aria-pressed", String(label === "Hide ids"));
    button.textContent = label;
    changed();
  });
}
