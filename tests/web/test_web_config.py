"""The web configuration file: what is accepted, and how mistakes are reported."""

from __future__ import annotations

import contextlib
import ssl
import stat
import time
from pathlib import Path

import pytest

from exporter.config import ConfigError
from exporter.web import tls
from exporter.web.web_config import WebConfig, config_warnings, read_web_config, serves_tls
from exporter.web.web_config_reload import ActiveWebConfig
from tests.support.certificates import Authority
from tests.support.logs import recorded_logs

HASH = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG"
TLS = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
CERTIFICATES = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: authority.crt\n"
SANS = "tls_server_config.client_allowed_sans"
NAMES = "  client_allowed_sans: [prometheus.example]\n"
USERS = f"basic_auth_users:\n  prometheus: '{HASH}'\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    authority = Authority(tmp_path)
    authority.issue("server")
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "web.yaml"
    path.touch(mode=0o640)
    path.write_text(text, encoding="utf-8")
    return path


def read(folder: Path, text: str) -> WebConfig:
    return read_web_config(write(folder, text))


def mistakes(folder: Path, text: str) -> list[str]:
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        read_web_config(path)
    return [each.removeprefix(f"{path}:") for each in caught.value.mistakes]


# What is accepted


def test_an_empty_file_protects_nothing(folder: Path) -> None:
    config = read(folder, "")
    assert (config.tls_server_config, config.basic_auth_users, config.headers) == (None, {}, {})
    assert not config.authenticates


def test_paths_are_relative_to_the_file(folder: Path) -> None:
    assert read(folder, TLS).files == (str(folder / "server.crt"), str(folder / "server.key"))


def test_everything_that_can_be_set(folder: Path) -> None:
    config = read(
        folder,
        TLS
        + """\
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: authority.crt
  client_allowed_sans: [prometheus.example, 10.0.0.7]
  min_version: TLS12
  max_version: TLS12
  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256]
  prefer_server_cipher_suites: false
  curve_preferences: [CurveP384]
http_server_config:
  http2: false
  headers:
    Strict-Transport-Security: max-age=31536000
    X-Frame-Options: deny
    X-XSS-Protection:
"""
        + USERS,
    )
    section = config.tls_server_config
    assert section is not None
    assert config.authenticates
    assert config.headers == {"Strict-Transport-Security": "max-age=31536000", "X-Frame-Options": "deny"}
    suites = {each["name"] for each in section.context().get_ciphers() if each["protocol"] != "TLSv1.3"}
    assert suites == {"ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"}


@pytest.mark.parametrize("prefix", ["$2a$", "$2b$", "$2y$"])
def test_every_usual_bcrypt_prefix_is_accepted(folder: Path, prefix: str) -> None:
    assert read(folder, USERS.replace("$2y$", prefix)).basic_auth_users["prometheus"].startswith(prefix)


def test_a_key_file_may_be_readable_by_its_group(folder: Path) -> None:
    (folder / "server.key").chmod(0o640)
    assert read(folder, TLS).files


