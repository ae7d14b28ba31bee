"""Builds the exporter from the settings, and starts, reloads and stops it.

There is one thread per source and one each for discovery, mirror, saved state, clock and web server. Each survives its
errors and ends within two seconds.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from exporter import __version__
from exporter.beams.explanation import Explanation
from exporter.beams.rules import StallRules, StatusRules, StoreRules
from exporter.beams.snapshot import BeamKey, StoreSnapshot
from exporter.beams.store import BeamStore
from exporter.config import ConfigError, Settings
from exporter.config.listen_address import ListenError
from exporter.metrics.collectors import ExporterCollector, ScrapeMeter, StoreCollector, process_registry
from exporter.metrics.definitions import ProtectionView, ReloadStatus
from exporter.metrics.encoder import MetricsEncoder
from exporter.notify.notifier import Notifier
from exporter.persistence.writer import StateWriter
from exporter.polling.path_check import PathCheck
from exporter.privacy.encryption import Encryption
from exporter.privacy.identifiers import Identifiers, SafeText
from exporter.process.clock import Clock, ClockEvent
from exporter.process.worker import Worker
from exporter.runtime.event_log import log_decision, log_event, logs_decisions
from exporter.runtime.notifications import make_notifier, sent_messages
from exporter.runtime.pipeline import Pipeline
from exporter.runtime.privacy import apply_settings, check_resolvers, make_identifiers, privacy_changed, pseudonym_key
from exporter.web.authentication import FailedLogins
from exporter.web.events import EventBroadcaster
from exporter.web.page import PageLinks
from exporter.web.reveal import IdReveal
from exporter.web.routes import ReloadFailed, build_app
from exporter.web.server import WebServer
from exporter.web.web_config_reload import ActiveWebConfig

_log = structlog.get_logger(__name__)

_NEVER_SECONDS = 365 * 86400.0
_TICK_SECONDS = 2.0
"""Longest time between two readings of the clock: a longer pause means that this process was stopped."""
_ADVANCE_SECONDS = 5.0
"""Time passes in the store so often if no beam makes progress: each time every beam is examined."""
_STOP_SECONDS = 2.0


def store_rules(settings: Settings) -> StoreRules:
    """Make the store's rules from the configuration."""
    tracking, discovery = settings.progress_tracking, settings.discovery
    return StoreRules(
        stall=StallRules(
            factor=tracking.stall.factor,
            minimum_seconds=tracking.stall.minimum_seconds,
            first_batch_seconds=tracking.stall.first_batch_seconds,
            buffered_seconds=tracking.stall.buffered_seconds,
            timeout_seconds=tracking.monitoring.timeout_seconds,
        ),
        statuses=StatusRules(
            terminal=frozenset(discovery.terminal_statuses),
            completed=frozenset(discovery.completed_statuses),
            post_run=frozenset(discovery.post_run_statuses),
            simulating=frozenset(discovery.simulating_statuses),
            reset=frozenset(discovery.reset_statuses),
        ),
        retention_seconds=settings.retention_seconds,
        failed_retention_seconds=settings.failed_retention_seconds,
        max_beams=settings.max_beams,
        output_sources=frozenset(source.name for source in settings.sources if source.output_path),
    )


def _changed_keys(old: Settings, new: Settings, section: str) -> str:
    """Return the changed keys of a section, as users write them; empty if there are none."""
    before, now = getattr(old, section), getattr(new, section)
    changed = (key for key in type(now).model_fields if getattr(before, key) != getattr(now, key))
    return SafeText(", ".join(f"{section}.{key}" for key in changed))


def _log_clock_event(event: ClockEvent, seconds: float) -> None:
    seconds = round(seconds, 1)
    if event == "set":
        _log.warning("system clock was set; times are shown by the new clock", seconds=seconds)
    else:
        _log.warning("the exporter or its machine was stopped; that time is not silence", seconds=seconds)


