"""Text where a configuration should be: settings, or mistakes that say file and line; never more than can be read.

The same text is given to all that reads YAML: the exporter's configuration, the web configuration, and the
communicator's own. Nothing here connects to anything, and no path that a configuration names is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from exporter.config import ConfigError, load
from exporter.config.reference import keys
from exporter.config.settings import Settings
from exporter.integrations.communicator.read import read_communicator_config
from exporter.web.web_config import WebConfig, read_web_config
from tests.fuzz.target import Check, Target, scratch

_EXAMPLES = Path(__file__).parents[2] / "config"
_COMMUNICATORS = Path(__file__).parents[1] / "data" / "communicator"
_MOST_MISTAKES = 101
_LONGEST_MISTAKE = 2000


@contextmanager
def _opened() -> Iterator[Check]:
    with scratch() as folder:
        yield partial(_check, folder / "x.yaml")


def _check(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    settings = _read(load, path)
    if isinstance(settings, Settings):
        settings.warnings()
        for source in settings.sources:
            for template in settings.templates(source) if settings.base_directory else ():
                assert template.folder.startswith("/")
    _read(read_web_config, path)
    _read(read_communicator_config, path)


def _read(reader: Callable[[Path], object], path: Path) -> object:
    mistakes: tuple[str, ...] = ()
    try:
        return reader(path)
    except ConfigError as error:
        mistakes = error.mistakes
    assert 0 < len(mistakes) <= _MOST_MISTAKES
    for mistake in mistakes:
        assert re.match(rf"{re.escape(str(path))}(:[1-9][0-9]*)?: \S", mistake), mistake
        assert mistake.isprintable(), mistake
        assert len(mistake) <= _LONGEST_MISTAKE
    return None


def _seeds() -> Iterator[bytes]:
    for folder in (_EXAMPLES, _COMMUNICATORS):
        for path in sorted(folder.rglob("*.y*ml")):
            text = re.sub(rb"(?m)^ *#.*\n|  #.*$", b"", path.read_bytes())
            yield from re.split(rb"\n(?=\S)", text)
    yield b"database: {path: /d}\nbase_directory: /b\nsources:\n- {kind: ssh, name: h, host: h, log_path: /l/x}"
    yield b"tls_server_config: {cert_file: a, key_file: b}\nbasic_auth_users: {me: x}\n"


TARGET = Target(
    _opened,
    _seeds,
    words=(
        *sorted({f"{name}: ".encode() for model in (Settings, WebConfig) for key in keys(model) for name in key.path}),
        *(
            b"\n",
            b"\n  ",
            b"- ",
            b"{",
            b"}",
            b"[",
            b"]",
            b"? ",
            b"&a ",
            b"*a",
            b"<<: *a",
            b"!!int ",
            b"!!binary ",
            b"|\n",
        ),
        *(
            b"true",
            b"null",
            b".nan",
            b".inf",
            b"-1",
            b"1e400",
            b"99999999999999999999",
            b"'",
            b'"\\ud800"',
            b"\xff",
            b"%YAML 9",
        ),
        *(
            b"/b",
            b"{case_id}",
            b"{base_directory}",
            b"ssh",
            b"directory",
            b"(",
            b"(?P<case_id>.)",
            b"127.0.0.1:1",
            b"[::]:0",
        ),
    ),
    longest_bytes=500,
    examples=60,
)