# What is refused


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TLS.replace("server.crt", "no.crt"), "2: tls_server_config.cert_file: "),
        (TLS.replace("server.crt", "server.key"), "2: tls_server_config.cert_file: "),
        (TLS.replace("server.key", "server.crt"), "3: tls_server_config.key_file: "),
        (
            TLS + "  client_auth_type: RequestClientCert",
            "4: tls_server_config.client_auth_type: RequestClientCert lets",
        ),
        (TLS + "  client_auth_type: RequireAnyClientCert", "4: tls_server_config.client_auth_type: RequireAny"),
        (TLS + "  client_auth_type: Never", "4: tls_server_config.client_auth_type: must be NoClientCert, "),
        (TLS + "  client_auth_type: RequireAndVerifyClientCert", "1: tls_server_config.client_ca_file: is not set"),
        (TLS + "  client_auth_type: VerifyClientCertIfGiven", "1: tls_server_config.client_ca_file: is not set"),
        (TLS + "  client_ca_file: authority.crt", "4: tls_server_config.client_ca_file: is not used by NoClientCert"),
        (TLS + "  client_allowed_sans: [a]", "4: tls_server_config.client_allowed_sans: needs client_auth_type"),
        *(
            (TLS + CERTIFICATES + f"  client_allowed_sans: {nobody}", f"6: {SANS}: is empty, and would allow every")
            for nobody in ("", "[]", "null", "~")
        ),
        (TLS + CERTIFICATES + "  client_allowed_sans: ['']", f"6: {SANS}[0]: must have at least 1 character"),
        (TLS + CERTIFICATES + "  client_allowed_sans:\n    -", f"7: {SANS}[0]: must be text, not nothing"),
        (TLS + "  client_allowed_sans: []", f"4: {SANS}: is empty, and would allow every"),
        (TLS + "  min_version: TLS10", "4: tls_server_config.min_version: TLS10 is broken"),
        (TLS + "  min_version: TLS11", "4: tls_server_config.min_version: TLS11 is broken"),
        (TLS + "  min_version: 1.2", "4: tls_server_config.min_version: must be text"),
        (TLS + "  min_version: TLS13\n  max_version: TLS12", "5: tls_server_config.max_version: TLS12 is older"),
        (TLS + "  cipher_suites: [TLS_AES_128_GCM_SHA256]", "4: tls_server_config.cipher_suites[0]: TLS_AES_128"),
        (
            TLS + "  cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]",
            "4: tls_server_config.cipher_suites[0]: 'TLS_RSA_WITH_RC4",
        ),
        (
            TLS + "  curve_preferences: [CurveP256, X25519]",
            "4: tls_server_config.curve_preferences: Python's ssl takes",
        ),
        (TLS + "  curve_preferences: [P-256]", "4: tls_server_config.curve_preferences[0]: 'P-256' is not known"),
        ("tls_server_config: {cert: x, cert_file: server.crt, key_file: server.key}", "1: tls_server_config.cert: "),
        ("http_server_config: {http2: true}", "1: http_server_config.http2: HTTP/2 is not supported"),
        ("http_server_config: {headers: {X-Frame-Options: no}}", "1: http_server_config.headers.X-Frame-Options: must"),
        ("http_server_config: {headers: {Server: x}}", "1: http_server_config.headers.Server: unknown key"),
        (
            'http_server_config: {headers: {X-XSS-Protection: "a\\r\\nSet-Cookie: b"}}',
            "1: http_server_config.headers.X-XSS-Protection: must be one line",
        ),
        ("rate_limit: {interval: 1s, burst: 3}", "1: rate_limit: is not supported"),
        ("basic_auth_users: [a, b]", "1: basic_auth_users: must be a section"),
        ("basic_auth_users: {'a:b': x}", "1: basic_auth_users.(a key with a colon): is no user name"),
        ("basic_auth_users: {'': x}", "1: basic_auth_users.'': is no user name"),
        ("tls_server: {}", "1: tls_server: unknown key; did you mean tls_server_config?"),
        ("tls_server_config:\n\tcert_file: x", "2: not valid YAML: a tab; indent with spaces"),
    ],
)
def test_unsupported_settings_are_refused_with_line_key_and_reason(folder: Path, text: str, said: str) -> None:
    (only,) = mistakes(folder, text)
    assert only.startswith(said)


@pytest.mark.parametrize(
    ("hashed", "said"),
    [
        ("hunter2", "is not a bcrypt hash"),
        ("1234567", "is not a bcrypt hash"),
        ("'$6$rounds=5000$hunter2'", "is not a bcrypt hash"),
        (f"'{HASH[:-1]}'", "is not a bcrypt hash"),
        (f"'{HASH.replace('$10$', '$05$')}'", "cost 5 is too low"),
        (f"'{HASH.replace('$10$', '$15$')}'", "cost 15 is too high"),
    ],
)
def test_an_unusable_hash_is_refused_and_never_shown(folder: Path, hashed: str, said: str) -> None:
    (only,) = mistakes(folder, f"basic_auth_users:\n  me: {hashed}\n")
    assert only.startswith(f"2: basic_auth_users.me: {said}")
    assert hashed.strip("'") not in only


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("me:SECRET", "1: the file must consist of sections"),
        ("SECRET", "1: the file must consist of sections"),
        ("me:SECRET\nyou:SECRET", "1: the file must consist of sections"),
        ("me:SECRET: x", "1: (a key with a colon): unknown key"),
        ("basic_auth_users:\n  me: !SECRET", "2: basic_auth_users.me: tags (!name) are not supported; drop it, or put"),
        ("basic_auth_users:\n  me: !!SECRET x", "2: basic_auth_users.me: tags (!name) are not supported"),
        ("basic_auth_users:\n  me: !SECRET!x", "2: not valid YAML: tags (!name) are not supported"),
        ("basic_auth_users:\n  me: &SECRET x\n  you: &SECRET x", "2: basic_auth_users.me: is not a bcrypt hash"),
        ("basic_auth_users: {'me:SECRET'}", "1: basic_auth_users.(a key with a colon): is no user name"),
        ("basic_auth_users:\n  'me:SECRET': ''", "2: basic_auth_users.(a key with a colon): is no user name"),
        ("basic_auth_users: {'me:SECRET': x, 'me:SECRET': y}", "1: basic_auth_users.(a key with a colon): "),
        ("tls_server_config: SECRET", "1: tls_server_config: must be a section"),
        (TLS.replace("server.key", "SECRET"), "3: tls_server_config.key_file: is not the name of a file in"),
        (TLS.replace("server.crt", "SECRET"), "2: tls_server_config.cert_file: is not the name of a file in"),
        (TLS + "  client_ca_file: SECRET", "4: tls_server_config.client_ca_file: is not the name of a file in"),
        (TLS.replace("server.key", "[SECRET]"), "3: tls_server_config.key_file: must be the name of a file"),
        *(
            (
                TLS.replace(name, f"|\n    {first}-----BEGIN X-----\n    SECRET"),
                f"{line}: tls_server_config.{key}: is no path",
            )
            for first in ("", "/")
            for name, key, line in (("server.key", "key_file", 3), ("server.crt", "cert_file", 2))
        ),
    ],
)
@pytest.mark.parametrize("secret", ["Hunter2Geheim", HASH])
def test_a_secret_in_the_wrong_place_is_never_shown(folder: Path, text: str, said: str, secret: str) -> None:
    found = mistakes(folder, text.replace("SECRET", secret))
    assert found[0].startswith(said) or secret == HASH  # which is not valid behind ! and &
    assert secret[:12] not in "".join(found)


