"""Templates of dose files: fields are literal, globs are a shell's, and nothing leads out of the fixed folder."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.sources.log_paths import LogPathError
from exporter.sources.output_paths import Component, OutputPathTemplate

ODD_IDS = ("P(01)", "a*b", "[x]", "[!x]", "?", "환자 1", "7.1", "{case_id}", "a b", "[", "]", "**")


def matches(component: Component, name: str) -> bool:
    return component == name if isinstance(component, str) else component.fullmatch(name) is not None


def components(template: str, **fields: str | None) -> tuple[Component, ...]:
    found = OutputPathTemplate(template, base_directory="/srv").render(fields)
    assert found is not None
    return found


@pytest.mark.parametrize("case_id", ODD_IDS)
def test_an_id_with_glob_characters_matches_only_itself(case_id: str) -> None:
    folder, name = components("{base_directory}/dose/{case_id}/{case_id}*.dcm", case_id=case_id)
    assert folder == case_id, "a folder without a glob is looked up by name"
    assert matches(name, f"{case_id}_1.dcm")
    for other in ("ab", "x", "axb", "P01", "781"):
        if not other.startswith(case_id):
            assert not matches(name, f"{other}_1.dcm")


@given(case_id=st.text(min_size=1, max_size=8).filter(lambda text: not set(text) & {"/", "\0"} and ".." not in text))
def test_an_id_with_any_characters_matches_literally(case_id: str) -> None:
    if case_id == ".":
        return
    folder, name = components("/dose/{case_id}/x{case_id}?", case_id=case_id)
    assert folder == case_id
    assert matches(name, f"x{case_id}1")
    assert not matches(name, f"x{case_id}")


@pytest.mark.parametrize(
    ("glob", "fits", "does_not"),
    [
        ("*", ["a", "a.dcm"], [".hidden", ".a.dcm.part"]),
        (".*", [".hidden"], ["a"]),
        ("?.raw", ["a.raw"], ["ab.raw", ".raw"]),
        ("[ab]*.dcm", ["a1.dcm"], ["c1.dcm"]),
        ("[!ab].dcm", ["c.dcm"], ["a.dcm"]),
        ("[[]1].dcm", ["[1].dcm"], ["1.dcm"]),
        ("a+b (1)*", ["a+b (1).raw"], ["aab (1).raw"]),
        ("*_Dose.dcm", ["1G000:TX_2_Dose.dcm"], ["1G000:TX_2_Dose.dcm.part", "1_dose.dcm"]),
    ],
)
def test_globs_work_as_in_a_shell(glob: str, fits: list[str], does_not: list[str]) -> None:
    *_, name = components("/dose/{case_id}/" + glob, case_id="c")
    for each in fits:
        assert matches(name, each), each
    for each in does_not:
        assert not matches(name, each), each


def test_the_base_directory_is_literal() -> None:
    template = OutputPathTemplate("{base_directory}/dose/{case_id}/*", base_directory="/srv/[old]/a*")
    assert template.folder == "/srv/[old]/a*/dose"
    assert template.render({"case_id": "c"}) is not None


def test_the_fixed_folder_ends_before_the_first_field_or_glob_in_a_name() -> None:
    assert OutputPathTemplate("/data/dose/{case_id}/*").folder == "/data/dose"
    assert OutputPathTemplate("/data/dose/x*_{case_id}.raw").folder == "/data/dose"
    assert OutputPathTemplate("{beam_path}/*", root="/data/[beams]").folder == "/data/[beams]"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("dose/{case_id}/*", "not an absolute path"),
        ("/dose/*", "names no beam"),
        ("/dose/{unheard}/*", "unknown field"),
        ("{base_directory}/*/{case_id}/*", "glob before its first field"),
        ("/dose/[ab]/{case_id}/*", "glob before its first field"),
        ("/dose/{case_id}/**", "one * for each folder"),
        ("/dose/{case_id}/../*", "holds '..'"),
        ("/dose/{case_id}/[ab", "[ without ]"),
        ("/dose/{case_id}/[a/b]", "[ without ]"),
        ("/dose/{case_id}/", "names a folder"),
        ("{beam_path}/dose/*", "write a fixed folder before it"),
        ("/dose/{case_id", "not a valid template"),
    ],
)
def test_an_unusable_template_is_refused_with_advice(template: str, says: str) -> None:
    with pytest.raises(LogPathError, match=re.escape(says)):
        OutputPathTemplate(template, base_directory="/srv")


@pytest.mark.parametrize("value", ["..", "../x", "a/b", ".", "a\0b"])
def test_an_id_that_could_lead_elsewhere_is_refused(value: str) -> None:
    template = OutputPathTemplate("/dose/{case_id}/*")
    with pytest.raises(LogPathError):
        template.render({"case_id": value})


@pytest.mark.parametrize("value", ["../other", "a/../../b", ".."])
def test_a_beam_path_that_leads_up_is_refused(value: str) -> None:
    with pytest.raises(LogPathError):
        OutputPathTemplate("/dose/x/{beam_path}/*").render({"beam_path": value})


def test_a_beam_without_a_value_for_a_field_has_no_path() -> None:
    assert OutputPathTemplate("/dose/{hpc_job_id}/*").render({"hpc_job_id": None}) is None
