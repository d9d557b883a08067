"""The log in a fault that lasts: the first records, then summaries."""

import gc
import importlib
import json
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from cti_mqtt.cli import logs
from cti_mqtt.cli.logs import LogFormat, LogLevel
from cti_mqtt.cli.repeats import (
    ALIKE,
    ALWAYS,
    FIRST,
    MOST_ALWAYS,
    MOST_KINDS,
    THREAD_NAME,
    WINDOW_S,
    RepeatLimit,
)


class Kept(logging.Handler):
    """Keeps what goes through."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@dataclass
class Bench:
    """A logger whose handler is under test, and its clock."""

    now: float = 1000.0
    kept: Kept = field(default_factory=Kept)

    def __post_init__(self) -> None:
        self.limit = RepeatLimit(self.kept, lambda: self.now)
        self.log = self.logger("cti_mqtt.test")

    def logger(self, name: str) -> logging.Logger:
        log = logging.Logger(name)  # noqa: LOG001  # not the process's
        log.addHandler(self.limit)
        return log

    @property
    def lines(self) -> list[str]:
        return [record.getMessage() for record in self.kept.records]


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.limit.close()


def test_the_first_ones_then_a_summary_each_window(bench: Bench) -> None:
    for second in range(3 * 600 + 1):
        bench.now = 1000.0 + second
        bench.log.warning("%s: poll failed after %.1f s", "arbin1", float(second))
    assert bench.lines == [
        *(f"arbin1: poll failed after {second:.1f} s" for second in range(FIRST)),
        "arbin1: poll failed after 599.0 s (… 595 more like this in the last 10 min)",
        "arbin1: poll failed after 600.0 s",
        "arbin1: poll failed after 1199.0 s (… 599 more like this in the last 10 min)",
        "arbin1: poll failed after 1200.0 s",
        "arbin1: poll failed after 1799.0 s (… 599 more like this in the last 10 min)",
        "arbin1: poll failed after 1800.0 s",
    ]


def test_a_summary_goes_out_with_the_next_record_of_any_kind(bench: Bench) -> None:
    for _ in range(FIRST + 2):
        bench.log.error("%s: broken", "arbin1")
    bench.now += WINDOW_S
    bench.log.info("something else")
    assert bench.lines[FIRST:] == ["arbin1: broken (… 2 more like this in the last 10 min)", "something else"]
    summary = bench.kept.records[FIRST]
    assert (summary.levelno, summary.name, summary.filename) == (logging.ERROR, "cti_mqtt.test", "test_repeats.py")


def test_after_a_quiet_window_it_begins_anew(bench: Bench) -> None:
    for _ in range(2):
        for _ in range(FIRST + 1):
            bench.log.warning("again")
        bench.now += WINDOW_S
        bench.log.info("summed up")
        bench.now += WINDOW_S
    assert bench.lines.count("again") == 2 * FIRST


def test_the_first_one_after_a_window_in_which_more_came_goes_through(bench: Bench) -> None:
    for _ in range(FIRST + 1):
        bench.log.warning("%s: %s", "arbin1", "as ever before")
    for text in ("something new", "something newer"):
        bench.now += WINDOW_S + 1
        bench.log.warning("%s: %s", "arbin1", text)
        assert bench.lines[-1] == f"arbin1: {text}"


def test_what_comes_seldom_is_never_held_back(bench: Bench) -> None:
    for _ in range(100):
        bench.log.warning("now and then")
        bench.now += WINDOW_S / (FIRST - 1)
    assert bench.lines == ["now and then"] * 100


@pytest.mark.parametrize(
    "others",
    [
        [("%s: channel %d: %s", "arbin2", 1, "stop failed")],
        [("%s: channel %d: %s", "arbin1", n, "stop failed") for n in range(2, 129)],
        [("%s: %s %s: %s", "arbin1", "stop", "7", "succeeded"), ("%s: %s %s: %s", "arbin1", "stop", "8", "succeeded")],
        [("%s", "arbin1: cannot connect: refused"), ("%s", "arbin1: login refused"), ("%s", None), ("%s", 5)],
    ],
)
def test_the_first_of_a_kind_always_goes_through(bench: Bench, others: list[tuple[object, ...]]) -> None:
    for _ in range(1000):
        bench.log.warning("%s: channel %d: %s", "arbin1", 1, "stop failed")
        bench.log.warning("%s: %s %s: %s", "arbin1", "stop", "1", "succeeded")
    before = len(bench.lines)
    for template, *arguments in others:
        bench.log.warning(str(template), *arguments)
    assert len(bench.lines) - before == len(others)
    bench.log.error("%s: channel %d: %s", "arbin1", 1, "stop failed")
    assert len(bench.lines) - before == len(others) + 1


def test_levels_and_loggers_are_kinds_of_their_own(bench: Bench) -> None:
    other = bench.logger("cti_mqtt.other")
    for _ in range(50):
        bench.log.warning("a")
        bench.log.error("a")
        other.error("a")
    assert len(bench.lines) == 3 * FIRST


def test_debug_goes_through(bench: Bench) -> None:
    for _ in range(50):
        bench.log.debug("a")
    assert len(bench.lines) == 50


def test_tracebacks_count_the_same_way_and_are_not_held_on_to(bench: Bench) -> None:
    class Large:
        pass

    gone = []
    for _ in range(50):
        large = Large()
        gone.append(weakref.ref(large))
        try:
            raise ValueError(large)
        except ValueError:
            bench.log.exception("%s: unexpected error, starting again", "arbin1")
    assert [bool(record.exc_info) for record in bench.kept.records] == [True] * FIRST
    del large, _
    bench.kept.records.clear()
    gc.collect()
    assert not any(each() for each in gone)


def test_bounded_where_every_record_is_another(bench: Bench) -> None:
    """In memory and in lines, also where a message has no template to tell it by."""
    for number in range(3 * MOST_KINDS):
        bench.log.warning("%s: odd", f"thing{number}")
        bench.log.warning(f"object at 0x{number:x}, call {number}")  # noqa: G004  # as other packages log
    assert len([line for line in bench.lines if line.endswith(": odd")]) == ALIKE
    assert len([line for line in bench.lines if line.startswith("object")]) == FIRST
    assert len(bench.limit._kinds._kinds) <= MOST_KINDS + 1
    bench.now += WINDOW_S
    bench.log.warning("%s: odd", "yet another")
    assert bench.lines[-1] == "yet another: odd"
    assert any("thing5999: odd (… 5500 more like this in the last 10 min)" in line for line in bench.lines)


def test_threads_lose_no_count(bench: Bench) -> None:
    def flood() -> None:
        for _ in range(500):
            bench.log.warning("%s: broken", "arbin1")

    threads = [threading.Thread(target=flood) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    bench.now += WINDOW_S
    bench.log.info("after")
    assert bench.lines[FIRST:] == [f"arbin1: broken (… {2000 - FIRST} more like this in the last 10 min)", "after"]


def test_a_record_that_cannot_be_told_does_no_harm(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(FIRST + 1):
        bench.log.warning("%d", "no number")
    assert "--- Logging error ---" in capsys.readouterr().err
    bench.log.warning("still there")
    assert bench.kept.records[-1].getMessage() == "still there"


# --- what is never held ---


@pytest.mark.parametrize("name", sorted(ALWAYS))
def test_who_is_never_held_is_somebody(name: str) -> None:
    assert importlib.import_module(name).log.name == name


@pytest.mark.parametrize("name", ["leases", "pursuit"])
def test_all_channels_at_once(bench: Bench, name: str) -> None:
    log = bench.logger(f"cti_mqtt.bridge.{name}")
    for cycler in range(16):
        for channel in range(1, 65):
            log.error("%s: channel %d: %s", f"arbin{cycler}", channel, "was not heard of")
    assert len(bench.lines) == 1024


def test_each_lease_of_a_channel_and_each_reload(bench: Bench) -> None:
    leases, reloads = bench.logger("cti_mqtt.bridge.leases"), bench.logger("cti_mqtt.bridge.reloading")
    for number in range(30):
        bench.now += 10.0
        leases.warning("%s: channel %d: %s", "arbin1", 7, f"holder {number} was not heard of")
        reloads.warning("configuration reloaded (%s): %s", "file", "nothing differs")
        reloads.error("configuration not reloaded (%s): %s", "file", f"mistake {number}")
    reloads.warning("configuration reloaded (%s): %s", "file", "cyclers.arbin2 is removed")
    assert len(bench.lines) == 91
    assert bench.lines[-1].endswith("arbin2 is removed")


def test_there_is_a_bound_all_the_same(bench: Bench) -> None:
    log = bench.logger("cti_mqtt.bridge.answers")
    for number in range(MOST_ALWAYS + 10):
        log.info("%s: set_mv: %d", "arbin1", number)
    assert len(bench.lines) == MOST_ALWAYS
    log.error("%s: the result of %s is not on record", "arbin1", "x")
    assert bench.lines[-1] == "arbin1: the result of x is not on record"
    bench.now += WINDOW_S
    log.info("%s: set_mv: %d", "arbin1", 0)
    assert bench.lines[-2:] == ["arbin1: set_mv: 5009 (… 10 more like this in the last 10 min)", "arbin1: set_mv: 0"]


def test_a_bug_that_repeats_itself_is_held_also_there(bench: Bench) -> None:
    log = bench.logger("cti_mqtt.bridge.leases")
    for number in range(50):
        for text in ("again", f"row {number}"):
            try:
                raise ValueError(text)
            except ValueError:
                log.exception("%s: cannot be read: %s", "arbin1", text)
    assert len(bench.lines) == FIRST + 50


# --- when nothing else is logged ---


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until it does, at most ten seconds."""
    until = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