def test_a_number_in_the_place_of_a_file_is_never_shown(folder: Path) -> None:
    (only,) = mistakes(folder, TLS.replace("server.key", "47110815"))
    assert only.startswith("3: tls_server_config.key_file: must be the name of a file, as text")
    assert "47110815" not in only


@pytest.mark.parametrize("text", ["{}", "{min_version: TLS13}"])
def test_tls_without_a_certificate_is_refused_and_not_plain_http(folder: Path, text: str) -> None:
    said = [f"1: tls_server_config.{name}_file: is missing and has no default; set it" for name in ("cert", "key")]
    assert mistakes(folder, f"tls_server_config: {text}\n") == said


def test_all_mistakes_are_reported_at_once(folder: Path) -> None:
    text = (
        "http_server_config: {http2: true}\nbasic_auth_users: {a: x, b: y}\ntls_server_config: {min_version: TLS10}\n"
    )
    found = mistakes(folder, text)
    assert [each.split(": ")[1] for each in found] == [
        "http_server_config.http2",
        "basic_auth_users.a",
        "basic_auth_users.b",
        "tls_server_config.cert_file",
        "tls_server_config.key_file",
        "tls_server_config.min_version",
    ]


def test_a_key_of_another_certificate_is_refused(folder: Path) -> None:
    Authority(folder, "other").issue("stranger")
    (only,) = mistakes(folder, TLS.replace("server.key", "stranger.key"))
    assert "stranger.key is not the key of the first certificate in" in only


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o660])
def test_a_key_that_others_may_read_or_change_is_refused(folder: Path, mode: int) -> None:
    (folder / "server.key").chmod(mode)
    (only,) = mistakes(folder, TLS)
    assert only.startswith("3: tls_server_config.key_file: ")
    assert f"mode {mode:04o}" in only
    assert "chmod 600" in only


def test_an_encrypted_key_is_refused_without_a_question_on_the_terminal(folder: Path) -> None:
    Authority(folder).issue("server", passphrase=b"hunter2")
    (only,) = mistakes(folder, TLS)
    assert "is encrypted" in only


def test_a_certificate_in_binary_form_is_refused(folder: Path) -> None:
    (folder / "server.crt").write_bytes(b"\x30\x82\x01\x00")
    (only,) = mistakes(folder, TLS)
    assert "no certificate in PEM form" in only


# What is doubtful


def test_a_reachable_server_without_protection_is_warned_of(folder: Path) -> None:
    def said(text: str, address: str = ":10813") -> list[str]:
        path = write(folder, text)
        return [each.removeprefix(f"{path}: ") for each in config_warnings(path, read_web_config(path), address)]

    assert len(said("")) == 2
    assert ["in the clear" in each for each in said(USERS)] == [True]
    assert ["asks for no password" in each for each in said(TLS)] == [True]
    assert said(TLS + USERS) == []
    assert said("", "127.0.0.1:10813") == []


