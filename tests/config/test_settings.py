"""The configuration: what is accepted, what is refused and how, and that example and reference say what holds."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from exporter.config import (
    ConfigError,
    LocalSourceSettings,
    Settings,
    SshSourceSettings,
    WebSettings,
    load,
    settings_from,
)
from exporter.config.notifications import NotificationKindName
from exporter.config.reference import keys, markdown
from exporter.notify.occurrences import NotificationKind

REPOSITORY = Path(__file__).parents[2]
NEEDED = "base_directory: /opt/mqi\ndatabase: {path: /opt/mqi/mqi.db}\n"


def settings(text: str = "") -> Settings:
    """What is needed in lines 1 and 2, and the text from line 3 on."""
    return settings_from(NEEDED + text, "exporter.yaml")


def mistakes(text: str) -> list[str]:
    """Mistakes of text that stands in line 3 and below, without the file's name."""
    with pytest.raises(ConfigError) as raised:
        settings(text)
    return [each.removeprefix("exporter.yaml:") for each in str(raised.value).splitlines()]


# Links of the page


@pytest.mark.parametrize(
    "url", ["http://grafana:3000", "https://wiki.example/mqi?a=b#{reason}", "https://[::1]:3000/x"]
)
def test_links_of_the_page_are_web_addresses(url: str) -> None:
    found = settings(f"web: {{grafana_url: '{url}', runbook_url: '{url}'}}")
    assert (found.web.grafana_url, found.web.runbook_url) == (url, url)


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "grafana.example", "/runbooks", "ftp://x/y", "https://", "https://a b", "http://[x"]
)
@pytest.mark.parametrize("key", ["grafana_url", "runbook_url"])
def test_a_link_must_be_a_web_address(key: str, url: str) -> None:
    [mistake] = mistakes(f"web: {{{key}: '{url}'}}")
    assert mistake == f"3: web.{key}: {url!r} is not an http or https URL; write it in full, as https://host/path"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("ftp://admin:Hunter2@grafana/d/x", "'ftp://grafana/d/x' is not an http or https URL"),
        ("admin:Hunter2@grafana", "'grafana' is not an http or https URL"),
        ("https://admin:Hunter2/@grafana", "'https://grafana' is not an http or https URL"),
        ("https://admin:Hunter2@grafana/d/x", "holds a user or password (before the @), which the page would show"),
    ],
)
@pytest.mark.parametrize("key", ["grafana_url", "runbook_url"])
def test_a_password_in_a_link_is_refused_and_never_shown(key: str, url: str, shown: str) -> None:
    [mistake] = mistakes(f"web: {{{key}: '{url}'}}")
    assert mistake.startswith(f"3: web.{key}: {shown}")
    assert "Hunter2" not in mistake


# Secrets in the place of the file that should hold them

NAMED_FILES = {
    "privacy.key_file": "privacy: {key_file: VALUE}",
    "web.config_file": "web: {config_file: VALUE}",
    **{
        f"sources[0].{name}_file": f"sources: [{{kind: ssh, host: h, {name}_file: VALUE}}]"
        for name in ("key", "passphrase", "password", "known_hosts", "ssh_config")
    },
}


@pytest.mark.parametrize("key", NAMED_FILES)
@pytest.mark.parametrize(
    "value",
    [
        "Hunter2",
        "fmfz/XDW0SjwcuQc2udlzYNajPNOQ5aID3TbQGavjkDgm9I8ekr8MWpZHunter2",
        '"-----BEGIN OPENSSH PRIVATE KEY-----\\nHunter2\\n"',
        '"/Hunter2\\nHunter2"',
        "/-----BEGIN PRIVATE KEY-----Hunter2",
        "!Hunter2 x",
        "[Hunter2]",
        "{Hunter2: x}",
    ],
)
def test_a_secret_in_the_place_of_its_file_is_refused_and_never_shown(key: str, value: str) -> None:
    (only,) = mistakes(NAMED_FILES[key].replace("VALUE", value))
    assert only.startswith(f"3: {key}: ")
    assert "Hunter2" not in only
    assert "must not stand here" in only or "tags (!name) are not supported" in only


def test_a_number_in_the_place_of_a_file_is_never_shown() -> None:
    (only,) = mistakes("privacy: {key_file: 4711081}")
    assert only.startswith("3: privacy.key_file: must be a path")
    assert "4711081" not in only


