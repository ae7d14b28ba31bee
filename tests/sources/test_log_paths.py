from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.sources.log_paths import BEAM_FIELDS, LogPathError, LogPathTemplate

BEAM: dict[str, str | None] = {
    "case_id": "55061194",
    "beam_id": "55061194_beam_1",
    "beam_path": "/data/cases/55061194/beam_1",
    "hpc_job_id": "4711",
}


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("/logs/{beam_id}.log", "/logs/55061194_beam_1.log"),
        ("/logs/{case_id}/{hpc_job_id}.log", "/logs/55061194/4711.log"),
        ("{base_directory}/logs/{case_id}_{beam_id}.log", "/srv/mqi/logs/55061194_55061194_beam_1.log"),
        ("/{beam_id}.log", "/55061194_beam_1.log"),
        ("//logs/{beam_id}.log", "/logs/55061194_beam_1.log"),
        ("/logs/./old/../{beam_id}.log", "/logs/55061194_beam_1.log"),
        ("/logs/{{1}}/{beam_id}.log", "/logs/{1}/55061194_beam_1.log"),
        ("/logs/빔/{beam_id} (G90).log", "/logs/빔/55061194_beam_1 (G90).log"),
    ],
)
def test_fields_are_filled_in(template: str, path: str) -> None:
    assert LogPathTemplate(template, base_directory="/srv/mqi").render(BEAM) == path


@pytest.mark.parametrize("base", ["/", "/srv/mqi/", "//srv/mqi", "/srv/x/../mqi"])
def test_a_base_directory_may_be_written_with_or_without_slash(base: str) -> None:
    path = LogPathTemplate("{base_directory}/logs/{beam_id}.log", base_directory=base).render(BEAM)
    assert path == ("/logs/55061194_beam_1.log" if base == "/" else "/srv/mqi/logs/55061194_beam_1.log")


def test_a_path_may_begin_with_a_field_below_a_log_root() -> None:
    template = LogPathTemplate("{beam_path}/run.log", log_root="/data//cases/")
    assert template.render(BEAM) == "/data/cases/55061194/beam_1/run.log"


@pytest.mark.parametrize(
    ("template", "log_root", "folder"),
    [
        ("/data/logs/{beam_id}.log", None, "/data/logs"),
        ("/data/logs/{case_id}/{beam_id}.log", None, "/data/logs"),
        ("/data/logs/sim_{case_id}/{beam_id}.log", None, "/data/logs"),
        ("/data/logs/{beam_id}.log", "/data", "/data/logs"),
        ("{base_directory}/logs//x/../{beam_id}.log", None, "/srv/mqi/logs"),
        ("{beam_path}/run.log", "/data//cases/", "/data/cases"),
        ("/{case_id}/{beam_id}.log", None, "/"),
    ],
)
def test_the_fixed_folder_ends_before_the_first_field_of_a_beam(
    template: str, log_root: str | None, folder: str
) -> None:
    assert LogPathTemplate(template, base_directory="/srv/mqi", log_root=log_root).fixed_folder == folder


@pytest.mark.parametrize("missing", [None, ""])
def test_a_beam_without_a_value_has_no_path(missing: str | None) -> None:
    template = LogPathTemplate("/logs/{hpc_job_id}.log")
    assert template.render({**BEAM, "hpc_job_id": missing}) is None
    assert template.render({}) is None


def test_a_template_lists_its_fields() -> None:
    template = LogPathTemplate("{base_directory}/{case_id}/{beam_id}.log", base_directory="/srv")
    assert template.fields == {"case_id", "beam_id"}
    assert template.folder == "/srv"


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("/logs/all.log", "names no beam"),
        ("", "names no beam"),
        ("/logs/{patient}.log", "unknown field {patient}"),
        ("/logs/{}.log", "unknown field {}"),
        ("/logs/{0}.log", "unknown field {0}"),
        ("/logs/{case_id.real}.log", "unknown field {case_id.real}"),
        ("/logs/{case_id:>9}.log", "takes no format"),
        ("/logs/{case_id!r}.log", "takes no format"),
        ("/logs/{case_id.log", "not a valid template"),
        ("/logs/case_id}.log", "not a valid template"),
        ("logs/{case_id}.log", "not an absolute path"),
        ("{base_directory}/{case_id}.log", "base_directory is not set"),
        ("{beam_path}/a.log", "set log_root"),
    ],
)
def test_an_unusable_template_is_refused_with_the_reason(template: str, complaint: str) -> None:
    with pytest.raises(LogPathError) as refused:
        LogPathTemplate(template)
    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    ("template", "root"), [("{beam_path}/a.log", "data"), ("logs/{case_id}.log", "/data"), ("{beam_path}/a.log", "")]
)
def test_a_log_root_does_not_make_a_relative_path_absolute(template: str, root: str) -> None:
    with pytest.raises(LogPathError, match="not an absolute path"):
        LogPathTemplate(template, log_root=root)


@pytest.mark.parametrize("field", ["case_id", "beam_id", "hpc_job_id"])
@pytest.mark.parametrize("value", ["..", "../etc", "a/b", "/etc/passwd", "a..b", "a\0b"])
def test_an_id_that_could_lead_elsewhere_is_refused(field: str, value: str) -> None:
    template = LogPathTemplate(f"/logs/{{{field}}}.log")
    with pytest.raises(LogPathError) as refused:
        template.render({**BEAM, field: value})
    # The id itself may be a patient's: it is not in the message.
    assert str(refused.value) == f"{field} holds '/', '..' or NUL"


@pytest.mark.parametrize("path", ["/etc", "/data/cases/../../etc", "/data/cases/..", "/data/cases2", "/data/cases\0"])
def test_a_beam_path_outside_the_log_root_is_refused(path: str) -> None:
    with pytest.raises(LogPathError):
        LogPathTemplate("{beam_path}/passwd", log_root="/data/cases").render({**BEAM, "beam_path": path})


@pytest.mark.parametrize("path", ["cases/1", ".", "~/cases", " /data/cases"])
def test_a_relative_beam_path_is_refused(path: str) -> None:
    with pytest.raises(LogPathError, match="not absolute"):
        LogPathTemplate("{beam_path}/run.log", log_root="/data/cases").render({**BEAM, "beam_path": path})


@pytest.mark.parametrize("template", ["/logs/{case_id}", "/logs/{case_id}/"])
def test_the_folder_itself_is_not_a_log(template: str) -> None:
    with pytest.raises(LogPathError, match="leaves /logs"):
        LogPathTemplate(template).render({**BEAM, "case_id": "."})


PIECES = st.sampled_from(["/", "..", ".", "logs", "a", "//", "\0", " ", "~", "%2e", "\\", "빔", "\ud800"])


@given(
    template=st.sampled_from(
        ["/srv/logs/{case_id}/{beam_id}.log", "/srv/logs/x{beam_path}", "/srv/logs/{beam_path}/../{hpc_job_id}"]
    ),
    values=st.fixed_dictionaries({field: st.lists(PIECES, max_size=6).map("".join) for field in sorted(BEAM_FIELDS)}),
)
def test_no_id_leads_out_of_the_folder(template: str, values: dict[str, str | None]) -> None:
    try:
        path = LogPathTemplate(template).render(values)
    except LogPathError:
        return
    if path is not None:
        assert path == posixpath.normpath(path)
        assert path.startswith("/srv/logs/")
        assert len(path) > len("/srv/logs/")
