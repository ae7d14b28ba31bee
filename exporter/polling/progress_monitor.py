"""Follows the log of one beam inside another program (development plan, phase 5).

:class:`ProgressMonitor` runs in a thread of that program. So no exception may leave that thread, whatever the caller
passes (paths, clients, timeouts, loggers), and whatever its callback raises. Each problem is logged once, with advice.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from exporter.logs.parser import TpsLogParser
from exporter.sources.embedding_arguments import BadArgument, Logger, Reporter, described, log_path_text, shown
from exporter.sources.line_follower import (
    LOCAL_POLL_SECONDS,
    REMOTE_POLL_SECONDS,
    FollowControl,
    LineFollower,
    client_source,
)
from exporter.sources.local import LocalLogSource
from exporter.sources.source import LogSource

if TYPE_CHECKING:
    import paramiko

Callback = Callable[[str, float], object]


class ProgressMonitor:
    """Follows one beam's log in the calling thread and reports its progress.

    ``monitor_local`` and ``monitor_remote`` raise nothing in a thread. In the main thread they raise only
    ``KeyboardInterrupt`` and ``SystemExit``, so that Ctrl-C still ends a program.

    Args:
        beam_id: passed to the callback.
        logger: the communicator's logger, any object whose ``info``, ``warning`` and ``error`` take a message and a
            dictionary, or a standard logger. ``None`` for the standard logger ``exporter.embedding``.
        skip_existing: whether to ignore what stands in the log at the first poll. Use it when monitoring begins before
            the simulation does: a log that is there already is from an earlier run.

    Attributes:
        callback_errors: number of calls in which the callback has raised.
    """

    def __init__(
        self, beam_id: str, logger: Logger | logging.Logger | None = None, *, skip_existing: bool = False
    ) -> None:
        self.beam_id = beam_id
        self.callback_errors = 0
        self._reporter = Reporter(logger)
        self._skip_existing = skip_existing
        self._control = FollowControl()

    def monitor_local(
        self, log_path: str | bytes | os.PathLike[str], progress_callback: Callback, timeout: float | None = None
    ) -> None:
        """Follow a log on this machine until ``timeout`` seconds have passed or :meth:`stop` is called.

        Args:
            log_path: the log; it need not exist yet.
            progress_callback: called with the beam's id and its progress in percent, 0..100, whenever a batch starts.
                If it raises an ``Exception``, that is logged and counted, and monitoring continues. ``SystemExit`` and
                ``KeyboardInterrupt`` are logged and end monitoring.
            timeout: seconds in all; 0 or less for one poll; ``None`` for no limit.
        """
        self._guarded(
            lambda: self._monitor(
                LocalLogSource("local"), log_path_text(log_path), progress_callback, timeout, LOCAL_POLL_SECONDS
            )
        )

    def monitor_remote(
        self,
        ssh_client: paramiko.SSHClient,
        remote_log_path: str | bytes | os.PathLike[str],
        progress_callback: Callback,
        timeout: float | None = None,
    ) -> None:
        """Follow a log on another host, over SFTP: no command is executed there.

        Args:
            ssh_client: a connected client, which the caller closes. A lost connection is logged; monitoring continues
                when the caller connects the same client again.
            remote_log_path: the log, as an absolute path on the host; it need not exist yet.
            progress_callback: see :meth:`monitor_local`.
            timeout: seconds in all; 0 or less for one poll; ``None`` for no limit.
        """

        def monitor() -> None:
            path = log_path_text(remote_log_path)
            self._monitor(client_source(ssh_client), path, progress_callback, timeout, REMOTE_POLL_SECONDS)

        self._guarded(monitor)

    def stop(self) -> None:
        """End monitoring. May be called from any thread and from the callback, repeatedly, and before it begins."""
        self._control.stop()

    def finish(self) -> None:
        """End monitoring after one more poll, so that the last lines of an ended simulation are read.

        May be called from any thread. Join the monitoring thread afterwards.
        """
        self._control.finish()

    def wait_for_first_poll(self, timeout: float | None = None) -> bool:
        """Wait until the log was polled once, successfully or not, or monitoring has ended.

        Args:
            timeout: longest wait, seconds; ``None`` for no limit.

        Returns:
            ``False`` if the time passed before that.
        """
        return self._control.polled.wait(timeout)

    def _guarded(self, monitor: Callable[[], None]) -> None:
        """Run ``monitor`` and log whatever it raises."""
        try:
            monitor()
        except BadArgument as error:
            self._ended(str(error))
        except Exception as error:  # noqa: BLE001 - nothing may leave the thread; logged
            self._ended(f"{described(error)}; this is a defect of the exporter, please report it")
        except BaseException as error:
            self._ended(f"{described(error)} was raised")
            if threading.current_thread() is threading.main_thread():
                raise
        finally:
            self._control.polled.set()

    def _ended(self, reason: str) -> None:
        self._reporter.error("Monitoring has ended", {"beam_id": shown(self.beam_id), "error": reason})

    def _monitor(
        self, source: LogSource, path: str, callback: Callback, timeout: float | None, poll_interval: float
    ) -> None:
        if not callable(callback):
            raise BadArgument(f"progress_callback is {shown(callback)}; pass a function of a beam id and a percentage")
        if not isinstance(self.beam_id, str):
            advice = "pass the id as text, as it stands in the table beams; it is given to the callback as it is"
            reason = f"it is a {type(self.beam_id).__name__}; {advice}"
            self._reporter.warning("Beam id is not text", {"beam_id": shown(self.beam_id), "error": reason})
        parser = TpsLogParser()
        follower = LineFollower(
            source,
            path,
            self._reporter,
            poll_interval,
            on_replaced=parser.reset,
            skip_existing=self._skip_existing,
            control=self._control,
        )
        for line in follower.follow(timeout):
            progress = parser.parse_line(line)
            if progress is not None:
                self._report_progress(callback, progress.progress_percent)

    def _report_progress(self, callback: Callback, percent: float) -> None:
        failed = "Progress callback failed"
        try:
            callback(self.beam_id, percent)
        except Exception as error:  # noqa: BLE001 - the caller's, whatever it is; logged and counted
            self.callback_errors += 1
            self._reporter.error(failed, {"beam_id": shown(self.beam_id), "error": described(error)})
        else:
            self._reporter.is_over(failed)
