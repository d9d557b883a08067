"""The configuration file: what is taken, what is refused, where secrets come from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cti_mqtt.config import MAX_CYCLERS, load, load_data_dir, load_mqtt
from cti_mqtt.errors import ConfigurationError

MINIMAL = "cyclers: {arbin1: {host: 192.0.2.10}}\n"
SECRETS = {"ARBIN_CTI_USERNAME": "reader", "ARBIN_CTI_PASSWORD": "hush"}
CONTRACT = """
data_dir: state
health_interval_s: 10
mqtt: {host: 127.0.0.1, port: 1883, base_topic: cti, protocol: 5, client_id: cti-mqtt-lab1, keepalive_s: 15,
       username: lab, tls: {ca_file: ca.pem, cert_file: null, key_file: null}}
cyclers:
  arbin1:
    host: 192.0.2.10
    port: 9031
    file_port: 9032
    username: reader
    poll_interval_s: 1.0
    timeout_s: 10
    checksum: warn
    pipelining: auto
    aux: [aux, bms, smb]
    control: {enabled: true, mode: on, verbs: [start, stop, set_mv], channels: [1, 2, 3], require_user: false,
              limits: {1: {min: 0, max: 5, max_step: 1}}}
publish: {state: true, state_qos: 0, values: false, readings: true, max_bytes: null}
"""


def write(folder: Path, text: str, env: str = "") -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    if env:
        (folder / ".env").write_text(env)
    return path


def problems(folder: Path, text: str, environment: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(write(folder, text), SECRETS if environment is None else environment)
    return caught.value.problems


def test_the_contracts_file(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    config = load(write(tmp_path, CONTRACT), SECRETS)
    cycler = config.cyclers["arbin1"]
    assert config.data_dir == tmp_path / "state"
    assert config.mqtt.tls is not None
    assert config.mqtt.tls.ca_file == tmp_path / "ca.pem"
    assert cycler.control.mode == "on"
    assert cycler.control.limits[1].max == 5
    assert cycler.verify_timeout_s == 3.0


def test_defaults(tmp_path: Path) -> None:
    config = load(write(tmp_path, MINIMAL), SECRETS)
    cycler = config.cyclers["arbin1"]
    assert (config.mqtt.host, config.mqtt.port, config.mqtt.base_topic, config.mqtt.protocol) == (
        *("127.0.0.1", 1883),
        *("cti", 5),
    )
    assert (cycler.port, cycler.file_port, cycler.poll_interval_s, cycler.timeout_s) == (9031, 9032, 1.0, 10.0)
    assert not cycler.control.enabled
    assert not cycler.control.allows_verb("stop")


def test_enabled_alone_permits_nothing(tmp_path: Path) -> None:
    config = load(write(tmp_path, "data_dir: d\ncyclers: {a: {host: h, control: {enabled: true}}}"), SECRETS)
    control = config.cyclers["a"].control
    assert not control.allows_verb("stop")
    assert not control.allows_channel(1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cyclers: {}", "cyclers: "),
        ("", "must be a mapping"),
        ("[]", "must be a mapping"),
        ("cyclers: {a: {host: h}, a: {host: g}}", "stands twice"),
        ("cyclers: [", "not valid YAML"),
        ("cyclers: {bridge: {host: h}}", "cyclers.bridge: 'bridge' is reserved"),
        ("cyclers: {Arbin: {host: h}}", "cyclers.Arbin: an id is"),
        ("cyclers: {a b: {host: h}}", "cyclers.a b: an id is"),
        ("cyclers: {1: {host: h}}", "cyclers.1: "),
        ("cyclers: {a: {}}", "cyclers.a.host: missing"),
        ("cyclers: {a: {host: h, prot: 1}}", "cyclers.a.prot: unknown key"),
        ("cyclers: {a: {host: h, port: 70000}}", "cyclers.a.port: "),
        ("cyclers: {a: {host: h, poll_interval_s: 0}}", "cyclers.a.poll_interval_s: "),
        ("cyclers: {a: {host: h, poll_interval_s: .nan}}", "cyclers.a.poll_interval_s: "),
        ("cyclers: {a: {host: h, checksum: maybe}}", "cyclers.a.checksum: "),
        ("cyclers: {a: {host: h, pipelining: yes}}", "cyclers.a.pipelining: "),
        ("cyclers: {a: {host: h, aux: [gps]}}", "cyclers.a.aux.0: "),
        ("cyclers: {a: {host: h, control: {verbs: [explode]}}}", "cyclers.a.control.verbs.0: "),
        ("cyclers: {a: {host: h, control: {channels: [0]}}}", "cyclers.a.control.channels.0: "),
        ("cyclers: {a: {host: h, control: {limits: {17: {max: 1}}}}}", "cyclers.a.control.limits.17"),
        ("cyclers: {a: {host: h, control: {limits: {1: {min: 2, max: 1}}}}}", "min 2 is above max 1"),
        ("cyclers: {a: {host: h, control: {limits: {1: {max: .inf}}}}}", "cyclers.a.control.limits.1.max: "),
        (MINIMAL + "mqtt: {base_topic: 'a/+/b'}", "mqtt.base_topic: "),
        (MINIMAL + "mqtt: {base_topic: ''}", "mqtt.base_topic: "),
        (MINIMAL + "mqtt: {base_topic: /a}", "mqtt.base_topic: "),
        (MINIMAL + "mqtt: {protocol: 4}", "mqtt.protocol: "),
        (MINIMAL + "mqtt: {tls: {cert_file: a}}", "cert_file and key_file go together"),
        ("cyclers: {Arbin: {host: ''}}", "cyclers.Arbin: an id is"),
        (MINIMAL + "publish: {state_qos: 2}", "publish.state_qos: "),
        (MINIMAL + "publish: {max_bytes: 10}", "publish.max_bytes: "),
        (
            MINIMAL + "publish: {dead_bands: {voltage: 1}}",
            "publish.dead_bands.voltage: has no dead band; those that can",
        ),
        (
            MINIMAL + "publish: {dead_bands: {status: 1}}",
            "can have one: test_time_s, step_time_s, voltage_v, current_a,",
        ),
        (MINIMAL + "publish: {dead_bands: {voltage_v: -0.1}}", "publish.dead_bands.voltage_v: "),
        (MINIMAL + "publish: {dead_bands: {voltage_v: .nan}}", "publish.dead_bands.voltage_v: "),
        (MINIMAL + "publish: {dead_bands: {voltage_v: .inf}}", "publish.dead_bands.voltage_v: "),
        (MINIMAL + "publish: {dead_bands: {current_a: 5mA}}", "publish.dead_bands.current_a: must be a number"),
        (MINIMAL + "publish: {dead_bands: {bms: {V: 1}}}", "publish.dead_bands.bms: must be a number"),
        (MINIMAL + "publish: {dead_bands: {aux: 0.1}}", "publish.dead_bands.aux: must have keys and values"),
        (
            MINIMAL + "publish: {dead_bands: {aux: {heat: 1}}}",
            "publish.dead_bands.aux.heat: Input should be 'voltage', 't",
        ),
        (MINIMAL + "publish: {dead_bands: {aux: {ph: -1}}}", "publish.dead_bands.aux.ph: "),
        (MINIMAL + "publish: {dead_bands: 0.1}", "publish.dead_bands: must have keys and values of its own"),
        (MINIMAL + "publish: {heartbeat_s: 0}", "publish.heartbeat_s: "),
        (MINIMAL + "publish: {heartbeat_s: .inf}", "publish.heartbeat_s: "),
        (MINIMAL + "publish: {heartbeat_s: 86401}", "publish.heartbeat_s: Input should be less than or equal to 86400"),
        (MINIMAL + "publish: {heartbeat_s: 1min}", "publish.heartbeat_s: must be a number of seconds without a unit"),
        (MINIMAL + "homeassistant: {}", "homeassistant: unknown key"),
        (MINIMAL + "http: 9464", "http: must be a section such as {port: 9464}"),
        (MINIMAL + "http: {port: x}", "http.port: must be a whole number"),
        (MINIMAL + "mqtt: 5", "mqtt: must have keys and values of its own"),
        (MINIMAL + "journal: {max_bytes: 2GB}", "must be a number of bytes without a unit, such as 2000000000"),
        (MINIMAL + "journal: {max_age_s: 7d}", "must be a number of seconds without a unit, such as"),
        (MINIMAL + "journal: {backfill_per_s: fast}", "journal.backfill_per_s: must be a number"),
        (MINIMAL + "data_dir: d\njournal: {enabled: true}\npublish: {readings: false}", "journal.enabled: without"),
        (MINIMAL + "x: 1\njournal: {enabled: true}\npublish: {readings: false}", "journal.enabled: without"),
        (
            "cyclers:\n" + "".join(f"  a{n}: {{host: h{n}}}\n" for n in range(MAX_CYCLERS + 1)),
            "257 of them; at most 256",
        ),
    ],
)
def test_mistakes(tmp_path: Path, text: str, expected: str) -> None:
    assert any(expected in problem for problem in problems(tmp_path, text))


def test_all_mistakes_in_dead_bands_at_once(tmp_path: Path) -> None:
    text = MINIMAL + "publish: {dead_bands: {volt: 1, amps: 1, power_w: -1, aux: {heat: 1}}, heartbeat_s: -1}"
    keys = ("dead_bands.volt", "dead_bands.amps", "dead_bands.power_w", "dead_bands.aux.heat", "heartbeat_s")
    assert {problem.partition(":")[0] for problem in problems(tmp_path, text)} == {f"publish.{key}" for key in keys}


@pytest.mark.parametrize(
    ("text", "silence_s"),
    [
        ("", None),
        ("{dead_bands: null, heartbeat_s: null}", None),
        ("{dead_bands: {}}", 60),
        ("{heartbeat_s: 5}", 5),
        ("{dead_bands: {aux: {temperature: 0.1}}, heartbeat_s: 86400}", 86400),
    ],
)
def test_how_long_a_channel_may_be_silent(tmp_path: Path, text: str, silence_s: float | None) -> None:
    assert load(write(tmp_path, f"{MINIMAL}publish: {text}"), SECRETS).publish.longest_silence_s == silence_s


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x: 2026-99-99", "type timestamp; quote it if it is a text (line 2, column 4)"),
        ("x: " + "9" * 5000, "(line 2, column 4)"),
        ("x: 0x" + "f" * 5000, "too large (line 2, column 4)"),
        ("x: !!int abc", "type int"),
        ("x: !!float abc", "type float"),
        ("x: !!bool maybe", "type bool"),
        ("x: !!timestamp maybe", "type timestamp"),
        ("? [x, x]\n: 1", "a key must be a text or a number (line 2, column 3)"),
        ("? {a: b}\n: 1", "a key must be a text or a number"),
        ("x: " + "[" * 900 + "]" * 900, "nested too deeply"),
        ("x: " + "[" * 20_000, "nested too deeply"),
        ('data_dir: "a\\0b"', "no NUL"),
        ('data_dir: "\\ud800"', "no NUL and no halves"),
        ("x: [1,\n", "expected"),
        ("x:\n\ty: 1", "(line 3, column 1)"),
        ("x: \0", "special characters are not allowed"),
    ],
)
def test_what_is_no_yaml_is_told_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    (found,) = problems(tmp_path, MINIMAL + text)
    assert found.startswith("is not valid YAML: ")
    assert expected in found
    for read in (load_mqtt, load_data_dir):
        with pytest.raises(ConfigurationError, match="is not valid YAML"):
            read(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    "text", ["*hush", "!hush x", "2026-99-99", "!!hush x", "'hush", "{hush: ]}", '"hush\\q"', "@hush"]
)
def test_a_password_that_is_no_yaml_is_not_told(tmp_path: Path, text: str) -> None:
    (found,) = problems(tmp_path, MINIMAL + f"mqtt: {{password: {text}}}")
    assert found.startswith("is not valid YAML: ")
    assert "(line " in found
    assert "hush" not in found
    assert "2026" not in found


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    assert problems(tmp_path, MINIMAL + "#" * 1_000_000) == ["is larger than 1000000 bytes"]


@pytest.mark.parametrize("name", ["mqtt", "publish", "journal"])
def test_a_section_whose_keys_are_all_comments_has_all_defaults(tmp_path: Path, name: str) -> None:
    text = f"{MINIMAL}{name}:\n  # nothing\n"
    assert load(write(tmp_path, text), SECRETS) == load(write(tmp_path, MINIMAL), SECRETS)
    assert load_mqtt(write(tmp_path, text), SECRETS) == load_mqtt(write(tmp_path, MINIMAL), SECRETS)


def test_without_readings_there_is_no_journal_unless_asked_for(tmp_path: Path) -> None:
    text = MINIMAL + "data_dir: d\npublish: {readings: false}\n"
    assert not load(write(tmp_path, text), SECRETS).journal_on
    assert not load(write(tmp_path, text + "journal: {enabled: false}"), SECRETS).journal_on


def test_every_mistake_at_once_and_no_secret_among_them(tmp_path: Path) -> None:
    text = """
