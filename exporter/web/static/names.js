// The ids behind pseudonyms, for those who may see them: in this page's memory alone, and only while they are wanted.

import { json } from "./feed.js";

let names = { cases: {}, beams: {} };

export const nameOfCase = (caseId) => names.cases[caseId] ?? "";
export const nameOfBeam = (beamId) => names.beams[beamId] ?? "";

/**
 * Let a button show and hide them; where they are not offered there is none.
 *
 * @param {HTMLButtonElement | null} button what is pressed.
 * @param {() => void} changed called when other names are to be shown.
 */
export function offerNames(button, changed) {
  button?.addEventListener("click", async () => {
    const hide = button.getAttribute("aria-pressed") === "true";
    names = { cases: {}, beams: {} };
    let said = "Show ids";
    if (!hide) {
      try {
        names = await json("api/v1/names");
        said = "Hide ids";
      } catch {
        said = "Ids: not for you";
      }
    }
    button.setAttribute("aria-pressed", String(said === "Hide ids"));
    button.textContent = said;
    changed();
  });
}
