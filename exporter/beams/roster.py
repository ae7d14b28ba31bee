"""Every beam now known, and what becomes of each: without threads, clocks or readers.

Beams are admitted by their rows, followed by their logs, judged as time passes, counted when a run has ended, and
retired when they have been shown for long enough. The store alone touches a roster, under its lock.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence

from exporter.beams.attribution import LogAttribution
from exporter.beams.beam import Beam
from exporter.beams.cases import CaseIndex
from exporter.beams.counters import Counters, with_wall_times
from exporter.beams.output import OutputSearchResult, checking_sources
from exporter.beams.retention import OVER_STATES, Retention, leaves_at, was_deleted
from exporter.beams.rules import StoreRules
from exporter.beams.run import BeamRun
from exporter.beams.saved import UnsavedChanges, can_be_saved
from exporter.beams.snapshot import (
    ENDED_STATES,
    BeamEvent,
    BeamKey,
    BeamRow,
    BeamState,
    BeamView,
    OutputSearch,
    OutputState,
    SourceView,
    WatchedBeam,
)
from exporter.beams.sources import Sources
from exporter.beams.state_rules import Condition, claimed_end, failure_reason, judge, row_decides
from exporter.beams.views import condition_at, keep_shown_ratio, make_view, recorded_view, update_prior_rate, view_at
from exporter.logs.events import Event
from exporter.process.clock import Timeline
from exporter.sources.checkpoint import Checkpoint
from exporter.sources.source import LogStat

BEAMS_HELD = 2
"""So many times ``max_beams`` are held: those that are not shown are followed all the same, for when others go."""
_SETTLE_SECONDS = 2.0
"""An ended run is counted when so much time has passed: the cause may follow its first symptom in the next read."""
_SETTLE_BY_ROW_SECONDS = 10.0
_LATE_BATCHES = 2.0
"""The communicator fails all beams of a case where one has failed. An engine that lives on shows it with its next
batch, which may take twice as long as the longest before."""
_EVENTS_KEPT = 10_000


class Roster:
    """All beams.

    Args:
        rules: limits and meanings from the configuration; may be exchanged.
        at: now, epoch seconds: runs that ended earlier are shown but not counted.

    Attributes:
        beams: all of them, those that were met first come first.
        retired: those that left.
        sources: where their logs are.
        counts: what is counted over all of them.
        events: what has happened to them since the last :meth:`BeamStore.pop_events`.
        unconfirmed: beams of an earlier process whose source has not been looked at yet.
        rows_from_restart: those of which no row has been taken in this process.
        unsaved: what has changed since it was saved last.
        turned_away: how many found no room in the last round of discovery.
        outputs_open: beams whose dose file may have to be looked for.
        watch_version: another number whenever :meth:`watched` would answer something else.
    """

    NOT_SAVED = frozenset(
        {
            *("rules", "_timeline", "events", "unconfirmed", "rows_from_restart"),
            *("unsaved", "turned_away", "watch_version", "_dropped"),
            "outputs_open",  # each beam says whether it is
            "_cases",  # made anew from the beams
            *("counts", "sources"),  # saved all the same: their own to_state fill its fields
        }
    )

    def __init__(self, rules: StoreRules, at: float, timeline: Callable[[], Timeline]) -> None:
        self.rules = rules
        self._timeline = timeline
        self.beams: dict[BeamKey, Beam] = {}
        self.retired = Retention()
        self.sources = Sources()
        self.counts = Counters(at)
        self.events: deque[BeamEvent] = deque(maxlen=_EVENTS_KEPT)
        self.unconfirmed: set[BeamKey] = set()
        self.rows_from_restart: set[BeamKey] = set()
        self.unsaved = UnsavedChanges()
        self.turned_away = 0
        self.watch_version = 0
        self.outputs_open: set[BeamKey] = set()
        self._dropped = 0
        self._cases = CaseIndex()

    def _changed(self, key: BeamKey) -> None:
        """Note that a beam must be saved."""
        self.unsaved.mark(key)

    def replace_beams(self, beams: dict[BeamKey, Beam]) -> None:
        """Put these beams in the place of all others."""
        self.beams = beams
        self._cases = CaseIndex(beams)
        self.outputs_open = set(beams)
        self._skip_outputs_of_done_beams()

    def set_rules(self, rules: StoreRules) -> None:
        """Take a reloaded configuration."""
        self.rules = rules
        self.outputs_open = set(self.beams)
        self._skip_outputs_of_done_beams()

    def _skip_outputs_of_done_beams(self) -> None:
        """What has been shown as done before there was an output check stays so."""
        for key, beam in self.beams.items():
            if beam.state is BeamState.SUCCEEDED and beam.output.state is OutputState.NOT_DUE:
                beam.output = beam.output.skip()
                self._changed(key)

    # Rows

    def take_row(self, row: BeamRow, at: float) -> bool:
        """Take what discovery has read of a beam at that moment.

        Returns:
            Whether the beam has another status now.
        """
        beam = self.beams.get(row.key)
        if beam is None:
            self._admit(row, at)
            return False
        if row.key in self.unconfirmed:
            # What its log says must be known before a row may end a run; rows are read again and again.
            return False
        self.rows_from_restart.discard(row.key)
        news = row.status != beam.row.status
        before = self._run_of(beam)
        looked_for = _looked_for(beam)
        if beam.apply_row(row, at, self.rules.statuses, self._timeline()):
            self._run_begun(beam, *before)
        if beam.view is None:
            self._changed(row.key)
        self.watch_version += looked_for != _looked_for(beam)
        return news

    def _admit(self, row: BeamRow, at: float) -> None:
        if self.retired.stays_away(row) and not self._case_is_open(row.key.case_id):
            return
        if len(self.beams) >= BEAMS_HELD * self.rules.max_beams:
            # Rows are read again and again: it is taken when there is room.
            self.turned_away += 1
            return
        beam = Beam.new(row, at, self._timeline())
        if (run_number := self.retired.run_number(row, self.rules.statuses)) is not None:
            beam.run_sequence.number = run_number
        if row.status in self.rules.statuses.terminal:
            beam.row_terminal_since = at if beam.row_written_at is None else min(at, beam.row_written_at)
        self.beams[row.key] = beam
        self._changed(row.key)
        self._cases.add(row.key)
        self.watch_version += 1

    def _case_is_open(self, case_id: str) -> bool:
        """Whether a beam of the case is on the store and has not ended."""
        return any(leaves_at(self.beams[key], self.rules) is None for key in self._cases.beams(case_id))

    def miss(self, keys: Iterable[BeamKey], at: float) -> None:
        """The rows of these were not there any more at that moment."""
        for key in keys:
            beam = self.beams.get(key)
            if beam is not None and beam.row_missing_since is None:
                beam.row_missing_since = at

    # Logs

    def watched(self, source: str) -> list[WatchedBeam]:
        """Beams whose logs a source should look for; those followed elsewhere too, since a newer log may turn up."""
        return [WatchedBeam(beam.row, beam.path if beam.source == source else None) for beam in self.beams.values()]

    def set_clock_offset(self, source: str, seconds: float | None) -> None:
        """Take how a source's files are dated; what was concluded from their dates before is corrected."""
        timeline = self._timeline()
        self.sources.set_clock_offset(source, seconds, timeline.clock_steps)
        if seconds is None:
            return
        for key, beam in self.beams.items():
            if beam.source != source:
                continue
            self._changed(key)
            run, number, output = beam.run, beam.run_sequence.number, beam.output.state
            ended_at = run.ended_at
            if beam.correct_dates(seconds, self.rules.statuses, timeline):
                # It was over before anybody watched: it is not counted.
                self._run_begun(beam, run, number, True, output)
            elif beam.run_counted and _counts_after_all(self.counts, ended_at, beam.run.ended_at):
                beam.run_counted = False

    def claim(
        self, key: BeamKey, source: str, path: str, stat: LogStat, at: float, *, moved: bool, written: bool
    ) -> bool:
        """A source has found a log of a beam, or looked at it again; see :meth:`Beam.claim`."""
        beam = self.beams.get(key)
        if beam is None:
            return False
        before = self._run_of(beam)
        where = beam.source, beam.path
        timeline = self._timeline()
        clock_offset_seconds = self.sources.clock_offset_seconds(source, timeline)
        claimed = beam.claim(
            source,
            path,
            stat,
            at,
            self.rules.statuses,
            modified_at=timeline.from_wall(stat.modified_at - (clock_offset_seconds or 0.0)),
            moved=moved,
            written=written,
            clock_offset_seconds=clock_offset_seconds,
        )
        self.watch_version += where != (beam.source, beam.path)
        if where == (None, None) and self.retired.begins_anew(beam):
            beam.run_sequence.number += 1
        if beam.run_sequence.number != before[1]:
            self._run_begun(beam, *before)
        if beam.view is None:
            self._changed(key)
        return claimed

    def apply(
        self,
        key: BeamKey,
        path: str,
        events: list[Event],
        at: float,
        *,
        read_at: float,
        more: bool,
        recent: bytes,
        checkpoint: Checkpoint | None,
        polled_at: float | None,
    ) -> bool:
        """Take what one read of a beam's log has brought; see :meth:`~exporter.beams.store.BeamStore.apply`.

        Returns:
            Whether the beam has made progress.
        """
        beam = self.beams.get(key)
        if beam is None or beam.path != path or beam.source is None:
            return False
        self._changed(key)
        self.unconfirmed.discard(key)
        beam.recent, beam.checkpoint = recent, checkpoint
        stage = beam.stage
        before = self._run_of(beam)
        keep_shown_ratio(beam, read_at)
        if beam.apply(
            events,
            at,
            read_at=read_at,
            more=more,
            statuses=self.rules.statuses,
            timeline=self._timeline(),
            polled_at=polled_at,
        ):
            self._run_begun(beam, *before)
        self._claim_output(beam, read_at)
        run = beam.run
        for seconds in run.timed:
            self.counts.count_batch(beam.source, seconds)
        if run.anomalies != beam.anomalies:
            self.counts.count_anomalies(beam.source, run.anomalies - beam.anomalies)
            beam.anomalies = Counter(run.anomalies)
        if self.retired.was_counted(beam):
            beam.run_counted = True
        return beam.stage != stage

    # Dose files

    def output_searches_due(self, source: str, at: float, limit: int) -> list[OutputSearch]:
        """For which beams a source should look for the dose file now; those that have waited longest come first."""
        due: list[tuple[float, BeamKey]] = []
        for key in list(self.outputs_open):
            beam = self.beams.get(key)
            next_at = None
            if beam is not None:
                if key in self.unconfirmed:
                    continue
                sources = checking_sources(beam.source, self.rules.output_sources)
                instants = {each: beam.output.due_at(each) for each in sources}
                next_at = instants.get(source)
            if beam is None or all(each is None for each in instants.values()):
                self.outputs_open.discard(key)
            elif next_at is not None and next_at <= at:
                due.append((next_at, key))
        due.sort()
        return [self._output_question(self.beams[key]) for _, key in due[:limit]]

    def _output_question(self, beam: Beam) -> OutputSearch:
        written_after = beam.output.written_after(beam.run, beam.row_terminal_since, self._timeline())
        return OutputSearch(beam.row, beam.run_sequence.number, written_after)

    def update_output(self, question: OutputSearch, source: str, look: OutputSearchResult, at: float) -> bool:
        """Take what a look for the dose file of a run has shown; one of an earlier run is dropped.

        Returns:
            Whether the beam has succeeded or failed by it.
        """
        beam = self.beams.get(question.row.key)
        if beam is None or beam.run_sequence.number != question.run_number:
            return False
        before, output = (
            beam.output,
            beam.output.record_search(source, look, at, checking_sources(beam.source, self.rules.output_sources)),
        )
        beam.output = output
        self._changed(question.row.key)
        if (output.state, output.problem) == (before.state, before.problem):
            return False
        beam.invalidate()
        self._advance(beam, at)
        return beam.state in ENDED_STATES

    def _claim_output(self, beam: Beam, at: float) -> None:
        """Begin the output check of a run that claims success; end it where the run does not any more."""
        if not checking_sources(beam.source, self.rules.output_sources):
            return
        claim = claimed_end(beam.evidence(self.rules, self.sources.state(beam.source)), at)
        before = beam.output
        if claim is not None and claim[0] is BeamState.SUCCEEDED:
            beam.output = before.claim(
                at,
                ended_at=claim[1],
                watched=_was_watched(beam),
                skip_before=at - self.rules.retention_seconds,
            )
        else:
            beam.output = before.withdraw()
        if beam.output is not before:
            beam.invalidate()
            self._changed(beam.row.key)
            self.outputs_open.add(beam.row.key)

    def must_read_again(self, key: BeamKey) -> bool:
        """Whether a beam's log must be read from its beginning."""
        beam = self.beams.get(key)
        return beam is not None and beam.log is LogAttribution.PREVIOUS_REREAD

    def add_source(self, name: str, kind: str) -> None:
        """There is a source of this name and kind."""
        self.sources.expect(name, kind)

    def update_source(self, view: SourceView, at: float) -> None:
        """A source has been looked at, which was over at that moment."""
        self.sources.publish(view, at)
        self._confirm(view.name)

    def remove_source(self, name: str) -> None:
        """A source has left the configuration."""
        self.sources.remove(name)
        self._confirm(name)

    def _confirm(self, source: str) -> None:
        """The source has been looked at, or cannot be: its beams live in this process now."""
        if self.unconfirmed:
            self.unconfirmed = {key for key in self.unconfirmed if self.beams[key].source != source}

    # Time that passes

    def settle(self, beams: Sequence[tuple[BeamKey, Beam]], at: float) -> tuple[set[str], bool]:
        """Let time pass for some of the beams: judge them, and count runs that have ended.

        Returns:
            Cases with a beam whose retention is over (see :meth:`retire`), and whether any beam had to be judged.
        """
        judged = False
        rules, sources, unconfirmed = self.rules, self.sources, self.unconfirmed
        due: set[str] = set()
        for key, beam in beams:
            if unconfirmed and key in unconfirmed:
                continue
            cached = beam.view
            if cached is None or not cached.recorded or not cached.valid(at, rules, sources.state(beam.source)):
                self._advance(beam, at)
                judged = True
            elif cached.rates_version != self.counts.rates_version:
                cached.rates_version = self.counts.rates_version
                self._update_prior_rate(beam, at)
            if beam.row_missing_since is None and beam.state not in OVER_STATES and beam.source is not None:
                continue
            self._count(beam, at)
            if was_deleted(beam, at):
                self._retire(key, beam)
            elif (leaves := leaves_at(beam, rules)) is not None and at > leaves:
                due.add(key.case_id)
        return due, judged

    def retire(self, cases: Iterable[str], at: float) -> None:
        """Forget those of these cases whose beams have all ended, and for all of which the retention is over."""
        for case_id in cases:
            keys = list(self._cases.beams(case_id))
            if all(key not in self.unconfirmed and self._retention_is_over(key, at) for key in keys):
                for key in keys:
                    self._retire(key, self.beams[key])

    def _retention_is_over(self, key: BeamKey, at: float) -> bool:
        leaves = leaves_at(self.beams[key], self.rules)
        return leaves is not None and at > leaves

    def report_dropped(self) -> None:
        """Say once that there are more beams than are shown, until there are not."""
        dropped = self.beyond(self.rules.max_beams)
        if dropped and not self._dropped:
            self.events.append(BeamEvent("beams_dropped", number=dropped))
        self._dropped = dropped

    def beyond(self, shown: int) -> int:
        """How many beams there are besides so many, with those that found no room."""
        return max(0, len(self.beams) - shown) + self.turned_away

    def views(self, beams: Iterable[Beam], at: float) -> list[BeamView]:
        """The views of some of the beams at an instant. Nothing of the beams changes."""
        rules, sources, unconfirmed, timeline = self.rules, self.sources, self.unconfirmed, self._timeline()
        return [
            recorded_view(beam, at, rules, sources.state(beam.source), timeline)
            if unconfirmed and beam.row.key in unconfirmed
            else view_at(beam, at, rules, sources.state(beam.source), timeline)
            for beam in beams
        ]

    def _advance(self, beam: Beam, at: float) -> None:
        """Let time pass for a beam: reclaim its log, begin or end its output check, and record its state."""
        rules, source = self.rules, self.sources.state(beam.source)
        if beam.provisional_run is not None and row_decides(beam.evidence(rules, source), BeamState.SUCCEEDED, at):
            beam.reclaim_log(rules.statuses, at)
            self._changed(beam.row.key)
        self._claim_output(beam, at)
        self._update_prior_rate(beam, at)
        cached = condition_at(beam, at, rules, source)
        cached.recorded, cached.rates_version = True, self.counts.rates_version
        self._record(beam, cached.condition, at)

    def _update_prior_rate(self, beam: Beam, at: float) -> None:
        before = beam.prior_rate
        update_prior_rate(beam, at, self.counts.rates)
        if beam.prior_rate != before:
            self._changed(beam.row.key)

    def evaluate(self, beam: Beam, at: float) -> Condition:
        """Record the state of a beam at an instant, and add an event where it has changed."""
        beam.invalidate()
        condition = judge(beam.evidence(self.rules, self.sources.state(beam.source)), at)
        self._record(beam, condition, at)
        return condition

    def _record(self, beam: Beam, condition: Condition, at: float) -> None:
        """Record the state of a beam, and add an event where it has changed."""
        if (condition.state, condition.since) != (beam.state, beam.state_since):
            self._changed(beam.row.key)
        before, beam.state, beam.state_since = beam.state, condition.state, condition.since
        if condition.state is not before:
            view = make_view(beam, condition, at, self.rules, self._timeline())
            self.events.append(BeamEvent(condition.state.value, view, before))

    def _run_of(self, beam: Beam) -> tuple[BeamRun, int, bool, OutputState]:
        """What :meth:`_run_begun` must know of the run that may be over now."""
        return beam.run, beam.run_sequence.number, beam.run_counted, self._output_state(beam)

    def _output_state(self, beam: Beam) -> OutputState:
        return beam.output.state_for(beam.source, self.rules.output_sources)

    def _run_begun(self, beam: Beam, before: BeamRun, number: int, counted: bool, output: OutputState) -> None:
        """A new run has taken the place of ``before``."""
        self._changed(beam.row.key)
        if before.ended and not counted:
            # A new run begins when the one before is over: a dose that was not found by then was not written.
            missing = before.succeeded and (output.undecided or output is OutputState.MISSING)
            reason = "output_missing" if missing else before.reason
            self._count_run(beam, before, number, "succeeded" if reason is None else "failed", reason)
        # The state is still that of the run before: a view with it would show the new run as far as that one was.
        condition = self.evaluate(beam, beam.waiting_since)
        view = make_view(beam, condition, beam.waiting_since, self.rules, self._timeline())
        self.events.append(BeamEvent("new_run", view, number=beam.run_sequence.number))

    def _count(self, beam: Beam, at: float) -> None:
        run = beam.run
        if beam.run_counted or beam.state not in ENDED_STATES or run.started_at is None:
            return
        if beam.more_to_read or at < self._settled_at(beam):
            return
        beam.run_counted = True
        self._changed(beam.row.key)
        reason = failure_reason(run, self._output_state(beam)) if beam.state is BeamState.FAILED else None
        self._count_run(beam, run, beam.run_sequence.number, beam.state.value, reason, beam.state_since)

    def _count_run(
        self, beam: Beam, run: BeamRun, number: int, outcome: str, reason: str | None, ended_at: float | None = None
    ) -> None:
        ended = self.counts.count_run(beam, run, number, outcome, reason, ended_at)
        if ended is not None and can_be_saved(ended.key):
            self.unsaved.ended.append(with_wall_times(ended, self._timeline()))

    def _settled_at(self, beam: Beam) -> float:
        """When the end that a beam has come to may be counted; whose row alone says that it failed may yet live on."""
        run = beam.run
        if run.ended:
            return beam.state_since + _SETTLE_SECONDS
        by_row = beam.state_since + _SETTLE_BY_ROW_SECONDS
        if beam.state is not BeamState.FAILED:
            return by_row
        return max(by_row, (run.last_growth_at or 0.0) + _LATE_BATCHES * run.pace.longest_seconds)

    def _retire(self, key: BeamKey, beam: Beam) -> None:
        del self.beams[key]
        self._cases.remove(key)
        self.rows_from_restart.discard(key)
        self.watch_version += 1
        self.unsaved.forgotten |= dict.fromkeys(self.retired.remember(beam, self.rules))
        self._changed(key)


def _was_watched(beam: Beam) -> bool:
    """The log of the beam's run was read before the run had ended."""
    run = beam.run
    if run.started_at is None:
        return False
    return (
        run.start_seen
        or beam.log_seen_growing
        or beam.output.run_after is not None
        or (run.ended_at or 0.0) > run.started_at
    )


def _counts_after_all(counts: Counters, before: float | None, after: float | None) -> bool:
    """A run seemed to have ended before anybody counted, and by its corrected end did not.

    Args:
        counts: what is counted, and since when.
        before: when it seemed to have ended, epoch seconds.
        after: when it ended, epoch seconds.
    """
    return before is not None and after is not None and not counts.covers(before) and counts.covers(after)


def _looked_for(beam: Beam) -> tuple[object, ...]:
    """What :meth:`Roster.watched` says of a beam's row."""
    row = beam.row
    return row.beam_path, row.hpc_job_id, row.log_path