def summing_up() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == THREAD_NAME]


def test_a_summary_waits_for_nobody() -> None:
    kept = Kept()
    limit = RepeatLimit(kept, time.monotonic, window_s=0.3)
    log = logging.Logger("cti_mqtt.test")  # noqa: LOG001  # not the process's
    log.addHandler(limit)
    try:
        for number in range(FIRST + 2):
            log.warning("%s: broken for %.1f s", "arbin1", float(number))
        eventually(lambda: len(kept.records) > FIRST)
        assert kept.records[FIRST].getMessage() == "arbin1: broken for 6.0 s (… 2 more like this in the last 1 min)"
        eventually(lambda: not summing_up())
    finally:
        limit.close()


def test_what_is_held_is_told_at_the_end_and_no_thread_is_left(bench: Bench) -> None:
    for _ in range(FIRST + 3):
        bench.log.warning("%s: broken", "arbin1")
    assert len(summing_up()) == 1
    bench.limit.close()
    assert bench.lines[FIRST:] == ["arbin1: broken (… 3 more like this in the last 1 min)"]
    eventually(lambda: not summing_up())
    bench.log.warning("%s: broken", "arbin1")
    assert not summing_up()


# --- as the program sets it up ---


@pytest.fixture
def loggers_as_before() -> Iterator[None]:
    """The loggers are the process's."""
    root, package = logging.getLogger(), logging.getLogger("cti_mqtt")
    before = root.handlers[:], root.level, package.level
    yield
    for handler in root.handlers:
        if isinstance(handler, RepeatLimit):
            handler.close()
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    package.setLevel(before[2])


@pytest.mark.usefixtures("loggers_as_before")
@pytest.mark.parametrize("log_format", LogFormat)
def test_both_formats(capsys: pytest.CaptureFixture[str], log_format: LogFormat) -> None:
    now = [0.0]
    logs.set_up(LogLevel.INFO, log_format)
    (limit,) = logging.getLogger().handlers
    assert isinstance(limit, RepeatLimit)
    limit._clock = lambda: now[0]
    log = logging.getLogger("cti_mqtt.somewhere")
    for _ in range(20):
        log.info("%s: over and over", "arbin1")
    now[0] += WINDOW_S
    log.info("done")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == FIRST + 2
    expected = "arbin1: over and over (… 15 more like this in the last 10 min)"
    if log_format is LogFormat.JSON:
        assert [json.loads(line)["message"] for line in lines[-2:]] == [expected, "done"]
        assert json.loads(lines[-2])["level"] == "info"
    else:
        assert lines[-2].endswith(f"INFO    cti_mqtt.somewhere: {expected}")
