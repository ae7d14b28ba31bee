"""How far a log has been read: enough to go on there, in this process or the next."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.logs.parser import ParserState, SitePatterns, TpsLogParser
from exporter.sources.tailer import LogPosition, Tailer


@dataclass(slots=True)
class Checkpoint:
    """Where the tailer and the parser of a log were after one read. Never changed.

    Not frozen: a frozen one takes longer to make, and one is made at every read.

    Args:
        log: where the tailer was.
        parser: where the parser was.
    """

    log: LogPosition
    parser: ParserState

    @classmethod
    def of(cls, tailer: Tailer, parser: TpsLogParser) -> Checkpoint:
        """Return where these two are now."""
        return cls(tailer.position, parser.state.copy())

    @property
    def path(self) -> str:
        """The log."""
        return self.log.path

    def reopen(self, site: SitePatterns) -> tuple[Tailer, TpsLogParser]:
        """Return a tailer and a parser that go on there."""
        return Tailer.at(self.log), TpsLogParser(site, self.parser)