mqtt: {prot: 1883, port: 99999, password: hush-hush}
cyclers:
  Arbin1: {host: h, password: hush-hush}
  arbin2: {host: h, password: hush-hush-hush-hush-hush-hush-hush-hush, control: {verbs: [stopp]}}
"""
    found = problems(tmp_path, text, {"ARBIN_CTI_USERNAME": "u"})
    for path in (
        "mqtt.prot",
        "mqtt.port",
        "cyclers.Arbin1",
        "cyclers.arbin2.password",
        "cyclers.arbin2.control.verbs.0",
    ):
        assert any(problem.startswith(path) for problem in found), (path, found)
    assert "hush" not in "\n".join(found)
    assert len(found) == 5


class TestSecrets:
    def secret(self, folder: Path, text: str, env: str, environment: dict[str, str]) -> tuple[str | None, str | None]:
        cycler = load(write(folder, text, env), environment).cyclers["arbin-1"]
        return cycler.username, cycler.password.get_secret_value() if cycler.password else None

    def test_order(self, tmp_path: Path) -> None:
        text = "cyclers: {arbin-1: {host: h, username: from-yaml, password: from-yaml}}"
        assert self.secret(tmp_path, text, "", {"X": ""}) == ("from-yaml", "from-yaml")
        dot_env = "ARBIN_CTI_PASSWORD=from-dotenv\n"
        assert self.secret(tmp_path, text, dot_env, {"X": ""}) == ("from-yaml", "from-dotenv")
        environment = {"ARBIN_CTI_PASSWORD": "from-environment"}
        assert self.secret(tmp_path, text, dot_env, environment) == ("from-yaml", "from-environment")
        environment["ARBIN_CTI_PASSWORD_ARBIN_1"] = "own"
        assert self.secret(tmp_path, text, dot_env, environment) == ("from-yaml", "own")

    def test_missing_ones_are_named_with_what_to_set(self, tmp_path: Path) -> None:
        found = problems(tmp_path, "cyclers: {arbin-1: {host: h}}", {"X": ""})
        assert any("ARBIN_CTI_PASSWORD_ARBIN_1" in problem for problem in found)
        assert any("ARBIN_CTI_USERNAME_ARBIN_1" in problem for problem in found)

    def test_names_that_would_share_a_variable(self, tmp_path: Path) -> None:
        found = problems(tmp_path, "cyclers: {a-b: {host: h}, a_b: {host: h}}")
        assert any("shares the environment variable" in problem for problem in found)

    def test_the_brokers(self, tmp_path: Path) -> None:
        environment: dict[str, Any] = {**SECRETS, "MQTT_USERNAME": "lab", "MQTT_PASSWORD": "hush"}
        mqtt = load(write(tmp_path, MINIMAL), environment).mqtt
        assert mqtt.username == "lab"
        assert mqtt.password is not None
        assert mqtt.password.get_secret_value() == "hush"
        assert load_mqtt(write(tmp_path, MINIMAL), environment).username == "lab"

    @pytest.mark.parametrize("read", [load, load_mqtt])
    def test_a_file_that_is_no_text(self, tmp_path: Path, read: Callable[..., object]) -> None:
        write(tmp_path, MINIMAL)
        (tmp_path / ".env").write_bytes(b"ARBIN_CTI_USERNAME=\xff\xfe\n")
        with pytest.raises(ConfigurationError, match=r"\.env is not UTF-8 text"):
            read(tmp_path / "config.yaml", SECRETS)

    def test_a_variable_that_is_no_text(self, tmp_path: Path) -> None:
        environment = {**SECRETS, "ARBIN_CTI_PASSWORD_ARBIN1": "hush\udcff", "ELSEWHERE": "\udcff"}
        assert problems(tmp_path, MINIMAL, environment) == [
            "ARBIN_CTI_PASSWORD_ARBIN1: is not UTF-8 text, or has a NUL"
        ]

    def test_none_shows_in_a_representation(self, tmp_path: Path) -> None:
        config = load(write(tmp_path, MINIMAL), {**SECRETS, "MQTT_PASSWORD": "hush"})
        assert "hush" not in repr(config) + str(config)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(tmp_path / "nothing.yaml")


def test_a_mapping_where_text_belongs(tmp_path: Path) -> None:
    assert problems(tmp_path, "mqtt: 5\ncyclers: 7\n")


def test_one_machine_has_one_commander(tmp_path: Path) -> None:
    on = "control: {enabled: true}"
    one, other = f"a: {{host: Arbin-PC, {on}}}", f"b: {{host: arbin-pc, port: %d, {on}}}"
    text = "data_dir: d\ncyclers: {%s, %s}"
    (problem,) = problems(tmp_path, text % (one, other % 9031), SECRETS)
    assert problem.startswith("cyclers.b: has the host and port of cyclers.a (arbin-pc:9031)")
    assert len(load(write(tmp_path, text % (one, other % 9041)), SECRETS).cyclers) == 2
    reader = "b: {host: arbin-pc}"
    assert len(load(write(tmp_path, text % (one, reader)), SECRETS).cyclers) == 2, "readings may be taken twice"
