"""Logs seen through an SFTP session, however many, in a few round trips.

A folder's logs are looked at with one listing of it (two round trips, whatever their number); only in a folder that
holds far more than is wanted are they asked for one by one. SFTP has no inode, so nothing but its bytes tells one file
from another of the same name: see :mod:`exporter.sources.tailer`.

Where links lead is asked for when a folder or a link is first met, when a link has another time stamp, and of each log
that is read, between its being opened and read. Who puts a link there and takes it away between these two, a moment
on the host, is not noticed. The account's own rights are what bounds that.
"""

from __future__ import annotations

import posixpath
import re
import stat
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
from exporter.sources.ssh.sftp import FILES_AT_ONCE, Attributes, Listing, SftpRefusal, SftpSession, Wanted

_HUGE_FOLDER = 5000
"""A listing of more entries costs more than asking for a few of them one by one."""
_REQUESTS_PER_FOLDER = 500
"""Entries of one folder that are asked for by themselves, since they are links or the listing does not tell enough."""
_UNKNOWN = Attributes(None, None, None)
_REMEMBERED_MORE = 20_000
"""So many more folders and links are remembered than logs are asked for at once."""


class SftpLogs:
    """Logs seen through an SFTP session.

    Args:
        session: the conversation with the host.
        folders: where logs must be, wherever links in their paths lead; ``None`` where links may lead anywhere.
    """

    def __init__(self, session: SftpSession, folders: Collection[str] | None = None) -> None:
        self.session = session
        self._entries: dict[str, int] = {}
        # Folders whose listings do not tell all of a log, so that each log is asked for by itself.
        self._untold: set[str] = set()
        self._knows_lstat = True
        self._folders = folders
        # Those that led to where logs may be, when that was asked last.
        self._folders_met: set[str] = set()
        self._links_met: dict[str, Attributes] = {}

    def stat(self, paths: Collection[str]) -> dict[str, LogStat | LogProblem]:
        """See :meth:`exporter.sources.source.LogSource.stat`."""
        by_folder: dict[str, list[str]] = {}
        for path in paths:
            by_folder.setdefault(_split(path)[0], []).append(path)
        alone = {
            folder
            for folder, wanted in by_folder.items()
            if folder in self._untold or self._entries.get(folder, 0) > _HUGE_FOLDER + 10 * len(wanted)
        }
        listed = [folder for folder in by_folder if folder not in alone]
        wanted = [{_split(path)[1] for path in by_folder[folder]} for folder in listed]
        singly = [path for folder in alone for path in by_folder[folder]]
        found: dict[str, LogStat | LogProblem] = {}
        entries: dict[str, Attributes] = {}
        for folder, listing in zip(listed, self._listings(listed, wanted), strict=True):
            for path in by_folder[folder]:
                if isinstance(listing, SftpRefusal):
                    if not listing.missing:
                        found[path] = _problem("list", folder, listing)
                elif (attributes := listing.get(_split(path)[1])) is not None:
                    entries[path] = attributes
                    if not attributes.plain and not attributes.complete:
                        self._untold.add(folder)
                        singly.append(path)
        for path, answer in zip(singly, self._looked_at(singly), strict=True):
            if isinstance(answer, Attributes):
                entries[path] = answer
                continue
            entries.pop(path, None)
            if not answer.missing:
                found[path] = _problem("look at", path, answer)
        return found | self._stats(entries)

    def _looked_at(self, paths: Sequence[str]) -> list[Attributes | SftpRefusal]:
        """What is at each path, links not followed, as far as the host tells."""
        encoded = [_encoded(path) for path in paths]
        if self._knows_lstat:
            answers = self.session.lstat(encoded)
            if not any(isinstance(answer, SftpRefusal) and answer.unsupported for answer in answers):
                return answers
            self._knows_lstat = False
        # Without LSTAT nobody can tell a link from what it leads to.
        return [
            replace(answer, mode=None) if isinstance(answer, Attributes) and not answer.folder else answer
            for answer in self.session.stat(encoded)
        ]

    def _stats(self, entries: Mapping[str, Attributes]) -> dict[str, LogStat | LogProblem]:
        """Sizes and times of what is there, links followed where they may lead.

        Args:
            entries: what is at each path, links not followed. What may be a link is treated as one.
        """
        entries = dict(entries)
        found: dict[str, LogStat | LogProblem] = {}
        unclear = {path: attributes for path, attributes in entries.items() if not attributes.plain}
        links = {path: each for path, each in unclear.items() if each.link or not each.type_known}
        astray = self._astray({_split(path)[0] for path in entries}, links)
        for path, answer in zip(unclear, self.session.stat([_encoded(path) for path in unclear]), strict=True):
            if isinstance(answer, Attributes):
                entries[path] = answer if path in links else _both(answer, entries[path])
                continue
            del entries[path]
            self._links_met.pop(path, None)
            if not answer.missing:
                found[path] = _problem("look at", path, answer)
        for path, attributes in entries.items():
            if astray and (path in astray or _split(path)[0] in astray):
                found[path] = link_leads_outside(path)
            else:
                found[path] = _log_stat(path, attributes)
        return found

    def read(self, requests: Sequence[ReadRequest]) -> list[bytes | LogProblem]:
        """See :meth:`exporter.sources.source.LogSource.read`."""
        found: list[bytes | LogProblem] = []
        for start in range(0, len(requests), FILES_AT_ONCE):
            found += self._read(requests[start : start + FILES_AT_ONCE])
        return found

    def _read(self, requests: Sequence[ReadRequest]) -> list[bytes | LogProblem]:
        """What :meth:`read` does, of so many files as may be open at once."""
        asked = [(_encoded(each.path), each.offset, each.length) for each in requests]
        roots = None if self._folders is None else [_encoded(folder) for folder in self._folders]
        astray: set[bytes] = set()

        def unwanted(leads: Mapping[bytes, bytes]) -> set[bytes]:
            if roots is not None:
                allowed = [_decoded(leads[root]) for root in roots if root in leads]
                astray.update(path for path, _, _ in asked if not inside(_decoded(leads.get(path, b"")), allowed))
            return astray

        places = [] if roots is None else [*roots, *(path for path, _, _ in asked)]
        found: list[bytes | LogProblem] = []
        for request, (path, _, _), answer in zip(
            requests, asked, self.session.read(asked, places, unwanted), strict=True
        ):
            if isinstance(answer, SftpRefusal):
                found.append(_problem("read", request.path, answer))
            elif path in astray:
                # The next look is to find it, too.
                self._folders_met.discard(_split(request.path)[0])
                self._links_met.pop(request.path, None)
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
            # The usual case, for every file of a folder: nothing more is kept of it.
            if attributes.regular:
                stats[_decoded(name)] = LogStat(attributes.size_bytes or 0, attributes.modified_at or 0.0)
            return False

        [listing] = self._listings([folder], [keep])
        if isinstance(listing, SftpRefusal):
            if listing.missing:
                return {}
            raise _problem("list", folder, listing)
        if count > ENTRIES_LIMIT:
            raise too_many_entries(folder)
        paths = {posixpath.join(folder, _decoded(name)): attributes for name, attributes in listing.items()}
        untold = [path for path, attributes in paths.items() if not attributes.complete]
        for path, answer in zip(untold, self._looked_at(untold), strict=True):
            if isinstance(answer, Attributes):
                paths[path] = answer
            else:
                del paths[path]
        unclear = {path: each for path, each in paths.items() if not each.plain}
        links = {path: each for path, each in unclear.items() if each.link or not each.type_known}
        astray = self._astray({folder}, links) if links else set()
        for path, answer in zip(unclear, self.session.stat([_encoded(path) for path in unclear]), strict=True):
            if isinstance(answer, Attributes):
                # Of one that leads astray nothing but its name is told: a look at it will say why it is not read.
                listed = unclear[path]
                paths[path] = replace(listed, mode=answer.mode) if path in astray else _both(answer, listed)
        return stats | {
            posixpath.basename(path): LogStat(each.size_bytes or 0, each.modified_at or 0.0)
            for path, each in paths.items()
            if each.regular
        }

    def missing_folders(self, folders: Collection[str]) -> frozenset[str]:
        """See :meth:`exporter.sources.source.LogSource.missing_folders`; one round trip for all of them."""
        answers = self.session.stat([_encoded(folder) for folder in folders])
        return frozenset(folder for folder, answer in zip(folders, answers, strict=True) if _is_missing(answer))

    def entries(
        self,
        folder: str,
        names: str | re.Pattern[str],
        visit: Callable[[FolderEntry], bool],
        within: Collection[str] | None,
    ) -> None:
        """See :meth:`exporter.sources.source.LogSource.entries`.

        Links, and entries of which the listing does not tell all, cost requests of their own; there is a limit to them.
        """
        roots: list[str] | None = None
        if within is not None:
            real, *allowed = self.session.real_paths([_encoded(folder), *(_encoded(each) for each in within)])
            roots = [_decoded(each) for each in allowed if isinstance(each, bytes)]
            if isinstance(real, SftpRefusal):
                if real.missing:
                    return
                raise _problem("list", folder, real)
            if not inside(f"{_decoded(real)}/", roots):
                if roots:
                    raise link_leads_outside(folder)
                return  # the folders themselves do not exist
        if isinstance(names, str):
            _Entries(self.session, folder, visit, roots, self._looked_at).show({names: _UNKNOWN})
            return
        shown = _Entries(self.session, folder, visit, roots, self._looked_at)
        seen = 0
        try:
            with closing(self.session.scan(_encoded(folder))) as scan:
                for entries in scan:
                    seen += max(1, len(entries))
                    if seen > ENTRIES_LIMIT:
                        raise too_many_entries(folder)
                    decoded = {_decoded(name): attributes for name, attributes in entries.items()}
                    if shown.show({name: each for name, each in decoded.items() if names.fullmatch(name)}):
                        return
        except SftpRefusal as refusal:
            if not refusal.missing:
                raise _problem("list", folder, refusal) from None

    def _astray(self, folders: Collection[str], links: Mapping[str, Attributes]) -> set[str]:
        """Those folders and links that lead to where logs must not be, or that nobody can tell of.

        Args:
            folders: those that hold logs.
            links: links in them, with what the host says of the links themselves.
        """
        if self._folders is None:
            return set()
        if len(self._folders_met) + len(self._links_met) > _REMEMBERED_MORE + 2 * (len(folders) + len(links)):
            self._folders_met.clear()
            self._links_met.clear()
        new_folders = [folder for folder in folders if folder not in self._folders_met]
        # What may be a link, for all that the host tells, is asked for each time.
        new_links = [path for path in links if self._links_met.get(path) != links[path] or not links[path].type_known]
        if new_folders or new_links:
            asked = [*self._folders, *new_folders, *new_links]
            answers = self.session.real_paths([_encoded(path) for path in asked])
            real = {path: _decoded(at) for path, at in zip(asked, answers, strict=True) if isinstance(at, bytes)}
            allowed = [real[folder] for folder in self._folders if folder in real]
            self._folders_met |= {each for each in new_folders if each in real and inside(f"{real[each]}/", allowed)}
            for each in new_links:
                self._links_met.pop(each, None)
                if each in real and inside(real[each], allowed):
                    self._links_met[each] = links[each]
        return {folder for folder in folders if folder not in self._folders_met} | {
            path for path in links if path not in self._links_met
        }

    def _listings(
        self, folders: Sequence[str], wanted: Sequence[Wanted]
    ) -> list[dict[bytes, Attributes] | SftpRefusal]:
        expected = [self._entries.get(folder, 0) for folder in folders]
        listings = self.session.listings([_encoded(folder) for folder in folders], expected, wanted)
        found: list[dict[bytes, Attributes] | SftpRefusal] = []
        for folder, listing in zip(folders, listings, strict=True):
            if isinstance(listing, Listing):
                self._entries[folder] = listing.count
                found.append(listing.entries)
            else:
                self._folders_met.discard(folder)
                found.append(listing)
        return found