class Exporter:
    """The running exporter.

    Args:
        settings: the configuration.
        read_settings: reads the configuration again for a reload.
        identifiers: how ids are shown, if they were made from the settings already (for the log).
        clock: the wall clock, UTC epoch seconds; it may be set while we run.

    Raises:
        exporter.config.listen_address.ListenError: the web server's address is invalid or in use.
        exporter.config.ConfigError: the web configuration or the pseudonym key cannot be used.
        exporter.persistence.errors.StateInUse: another exporter uses the state file.
        exporter.persistence.errors.StateNotOurs: the file at the state path is not a state file.
    """

    def __init__(
        self,
        settings: Settings,
        read_settings: Callable[[], Settings],
        *,
        identifiers: Identifiers | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._read_settings = read_settings
        self._key = pseudonym_key(settings)
        self._identifiers = identifiers or make_identifiers(settings, self._key)
        self._clock = Clock(on_event=_log_clock_event, wall=clock)
        self._store = BeamStore(store_rules(settings), self._clock.now(), lambda: self._clock.timeline)
        self._store.keep_decisions(logs_decisions())
        self._changed = threading.Event()
        self._advance_due_at = -math.inf
        self._store.add_listener(self._changed.set)
        self._ticker = Worker("clock", self._tick, self._store.count_error)
        for where in ("clock", "monitor", "scrape", "web", "web configuration"):
            self._store.declare_errors(where)
        web_config = None if settings.web.config_file is None else Path(settings.web.config_file)
        self._web_config = ActiveWebConfig(web_config, self._store.count_error)
        check_resolvers(settings, self._web_config.users)
        self._failed_logins = FailedLogins()
        self._id_reveal = IdReveal(
            self._snapshot, self._identifiers, settings.privacy.resolve_for, redacted=self._key is not None
        )
        self._state_writer: StateWriter | None = None
        if settings.state.file is not None and settings.progress_tracking.enabled:
            self._state_writer = StateWriter(
                settings.state.file,
                settings.state.interval_seconds,
                settings.state.keep_history_days,
                self._store,
                self._clock,
                None if self._key is None else Encryption(self._key.state),
            )
            self._state_writer.resume({source.name for source in settings.sources})
        self._sent_messages = sent_messages(settings, self._state_writer)
        self._notification_counts: dict[tuple[str, str], int] = {}
        self._notifier = self._make_notifier(settings)
        self._notifying = Worker("notifications", self._notify, self._store.count_error)
        self._reload_lock = threading.Lock()
        self._reload_status = ReloadStatus(True, self._clock.wall_now())
        self._pipeline = Pipeline(settings, self._store, self._identifiers, self._clock.now)
        scrapes = ScrapeMeter()
        events = EventBroadcaster(self._snapshot, self._identifiers, self._store.count_error)
        encoder = self._encoder(scrapes)
        app = build_app(
            encoder=encoder,
            registry=process_registry(),
            meter=scrapes,
            snapshot=self._snapshot,
            explain=self._explain,
            identifiers=self._identifiers,
            events=events,
            id_reveal=self._id_reveal,
            links=PageLinks(settings.web.grafana_url, settings.web.runbook_url, settings.web.time_format),
            healthy=self._unhealthy,
            ready=self._unready,
            reload=self.reload,
            enable_lifecycle=settings.web.enable_lifecycle,
            count_error=self._store.count_error,
            version=__version__,
            allowed_hosts=settings.web.allowed_hosts,
            web_config=self._web_config,
            failed_logins=self._failed_logins,
            history=None if self._state_writer is None else self._state_writer.history,
        )
        try:
            self._web = WebServer(
                app,
                settings.web.listen_address,
                web_config=self._web_config,
                failed_logins=self._failed_logins,
                end_streams=events.end_streams,
            )
        except ListenError:
            if self._state_writer is not None:
                self._state_writer.close()
            raise

    @property
    def address(self) -> str:
        """Address of the web server, ``host:port``."""
        return self._web.address

    @property
    def url(self) -> str:
        """URL of the web server, ``https://host:port``."""
        return f"{'http' if self._web_config.tls_context is None else 'https'}://{self.address}"

    def start(self) -> None:
        """Start every thread."""
        self._web.start()
        self._ticker.start()
        self._pipeline.start()
        if self._state_writer is not None:
            self._state_writer.start()
        self._notifying.start()
        _log.info(
            "exporter started",
            version=__version__,
            address=self.address,
            tls=self._web_config.tls_context is not None,
            authentication=self._web_config.authenticates,
        )

    def stop(self) -> None:
        """Stop every thread, after writing pending progress and the state if possible."""
        self._notifying.stop()
        with self._reload_lock:
            self._pipeline.stop()
            self._pipeline.close()
        if self._state_writer is not None:
            self._state_writer.stop()
        self._ticker.stop()
        self._ticker.join(_TICK_SECONDS)
        self._web.stop()
        _log.info("exporter stopped")

    def reload(self) -> None:
        """Read the configuration again. The store and the checkpoints of logs are kept.

        Raises:
            ReloadFailed: the configuration is refused. The old one stays in use.
        """
        with self._reload_lock:
            try:
                settings = self._read_settings()
                if privacy_changed(self._settings, settings, self._key):
                    # Ids shown before and after would not match.
                    wrong = "has changed, or its key has; restart the exporter to change it"
                    raise settings.error_at((("privacy",), wrong))
                notifier = self._make_notifier(settings)
                self._web_config.reload()
            except ConfigError as error:
                self._reload_status = ReloadStatus(False, self._reload_status.at)
                _log.error("configuration refused; the old one stays in use", error=SafeText(error))
                raise ReloadFailed(str(error)) from error
            if keys := _changed_keys(self._settings, settings, "web"):
                _log.warning("settings of the web server take effect at the next start only", keys=keys)
            if keys := _changed_keys(self._settings, settings, "state"):
                _log.warning("settings of the state file take effect at the next start only", keys=keys)
            if keys := _changed_keys(self._settings, settings, "log"):
                _log.warning("settings of the log take effect at the next start only", keys=keys)
            self._pipeline.stop()
            self._store.set_rules(store_rules(settings))
            apply_settings(self._identifiers, settings)
            self._settings = settings
            self._notifier = notifier
            self._notifying.wake()
            self._pipeline = Pipeline(settings, self._store, self._identifiers, self._clock.now, self._pipeline)
            self._pipeline.start()
            self._reload_status = ReloadStatus(True, self._clock.wall_now())
            _log.info("configuration reloaded")

    def _tick(self) -> float:
        """Read the clock, let time pass in the store if that is due, and log what happened there."""
        now = self._clock.now()
        if self._changed.is_set() or now >= self._advance_due_at:
            self._changed.clear()
            self._advance_due_at = now + _ADVANCE_SECONDS
            self._store.advance(now)
        for event in self._store.pop_events():
            log_event(event)
        for decision in self._store.pop_decisions():
            log_decision(decision)
        return min(_TICK_SECONDS, self._settings.discovery.interval_seconds)

    def _make_notifier(self, settings: Settings) -> Notifier | None:
        return make_notifier(
            settings,
            self._snapshot,
            lambda: self._unready() is None,
            self._identifiers,
            self._sent_messages,
            self._notification_counts,
        )

    def _notify(self) -> float:
        """Send the messages that are due; nothing to do where none are configured."""
        notifier = self._notifier
        return _NEVER_SECONDS if notifier is None else notifier.step()

    def _unhealthy(self) -> str | None:
        return self._pipeline.problem()

    def _unready(self) -> str | None:
        return self._pipeline.unready()

    def _snapshot(self) -> StoreSnapshot:
        return self._store.snapshot(self._clock.now())

    def _explain(self, key: BeamKey) -> tuple[Explanation, Sequence[PathCheck]] | None:
        explanation = self._store.explain(key, self._clock.now())
        return None if explanation is None else (explanation, self._pipeline.path_checks(key))

    def _encoder(self, scrapes: ScrapeMeter) -> MetricsEncoder:
        return MetricsEncoder(
            StoreCollector(self._snapshot, identifiers=self._identifiers),
            ExporterCollector(
                __version__,
                reload_status=lambda: self._reload_status,
                scrapes=scrapes,
                protection=self._protection_view,
                store_up=lambda: None if self._state_writer is None else self._state_writer.up,
                notifications=lambda: dict(self._notification_counts),
            ),
        )

    def _protection_view(self) -> ProtectionView:
        return ProtectionView(
            self._failed_logins.read(),
            self._web_config.up_to_date,
            self._web_config.certificate_expires_at,
            self._id_reveal.counts(),
        )
