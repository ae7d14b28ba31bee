"""How far a log has been read: enough to go on there, in this process or the next."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.logs.parser import ParserState, SitePatterns, TpsLogParser
from exporter.sources.tailer import Tailer, TailerState, TailPosition


@dataclass(slots=True)
class CheckpointState:
    """A :class:`Checkpoint` as plain data."""

    tailer: TailerState
    parser: ParserState


class Checkpoint:
    """Where the tailer and the parser of a log were after one read.

    It is made at every read and kept at a few of them: the bytes before the offset are digested only then.

    Args:
        tailer: where the tailer was.
        parser: where the parser was.
    """

    __slots__ = ("_parser", "_tailer")

    NOT_SAVED: frozenset[str] = frozenset()

    def __init__(self, tailer: TailPosition | TailerState, parser: ParserState) -> None:
        self._tailer = tailer
        self._parser = parser

    @classmethod
    def of(cls, tailer: Tailer, parser: TpsLogParser) -> Checkpoint:
        """Where these two are now."""
        return cls(tailer.position(), parser.to_state())

    @property
    def path(self) -> str:
        """The log."""
        return self._tailer.path

    def to_state(self) -> CheckpointState:
        """The checkpoint as plain data."""
        if isinstance(self._tailer, TailPosition):
            self._tailer = self._tailer.to_state()
        return CheckpointState(self._tailer, self._parser)

    @classmethod
    def from_state(cls, state: CheckpointState) -> Checkpoint:
        """The checkpoint whose state this was."""
        return cls(state.tailer, state.parser)

    def reopen(self, site: SitePatterns) -> tuple[Tailer, TpsLogParser]:
        """A tailer and a parser that go on there."""
        state = self.to_state()
        return Tailer.from_state(state.tailer), TpsLogParser.from_state(state.parser, site)
