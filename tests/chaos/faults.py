"""What goes wrong at a site: one small class each, with what it needs for itself, how it begins and how it ends."""

from __future__ import annotations

import os
import random
import shutil
import signal
from abc import ABC, abstractmethod
from typing import ClassVar

from tests.chaos.beams import HOSTS, Beam
from tests.chaos.engines import Engine
from tests.chaos.site import PATIENCE_SECONDS, Site
from tests.support import communicator_db as db
from tests.support.process import ExporterProcess, wait_for
from tests.support.state import written

HOUR_SECONDS = 3600.0


class Fault(ABC):
    """One thing that goes wrong.

    Args:
        site: where.
        chance: for all that is not said.

    Attributes:
        seconds: how long it lasts, at least and at most.
        needs: what no other fault may touch meanwhile: ``exporter``, a host, ``database``, ``clock`` or ``log``.
    """

    seconds: ClassVar[tuple[float, float]] = (1.0, 4.0)
    needs: frozenset[str] = frozenset()

    def __init__(self, site: Site, chance: random.Random) -> None:
        self.site = site
        self.chance = chance

    @property
    def exporter(self) -> ExporterProcess:
        """The process that runs now; whoever needs it has one."""
        exporter = self.site.exporter
        assert exporter is not None
        return exporter

    def begin(self) -> bool:
        """It goes wrong; returns whether there was anything to do it to."""
        self.happen()
        return True

    @abstractmethod
    def happen(self) -> None:
        """What goes wrong does."""

    def end(self) -> None:  # noqa: B027 - some are over as soon as they have happened
        """It is as it was."""


class ExporterKilled(Fault):
    """SIGKILL, and a new process some time later."""

    seconds = (0.0, 4.0)
    needs = frozenset({"exporter"})

    def happen(self) -> None:
        self.site.kill_exporter()

    def end(self) -> None:
        self.site.start_exporter()


class ConfigurationReloaded(Fault):
    """Other settings, SIGHUP, and back again; the first time with a mistake that must change nothing."""

    needs = frozenset({"exporter"})

    def happen(self) -> None:
        # Before it has started, the signal would end it, and a mistake would keep it from starting.
        wait_for(lambda: self.exporter.said("exporter started"), "the exporter's start", PATIENCE_SECONDS)
        if self.chance.random() < 0.3:
            self.site.write_configuration(more="no_such_key: 1")
        else:
            self.site.write_configuration(throttle_percent=self.chance.choice([0.5, 5.0]))
        self.exporter.signal(signal.SIGHUP)

    def end(self) -> None:
        self.site.write_configuration()
        self.exporter.signal(signal.SIGHUP)


class HostFault(Fault):
    """Something about one of the hosts."""

    def __init__(self, site: Site, chance: random.Random) -> None:
        super().__init__(site, chance)
        name = chance.choice(HOSTS)
        self.needs = frozenset({name})
        self.host = site.hosts[name]
        self.relay = site.relays[name]


class SshdKilled(HostFault):
    """The host crashes and is up again."""

    def happen(self) -> None:
        self.host.kill()

    def end(self) -> None:
        self.host.start()


class NetworkDelayed(HostFault):
    """Every packet takes a third of a second."""

    def happen(self) -> None:
        self.relay.delay_seconds = 0.3

    def end(self) -> None:
        self.relay.delay_seconds = 0.0


class NetworkInterrupted(HostFault):
    """Something keeps packets from passing."""

    def end(self) -> None:
        self.relay.resume()


class NetworkCut(NetworkInterrupted):
    """Connections are reset, and new ones refused."""

    def happen(self) -> None:
        self.relay.refuse()
        self.relay.reset()


class NetworkStalled(NetworkInterrupted):
    """Nothing passes, nothing is lost: for less and for more than an operation may take."""

    seconds = (1.0, 10.0)

    def happen(self) -> None:
        self.relay.stall()


