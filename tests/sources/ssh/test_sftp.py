"""The SFTP client with answers that are out of order, cut anywhere, or malformed."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.sources import source as source_module
from exporter.sources.source import LogProblem, ReadRequest
from exporter.sources.ssh import sftp, sftp_logs
from exporter.sources.ssh.sftp import SftpSession
from exporter.sources.ssh.sftp_logs import SftpLogs
from exporter.sources.ssh.sftp_messages import Attributes, SftpError, SftpRefusal
from exporter.sources.ssh.source import SshLogSource
from tests.support.sshd import Sshd

VERSION = struct.pack(">IBI", 5, 2, 3)


def packet(kind: int, number: int, body: bytes) -> bytes:
    return struct.pack(">IBI", len(body) + 5, kind, number) + body


def text(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def attributes(size: int, modified: int, mode: int = 0o100644) -> bytes:
    return struct.pack(">IQIII", 1 | 4 | 8, size, mode, 0, modified)


class Channel:
    """A host with prepared answers."""

    def __init__(self, answers: bytes, piece: int = 1 << 20) -> None:
        self.answers = answers
        self.piece = piece
        self.sent = b""
        self.closed = False

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def recv(self, size: int) -> bytes:
        data, self.answers = self.answers[: min(size, self.piece)], self.answers[min(size, self.piece) :]
        return data

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("piece", [1, 3, 7, 1 << 20])
def test_answers_may_arrive_in_any_order_and_cut_anywhere(piece: int) -> None:
    answers = (
        VERSION
        + packet(101, 2, struct.pack(">I", 2) + text(b"No such file") + text(b""))
        + packet(105, 3, attributes(30, 300))
        + packet(105, 1, attributes(10, 100))
    )
    first, missing, third = SftpSession(Channel(answers, piece)).stat([b"a", b"b", b"c"])
    assert first == Attributes(10, 100.0, 0o100644)
    assert isinstance(missing, SftpRefusal)
    assert missing.missing
    assert third == Attributes(30, 300.0, 0o100644)


def test_extended_attributes_are_skipped() -> None:
    body = struct.pack(">IQI", 1 | 0x80000000, 7, 1) + text(b"name") + text(b"value")
    assert SftpSession(Channel(VERSION + packet(105, 1, body))).stat([b"a"]) == [Attributes(7, None, None)]


@pytest.mark.parametrize(
    "answers",
    [
        b"",
        struct.pack(">IBI", 5, 2, 2),
        b"Welcome to our cluster!\r\nPlease behave.\r\n",
        struct.pack(">I", 0),
        struct.pack(">I", 0xFFFFFFFF),
    ],
    ids=["silence", "version 2", "a shell that prints", "an empty packet", "a huge packet"],
)
def test_a_server_that_does_not_speak_sftp_is_reported(answers: bytes) -> None:
    with pytest.raises(SftpError):
        SftpSession(Channel(answers))


@given(st.binary(max_size=300), st.integers(1, 50))
def test_random_answers_raise_only_the_documented_errors(answers: bytes, piece: int) -> None:
    for question in ("stat", "listings", "read"):
        session = SftpSession(Channel(VERSION + answers, piece))
        try:
            if question == "stat":
                session.stat([b"a", b"b"])
            elif question == "listings":
                session.listings([b"a"], [0])
            else:
                session.read([(b"a", 0, 100_000)])
        except SftpError:
            continue


@given(
    st.lists(
        st.tuples(st.sampled_from([101, 102, 103, 104, 105]), st.integers(0, 6), st.binary(max_size=40)), max_size=12
    )
)
def test_well_formed_but_wrong_answers_raise_only_the_documented_errors(packets: list[tuple[int, int, bytes]]) -> None:
    answers = b"".join(packet(kind, number, body) for kind, number, body in packets)
    for question in ("listings", "read"):
        session = SftpSession(Channel(VERSION + answers))
        try:
            session.listings([b"a"], [0]) if question == "listings" else session.read([(b"a", 0, 40_000)])
        except SftpError:
            continue


class Endless(Channel):
    """A host that gives the same answer to every request, for ever."""

    def __init__(self, first: bytes, body: bytes) -> None:
        super().__init__(VERSION + packet(102, 1, text(b"handle")) + first)
        self._body = body
        self.number = 1

    def recv(self, size: int) -> bytes:
        if not self.answers:
            self.number += 1
            self.answers = packet(104, self.number, self._body)
        return super().recv(size)


NO_NAMES = struct.pack(">I", 0)
ONE_NAME = struct.pack(">I", 1) + text(b"a.log") + text(b"") + attributes(1, 1)


@pytest.mark.parametrize("body", [NO_NAMES, ONE_NAME], ids=["no name", "one name again and again"])
def test_an_endless_listing_ends_the_session(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sftp, "ENTRIES_LIMIT", 2000)
    channel = Endless(b"", body)
    with pytest.raises(SftpError, match="more than 2000 entries"):
        SftpSession(channel).listings([b"a"], [0])
    assert channel.number < 2 * 2000


def test_answers_above_the_total_limit_end_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sftp, "ANSWERS_LIMIT_BYTES", 100_000)
    answers = b"".join(packet(104, number, NO_NAMES + b"x" * 30_000) for number in range(2, 10))
    with pytest.raises(SftpError, match="answers of more than 100000 bytes"):
        SftpSession(Channel(VERSION + packet(102, 1, text(b"handle")) + answers)).listings([b"a"], [1000])


def test_listings_above_the_total_limit_end_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sftp, "ANSWERS_LIMIT_BYTES", 50_000)
    monkeypatch.setattr(sftp, "_READDIRS_AT_ONCE", 4)
    long_name = struct.pack(">I", 1) + text(b"n" * 5000) + text(b"") + attributes(1, 1)
    with pytest.raises(SftpError, match="listings of more than 50000 bytes"):
        SftpSession(Endless(b"", long_name)).listings([b"a"], [0])


def test_more_bytes_than_requested_end_the_session() -> None:
    answers = VERSION + packet(102, 1, text(b"handle")) + packet(103, 2, text(b"x" * 11))
    with pytest.raises(SftpError, match="11 bytes of a file instead of the 10 requested"):
        SftpSession(Channel(answers)).read([(b"a", 0, 10)])


def test_a_handle_longer_than_the_draft_allows_ends_the_session() -> None:
    with pytest.raises(SftpError, match="a handle of 257 bytes"):
        SftpSession(Channel(VERSION + packet(102, 1, text(b"h" * 257)))).read([(b"a", 0, 10)])


def test_an_answer_without_a_request_ends_the_session() -> None:
    with pytest.raises(SftpError, match="was not requested"):
        SftpSession(Channel(VERSION + packet(105, 7, attributes(1, 1)) * 1000)).stat([b"a"])


def test_the_text_of_a_refusal_is_cut() -> None:
    body = struct.pack(">I", 4) + text(b"no! " * 10_000) + text(b"")
    [refusal] = SftpSession(Channel(VERSION + packet(101, 1, body))).stat([b"a"])
    assert isinstance(refusal, SftpRefusal)
    assert len(str(refusal)) == 200


def test_a_log_without_read_permission_is_a_problem_of_that_log_only() -> None:
    answers = (
        VERSION
        + packet(101, 1, struct.pack(">I", 3) + text(b"Permission denied") + text(b""))
        + packet(102, 2, text(b"handle"))
        + packet(103, 3, text(b"data"))
    )
    logs = SftpLogs(SftpSession(Channel(answers)))
    secret, other = logs.read([ReadRequest("/l/secret.log", 0, 4), ReadRequest("/l/other.log", 0, 4)])
    assert isinstance(secret, LogProblem)
    assert secret.kind == "permission"
    assert "/l/secret.log" in str(secret)
    assert other == b"data"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshLogSource]:
    """A real host that allows one channel per connection."""
    with Sshd(tmp_path_factory.mktemp("host") / "sshd", extra="MaxSessions 1") as server:
        source = SshLogSource("there", server.host)
        yield source
        source.close()


class TestRoundTrips:
    """Counts the requests of a poll, since times depend on the machine."""

    def cost(self, source: SshLogSource, paths: list[str]) -> int:
        before = source.round_trips
        assert len(source.stat(paths)) == len(paths)
        return source.round_trips - before

    @pytest.mark.parametrize(("logs", "most"), [(100, 2), (1000, 3)])
    def test_all_logs_of_one_folder_take_two_round_trips(
        self, source: SshLogSource, tmp_path: Path, logs: int, most: int
    ) -> None:
        paths = [str(tmp_path / f"{number}.log") for number in range(logs)]
        for path in paths:
            Path(path).write_bytes(b"x" * 100)
        self.cost(source, paths)
        assert self.cost(source, paths) <= most
        before = source.round_trips
        answers = source.read([ReadRequest(path, 50, 4096) for path in paths[:10]])
        assert all(answer == b"x" * 50 for answer in answers)
        assert source.round_trips - before <= 2

    def test_a_few_logs_in_a_huge_folder_are_requested_one_by_one(
        self, source: SshLogSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("exporter.sources.ssh.sftp_logs._HUGE_FOLDER", 200)
        for number in range(300):
            (tmp_path / f"{number}.log").write_bytes(b"x")
        paths = [str(tmp_path / "7.log")]
        self.cost(source, paths)
        assert self.cost(source, paths) == 1
        assert isinstance(source._logs, SftpLogs)


class Crowded(Endless):
    """A host whose folders have very many names, which it sends on request."""

    def __init__(self, names: int) -> None:
        super().__init__(b"", b"")
        self.answers = VERSION
        self._names = names
        self._folders = 0
        self._left: dict[bytes, int] = {}
        self._taken = 0

    def recv(self, size: int) -> bytes:
        while not self.answers and self._taken < len(self.sent):
            end = self._taken + 4 + struct.unpack_from(">I", self.sent, self._taken)[0]
            question = self.sent[self._taken + 4 : end]
            self.sent, self._taken = self.sent[end:], 0
            if question[0] != 1:
                self.answers = self._answer(question[0], struct.unpack_from(">I", question, 1)[0], question[9:])
        return Channel.recv(self, size)

    def _answer(self, kind: int, number: int, handle: bytes) -> bytes:
        if kind == 11:
            self._folders += 1
            handle = b"%d" % self._folders
            self._left[handle] = self._names
            return packet(102, number, text(handle))
        left = self._left.get(handle, 0) if kind == 12 else 0
        if not left:
            return packet(101, number, struct.pack(">I", 1) + text(b"") + text(b""))
        some = min(left, 1000)
        self._left[handle] = left - some
        names = b"".join(
            text(b"%08d_beam_1.log" % each) + text(b"") + attributes(1, 1_700_000_000)
            for each in range(left - some, left)
        )
        return packet(104, number, struct.pack(">I", some) + names)


def peak_bytes(work: Callable[[], object]) -> int:
    """Return the peak memory of some work."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_only_wanted_names_of_huge_folders_are_kept_in_memory() -> None:
    logs = SftpLogs(SftpSession(Crowded(20_000)))
    paths = [f"/folder{number}/00000007_beam_1.log" for number in range(7)]
    found: dict[str, object] = {}
    assert peak_bytes(lambda: found.update(logs.stat(paths))) < 4_000_000
    assert found.keys() == set(paths)