def test_a_host_with_a_login_is_refused_and_never_shown() -> None:
    (only,) = mistakes("sources: [{kind: ssh, host: 'me:Hunter2@hpc'}]")
    assert only.startswith("3: sources[0].host: is more than a host's name (it holds an @); write the user into `user`")
    assert "Hunter2" not in only


# What is needed, and what the rest is without being written


def test_an_empty_file_is_told_exactly_what_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "exporter.yaml"
    path.write_text("", encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        load(path)
    assert raised.value.mistakes == (
        f"{path}:1: base_directory: is not set, but a log_path uses it; set it to the communicator's own",
        (
            f"{path}:1: database.path: is not set, and neither is database.url, but beams are discovered there; set "
            "one, or discovery.kind to directory"
        ),
    )


def test_base_directory_and_database_are_all_that_is_needed() -> None:
    found = settings()
    assert found.database is not None
    assert found.database.path == Path("/opt/mqi/mqi.db")
    (template,) = found.templates(found.sources[0])
    assert template.render({"case_id": "c", "beam_id": "b"}) == "/opt/mqi/tps_env/logs/c_b.log"


def test_directory_discovery_needs_no_database() -> None:
    found = settings_from("base_directory: /opt/mqi\ndiscovery: {kind: directory}\n", "exporter.yaml")
    assert found.database is None


def test_base_directory_is_not_needed_where_no_template_uses_it() -> None:
    text = "sources: [{log_path: '/logs/{beam_id}.log'}]\ndatabase: {path: /mqi.db}\n"
    assert settings_from(text, "exporter.yaml").base_directory is None


def test_with_tracking_off_nothing_is_needed() -> None:
    assert settings_from("progress_tracking: {enabled: false}", "exporter.yaml").database is None


def test_a_section_or_key_without_a_value_counts_as_not_written() -> None:
    text = "mirror:\nlog:\n  level:\ncompletion_markers: {success_pattern: }\nsources:\n  - log_root:\n"
    assert settings(text) == settings()


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        settings().max_beams = 5


# Patterns


def test_one_pattern_may_be_written_without_a_list() -> None:
    found = settings("progress_tracking: {patterns: {total_batches: 'with (\\d+) batches'}}").progress_tracking
    assert found.patterns.total_batches == (r"with (\d+) batches",)


def test_the_patterns_of_the_plan_are_accepted_as_it_writes_them() -> None:
    text = (
        "progress_tracking:\n"
        "  patterns:\n"
        '    total_batches: "with (\\\\d+) batches"\n'
        '    current_batch: "Generating particles for \\\\((\\\\d+) of \\\\d+ batches\\\\)"\n'
        "completion_markers:\n"
        '  success_pattern: "Simulation completed successfully"\n'
        '  failure_patterns: ["FATAL ERROR", "ERROR:", "Segmentation fault"]\n'
    )
    found = settings(text)
    assert found.progress_tracking.patterns.current_batch == (r"Generating particles for \((\d+) of \d+ batches\)",)
    assert found.completion_markers.success_patterns == ("Simulation completed successfully",)
    assert len(found.completion_markers.failure_patterns) == 3


@pytest.mark.parametrize(
    ("key", "pattern", "wrong"),
    [
        ("total_batches", "with batches", "has 0 groups (...), but must have 1"),
        ("total_batches", "(a)(b)", "has 2 groups (...), but must have 1"),
        ("current_batch", "batch", "has 0 groups (...), but must have 1 or 2"),
        ("current_batch", "(a)(b)(c)", "has 3 groups (...), but must have 1 or 2"),
        ("current_batch", "(a", "is not a valid regular expression: missing )"),
        ("current_batch", "a{99999999999999999999}(b)", "is not a valid regular expression: "),
        ("current_batch", "\\u2192 (\\d)", "is not a valid regular expression: bad escape \\u"),
        ("current_batch", "(\\d*)", "matches an empty line"),
    ],
)
def test_a_pattern_that_cannot_work_is_refused_with_its_position(key: str, pattern: str, wrong: str) -> None:
    (only,) = mistakes(f"progress_tracking:\n  patterns:\n    {key}:\n      - 'X (\\d+)'\n      - '{pattern}'\n")
    assert only.startswith(f"7: progress_tracking.patterns.{key}[1]: ")
    assert wrong in only


def test_a_marker_that_matches_every_line_is_refused() -> None:
    (only,) = mistakes("completion_markers: {failure_patterns: ['ERROR', '']}")
    assert only.startswith("3: completion_markers.failure_patterns[1]: '' matches an empty line")


def test_only_one_spelling_of_the_success_patterns_may_be_used() -> None:
    (only,) = mistakes("completion_markers:\n  success_patterns: [a]\n  success_pattern: b\n")
    assert only.startswith("5: completion_markers.success_pattern: ")


# Sources


def test_a_source_of_a_kind_of_another_version_is_one_mistake() -> None:
    assert mistakes("sources:\n  - {name: a}\n  - name: hpc1\n    kind: slurm\n    host: hpc1\n") == [
        "6: sources[1].kind: 'slurm' is not available in this version; kinds: local, ssh"
    ]


def test_mistakes_in_a_source_are_named_with_its_own_keys() -> None:
    text = "sources:\n  - {name: a}\n  - name: hpc1\n    kind: ssh\n    prt: 22\n    key_file: relative\n"
    found = mistakes(text)
    assert [each.split(": ")[1] for each in found] == ["sources[1].host", "sources[1].prt", "sources[1].key_file"]
    assert "did you mean port?" in found[1]


def test_keys_of_an_ssh_source_do_not_belong_to_a_local_one() -> None:
    says = 'belongs to kind ssh; write "kind: ssh" (now it is kind local)'
    assert mistakes("sources:\n  - name: a\n    host: hpc1\n    prot: 22\n    kidn: ssh\n") == [
        f"5: sources[0].host: unknown key here; it {says}",
        f"6: sources[0].prot: unknown key here; did you mean port? It {says}",
        "7: sources[0].kidn: unknown key; did you mean kind?",
    ]
    assert mistakes("sources: [{kind: local, host: hpc1}]") == [f"3: sources[0].host: unknown key here; it {says}"]


def test_what_is_known_in_a_source_are_the_keys_of_its_kind() -> None:
    (only,) = mistakes("sources: [{name: a, zzz: 1}]")
    assert only == (
        "3: sources[0].zzz: unknown key; known here: name, log_path, log_root, "
        "output_path, output_minimum_bytes, follow_links, kind"
    )
    (only,) = mistakes("sources: [{name: a, kind: ssh, host: hpc1, zzz: 1}]")
    assert "kind, host, port, " in only


def test_an_ssh_source_says_how_to_reach_its_host() -> None:
    source = settings("sources: [{name: hpc1, kind: ssh, host: hpc1.example, port: 2222, log_path: '/l/{beam_id}'}]")
    (only,) = source.sources
    assert isinstance(only, SshSourceSettings)
    assert (only.ssh_host.host, only.ssh_host.port, only.ssh_host.use_agent) == ("hpc1.example", 2222, False)


def test_names_of_sources_differ() -> None:
    assert mistakes("sources:\n  - name: a\n  - name: b\n  - name: a\n") == [
        "6: sources[2].name: 'a' is the name of an earlier source too; give each its own"
    ]


@pytest.mark.parametrize("name", ["unknown", "''", "'a b'", "'a\"b'", "ä", "x" * 65])
def test_a_name_that_cannot_be_a_clear_label_is_refused(name: str) -> None:
    (only,) = mistakes(f"sources: [{{name: {name}}}]")
    assert only.startswith("3: sources[0].name: ")


@pytest.mark.parametrize(
    ("template", "wrong"),
    [
        ("logs/{beam_id}.log", "is not an absolute path"),
        ("/logs/{case}.log", "unknown field {case}"),
        ("/logs/all.log", "names no beam"),
        ("/logs/{beam_id", "is not a valid template"),
        ("{beam_path}/run.log", "set log_root on its source"),
    ],
)
def test_a_template_that_leads_nowhere_is_refused_with_its_position(template: str, wrong: str) -> None:
    (only,) = mistakes(f"sources:\n  - log_path:\n      - '/a/{{beam_id}}'\n      - '{template}'\n")
    assert only.startswith("6: sources[0].log_path[1]: ")
    assert wrong in only


@pytest.mark.parametrize(
    ("template", "wrong"),
    [
        ("dose/{case_id}/*", "is not an absolute path"),
        ("/dose/{case}/*", "unknown field {case}"),
        ("/dose/*", "names no beam"),
        ("/dose/*/{case_id}", "glob before its first field"),
        ("/dose/{case_id}/**", "one * for each folder"),
        ("/dose/{case_id}/[a", "[ without ]"),
        ("{beam_path}/*", "write a fixed folder before it"),
    ],
)
def test_an_output_path_that_cannot_be_used_is_refused_with_its_position(template: str, wrong: str) -> None:
    paths = f"    output_path:\n      - '/b/{{case_id}}/*'\n      - '{template}'\n"
    (only,) = mistakes(f"sources:\n  - log_path: '/a/{{beam_id}}'\n{paths}")
    assert only.startswith("7: sources[0].output_path[1]: ")
    assert wrong in only


def test_an_output_path_needs_the_base_directory_and_bytes_make_sense() -> None:
    paths = "log_path: '/a/{beam_id}', output_path: '{base_directory}/d/{case_id}/*'"
    text = f"sources: [{{{paths}, output_minimum_bytes: 0}}]\n"
    with pytest.raises(ConfigError) as caught:
        settings_from(f"{text}database: {{path: /mqi.db}}\n", "x.yaml")
    assert any("output_minimum_bytes" in mistake for mistake in caught.value.mistakes)
    with pytest.raises(ConfigError, match="base_directory: is not set, but an output_path uses it"):
        settings_from(f"{text.replace('bytes: 0', 'bytes: 1')}database: {{path: /mqi.db}}\n", "x.yaml")


def test_a_smallest_size_without_output_path_is_warned_of() -> None:
    found = settings("sources: [{output_minimum_bytes: 5}]")
    assert "sources[0].output_minimum_bytes: not used without output_path" in found.warnings()


def test_a_template_may_begin_with_a_field_where_log_root_is_set() -> None:
    found = settings("sources: [{log_path: '{beam_path}/run.log', log_root: /data}]")
    (template,) = found.templates(found.sources[0])
    assert template.folder == "/data"


def test_directory_discovery_refuses_fields_that_no_file_name_holds() -> None:
    (only,) = mistakes("discovery: {kind: directory}\nsources: [{log_path: '/logs/{hpc_job_id}.log'}]\n")
    assert only.startswith("4: sources[0].log_path: discovery.kind directory has no {hpc_job_id}")


def test_an_empty_list_of_sources_is_refused() -> None:
    assert mistakes("sources: []") == ["3: sources: must have at least 1 item(s)"]


@pytest.mark.parametrize("key", ["base_directory", "log_root"])
def test_relative_folders_are_refused(key: str) -> None:
    text = {"base_directory": "base_directory: opt/mqi", "log_root": "sources: [{log_root: opt/mqi}]"}[key]
    with pytest.raises(ConfigError, match=rf":1: \S*{key}: 'opt/mqi' is not an absolute path"):
        settings_from(text, "exporter.yaml")


# Discovery and database


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("{terminal_statuses: [done]}", "completed_statuses: 'completed' is not one of terminal_statuses"),
        ("{simulating_statuses: [completed]}", "simulating_statuses: 'completed' is one of terminal_statuses too"),
        ("{reset_statuses: [downloading]}", "reset_statuses: 'downloading' is one of post_run_statuses too"),
        ("{terminal_statuses: []}", "terminal_statuses: must have at least 1 item(s)"),
        ("{post_run_statuses: ['']}", "post_run_statuses[0]: must have at least 1 character(s)"),
    ],
)
def test_statuses_that_contradict_each_other_are_refused(text: str, wrong: str) -> None:
    (only,) = mistakes(f"discovery: {text}")
    assert only.startswith(f"3: discovery.{wrong}")