class NetworkDropped(NetworkInterrupted):
    """What is sent is lost, and nobody is told."""

    def happen(self) -> None:
        self.relay.drop()

    def end(self) -> None:
        super().end()
        # What was lost never comes: the kernel at the other end would find that out in a quarter of an hour.
        self.relay.cut()


class LogFault(Fault):
    """Something about the log of a beam whose engine is writing; it writes nothing while that happens."""

    needs = frozenset({"log"})
    seconds = (1.0, 3.0)

    beam: Beam
    engine: Engine

    def begin(self) -> bool:
        engines = [engine for engine in self.site.engines.going() if self.fits(engine)]
        if not engines:
            return False
        self.engine = self.chance.choice(engines)
        self.beam = self.engine.beam
        with self.engine.lock:
            if not self.engine.run.going:
                return False
            self.beam.troubled = True
            return super().begin()

    def fits(self, engine: Engine) -> bool:
        """Whether it can happen to this one."""
        return True

    def end(self) -> None:
        self.beam.troubled = False


class LogPutBack(LogFault):
    """The log is gone, and put back as it was; what the engine has to say meanwhile waits."""

    def happen(self) -> None:
        self.engine.held.set()
        self.beam.log.rename(self.beam.log.with_suffix(".gone"))

    def end(self) -> None:
        self.beam.log.with_suffix(".gone").rename(self.beam.log)
        self.engine.held.clear()
        super().end()


class LogRewritten(LogFault):
    """The same bytes in another file of the same name."""

    def happen(self) -> None:
        copy = self.beam.log.with_suffix(".copy")
        shutil.copy2(self.beam.log, copy)
        copy.rename(self.beam.log)


class LogUnreadable(LogFault):
    """Nobody may read it."""

    def happen(self) -> None:
        self.beam.log.chmod(0)

    def end(self) -> None:
        self.beam.log.chmod(0o644)
        super().end()


class LinesLost(LogFault):
    """The log begins anew in the middle of a run.

    What has been read is known to the exporter alone from then on: so all of it has been, and is in its state file.
    """

    needs = frozenset({"log", "exporter", "database", *HOSTS})
    seconds = (0.5, 1.0)

    def fits(self, engine: Engine) -> bool:
        simulation = engine.run.simulation
        # The counter tells that it goes on; it must be there, and begin only once.
        counts = simulation.dialect == "smc" and len(simulation.batches) == 1 and simulation.failure is None
        return counts and b"Generating particles for (1 of" in engine.beam.log.read_bytes()

    def happen(self) -> None:
        site, exporter = self.site, self.exporter
        size = self.beam.log.stat().st_size

        def read_to_its_end() -> bool:
            return exporter.value("mqi_beam_log_size_bytes", beam_id=self.beam.beam_id) == size

        wait_for(read_to_its_end, "all of the log read", PATIENCE_SECONDS)
        for _ in range(2):
            state = written(site.state_file)
            wait_for(lambda: written(site.state_file) != state, "its state", PATIENCE_SECONDS)  # noqa: B023
        self.lose()

    @abstractmethod
    def lose(self) -> None:
        """The lines are gone."""


class LogRotated(LinesLost):
    """It gets another name, and the engine goes on in a new file."""

    def lose(self) -> None:
        self.beam.log.rename(self.beam.log.with_suffix(".log.1"))
        self.beam.log.touch()


class LogTruncated(LinesLost):
    """It is emptied, as logrotate's copytruncate does."""

    def lose(self) -> None:
        os.truncate(self.beam.log, 0)


class EndedLogDeleted(Fault):
    """The log of a run that ended, and was counted, is cleared away."""

    needs = frozenset({"log"})

    def begin(self) -> bool:
        self.ended = [beam for beam in self.site.beams if beam.runs and beam.run.confirmed and beam.log.exists()]
        return bool(self.ended) and super().begin()

    def happen(self) -> None:
        self.chance.choice(self.ended).log.unlink()


