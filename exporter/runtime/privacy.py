"""Applies the configuration's section ``privacy``."""

from __future__ import annotations

import hmac
from collections.abc import Collection, Iterator

from exporter.config import Settings
from exporter.config.document import quoted
from exporter.persistence.old_state import store_path
from exporter.privacy.identifiers import Identifiers, PlainIdentifiers
from exporter.privacy.pseudonyms import PseudonymKey, Pseudonyms, UnusableKey, read_key


def pseudonym_key(settings: Settings, *, any_owner: bool = False) -> PseudonymKey | None:
    """Read the pseudonym key; ``None`` if ids are shown as they are.

    Args:
        settings: the configuration.
        any_owner: whether any user may own the key file (for commands); see :func:`read_key`.

    Raises:
        ConfigError: the key file cannot be used.
    """
    privacy = settings.privacy
    if privacy.identifiers == "plain":
        return None
    assert privacy.key_file is not None, "the configuration is not valid without it"
    try:
        return read_key(privacy.key_file, any_owner=any_owner)
    except UnusableKey as error:
        raise settings.error_at((("privacy", "key_file"), str(error))) from None


def make_identifiers(settings: Settings, key: PseudonymKey | None) -> Identifiers:
    """Make the object that decides how ids are shown.

    Args:
        settings: the configuration.
        key: result of :func:`pseudonym_key`.
    """
    if key is None:
        return PlainIdentifiers()
    identifiers = Pseudonyms(key, cache_size=4 * settings.max_beams)
    apply_settings(identifiers, settings)
    return identifiers


def apply_settings(identifiers: Identifiers, settings: Settings) -> None:
    """Let statuses and paths of this configuration be shown as they are."""
    if isinstance(identifiers, Pseudonyms):
        discovery = settings.discovery
        words = (discovery.terminal_statuses, discovery.post_run_statuses, discovery.simulating_statuses)
        statuses = {status for each in (*words, discovery.reset_statuses) for status in each}
        identifiers.allow_plain(statuses, set(_paths(settings)))


def _paths(settings: Settings) -> Iterator[str]:
    """Yield the paths in the configuration."""
    if settings.database is not None:
        yield settings.database.name
    if settings.state.file is not None:
        yield str(settings.state.file)
        yield str(store_path(settings.state.file))
    if settings.progress_tracking.enabled:
        for source in settings.sources:
            for template in settings.templates(source):
                yield from (template.folder, template.fixed_folder)


def check_resolvers(settings: Settings, users: Collection[str]) -> None:
    """Check that every user who may see ids behind pseudonyms has a password.

    Args:
        settings: the configuration.
        users: users of the web configuration.

    Raises:
        ConfigError: a user has no password.
    """
    strangers = [(at, user) for at, user in enumerate(settings.privacy.resolve_for) if user not in users]
    if settings.privacy.identifiers == "pseudonym" and strangers:
        where = settings.web.config_file or "the web configuration (web.config_file), and there is none"
        wrong = f"no such user in basic_auth_users of {where}; who may see ids must log in"
        raise settings.error_at(
            *((("privacy", "resolve_for", at), f"{quoted(user)}: {wrong}") for at, user in strangers)
        )


def privacy_changed(old: Settings, new: Settings, key: PseudonymKey | None) -> bool:
    """Whether a reload would change how ids are shown.

    Args:
        old: the settings in use.
        new: the settings that were read again.
        key: the key in use.

    Raises:
        ConfigError: the key file cannot be used any more.
    """
    if old.privacy != new.privacy:
        return True
    now = pseudonym_key(new)
    return key is not None and now is not None and not hmac.compare_digest(key.cases, now.cases)
