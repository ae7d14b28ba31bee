"""The live screen of ``top``. prompt_toolkit reads keys, draws, and restores the terminal at the end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios
import threading
import time
from dataclasses import dataclass

from prompt_toolkit.application import Application, run_in_terminal
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout import FormattedTextControl, Layout, Window

from exporter.cli.top.beams import BeamList
from exporter.cli.top.readers import BeamReader, Unavailable
from exporter.cli.top.screen import draw, page_size
from exporter.cli.top.view import TopView

_END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_REDRAW_SECONDS = 1.0
"""Ages of beams are redrawn this often, also without new data."""
_ESCAPE_SECONDS = 0.05
"""An escape byte is the escape key unless more bytes follow within this time."""
_KEY_NAMES = {Keys.Enter: "enter", Keys.ControlJ: "enter", Keys.Backspace: "backspace"}


def run_live(reader: BeamReader, view: TopView, interval_seconds: float) -> int:
    """Show the live screen until the user quits.

    Args:
        reader: where the beams come from; used by one thread of its own.
        view: sort order and filters at the start.
        interval_seconds: pause between two reads.

    Returns:
        Exit status: 0, or 128 plus the number of the signal that ended it.
    """
    return asyncio.run(_LiveScreen(reader, view, interval_seconds).run())


@dataclass(frozen=True, slots=True)
class _Latest:
    """The newest list of beams, when it arrived (monotonic clock), and why there is no newer one."""

    beam_list: BeamList
    arrived_at: float
    trouble: str = ""

    @property
    def now(self) -> float:
        """The current time by the clock of the list's origin."""
        return self.beam_list.at + (time.monotonic() - self.arrived_at)


class _LiveScreen:
    def __init__(self, reader: BeamReader, view: TopView, interval_seconds: float) -> None:
        self._reader = reader
        self._view = view
        self._interval_seconds = interval_seconds
        self._stopped = threading.Event()
        self._settings_before = termios.tcgetattr(sys.stdin)
        self._latest = _Latest(BeamList(time.time(), (), "connecting ..."), time.monotonic())
        window = Window(FormattedTextControl(self._frame), always_hide_cursor=True)
        self._app: Application[int] = Application(
            Layout(window),
            key_bindings=self._bindings(),
            full_screen=True,
            refresh_interval=_REDRAW_SECONDS,
            terminal_size_polling_interval=None,
        )
        self._app.ttimeoutlen = self._app.timeoutlen = _ESCAPE_SECONDS

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self._fail(context.get("exception", RuntimeError(context))))
        for number in _END_SIGNALS:
            loop.add_signal_handler(number, self._exit, 128 + number)
        loop.add_signal_handler(signal.SIGTSTP, self._suspend)
        # A daemon, so that quitting does not wait for an answer that is under way.
        threading.Thread(target=self._read_repeatedly, name="top", daemon=True).start()
        try:
            return await self._app.run_async(handle_sigint=False, set_exception_handler=False)
        except (EOFError, OSError):  # the terminal was closed
            return 128 + signal.SIGHUP
        finally:
            self._stopped.set()

    def _read_repeatedly(self) -> None:
        while not self._stopped.is_set():
            try:
                self._latest = _Latest(self._reader.read(), time.monotonic())
            except Exception as error:  # noqa: BLE001 - shown, and tried again
                trouble = str(error) if isinstance(error, Unavailable) else f"{type(error).__name__}: {error}"
                self._latest = _Latest(self._latest.beam_list, self._latest.arrived_at, trouble)
            self._app.invalidate()
            self._stopped.wait(self._interval_seconds)

    def _frame(self) -> FormattedText:
        """Return the screen's content; an error in it ends the program, after the terminal was restored."""
        try:
            latest, size = self._latest, self._app.output.get_size()
            drawn = draw(
                latest.beam_list, self._view, latest.now, width=size.columns, height=size.rows, trouble=latest.trouble
            )
            return FormattedText([fragment for line in drawn for fragment in (*line, ("", "\n"))][:-1])
        except Exception as error:  # noqa: BLE001 - raised by run()
            self._fail(error)
            return FormattedText()

    def _bindings(self) -> KeyBindings:
        bindings = KeyBindings()
        bindings.add(Keys.ControlC)(lambda _: self._exit(128 + signal.SIGINT))
        bindings.add(Keys.ControlZ)(lambda _: self._suspend())
        bindings.add(Keys.BracketedPaste)(lambda event: self._type(*event.data))
        bindings.add(Keys.Any)(self._on_key)
        return bindings

    def _on_key(self, event: KeyPressEvent) -> None:
        key = event.key_sequence[0].key
        self._type(_KEY_NAMES.get(key, key.value) if isinstance(key, Keys) else key)

    def _type(self, *keys: str) -> None:
        page = page_size(self._app.output.get_size().rows)
        for key in keys:
            self._view.handle_key(key, {beam.state for beam in self._latest.beam_list.beams}, page)
        if self._view.over:
            self._exit(0)

    def _exit(self, status: int) -> None:
        if not self._app.is_done:
            self._app.exit(result=status)

    def _fail(self, error: BaseException) -> None:
        if not self._app.is_done:
            self._app.exit(exception=error)

    def _suspend(self) -> None:
        """Restore the terminal, stop this process, and draw again when it continues."""

        def stop() -> None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._settings_before)
            os.kill(os.getpid(), signal.SIGSTOP)

        run_in_terminal(stop)