def test_a_site_may_name_its_own_statuses() -> None:
    found = settings("discovery: {terminal_statuses: [done, broken], completed_statuses: done}").discovery
    assert found.completed_statuses == ("done",)


@pytest.mark.parametrize(
    ("pattern", "wrong"),
    [
        ("(?P<case_id>\\d+)_.*", "has no group (?P<beam_id>...)"),
        (".*", "has no group (?P<beam_id>...) and (?P<case_id>...)"),
        ("(?P<case_id>", "is not a valid regular expression"),
    ],
)
def test_a_name_pattern_without_both_ids_is_refused(pattern: str, wrong: str) -> None:
    (only,) = mistakes(f"discovery: {{kind: directory, name_pattern: '{pattern}'}}")
    assert only.startswith("3: discovery.name_pattern: ")
    assert wrong in only


def test_a_database_without_its_path_is_one_mistake() -> None:
    with pytest.raises(ConfigError) as raised:
        settings_from("base_directory: /opt\ndatabase:\n  migrate: false\n", "exporter.yaml")
    assert raised.value.mistakes == (
        "exporter.yaml:2: database.path: is not set, and neither is url; name the communicator's database",
    )


# State


def test_a_state_file_is_off_unless_it_is_set() -> None:
    assert (settings("").state.file, settings("").state.interval_seconds) == (None, 10)


