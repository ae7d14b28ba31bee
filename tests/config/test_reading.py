"""Reading YAML into a model: every mistake, its line and key, whatever the text is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from exporter.config.document import MAXIMUM_SIZE_BYTES, ConfigError, read_text
from exporter.config.reading import Conflict, Conflicts, read_settings
from exporter.config.values import as_tuple


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Shelf(Strict):
    label: str = "shelf"
    books: int = 0


class Room(Strict):
    width: float = Field(default=3, gt=0, le=50)
    lit: bool = True
    shelves: Annotated[tuple[Shelf, ...], BeforeValidator(as_tuple)] = ()


class House(Strict):
    room: Room = Room()
    name: str = "house"
    most_books: int = 100

    @model_validator(mode="after")
    def _books_fit(self) -> House:
        Conflicts.raise_any(
            Conflict(("room", "shelves", at, "books"), "too many books", (("most_books",),))
            for at, shelf in enumerate(self.room.shelves)
            if shelf.books > self.most_books
        )
        return self


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        read_settings(House, text, "house.yaml")
    return str(raised.value).splitlines()


def test_a_mistake_names_file_line_and_key() -> None:
    assert mistakes("name: villa\nroom:\n  lit: maybe\n") == [
        "house.yaml:3: room.lit: must be true or false, not the text 'maybe'"
    ]


def test_all_mistakes_of_all_sections_are_listed_by_line() -> None:
    text = "most_books: many\nroom:\n  width: -1\n  shelves:\n    - {books: 1.5}\n    - label: 7\nname: [a]\n"
    assert mistakes(text) == [
        "house.yaml:1: most_books: must be a whole number, not the text 'many'",
        "house.yaml:3: room.width: must be more than 0, not -1",
        "house.yaml:5: room.shelves[0].books: must be a whole number, not 1.5",
        "house.yaml:6: room.shelves[1].label: must be text, not 7; put it in quotes",
        "house.yaml:7: name: must be text, not a list",
    ]


def test_sections_are_compared_even_where_other_keys_are_wrong() -> None:
    assert mistakes("name: 5\nmost_books: 10\nroom:\n  shelves:\n  - {books: 11}\n") == [
        "house.yaml:1: name: must be text, not 5; put it in quotes",
        "house.yaml:5: room.shelves[0].books: too many books",
    ]


def test_a_list_item_keeps_its_position_where_an_earlier_one_is_wrong() -> None:
    assert mistakes("room:\n  shelves:\n  - 5\n  - {books: 1}\n  - {books: 101}\n") == [
        "house.yaml:3: room.shelves[0]: must be a section (lines of `key: value`), not 5",
        "house.yaml:5: room.shelves[2].books: too many books",
    ]


def test_a_comparison_with_a_value_that_is_wrong_itself_is_not_reported() -> None:
    assert mistakes("most_books: '500'\nroom: {shelves: [{books: 400}]}\n") == [
        "house.yaml:1: most_books: must be a whole number, not the text '500'; remove the quotes"
    ]


@pytest.mark.parametrize(
    ("text", "line", "wrong"),
    [
        ("room:\n\tlit: true\n", 2, "a tab; indent with spaces"),
        ("room:\n  lit: true\n  \twidth: {x}\n", 3, "a tab; indent with spaces"),
        ("\ufeffname: a\r\n\tlit: true\n", 2, "a tab; indent with spaces"),
        ("\ufeff\tname: a", 1, "a tab; indent with spaces"),
        ("name: 'a\x0cb'\nroom:\n\tlit: true\n", 1, "control character; remove it"),
        ("room:\n  lit:\ttrue\n", 2, "a tab between two words; write a space instead"),
        ("room: {lit:\ttrue}\n", 1, "a tab between two words; write a space instead"),
    ],
)
def test_a_tab_is_answered_with_spaces(text: str, line: int, wrong: str) -> None:
    assert mistakes(text) == [f"house.yaml:{line}: not valid YAML: {wrong}"]


def test_an_unknown_key_is_answered_with_the_nearest_known_one() -> None:
    assert mistakes("room: {widht: 3}") == ["house.yaml:1: room.widht: unknown key; did you mean width?"]


def test_a_key_of_another_section_is_answered_with_its_place() -> None:
    assert mistakes("width: 3") == ["house.yaml:1: width: unknown key here; it belongs at room.width"]


def test_an_unknown_key_without_a_similar_one_lists_the_known_keys() -> None:
    assert mistakes("room: {zzz: 3}") == ["house.yaml:1: room.zzz: unknown key; known here: width, lit, shelves"]


def test_the_value_of_an_unknown_key_is_never_shown() -> None:
    assert "hunter2" not in mistakes("passwd: hunter2")[0]


@pytest.mark.parametrize(
    "text",
    [
        "Hunter2",
        "me:Hunter2",
        "name: !Hunter2",
        "name: !Hunter2 x",
        "name: !!Hunter2 x",
        "name: !Hunter2!x",
        "%TAG !Hunter2! a\n%TAG !Hunter2! a\n---\nname: x",
        "most_books: !!int Hunter2",
        "name: &Hunter2 a\nroom: &Hunter2 {zzz: 3}",
        "{'me:Hunter2'}",
        "room: {'me:Hunter2': x, 'me:Hunter2': y}",
        "room: Hunter2",
        "most_books: |\n  -----BEGIN PRIVATE KEY-----\n  Hunter2",
        "room:\n  '-----BEGIN PRIVATE KEY----- Hunter2': x",
    ],
)
def test_a_secret_in_the_wrong_place_is_never_shown(text: str) -> None:
    found = mistakes(text)
    assert all(re.match(r"house\.yaml:\d+: .", each) for each in found)
    assert "Hunter2" not in "".join(found)


def test_an_anchor_may_be_given_twice() -> None:
    assert read_settings(House, "name: &a x\nmost_books: &a 3", "house.yaml").most_books == 3


def test_a_key_given_twice_is_a_mistake_beside_the_others() -> None:
    assert mistakes("name: a\nroom:\n  lit: true\n  lit: 3\nname: b\nwidths: 1\n") == [
        "house.yaml:4: room.lit: given twice (first in line 3); keep one of them",
        "house.yaml:5: name: given twice (first in line 1); keep one of them",
        "house.yaml:6: widths: unknown key; known here: room, name, most_books",
    ]


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "{}", "null"])
def test_a_text_without_keys_means_all_defaults(text: str) -> None:
    assert read_settings(House, text, "house.yaml") == House()


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("- a\n", "house.yaml:1: the file must consist of sections (lines of `key: value`), not of a list"),
        ("\nhello", "house.yaml:2: the file must consist of sections (lines of `key: value`), not of a single value"),
        ("a: 1\n---\nb: 2\n", "house.yaml:2: not valid YAML: expected a single document"),
        ("name: x\nroom: [1, 2\n", "house.yaml:3: not valid YAML: "),
        ("name: a\n\tb: c\n", "house.yaml:2: not valid YAML: "),
        ("name: a\nroom: \x07\n", "house.yaml:2: not valid YAML: control character"),
        ("name: {a}/b", "house.yaml:1: not valid YAML: "),
        ("? [a]\n: 3\n", "house.yaml:1: a key must be plain text"),
        ("name: !!python/name:os.system x\n", "house.yaml:1: name: tags (!name) are not supported; drop it, or put"),
        ("most_books: !!int abc\n", "house.yaml:1: most_books: is not of the type that its tag says"),
        ("room: &r {lit: true}\nname: *r\n", "house.yaml:2: not valid YAML: aliases (*name) are not supported"),
        ("name: !a!b\n", "house.yaml:1: not valid YAML: tags (!name) are not supported; drop it, or put a value that"),
        ("room: &r [*r]\n", "house.yaml:1: not valid YAML: aliases (*name) are not supported"),
        ("room: " + "[" * 20000, "house.yaml: nested too deeply"),
    ],
)
def test_what_is_not_plain_yaml_is_refused_with_its_line(text: str, wrong: str) -> None:
    assert mistakes(text)[0].startswith(wrong)


def test_braces_without_quotes_are_answered_with_the_remedy() -> None:
    assert mistakes("name: {a}/b")[0].endswith("put a value with { } in quotes")


@pytest.mark.parametrize("scalar", ["yes", "on", "off", "1:30", "0x1F", "1_000", "2025-11-22", "=", "<<"])
def test_words_that_are_special_only_in_yaml_1_1_are_text(scalar: str) -> None:
    assert read_settings(House, f"name: {scalar}", "house.yaml").name == scalar


@pytest.mark.parametrize(("scalar", "number"), [("1e1", 10.0), ("+.5", 0.5), ("5.", 5.0), ("010", 10.0), ("2", 2.0)])
def test_numbers_are_decimal(scalar: str, number: float) -> None:
    assert read_settings(House, f"room: {{width: {scalar}}}", "house.yaml").room.width == number


@pytest.mark.parametrize("scalar", [".inf", "-.inf", ".nan", "9" * 5000, "1e999"])
def test_a_number_out_of_all_bounds_is_a_mistake(scalar: str) -> None:
    assert mistakes(f"room: {{width: {scalar}}}")[0].startswith("house.yaml:1: room.width: must be ")


@pytest.mark.parametrize(
    ("value", "wrong"), [("true", "must be a number"), ("'3'", "must be a number"), ("", "nothing")]
)
def test_a_type_that_merely_resembles_a_number_is_a_mistake(value: str, wrong: str) -> None:
    assert wrong in mistakes(f"room:\n  width: {value}")[0]


def test_a_long_value_is_cut_and_stays_on_one_line() -> None:
    (only,) = mistakes('most_books: "' + "ab\\n" * 1000 + '"')
    assert len(only) < 200


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["room", "name", "most_books", "shelves", "width", "books", "x y"]), inner
            )
        ),
    )
)
def test_any_values_are_either_read_or_refused_by_line(values: object) -> None:
    _read_or_refused(yaml.safe_dump(values, allow_unicode=True))


@given(st.text(st.sampled_from("name:rom {}[]-&*!?|>'\"\n\t#%@,.0123\\\u2028\ufeff"), max_size=60))
def test_any_text_is_either_read_or_refused_by_line(text: str) -> None:
    _read_or_refused(text)


def _read_or_refused(text: str) -> None:
    try:
        read_settings(House, text, "house.yaml")
    except ConfigError as error:
        for each in error.mistakes:
            place, _, rest = each.partition(": ")
            assert "\n" not in each
            assert rest
            assert 1 <= int(place.removeprefix("house.yaml:")) <= text.count("\n") + text.count("\u2028") + 2


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read: No such file or directory"):
        read_text(tmp_path / "absent.yaml")


def test_a_directory_is_not_a_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_text(tmp_path)


def test_a_file_that_is_not_utf_8_is_refused_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes("name: a\nroom: M\xfcnchen\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.yaml:2: byte 0xfc is not UTF-8 text"):
        read_text(path)


def test_a_file_too_large_to_be_a_configuration_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_bytes(b"#" * (MAXIMUM_SIZE_BYTES + 1))
    with pytest.raises(ConfigError, match="larger than 1048576 bytes"):
        read_text(path)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "marked.yaml"
    path.write_bytes("name: villa\n".encode("utf-8-sig"))
    assert read_settings(House, read_text(path), "marked.yaml").name == "villa"