@pytest.mark.parametrize(
    ("days", "said"),
    [((-9, -2), "expired on"), ((2, 9), "is valid only from"), ((-9, 2), "expires on"), ((-9, 90), None)],
)
def test_the_validity_of_a_certificate_is_checked(folder: Path, days: tuple[float, float], said: str | None) -> None:
    Authority(folder).issue("server", days=days)
    found = tls.validity_warning(str(folder / "server.crt"), time.time())
    assert (found is None) if said is None else (found is not None and said in found)


def test_hashes_that_others_may_read_are_warned_of(folder: Path) -> None:
    path = write(folder, TLS + USERS)
    assert config_warnings(path, read_web_config(path), "127.0.0.1:1") == []
    path.chmod(0o644)
    (only,) = config_warnings(path, read_web_config(path), "127.0.0.1:1")
    assert "others may read the hashes" in only


def test_different_hash_costs_are_warned_of(folder: Path) -> None:
    path = write(folder, TLS + USERS + f"  b: '{HASH.replace('$10$', '$12$')}'\n")
    (only,) = config_warnings(path, read_web_config(path), "127.0.0.1:1")
    assert "costs differ" in only


# While the server runs


def test_a_changed_file_is_used_and_a_broken_one_refused(folder: Path) -> None:
    path = write(folder, TLS + USERS)
    web_config = ActiveWebConfig(path)
    assert not web_config.refresh()
    path.write_text(TLS + USERS.replace("prometheus", "grafana"), encoding="utf-8")
    assert web_config.refresh()
    assert (list(web_config.users), web_config.up_to_date, web_config.generation) == (["grafana"], True, 1)

    with recorded_logs() as lines:
        path.write_text("basic_auth_users: {grafana: hunter2}\n", encoding="utf-8")
        assert not web_config.refresh()
        assert not web_config.refresh()
    assert (list(web_config.users), web_config.up_to_date) == (["grafana"], False)
    assert [line["event"] for line in lines] == ["web configuration refused, the old one stays in use"]

    path.write_text(TLS + USERS, encoding="utf-8")
    assert web_config.refresh()
    assert (list(web_config.users), web_config.up_to_date) == (["prometheus"], True)


NO_PATHS = ['"\\uD800"', '"a\\uDFFFb"', '"\\0"', f'"{"x" * 5000}"', '"\\uD83D/../server.crt"']


@pytest.mark.parametrize("name", NO_PATHS)
@pytest.mark.parametrize("key", ["cert_file", "key_file", "client_ca_file"])
def test_an_impossible_path_does_not_end_the_reloading(folder: Path, key: str, name: str) -> None:
    path = write(folder, TLS + USERS)
    web_config = ActiveWebConfig(path)
    path.write_text(f"tls_server_config: {{{key}: {name}}}\n" + USERS, encoding="utf-8")
    assert not web_config.refresh()
    assert web_config.up_to_date is False
    path.write_text(TLS + USERS.replace("prometheus", "grafana"), encoding="utf-8")
    assert web_config.refresh()
    assert (list(web_config.users), web_config.up_to_date) == (["grafana"], True)