class DatabaseFault(Fault):
    """Something about the database."""

    needs = frozenset({"database"})
    seconds = (2.0, 6.0)


class DatabaseLocked(DatabaseFault):
    """Another process holds the write lock."""

    def happen(self) -> None:
        self.locker = db.Locker(self.site.table.path)

    def end(self) -> None:
        self.locker.release()


class DatabaseDeleted(DatabaseFault):
    """It is deleted, and made anew later."""

    def happen(self) -> None:
        self.site.table.delete()

    def end(self) -> None:
        self.site.table.recreate()


class DatabaseReplaced(DatabaseFault):
    """Another file takes its place."""

    seconds = (0.0, 0.0)

    def happen(self) -> None:
        self.site.table.replace()


class DatabaseRestored(DatabaseFault):
    """The communicator is stopped; its database is copied, and some time later the copy takes the file's place."""

    def happen(self) -> None:
        self.site.table.copy()

    def end(self) -> None:
        self.site.table.restore(in_place=self.chance.random() < 0.5, remove=self.chance.random() < 0.5)


class DatabaseReadOnly(DatabaseFault):
    """A copy that nobody may write takes its place."""

    def happen(self) -> None:
        self.site.table.replace(mode=0o444)

    def end(self) -> None:
        self.site.table.allow()


class DiskFull(DatabaseFault):
    """Nothing more can be written where database and state file are."""

    def happen(self) -> None:
        with self.site.ballast.open("wb", buffering=0) as ballast:
            block = bytes(1 << 16)
            while block:
                try:
                    ballast.write(block)
                except OSError:
                    # The last page, too.
                    block = block[: len(block) // 2]

    def end(self) -> None:
        self.site.ballast.unlink()


class ClockSet(Fault):
    """Somebody sets the clock of the machine.

    Not twice before an exporter has taken note of it: of a clock that was set to and fro meanwhile nothing tells.
    """

    needs = frozenset({"clock"})
    seconds = (0.0, 0.0)
    by_seconds: ClassVar[float]

    def begin(self) -> bool:
        """See :meth:`Fault.begin`."""
        return self.site.clock_noted and super().begin()

    def happen(self) -> None:
        self.site.set_clock(self.by_seconds)


class ClockSetForwards(ClockSet):
    """By an hour."""

    by_seconds = HOUR_SECONDS


class ClockSetBack(ClockSet):
    """By an hour."""

    by_seconds = -HOUR_SECONDS


class MachineSuspended(Fault):
    """Everything stands still for longer than a stall takes."""

    needs = frozenset({"exporter", "clock", "database", "log", *HOSTS})
    seconds = (7.0, 9.0)

    def happen(self) -> None:
        self.site.engines.stop()
        self.site.communicator.stopped.set()
        self._send(signal.SIGSTOP)

    def end(self) -> None:
        self._send(signal.SIGCONT)
        self.site.engines.go_on()
        self.site.communicator.stopped.clear()

    def _send(self, number: signal.Signals) -> None:
        self.exporter.signal(number)
        for host in self.site.hosts.values():
            host.signal(number)


FAULTS: tuple[type[Fault], ...] = (
    ExporterKilled,
    ConfigurationReloaded,
    SshdKilled,
    NetworkCut,
    NetworkDelayed,
    NetworkStalled,
    NetworkDropped,
    LogPutBack,
    LogRewritten,
    LogRotated,
    LogTruncated,
    LogUnreadable,
    EndedLogDeleted,
    DatabaseLocked,
    DatabaseDeleted,
    DatabaseReplaced,
    DatabaseRestored,
    DatabaseReadOnly,
    DiskFull,
    ClockSetForwards,
    ClockSetBack,
    MachineSuspended,
)

OFTEN: tuple[type[Fault], ...] = (ExporterKilled, ExporterKilled, ExporterKilled)
"""Once more each: what they break depends most on what else is broken then."""
