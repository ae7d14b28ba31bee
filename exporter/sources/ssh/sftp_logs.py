"""Stats and reads any number of logs over an SFTP session in a few round trips.

All logs of a folder are found with one listing (two round trips). Only in a folder with far more entries than wanted
are the logs requested one by one. SFTP has no inodes, so only its bytes distinguish a file from another one of the same
name: see :mod:`exporter.sources.tailer`.

Links are resolved when a folder or link is first seen, when a link's time stamp changes, and for each log between its
opening and reading. A link that exists only between these two steps is not detected; then only the account's own
permissions protect other files.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import lru_cache

from exporter.sources.log_paths import inside
from exporter.sources.source import (
    ENTRIES_LIMIT,
    FolderEntry,
    LogProblem,
    LogStat,
    ReadRequest,
    link_leads_outside,
    too_many_entries,
)
from exporter.sources.ssh.sftp import FILES_AT_ONCE, Listing, SftpSession, Wanted
from exporter.sources.ssh.sftp_entries import (
    FolderReader,
    decode_path,
    encode_path,
    is_missing_folder,
    merge_attributes,
    to_log_stat,
    to_problem,
)
from exporter.sources.ssh.sftp_messages import Attributes, SftpRefusal

_HUGE_FOLDER = 5000
"""Above so many entries a listing costs more than a few single requests."""
_UNKNOWN = Attributes(None, None, None)
_REMEMBERED_MORE = 20_000
"""Folders and links that are remembered, in addition to twice the number requested at once."""


class SftpLogs:
    """Logs over one SFTP session.

    Args:
        session: the SFTP session.
        folders: folders that must hold the logs after links are resolved; ``None`` if links may lead anywhere.
    """

    def __init__(self, session: SftpSession, folders: Collection[str] | None = None) -> None:
        self.session = session
        self._entries: dict[str, int] = {}
        # Folders whose listings have incomplete attributes, so that each log is requested separately.
        self._incomplete: set[str] = set()
        self._knows_lstat = True
        self._folders = folders
        # Folders and links that led to allowed places when they were resolved last.
        self._allowed_folders: set[str] = set()
        self._allowed_links: dict[str, Attributes] = {}

    def stat(self, paths: Collection[str]) -> dict[str, LogStat | LogProblem]:
        """See :meth:`exporter.sources.source.LogSource.stat`."""
        by_folder: dict[str, list[str]] = {}
        for path in paths:
            by_folder.setdefault(_split(path)[0], []).append(path)
        separate = {
            folder
            for folder, wanted in by_folder.items()
            if folder in self._incomplete or self._entries.get(folder, 0) > _HUGE_FOLDER + 10 * len(wanted)
        }
        listed = [folder for folder in by_folder if folder not in separate]
        wanted = [{_split(path)[1] for path in by_folder[folder]} for folder in listed]
        single = [path for folder in separate for path in by_folder[folder]]
        found: dict[str, LogStat | LogProblem] = {}
        entries: dict[str, Attributes] = {}
        for folder, listing in zip(listed, self._listings(listed, wanted), strict=True):
            for path in by_folder[folder]:
                if isinstance(listing, SftpRefusal):
                    if not listing.missing:
                        found[path] = to_problem("list", folder, listing)
                elif (attributes := listing.get(_split(path)[1])) is not None:
                    entries[path] = attributes
                    if not attributes.plain and not attributes.complete:
                        self._incomplete.add(folder)
                        single.append(path)
        for path, answer in zip(single, self._lstat(single), strict=True):
            if isinstance(answer, Attributes):
                entries[path] = answer
                continue
            entries.pop(path, None)
            if not answer.missing:
                found[path] = to_problem("stat", path, answer)
        return found | self._stats(entries)

    def _lstat(self, paths: Sequence[str]) -> list[Attributes | SftpRefusal]:
        """Return the attributes of each path; links are not followed."""
        encoded = [encode_path(path) for path in paths]
        if self._knows_lstat:
            answers = self.session.lstat(encoded)
            if not any(isinstance(answer, SftpRefusal) and answer.unsupported for answer in answers):
                return answers
            self._knows_lstat = False
        # Without LSTAT a link looks like its target, so the type is unknown.
        return [
            replace(answer, mode=None) if isinstance(answer, Attributes) and not answer.folder else answer
            for answer in self.session.stat(encoded)
        ]

    def _stats(self, entries: Mapping[str, Attributes]) -> dict[str, LogStat | LogProblem]:
        """Return sizes and times; links are followed if they lead to allowed places.

        Args:
            entries: attributes by path, links not followed. An entry of unknown type counts as a link.
        """
        entries = dict(entries)
        found: dict[str, LogStat | LogProblem] = {}
        unclear = {path: attributes for path, attributes in entries.items() if not attributes.plain}
        links = {path: each for path, each in unclear.items() if each.link or not each.type_known}
        outside = self._find_outside({_split(path)[0] for path in entries}, links)
        for path, answer in zip(unclear, self.session.stat([encode_path(path) for path in unclear]), strict=True):
            if isinstance(answer, Attributes):
                entries[path] = answer if path in links else merge_attributes(answer, entries[path])
                continue
            del entries[path]
            self._allowed_links.pop(path, None)
            if not answer.missing:
                found[path] = to_problem("stat", path, answer)
        for path, attributes in entries.items():
            if outside and (path in outside or _split(path)[0] in outside):
                found[path] = link_leads_outside(path)
            else:
                found[path] = to_log_stat(path, attributes)
        return found

    def read(self, requests: Sequence[ReadRequest]) -> list[bytes | LogProblem]:
        """See :meth:`exporter.sources.source.LogSource.read`."""
        found: list[bytes | LogProblem] = []
        for start in range(0, len(requests), FILES_AT_ONCE):
            found += self._read(requests[start : start + FILES_AT_ONCE])
        return found

    def _read(self, requests: Sequence[ReadRequest]) -> list[bytes | LogProblem]:
        """Read from as many files as may be open at once."""
        asked = [(encode_path(each.path), each.offset, each.length) for each in requests]
        roots = None if self._folders is None else [encode_path(folder) for folder in self._folders]
        outside: set[bytes] = set()

        def forbidden(leads: Mapping[bytes, bytes]) -> set[bytes]:
            if roots is not None:
                allowed = [decode_path(leads[root]) for root in roots if root in leads]
                outside.update(path for path, _, _ in asked if not inside(decode_path(leads.get(path, b"")), allowed))
            return outside

        places = [] if roots is None else [*roots, *(path for path, _, _ in asked)]
        found: list[bytes | LogProblem] = []
        for request, (path, _, _), answer in zip(
            requests, asked, self.session.read(asked, places, forbidden), strict=True
        ):
            if isinstance(answer, SftpRefusal):
                found.append(to_problem("read", request.path, answer))
            elif path in outside:
                # Resolve both again at the next stat.
                self._allowed_folders.discard(_split(request.path)[0])
                self._allowed_links.pop(request.path, None)
                found.append(link_leads_outside(request.path))
            else:
                found.append(answer)
        return found

    def listing(self, folder: str) -> dict[str, LogStat]:
        """See :meth:`exporter.sources.source.LogSource.listing`."""
        stats: dict[str, LogStat] = {}
        count = 0

        def keep(name: bytes, attributes: Attributes) -> bool:
            nonlocal count
            if attributes.folder or count > ENTRIES_LIMIT:
                return False
            count += 1
            if not attributes.plain:
                return True
            # The usual case: keep only size and time.
            if attributes.regular:
                stats[decode_path(name)] = LogStat(attributes.size_bytes or 0, attributes.modified_at or 0.0)
            return False

        [listing] = self._listings([folder], [keep])
        if isinstance(listing, SftpRefusal):
            if listing.missing:
                return {}
            raise to_problem("list", folder, listing)
        if count > ENTRIES_LIMIT:
            raise too_many_entries(folder)
        paths = {posixpath.join(folder, decode_path(name)): attributes for name, attributes in listing.items()}
        incomplete = [path for path, attributes in paths.items() if not attributes.complete]
        for path, answer in zip(incomplete, self._lstat(incomplete), strict=True):
            if isinstance(answer, Attributes):
                paths[path] = answer
            else:
                del paths[path]
        unclear = {path: each for path, each in paths.items() if not each.plain}
        links = {path: each for path, each in unclear.items() if each.link or not each.type_known}
        outside = self._find_outside({folder}, links) if links else set()
        for path, answer in zip(unclear, self.session.stat([encode_path(path) for path in unclear]), strict=True):
            if isinstance(answer, Attributes):
                # Of a link to outside return only the name: stat() will report why it is not read.
                listed = unclear[path]
                paths[path] = replace(listed, mode=answer.mode) if path in outside else merge_attributes(answer, listed)
        return stats | {
            posixpath.basename(path): LogStat(each.size_bytes or 0, each.modified_at or 0.0)
            for path, each in paths.items()
            if each.regular
        }

    def missing_folders(self, folders: Collection[str]) -> frozenset[str]:
        """See :meth:`exporter.sources.source.LogSource.missing_folders`. It takes one round trip."""
        answers = self.session.stat([encode_path(folder) for folder in folders])
        return frozenset(folder for folder, answer in zip(folders, answers, strict=True) if is_missing_folder(answer))

    def entries(
        self,
        folder: str,
        names: str | re.Pattern[str],
        visit: Callable[[FolderEntry], bool],
        within: Collection[str] | None,
    ) -> None:
        """See :meth:`exporter.sources.source.LogSource.entries`.

        Links and entries with incomplete attributes cost a request each, which is limited.
        """
        roots: list[str] | None = None
        if within is not None:
            real, *allowed = self.session.real_paths([encode_path(folder), *(encode_path(each) for each in within)])
            roots = [decode_path(each) for each in allowed if isinstance(each, bytes)]
            if isinstance(real, SftpRefusal):
                if real.missing:
                    return
                raise to_problem("list", folder, real)
            if not inside(f"{decode_path(real)}/", roots):
                if roots:
                    raise link_leads_outside(folder)
                return  # the folders themselves do not exist
        if isinstance(names, str):
            FolderReader(self.session, folder, visit, roots, self._lstat).read({names: _UNKNOWN})
            return
        reader = FolderReader(self.session, folder, visit, roots, self._lstat)
        seen = 0
        try:
            with closing(self.session.scan(encode_path(folder))) as scan:
                for entries in scan:
                    seen += max(1, len(entries))
                    if seen > ENTRIES_LIMIT:
                        raise too_many_entries(folder)
                    decoded = {decode_path(name): attributes for name, attributes in entries.items()}
                    if reader.read({name: each for name, each in decoded.items() if names.fullmatch(name)}):
                        return
        except SftpRefusal as refusal:
            if not refusal.missing:
                raise to_problem("list", folder, refusal) from None

    def _find_outside(self, folders: Collection[str], links: Mapping[str, Attributes]) -> set[str]:
        """Return the folders and links that do not lead to allowed places, or that cannot be resolved.

        Args:
            folders: folders of logs.
            links: links in them, with their own attributes.
        """
        if self._folders is None:
            return set()
        if len(self._allowed_folders) + len(self._allowed_links) > _REMEMBERED_MORE + 2 * (len(folders) + len(links)):
            self._allowed_folders.clear()
            self._allowed_links.clear()
        new_folders = [folder for folder in folders if folder not in self._allowed_folders]
        # Entries of unknown type are resolved each time.
        new_links = [
            path for path in links if self._allowed_links.get(path) != links[path] or not links[path].type_known
        ]
        if new_folders or new_links:
            asked = [*self._folders, *new_folders, *new_links]
            answers = self.session.real_paths([encode_path(path) for path in asked])
            real = {path: decode_path(at) for path, at in zip(asked, answers, strict=True) if isinstance(at, bytes)}
            allowed = [real[folder] for folder in self._folders if folder in real]
            self._allowed_folders |= {
                each for each in new_folders if each in real and inside(f"{real[each]}/", allowed)
            }
            for each in new_links:
                self._allowed_links.pop(each, None)
                if each in real and inside(real[each], allowed):
                    self._allowed_links[each] = links[each]
        return {folder for folder in folders if folder not in self._allowed_folders} | {
            path for path in links if path not in self._allowed_links
        }

    def _listings(
        self, folders: Sequence[str], wanted: Sequence[Wanted]
    ) -> list[dict[bytes, Attributes] | SftpRefusal]:
        expected = [self._entries.get(folder, 0) for folder in folders]
        listings = self.session.listings([encode_path(folder) for folder in folders], expected, wanted)
        found: list[dict[bytes, Attributes] | SftpRefusal] = []
        for folder, listing in zip(folders, listings, strict=True):
            if isinstance(listing, Listing):
                self._entries[folder] = listing.count
                found.append(listing.entries)
            else:
                self._allowed_folders.discard(folder)
                found.append(listing)
        return found


@lru_cache(maxsize=20_000)
def _split(path: str) -> tuple[str, bytes]:
    """Split a path into folder and encoded name. It is cached, because every poll uses the same paths."""
    folder, name = posixpath.split(path)
    return folder, encode_path(name)
