"""How far a log has been read, with all that is needed to continue there, also after a restart."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.logs.parser import ParserState, SitePatterns, TpsLogParser
from exporter.sources.tailer import LogPosition, Tailer


@dataclass(slots=True)
class Checkpoint:
    """Where the tailer and the parser of a log were after one read. Never changed.

    Not frozen: a frozen one takes longer to make, and one is made at every read.

    Args:
        log: the position of the tailer.
        parser: the state of the parser.
    """

    log: LogPosition
    parser: ParserState

    @classmethod
    def of(cls, tailer: Tailer, parser: TpsLogParser) -> Checkpoint:
        """Make a checkpoint of a tailer and its parser."""
        return cls(tailer.position, parser.state.copy())

    @property
    def path(self) -> str:
        """The path of the log."""
        return self.log.path

    def reopen(self, site: SitePatterns) -> tuple[Tailer, TpsLogParser]:
        """Return a tailer and a parser that continue at this checkpoint."""
        return Tailer.at(self.log), TpsLogParser(site, self.parser)