def test_a_relative_state_file_is_refused() -> None:
    (only,) = mistakes("state: {file: state.json}")
    assert only.startswith("3: state.file: 'state.json' is not an absolute path")


def test_the_database_cannot_be_the_state_file() -> None:
    text = "base_directory: /opt\ndatabase: {path: /opt/x.db}\nstate: {file: /opt/x.db}\n"
    with pytest.raises(ConfigError, match=r"3: state\.file: is the database; give it a file of its own"):
        settings_from(text, "exporter.yaml")


# Ranges


@pytest.mark.parametrize(
    "text",
    [
        "progress_tracking: {monitoring: {poll_interval_seconds: 0}}",
        "progress_tracking: {monitoring: {poll_interval_seconds: 3601}}",
        "progress_tracking: {monitoring: {update_throttle_percent: 101}}",
        "progress_tracking: {monitoring: {timeout_seconds: -1}}",
        "progress_tracking: {stall: {factor: 0.5}}",
        "progress_tracking: {stall: {minimum_seconds: .inf}}",
        "progress_tracking: {stall: {first_batch_seconds: .nan}}",
        "discovery: {interval_seconds: 0}",
        "mirror: {range: [50, 50]}",
        "mirror: {range: [-1, 100]}",
        "mirror: {range: [0, 101]}",
        "mirror: {range: [0]}",
        "mirror: {range: [0, 50, 100]}",
        "mirror: {range: 50}",
        "mirror: {range: ['0', 100]}",
        "mirror: {value: percent}",
        "mirror: {minimum_interval_seconds: 0}",
        "retention_seconds: 0",
        "max_beams: 0",
        "max_beams: true",
        "state: {interval_seconds: 0}",
        "state: {interval_seconds: 3601}",
        "log: {level: verbose}",
        "log: {format: xml}",
        "privacy: {key_file: key}",
    ],
)
def test_a_value_out_of_its_range_is_one_mistake(text: str) -> None:
    (only,) = mistakes(text)
    assert only.startswith("3: ")


