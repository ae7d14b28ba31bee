import socket
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from exporter.cli import serve
from tests.support.stack import main as stack


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which something else listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def free_after(port: int) -> int:
    """The first free port after another."""
    for candidate in range(port + 1, port + 50):
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", candidate))
            except OSError:
                continue
            return candidate
    raise AssertionError("no free port")


def test_demo_takes_the_next_free_port_and_says_so(
    taken: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    free = free_after(taken)
    monkeypatch.setattr(serve, "_DEMO_PORTS", range(taken, free + 1))
    assert serve._free_demo_address() == f"127.0.0.1:{free}"
    assert capsys.readouterr().err == f"Port {taken} is taken; the demo uses port {free}.\n"


def test_demo_says_what_to_do_when_no_port_is_free(
    taken: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve, "_DEMO_PORTS", range(taken, taken + 1))
    with pytest.raises(SystemExit):
        serve._free_demo_address()
    assert "make demo PORT=" in capsys.readouterr().err


def test_stack_ends_with_one_line_where_a_port_is_taken(taken: int) -> None:
    result = CliRunner().invoke(stack, ["--exporter-port", str(taken)])
    assert result.exit_code == 1
    assert result.output.count("\n") == 1
    assert f"port {taken}" in result.output
    assert "--exporter-port PORT" in result.output
