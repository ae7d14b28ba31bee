// The connection to the exporter: server-sent events, or polling where they fail; reports when both fail.

const POLL_MS = 3000;
const POLL_HIDDEN_MS = 15000;
const RETRY_MS = 2000;
const EVENTS_AGAIN_MS = [1000, 5000, 30000];
const SILENCE_MS = 16000; // a little more than three beats

/**
 * Follow beams and sources.
 *
 * @param {object} on what to call: `state(everything)`, `change(part)`, `link("live" | "polling" | "lost")`.
 */
export function follow(on) {
  let source = null;
  let received = false; // an event came from this source: a connection alone proves nothing
  let silence = 0;
  let timer = 0;
  let failures = 0;
  let link = "";

  function setLink(next) {
    if (next === link) return;
    link = next;
    on.link(next);
  }

  function connected() {
    clearTimeout(silence);
    silence = setTimeout(fallBack, SILENCE_MS);
    failures = 0;
    received = true;
    setLink("live");
  }

  function listen() {
    if (source !== null || document.hidden || !("EventSource" in window)) return;
    source = new EventSource("api/v1/events");
    silence = setTimeout(fallBack, SILENCE_MS);
    source.addEventListener("state", (event) => {
      on.state(JSON.parse(event.data));
      connected();
      clearTimeout(timer);
    });
    source.addEventListener("change", (event) => {
      on.change(JSON.parse(event.data));
      connected();
    });
    source.addEventListener("beat", connected);
    source.addEventListener("error", fallBack);
  }

  function hangUp() {
    clearTimeout(silence);
    source?.close();
    source = null;
    received = false;
  }

  function fallBack() {
    hangUp();
    poll();
    const wait = EVENTS_AGAIN_MS[Math.min(failures++, EVENTS_AGAIN_MS.length - 1)];
    setTimeout(() => link !== "lost" && listen(), wait);
  }

  async function poll() {
    clearTimeout(timer);
    let wait = document.hidden ? POLL_HIDDEN_MS : POLL_MS;
    try {
      const [beams, sources] = await Promise.all([json("api/v1/beams"), json("api/v1/sources")]);
      if (received) return;
      on.state({ ...sources, ...beams, at: Math.max(beams.at, beams.date ?? 0) });
      if (link === "lost") {
        failures = 0;
        listen();
      }
      setLink("polling");
    } catch {
      if (received) return;
      hangUp();
      setLink("lost");
      wait = RETRY_MS;
    }
    clearTimeout(timer);
    timer = setTimeout(poll, wait);
  }

  document.addEventListener("visibilitychange", () => {
    // A browser opens few connections to one server, so a hidden page closes its own.
    if (document.hidden) hangUp();
    poll();
    listen();
  });
  listen();
  if (source === null) poll();
}

/** One answer of the API, with `date`, when the server sent it. Throws where there is none in time. */
export async function json(path) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(10000) });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  const date = Date.parse(answer.headers.get("date") ?? "");
  return { ...(await answer.json()), date: Number.isNaN(date) ? null : date / 1000 };
}