def test_the_communicator_never_waits_longer_than_a_second_for_us() -> None:
    with pytest.raises(ConfigError, match=r"2: database\.busy_timeout_ms: must be at most 1000, not 1001"):
        settings_from("base_directory: /opt\ndatabase: {path: /x.db, busy_timeout_ms: 1001}\n", "exporter.yaml")


# Web and privacy


def test_allowed_hosts_are_names_without_scheme_and_port() -> None:
    assert WebSettings(allowed_hosts=("MQI.Hospital.example.", "mqi-1")).allowed_hosts == (
        "mqi.hospital.example",
        "mqi-1",
    )
    for wrong in ("http://mqi.example", "mqi.example:10813", "mqi example", "", "mqi..example", "-mqi", "한글.example"):
        (only,) = mistakes(f"web: {{allowed_hosts: ['{wrong}']}}")
        assert only.startswith("3: web.allowed_hosts"), wrong
        assert "is no host name" in only


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:10813", ("127.0.0.1", 10813)),
        (":9100", ("0.0.0.0", 9100)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_listen_addresses_are_written_as_prometheus_writes_them(text: str, address: tuple[str, int]) -> None:
    assert WebSettings(listen_address=text).address == address


@pytest.mark.parametrize("text", ["127.0.0.1", "10813", "::1:80", "host:65536", "http://host:80", "a b:80", ""])
def test_what_is_no_address_is_refused(text: str) -> None:
    (only,) = mistakes(f"web: {{listen_address: '{text}'}}")
    assert only.startswith("3: web.listen_address: ")


def test_pseudonyms_without_a_key_are_refused_with_the_way_to_make_one() -> None:
    (refused,) = mistakes("privacy: {identifiers: pseudonym}\n")
    assert refused.startswith("3: privacy.key_file: is not set, and pseudonyms need a key")
    assert "openssl rand" in refused


# Warnings


def test_defaults_give_no_warning() -> None:
    assert settings().warnings() == []


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("web: {listen_address: ':10813'}", "web.listen_address"),
        ("web: {listen_address: 'mqi.example:10813'}", "web.listen_address"),
        ("discovery: {kind: directory}\nmirror: {enabled: true}", "mirror.enabled"),
        ("discovery: {kind: directory}", "database"),
        ("discovery: {name_pattern: '(?P<case_id>.)(?P<beam_id>.)'}", "discovery.name_pattern"),
        ("privacy: {key_file: /etc/key}", "privacy.key_file"),
        ("progress_tracking: {stall: {minimum_seconds: 0.1}}", "progress_tracking.stall.minimum_seconds"),
        ("progress_tracking: {monitoring: {timeout_seconds: 60}}", "progress_tracking.monitoring.timeout_seconds"),
    ],
)
def test_a_setting_that_is_probably_not_intended_gives_a_warning_with_its_key(text: str, key: str) -> None:
    assert key in [each.split(":")[0] for each in settings(text).warnings()]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "localhost:1"])
