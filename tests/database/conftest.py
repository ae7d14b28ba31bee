from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.postgresql import PostgresServer


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server