def test_an_unexpected_read_error_is_logged_counted_and_not_up_to_date(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(folder, USERS)
    errors: list[str] = []
    web_config = ActiveWebConfig(path, errors.append)

    def fails(path: Path) -> None:
        raise RecursionError("too deep")

    with monkeypatch.context() as broken, recorded_logs() as lines:
        broken.setattr("exporter.web.web_config_reload.load_web_config", fails)
        path.write_text(USERS.replace("prometheus", "grafana"), encoding="utf-8")
        assert not web_config.refresh()
        assert not web_config.refresh()
        with pytest.raises(ConfigError, match="cannot be read \\(RecursionError\\)"):
            web_config.reload()
    assert web_config.up_to_date is False
    assert errors == ["web configuration"]
    assert [line["event"] for line in lines] == ["web configuration cannot be read, the old one stays in use"]
    assert web_config.refresh()
    assert (list(web_config.users), web_config.up_to_date) == (["grafana"], True)


def test_a_new_certificate_is_not_used_before_its_key(folder: Path) -> None:
    web_config = ActiveWebConfig(write(folder, TLS))
    before, old_key = web_config.tls_context, (folder / "server.key").read_bytes()
    Authority(folder).issue("server")
    new_key = (folder / "server.key").read_bytes()
    (folder / "server.key").write_bytes(old_key)
    assert not web_config.refresh()
    assert web_config.tls_context is before
    (folder / "server.key").write_bytes(new_key)
    assert web_config.refresh()
    assert web_config.tls_context is not before


@pytest.mark.parametrize("less", ["", TLS, USERS])
def test_a_reload_never_removes_a_protection(folder: Path, less: str) -> None:
    path = write(folder, TLS + USERS)
    web_config = ActiveWebConfig(path)
    path.write_text(less, encoding="utf-8")
    assert not web_config.refresh()
    assert (web_config.up_to_date, web_config.tls_context is None, list(web_config.users)) == (
        False,
        False,
        ["prometheus"],
    )
    with pytest.raises(ConfigError, match="restart"):
        web_config.reload()


@pytest.mark.parametrize("users", ["", USERS])
@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (TLS + CERTIFICATES, TLS, ["client_auth_type: clients would need no certificate any more; restart for that"]),
        (
            TLS + CERTIFICATES + NAMES,
            TLS + CERTIFICATES.replace("RequireAndVerifyClientCert", "VerifyClientCertIfGiven"),
            ["client_auth_type: clients would need no certificate any more; restart for that"],
        ),
        (
            TLS + CERTIFICATES + NAMES,
            TLS + CERTIFICATES,
            ["client_allowed_sans: the last name is removed; restart to allow every certificate of the authority"],
        ),
        (
            TLS + "  min_version: TLS13\n",
            TLS,
            ["min_version: TLS12 is older than TLS13, which is in use; restart for that"],
        ),
        (
            TLS + "  min_version: TLS13\n" + CERTIFICATES,
            TLS + "  min_version: TLS12\n",
            [
                "client_auth_type: clients would need no certificate any more; restart for that",
                "min_version: TLS12 is older than TLS13, which is in use; restart for that",
            ],
        ),
    ],
)
def test_a_reload_removes_no_protection_whichever_others_stay(
    folder: Path, before: str, after: str, said: list[str], users: str
) -> None:
    path = write(folder, before + users)
    web_config = ActiveWebConfig(path)
    path.write_text(after + users, encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        web_config.reload()
    assert refused.value.mistakes == tuple(f"{path}: {each}" for each in said)
    assert (web_config.generation, web_config.up_to_date) == (0, False)
    assert ActiveWebConfig(path).up_to_date  # a restart is what the message says, and it is enough


def test_fewer_or_other_client_names_are_used(folder: Path) -> None:
    path = write(folder, TLS + CERTIFICATES + "  client_allowed_sans: [a.example, b.example]\n")
    web_config = ActiveWebConfig(path)
    for names in ("[b.example]", "[c.example]", "[a.example, b.example]"):
        path.write_text(TLS + CERTIFICATES + f"  client_allowed_sans: {names}\n", encoding="utf-8")
        assert web_config.reload()
    assert web_config.allowed_client_names == {"a.example", "b.example"}


_OLDEST_TLS13 = "  min_version: TLS13\n"
_LISTED = "  client_allowed_sans:\n    - prometheus.example\n    - grafana.example\n"


@pytest.mark.parametrize(
    "whole",
    [
        TLS + _OLDEST_TLS13 + CERTIFICATES + NAMES,
        USERS + TLS + CERTIFICATES + NAMES + _OLDEST_TLS13,
        TLS + CERTIFICATES + _LISTED + _OLDEST_TLS13 + USERS,
        "tls_server_config:\n" + NAMES + CERTIFICATES + _OLDEST_TLS13 + TLS.partition("\n")[2] + USERS,
    ],
    ids=["without users", "users first", "users last", "names first"],
)
def test_no_half_written_file_removes_a_protection(folder: Path, whole: str) -> None:
    """As an editor, or a copy over a slow file system, leaves it for a moment."""
    path = write(folder, whole)
    web_config = ActiveWebConfig(path)
    asked_for_passwords, used = bool(web_config.users), 0
    for length in reversed(range(len(whole))):
        path.write_text(whole[:length], encoding="utf-8")
        with contextlib.suppress(ConfigError):
            used += web_config.reload()
        context = web_config.tls_context
        assert context is not None, whole[:length]
        assert context.verify_mode is ssl.CERT_REQUIRED, whole[:length]
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3, whole[:length]
        assert web_config.allowed_client_names, whole[:length]
        assert bool(web_config.users) == asked_for_passwords, whole[:length]
    assert used, "no beginning was used: nothing was tried"


def test_serves_tls_needs_no_access_to_the_key(folder: Path) -> None:
    path = write(folder, TLS)
    (folder / "server.key").unlink()
    assert serves_tls(path)
    assert not serves_tls(write(folder, USERS))
    assert not serves_tls(folder / "missing.yaml")


def test_support_makes_keys_that_only_the_owner_reads(folder: Path) -> None:
    assert stat.S_IMODE((folder / "server.key").stat().st_mode) == 0o600
