"""The live screen: keys, redraws, and a terminal that is left as it was found, however that ends.

One thread looks at the beams; the main thread draws, and waits for a key, a new look, a resized window or a signal,
whichever comes first. All but keys come through a pipe, so that nothing is ever polled.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import select
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType

from rich.console import Console
from rich.control import Control

from exporter.cli.top.beams import BeamList
from exporter.cli.top.readers import BeamReader, Unavailable
from exporter.cli.top.screen import draw, page_size
from exporter.cli.top.view import TopView

WIDTH_WITHOUT_TERMINAL = 200
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_CLOCK_SECONDS = 1.0
"""Ages are drawn anew so often, looks or not."""
_SEQUENCE_SECONDS = 0.05
"""A lone escape is the key; what follows within this time makes it another."""
_SEQUENCES = {
    "[A": "up",
    "OA": "up",
    "[B": "down",
    "OB": "down",
    "[5~": "page_up",
    "[6~": "page_down",
}
_KEYS = {"\r": "enter", "\n": "enter", "\x7f": "backspace", "\b": "backspace"}


def is_interactive() -> bool:
    """Whether there is a terminal to draw on and to read keys from."""
    try:
        both = sys.stdin.isatty() and sys.stdout.isatty()
    except ValueError:  # closed
        return False
    return both and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")


def show_once(reader: BeamReader, view: TopView) -> None:
    """Print all beams once.

    Raises:
        Unavailable: they cannot be read.
    """
    beam_list = reader.read()
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDTH_WITHOUT_TERMINAL
    console.print(draw(beam_list, view, beam_list.at, width=console.width, height=None))


@dataclass
class _Latest:
    """The newest look, and when it came, by the monotonic clock."""

    beam_list: BeamList
    came_at: float
    trouble: str = ""

    @property
    def now(self) -> float:
        """The moment by the clock of the look."""
        return self.beam_list.at + (time.monotonic() - self.came_at)


class _Looker:
    """Looks at the beams every so often, in a thread of its own; writes a byte into a pipe after each look."""

    def __init__(self, reader: BeamReader, interval_seconds: float, wake: int) -> None:
        self._reader = reader
        self._interval = interval_seconds
        self._wake = wake
        self._stopped = threading.Event()
        self.latest = _Latest(BeamList(time.time(), (), "looking ..."), time.monotonic())
        self._thread = threading.Thread(target=self._run, name="top", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Does not wait for an answer that is under way: the thread is a daemon, and keeps the pipe until its end."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join(0.2)
        if not self._thread.is_alive():
            os.close(self._wake)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.latest = _Latest(self._reader.read(), time.monotonic())
            except Unavailable as trouble:
                self.latest = _Latest(self.latest.beam_list, self.latest.came_at, str(trouble))
            except Exception as error:  # noqa: BLE001 - shown, and the next look is tried
                self.latest = _Latest(self.latest.beam_list, self.latest.came_at, f"{type(error).__name__}: {error}")
            if self._stopped.is_set():
                return
            _poke(self._wake)
            self._stopped.wait(self._interval)


class Keys:
    """Bytes of a terminal -> keys. A sequence may come in pieces."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        self._held = ""

    @property
    def held(self) -> bool:
        """An escape, or the beginning of a sequence, waits for what follows."""
        return bool(self._held)

    def feed(self, data: bytes) -> Iterator[str]:
        """Yield the keys that are complete."""
        self._held += self._decoder.decode(data)
        while self._held:
            if self._held[0] != "\x1b":
                character, self._held = self._held[0], self._held[1:]
                yield _KEYS.get(character, character)
                continue
            rest = self._held[1:]
            length = _sequence_length(rest)
            if length is None:
                return
            self._held = rest[length:]
            if length == 0:
                yield "escape"
            elif (key := _SEQUENCES.get(rest[:length])) is not None:
                yield key

    def flush(self) -> Iterator[str]:
        """Nothing has followed: what is held was the escape key."""
        if self._held:
            self._held = ""
            yield "escape"


def _sequence_length(rest: str) -> int | None:
    """How many characters behind an escape belong to it; ``None`` while that is not known."""
    if not rest:
        return None
    if rest[0] not in "[O":
        return 0
    for position, character in enumerate(rest[1:], start=1):
        if "@" <= character <= "~":
            return position + 1
    return None


def run_live(reader: BeamReader, view: TopView, interval_seconds: float) -> int:
    """Draw until the user leaves.

    Returns:
        Exit status: 0, or 128 and the number of the signal that ended it.
    """
    console = Console(highlight=False)
    terminal = sys.stdin.fileno()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    ended_by: list[int] = []

    def on_signal(number: int, _: object) -> None:
        if number in _ENDING:
            ended_by.append(number)
        _poke(wake)

    looker = _Looker(reader, interval_seconds, wake)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, woken)
        stack.callback(looker.stop)
        stack.enter_context(_signals(on_signal))
        stack.enter_context(_unbuffered_keys(terminal))
        # What is drawn, and taken back at the end, goes to a terminal that may be gone.
        stack.enter_context(contextlib.suppress(OSError))
        with console.screen(hide_cursor=True) as screen:
            looker.start()
            keys = Keys()
            while not view.over and not ended_by:
                latest = looker.latest
                width, height = console.size
                drawn = draw(latest.beam_list, view, latest.now, width=width, height=height, trouble=latest.trouble)
                with console:  # what is drawn goes out in one piece
                    console.control(Control.home())
                    screen.update(drawn)
                states = {beam.state for beam in latest.beam_list.beams}
                for key in _wait(terminal, woken, keys):
                    view.handle_key(key, states, page_size(height))
                    if view.over:
                        break
    return 128 + ended_by[0] if ended_by else 0


def _wait(terminal: int, woken: int, keys: Keys) -> Iterator[str]:
    """Until something happens; yields the keys that were pressed. A terminal that is gone is like ``q``."""
    ready, _, _ = select.select([terminal, woken], [], [], _SEQUENCE_SECONDS if keys.held else _CLOCK_SECONDS)
    if woken in ready:
        os.read(woken, 4096)
    if terminal in ready:
        data = os.read(terminal, 4096)
        if not data:
            raise OSError("the terminal is gone")
        yield from keys.feed(data)
    elif keys.held and not ready:
        yield from keys.flush()


@contextlib.contextmanager
def _signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = [(number, signal.signal(number, handler)) for number in (*_ENDING, signal.SIGWINCH)]
    try:
        yield
    finally:
        for number, old in before:
            signal.signal(number, old)


@contextlib.contextmanager
def _unbuffered_keys(terminal: int) -> Iterator[None]:
    """Keys one by one and unseen; Ctrl-C is a signal still, Ctrl-Z is none: it would leave the screen as it is."""
    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal)
        mode = termios.tcgetattr(terminal)
        mode[6][termios.VSUSP] = b"\0"
        termios.tcsetattr(terminal, termios.TCSADRAIN, mode)
        yield
    finally:
        # It may be gone.
        with contextlib.suppress(termios.error):
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _poke(wake: int) -> None:
    """Full or closed pipes need no further byte."""
    with contextlib.suppress(OSError):
        os.write(wake, b"\0")