def test_a_folder_with_too_many_files_is_a_problem_of_that_folder_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sftp_logs, "ENTRIES_LIMIT", 5000)
    monkeypatch.setattr(source_module, "ENTRIES_LIMIT", 5000)
    logs = SftpLogs(SftpSession(Crowded(20_000)))

    def list_it() -> None:
        with pytest.raises(LogProblem, match="/crowded has more than 5000 entries"):
            logs.listing("/crowded")

    assert peak_bytes(list_it) < 4_000_000
    assert len(SftpLogs(SftpSession(Crowded(5000))).listing("/full")) == 5000


def test_answers_in_memory_at_once_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sftp, "GATHERED_LIMIT_BYTES", 50_000)
    answers = b"".join(packet(105, number, attributes(1, 1) + b"x" * 20_000) for number in range(1, 5))
    with pytest.raises(SftpError, match="answers of more than 50000 bytes"):
        SftpSession(Channel(VERSION + answers)).stat([b"a", b"b", b"c", b"d"])


def test_a_too_long_answer_about_one_file_ends_the_session() -> None:
    answers = VERSION + packet(105, 1, attributes(1, 1) + b"x" * 100_000)
    with pytest.raises(SftpError, match="an answer of 100028 bytes"):
        SftpSession(Channel(answers)).stat([b"a"])
