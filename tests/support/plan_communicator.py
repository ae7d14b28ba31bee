"""A stand-in for the communicator at the plan's revision (f31f711), for what an embedded monitor meets there.

Written from what that revision does, with real commands, a real SSH client and a real database:

* ``get_path`` knows the paths of the handler's mode, then the common ones; a missing one is a ``KeyError``.
* The worker's handler is local or remote by ``ExecutionHandler.Workflow``; it keeps its client in ``_ssh_client``.
* ``submit_simulation_job`` wants the key of a command template, and a number at the end of the command's output.
* ``wait_for_job_completion`` returns at once; its result has ``failed`` and ``error``, but no ``success``.
* A state that raises becomes a failed beam, with the text in ``error_message``.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import paramiko

from tests.support import communicator_db as db

SUBMITTER = "HpcJobSubmitter"


class Settings:
    """Its settings.

    Args:
        config: what its ``config.yaml`` holds.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    def get_handler_mode(self, handler_name: str) -> str:
        mode: str = self.config["ExecutionHandler"][handler_name]
        return mode

    def get_path(self, path_name: str, handler_name: str, **given: str) -> str:
        paths = self.config["paths"]
        mode = self.get_handler_mode(handler_name)
        template = paths.get(mode, {}).get(path_name, paths.get(path_name))
        if template is None:
            raise KeyError(f"Path '{path_name}' not found for mode '{mode}' or in base paths.")
        for _ in range(8):
            for name in re.findall(r"\{(\w+)\}", template):
                if name not in given:
                    template = template.replace(f"{{{name}}}", self.get_path(name, handler_name, **given))
        return str(template.format(**given))

    def get_command(self, command_key: str, handler_name: str, **given: str) -> str:
        template: str = self.config["command_templates"][self.get_handler_mode(handler_name)][command_key]
        names = re.findall(r"\{(\w+)\}", template)
        found = {name: self.get_path(name, handler_name, **given) for name in names if name not in given}
        return template.format(**given, **found)

    def get_database_path(self, handler_name: str = "CsvInterpreter") -> Path:
        return Path(self.get_path("database_path", handler_name))

    def get_processing_config(self) -> dict[str, Any]:
        return dict(self.config.get("processing", {}))


class CommandResult(NamedTuple):
    success: bool
    output: str
    error: str
    return_code: int


class Submission(NamedTuple):
    success: bool
    job_id: str | None = None
    error: str | None = None


class WaitResult(NamedTuple):
    failed: bool
    error: str | None = None


class Handler:
    """Its execution handler, as the worker makes it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.mode = settings.config["ExecutionHandler"].get("Workflow", "local")
        self._ssh_client: paramiko.SSHClient | None = None
        if self.mode == "remote":
            hpc = settings.config["hpc"]
            client = paramiko.SSHClient()
            client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
            client.connect(hpc["host"], hpc["port"], hpc["user"], key_filename=hpc["ssh_key_path"], allow_agent=False)
            self._ssh_client = client

    def close(self) -> None:
        if self._ssh_client is not None:
            self._ssh_client.close()

    def execute_command(self, command: str) -> CommandResult:
        if self._ssh_client is None:
            done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, timeout=60)
            return CommandResult(done.returncode == 0, done.stdout, done.stderr, done.returncode)
        _, output, errors = self._ssh_client.exec_command(command)
        code = output.channel.recv_exit_status()
        return CommandResult(code == 0, output.read().decode(), errors.read().decode(), code)

    def submit_simulation_job(self, handler_name: str = "", command_key: str = "", **given: str) -> Submission:
        if not handler_name or not command_key:
            return Submission(False, error="Insufficient parameters for job submission")
        result = self.execute_command(self.settings.get_command(command_key, handler_name, **given))
        if not result.success:
            return Submission(False, error=result.error)
        number = re.search(r"(\d+)$", result.output.strip())
        return Submission(True, number.group(1)) if number else Submission(False, error="no job number in the output")

    def wait_for_job_completion(self, job_id: str | None) -> WaitResult:
        return WaitResult(failed=False)


@dataclass
class Logger:
    """Its logger: a message and a dictionary."""

    said: list[tuple[str, str, Mapping[str, Any]]] = field(default_factory=list)

    def info(self, message: str, context: Mapping[str, Any]) -> None:
        self.said.append(("info", message, context))

    def warning(self, message: str, context: Mapping[str, Any]) -> None:
        self.said.append(("warning", message, context))

    def error(self, message: str, context: Mapping[str, Any]) -> None:
        self.said.append(("error", message, context))

    def about(self, message: str) -> list[Mapping[str, Any]]:
        """The dictionaries of one message."""
        return [context for _, text, context in self.said if text == message]


@dataclass
class Row:
    parent_case_id: str


class Repository:
    def __init__(self, database: Path) -> None:
        self._database = database

    def get_beam(self, beam_id: str) -> Row | None:
        rows = db.execute(self._database, "SELECT parent_case_id FROM beams WHERE beam_id = ?", beam_id)
        return Row(str(rows[0][0])) if rows else None

    def update_beam_status(self, beam_id: str, status: str, error_message: str) -> None:
        db.execute(
            self._database,
            "UPDATE beams SET status = ?, error_message = ? WHERE beam_id = ?",
            status,
            error_message,
            beam_id,
        )


class Context:
    """Its workflow manager, as far as a state uses it."""

    def __init__(self, beam_id: str, settings: Settings) -> None:
        self.id = beam_id
        self.settings = settings
        self.case_repo = Repository(settings.get_database_path())
        self.logger = Logger()
        self.execution_handler = Handler(settings)


def execution_state(decorate: Callable[[Any], Any]) -> Any:
    """The state that runs a simulation, decorated as docs/embedding.md says; returns an instance."""

    class HpcExecutionState:
        def __init__(self, execution_handler: Handler | None = None) -> None:
            self._injected_handler = execution_handler

        @_failing_the_beam
        @decorate
        def execute(self, context: Context) -> str:
            handler = self._injected_handler or context.execution_handler
            beam = context.case_repo.get_beam(context.id)
            if beam is None:
                raise RuntimeError("no such beam")
            given = {"case_id": beam.parent_case_id, "beam_id": context.id}
            for name in ("tps_input_file", "mqi_run_dir", "remote_log_path"):
                given[name] = context.settings.get_path(name, SUBMITTER, **given)
            key = "remote_submit_simulation"
            if context.settings.get_handler_mode(SUBMITTER) == "remote":
                submission = handler.submit_simulation_job(SUBMITTER, key, **given)
                if not submission.success:
                    raise RuntimeError(f"not submitted: {submission.error}")
                waited = handler.wait_for_job_completion(submission.job_id)
                if waited.failed:
                    raise RuntimeError(str(waited.error))
            else:
                result = handler.execute_command(context.settings.get_command(key, SUBMITTER, **given))
                if not result.success:
                    raise RuntimeError(f"failed: {result.error}")
            return "download"

    return HpcExecutionState()


def _failing_the_beam(execute: Callable[..., str]) -> Callable[..., str]:
    def guarded(state: Any, context: Context) -> str:
        try:
            return execute(state, context)
        except Exception as error:  # noqa: BLE001 - as the communicator does
            context.case_repo.update_beam_status(context.id, "failed", f"Error in state: {error}")
            return "failed"

    return guarded