def test_listening_on_loopback_gives_no_warning(address: str) -> None:
    assert settings(f"web: {{listen_address: '{address}'}}").warnings() == []


# Example files and reference


def test_the_example_holds_every_key_with_its_default() -> None:
    path = REPOSITORY / "config" / "exporter.yaml"
    needed = "base_directory: /opt/mqi\ndatabase: {path: /opt/mqi/data/mqi_communicator.db}\n"
    assert load(path) == settings_from(needed, "needed")
    text = path.read_text(encoding="utf-8")
    missing = [key.shown for key in keys(Settings) if f"{key.path[-1]}:" not in text]
    assert missing == []


def test_kinds_of_messages_are_the_ones_that_can_be_sent() -> None:
    assert {kind.value for kind in NotificationKind} == set(get_args(NotificationKindName))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("{name: a, url_file: /etc/urls, on: [case_over]}", "notifications[0].on[0]"),
        ("{name: a, url_file: urls}", "is not an absolute path"),
        ("{name: a, url_file: /etc/urls, cases: '('}", "is not a valid regular expression"),
        ("{name: a, url_file: /etc/u}, {name: a, url_file: /etc/v}", "'a' is the name of an earlier entry too"),
        ("{name: a, url_file: 'json://user:hunter2@host/'}", "is not an absolute path"),
    ],
)
def test_a_mistake_in_notifications_is_named_with_its_key_and_shows_no_secret(written: str, expected: str) -> None:
    needed = "base_directory: /opt/mqi\ndatabase: {path: /opt/mqi/data/mqi.db}\n"
    with pytest.raises(ConfigError) as caught:
        settings_from(f"{needed}notifications: [{written}]\n", "test")
    assert expected in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_the_local_example_follows_the_newest_communicator() -> None:
    found = load(REPOSITORY / "config" / "exporter-local.yaml")
    (template,) = found.templates(found.sources[0])
    assert template.render({"case_id": "7", "beam_id": "7_beam_1"}) == "/opt/mqi/mqi_communicator/logs/sim_7_beam_1.log"
    assert found.mirror.range == (40.0, 90.0)
    assert found.warnings() == []


def test_the_committed_reference_is_the_generated_one() -> None:
    committed = (REPOSITORY / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert committed == markdown(Settings), "run `make docs`"


def test_every_key_has_a_meaning() -> None:
    assert [key.shown for key in keys(Settings) if not key.meaning] == []


def test_all_but_two_keys_have_a_default() -> None:
    unset = {"base_directory", "database.path", "sources[].log_root", "discovery.name_pattern", "state.file"}
    unset |= {"privacy.key_file", "web.config_file", "web.grafana_url", "web.runbook_url"}
    # Of a host these are its alias's, the system's, or not used.
    for name in ("host", "port", "user", "key_file", "passphrase_file", "password_file", "jump_password_file"):
        unset.add(f"sources[].{name}")
    unset |= {"sources[].known_hosts_file", "sources[].ssh_config_file"}
    unset |= {f"database.{name}" for name in ("url", "password_file", "sslmode", "ca_file", "migrate")}
    unset |= {"notifications[].name", "notifications[].url_file"}
    assert {key.shown for key in keys(Settings) if not key.default and not key.section} == unset


def test_settings_made_in_python_are_checked_alike() -> None:
    with pytest.raises(ValidationError, match="give each its own"):
        Settings(
            sources=(LocalSourceSettings(name="a"), LocalSourceSettings(name="a")),
            base_directory="/opt/mqi",
        )