class _Entries:
    """Shows entries of one folder to somebody.

    Args:
        session: the conversation with the host.
        folder: the folder.
        visit: see :meth:`exporter.sources.source.LogSource.entries`.
        roots: where links may lead, as paths without links; ``None``: anywhere.
        look_at: asks what is at paths, links not followed.
    """

    def __init__(
        self,
        session: SftpSession,
        folder: str,
        visit: Callable[[FolderEntry], bool],
        roots: Collection[str] | None,
        look_at: Callable[[Sequence[str]], list[Attributes | SftpRefusal]],
    ) -> None:
        self._session = session
        self._look_at = look_at
        self._folder = folder
        self._visit = visit
        self._roots = roots
        self._requests_left = _REQUESTS_PER_FOLDER

    def show(self, entries: Mapping[str, Attributes]) -> bool:
        """Show some entries.

        Args:
            entries: what a listing tells of each.

        Returns:
            Whether that was enough.
        """
        for name, listed in entries.items():
            attributes = self._followed(posixpath.join(self._folder, name), listed)
            if attributes is None:
                continue
            if not attributes.folder and not attributes.regular:
                continue
            entry = FolderEntry(name, None)
            if not attributes.folder:
                found = _log_stat(posixpath.join(self._folder, name), attributes)
                if isinstance(found, LogProblem):
                    raise found
                entry = FolderEntry(name, found)
            if self._visit(entry):
                return True
        return False

    def _followed(self, path: str, listed: Attributes) -> Attributes | None:
        """What an entry is, links followed; ``None`` where it is gone or leads to where it must not."""
        attributes = listed
        if not listed.complete:
            self._count_request()
            [answer] = self._look_at([path])
            if isinstance(answer, SftpRefusal):
                if not answer.missing:
                    raise _problem("look at", path, answer)
                return None
            attributes = answer
        if attributes.plain:
            return attributes
        self._count_request()
        if attributes.link or not attributes.type_known:
            [real] = [None] if self._roots is None else self._session.real_paths([_encoded(path)])
            if self._roots is not None and not (isinstance(real, bytes) and inside(f"{_decoded(real)}/", self._roots)):
                return None
        [answer] = self._session.stat([_encoded(path)])
        if isinstance(answer, SftpRefusal):
            return None
        return _both(answer, attributes)

    def _count_request(self) -> None:
        self._requests_left -= 1
        if self._requests_left < 0:
            raise LogProblem(
                "too_many",
                f"{self._folder} has more than {_REQUESTS_PER_FOLDER} matching links",
                "name the file more exactly",
            )


