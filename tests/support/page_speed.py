"""How fast the page is with many beams: ``python -m tests.support.page_speed [BEAMS]``.

The page is opened, then scrolled for ten seconds. Meanwhile, every second, one beam in a hundred gets another batch.
"""

from __future__ import annotations

import itertools
import sys
import time
from typing import Any

from exporter.beams.snapshot import BeamState, StoreSnapshot
from tests.support.browser import Visitor, open_browser
from tests.web.site import serve
from tests.web.store_snapshots import make_beam, make_snapshot

_STATES = (BeamState.RUNNING, BeamState.RUNNING, BeamState.WAITING, BeamState.SUCCEEDED)
_PATIENCE_SECONDS = 300.0
_WATCH_TASKS = """window.longest = 0; new PerformanceObserver(list => list.getEntries().forEach(task =>
    longest = Math.max(longest, task.duration))).observe({type: 'longtask', buffered: true})"""
_SCROLL = """async () => {
    const frames = [], end = performance.now() + 10000;
    let last = performance.now(), top = 0;
    await new Promise(done => requestAnimationFrame(function next(at) {
        frames.push(at - last);
        last = at;
        top = (top + 300) % document.documentElement.scrollHeight;
        scrollTo(0, top);
        at < end ? requestAnimationFrame(next) : done();
    }));
    frames.shift();
    frames.sort((one, other) => one - other);
    return [frames.length, frames.at(-1), frames[Math.floor(frames.length * 0.99)], longest];
}"""


class _Store:
    """Beams of which some get a batch further every second."""

    def __init__(self, beams: int) -> None:
        self._beams = [
            make_beam(
                f"case{number // 4:04}",
                f"beam{number:05}",
                state=_STATES[number % 4],
                remaining_seconds=900.0 + number % 100,
                log_modified_at=time.time(),
            )
            for number in range(beams)
        ]
        self._numbers = itertools.cycle(range(0, beams, 4))
        self._changed_at = time.time()

    def snapshot(self) -> StoreSnapshot:
        at = time.time()
        if at - self._changed_at >= 1.0:
            self._changed_at = at
            for number in itertools.islice(self._numbers, len(self._beams) // 100):
                beam = self._beams[number]
                self._beams[number] = beam._replace(batch_current=beam.batch_current % 17 + 1, log_modified_at=at)
        return make_snapshot(*self._beams, at=at)


def measure(beams: int) -> dict[str, Any]:
    """Measure the page with this number of beams; times are in milliseconds, as the browser has them."""
    with serve(snapshot=_Store(beams).snapshot) as site, open_browser() as browser:
        visitor = Visitor(browser.new_page(viewport={"width": 1440, "height": 900}))
        visitor.page.set_default_timeout(_PATIENCE_SECONDS * 1000)
        visitor.page.add_init_script(_WATCH_TASKS)
        visitor.go(site.server.address)
        visitor.until("document.querySelector('.beam') !== null", "a beam", _PATIENCE_SECONDS)
        first_beams = visitor.value("performance.now()")
        visitor.until(f"document.documentElement.dataset.drawn === '{beams}'", "all beams", _PATIENCE_SECONDS)
        [first_paint] = visitor.value("performance.getEntriesByName('first-contentful-paint').map(it => it.startTime)")
        opening = visitor.value("longest")
        visitor.value("window.longest = 0")
        frames, worst, usual, task = visitor.page.evaluate(_SCROLL)
        return {
            "first paint": first_paint,
            "first beams": first_beams,
            "longest task while opening": opening,
            "frames": frames,
            "longest frame while scrolling": worst,
            "99 % of the frames below": usual,
            "longest task while scrolling": task,
            "elements": visitor.value("document.querySelectorAll('*').length"),
        }


if __name__ == "__main__":
    for name, value in measure(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000).items():
        sys.stdout.write(f"{name}: {value:.0f}\n")