@lru_cache(maxsize=20_000)
def _split(path: str) -> tuple[str, bytes]:
    """Folder and encoded name; the same few paths are asked for at every look."""
    folder, name = posixpath.split(path)
    return folder, _encoded(name)


def _encoded(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _decoded(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _is_missing(answer: Attributes | SftpRefusal) -> bool:
    """Whether a folder does not exist, or is none, as far as the host says."""
    if isinstance(answer, SftpRefusal):
        return answer.missing
    return answer.mode is not None and stat.S_IFMT(answer.mode) != 0 and not stat.S_ISDIR(answer.mode)


def _problem(action: str, path: str, refusal: SftpRefusal) -> LogProblem:
    if refusal.forbidden:
        advice = "give the account read access to it and search access to the folders above"
        return LogProblem("permission", f"cannot {action} {path}: permission denied", advice)
    return LogProblem("io", f"cannot {action} {path}: {refusal}", "check the file system it is on")


def _log_stat(path: str, attributes: Attributes) -> LogStat | LogProblem:
    if not attributes.regular:
        return LogProblem("not_a_file", f"{path} is not a regular file", "check log_path")
    if attributes.size_bytes is None or attributes.modified_at is None:
        told = {"size": attributes.size_bytes, "modification time": attributes.modified_at}
        missing = [name for name, value in told.items() if value is None]
        return LogProblem(
            "attributes",
            f"the host's SFTP server does not tell the {' and '.join(missing)} of {path}",
            "both are needed; OpenSSH's server (`Subsystem sftp internal-sftp`) tells them",
        )
    return LogStat(attributes.size_bytes, attributes.modified_at)


def _both(first: Attributes, second: Attributes) -> Attributes:
    """What two answers tell of one file; the first counts where both do. Of a link the second tells nothing of use."""
    if second.link or not second.type_known:
        return first
    return Attributes(
        second.size_bytes if first.size_bytes is None else first.size_bytes,
        second.modified_at if first.modified_at is None else first.modified_at,
        first.mode if first.type_known else second.mode,
    )
