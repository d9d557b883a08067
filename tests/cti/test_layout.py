"""Fields and layouts: what text and numbers become, and what is refused."""

import math
import struct
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import pytest

from cti_mqtt.cti.fields import F32, F64, I16, I32, U8, U16, U32, array, char, flag, number, raw, wchar
from cti_mqtt.cti.layout import Codec, CountedBytes, CountedNumbers, CountedRecords, Layout, Rest, SizedRest
from cti_mqtt.cti.layout import Texts as CountedTexts
from cti_mqtt.errors import InvalidRequestError, ProtocolError


def units(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}H", *values)


@dataclass(frozen=True)
class Texts:
    narrow: Annotated[str, char(8)]
    full: Annotated[str, char(8, may_fill=True)]
    wide: Annotated[str, wchar(8)]


TEXTS = Layout(Texts)


def narrow(data: bytes) -> str:
    return TEXTS.unpack(data + bytes(8) + bytes(16)).narrow


def wide(data: bytes) -> str:
    return TEXTS.unpack(bytes(8) + bytes(8) + data).wide


@pytest.mark.parametrize(
    ("data", "text"),
    [
        pytest.param(b"\0\0\0\0\0\0\0\0", "", id="empty"),
        pytest.param(b"abc\0\0\0\0\0", "abc", id="padded"),
        pytest.param(b"abcdefgh", "abcdefgh", id="full, no NUL"),
        pytest.param(b"ab\0stale", "ab", id="stale bytes"),
        pytest.param(b"\0staleXY", "", id="all stale"),
        pytest.param(b"ab\0\xff\xfe\xc3\xc3\xc3", "ab", id="stale bytes that do not decode"),
        pytest.param(b"a\xffb\0\0\0\0\0", "a\ufffdb", id="not UTF-8"),
        pytest.param(b"abcdefg\xc3", "abcdefg\ufffd", id="cut inside a character at the end"),
        pytest.param(b"abc\xc3\0abc", "abc\ufffd", id="cut inside a character before the NUL"),
        pytest.param("Ω😀".encode() + b"\0\0", "Ω😀", id="beyond ASCII"),
        pytest.param(b"\xef\xbb\xbfab\0\0\0", "\ufeffab", id="byte order mark is kept"),
        pytest.param(b"\xed\xa0\x80\0\0\0\0\0", "\ufffd\ufffd\ufffd", id="a surrogate in UTF-8"),
    ],
)
def test_char_is_read(data: bytes, text: str) -> None:
    assert narrow(data) == text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        pytest.param(bytes(16), "", id="empty"),
        pytest.param(units(0x61, 0x62, 0, 0, 0, 0, 0, 0), "ab", id="padded"),
        pytest.param(units(*b"abcdefgh"), "abcdefgh", id="full, no NUL"),
        pytest.param(units(0x61, 0, *b"stale!"), "a", id="stale units"),
        pytest.param(units(0x61, 0, 0xD800, 0xDC00, 0xDC00, 0xD800, 1, 2), "a", id="stale units that do not decode"),
        pytest.param(units(0x6100, 0x0062, 0, 0, 0, 0, 0, 0), "\u6100b", id="a zero byte is not a NUL unit"),
        pytest.param(units(0x6161, 0x6100, 0x0061, 0, 0, 0, 0, 0), "\u6161\u6100a", id="zeros across two units"),
        pytest.param(units(0xD83D, 0xDE00, 0, 0x61, 0, 0, 0, 0), "😀", id="a pair"),
        pytest.param(units(0xD83D, 0, *b"stale!"), "\ufffd", id="lone high surrogate before the NUL"),
        pytest.param(units(0xDE00, 0, *b"stale!"), "\ufffd", id="lone low surrogate before the NUL"),
        pytest.param(units(0xDE00, 0xD83D, 0x61, 0, *b"abcd"), "\ufffd\ufffda", id="pair the wrong way round"),
        pytest.param(units(*b"abcdefg", 0xD83D), "abcdefg\ufffd", id="lone high surrogate at the end"),
        pytest.param(units(*[0xD83D] * 8), "\ufffd" * 8, id="nothing but high surrogates"),
        pytest.param(units(0xFEFF, 0x61, 0, 0, 0, 0, 0, 0), "\ufeffa", id="byte order mark is kept"),
    ],
)
def test_wchar_is_read(data: bytes, text: str) -> None:
    assert wide(data) == text


@pytest.mark.parametrize(
    ("texts", "data"),
    [
        pytest.param(Texts("", "", ""), bytes(32), id="empty"),
        pytest.param(
            Texts("a" * 7, "b" * 8, "c" * 7), b"aaaaaaa\0bbbbbbbbc\0c\0c\0c\0c\0c\0c\0\0\0", id="as long as fits"
        ),
        pytest.param(
            Texts("é" * 3, "é" * 4, "é" * 7), ("é" * 3 + "\0\0" + "é" * 4).encode() + units(*[0xE9] * 7, 0), id="é"
        ),
        pytest.param(
            Texts("😀", "😀😀", "😀😀😀"),
            "😀\0\0\0\0😀😀".encode() + units(*[0xD83D, 0xDE00] * 3, 0, 0),
            id="beyond the basic plane",
        ),
    ],
)
def test_text_is_written(texts: Texts, data: bytes) -> None:
    assert TEXTS.pack(texts) == data
    assert TEXTS.unpack(data) == texts


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        pytest.param(Texts("a" * 8, "", ""), "narrow: text is too long: 8 units, at most 7 fit", id="char"),
        pytest.param(Texts("é" * 4, "", ""), "narrow: text is too long: 8 units, at most 7 fit", id="char in bytes"),
        pytest.param(Texts("", "a" * 9, ""), "full: text is too long: 9 units, at most 8 fit", id="char that may fill"),
        pytest.param(Texts("", "", "a" * 8), "wide: text is too long: 8 units, at most 7 fit", id="wchar"),
        pytest.param(Texts("", "", "😀" * 4), "wide: text is too long: 8 units, at most 7 fit", id="wchar in pairs"),
        pytest.param(Texts("a\0b", "", ""), "narrow: text must not contain a NUL character", id="NUL in char"),
        pytest.param(Texts("", "", "\0"), "wide: text must not contain a NUL character", id="NUL in wchar"),
        pytest.param(
            Texts("", "\ud800", ""), "full: text is not valid Unicode: surrogates not allowed", id="lone in char"
        ),
        pytest.param(
            Texts("", "", "\udc00"), "wide: text is not valid Unicode: surrogates not allowed", id="lone in wchar"
        ),
    ],
)
def test_text_is_refused(texts: Texts, message: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        TEXTS.pack(texts)
    assert str(caught.value) == message


@dataclass(frozen=True)
class Numbers:
    a: U8
    b: U16
    c: U32
    d: I16
    e: I32
    f: F32
    g: F64
    yes: Annotated[bool, flag("I", reserved=2)]
    blob: Annotated[bytes, raw(3, reserved=1)]
    row: Annotated[tuple[float, ...], array("f", 2, reserved=1)]
    two: Annotated[Any, number("B", str, plain=int, reserved=1)]


NUMBERS = Layout(Numbers)
SMALL = Numbers(0, 0, 0, -0x8000, -0x8000_0000, -0.5, -0.1, False, b"abc", (1.0, -2.0), "0")
LARGE = Numbers(0xFF, 0xFFFF, 0xFFFF_FFFF, 0x7FFF, 0x7FFF_FFFF, 3.4e38, 1e300, True, b"\0\1\2", (0.5, 0.25), "255")


def test_numbers_on_the_wire() -> None:
    assert NUMBERS.pack(SMALL) == b"".join(
        (
            bytes(7),
            struct.pack("<hifd", -0x8000, -0x8000_0000, -0.5, -0.1),
            struct.pack("<I", 0) + bytes(2),
            b"abc" + bytes(1),
            struct.pack("<ff", 1.0, -2.0) + bytes(1),
            bytes(2),
        )
    )
    assert NUMBERS.min_size == NUMBERS.fixed_size == 46
    assert NUMBERS.unpack(NUMBERS.pack(SMALL)) == SMALL
    largest = NUMBERS.unpack(NUMBERS.pack(LARGE))
    assert largest.f == struct.unpack("<f", struct.pack("<f", 3.4e38))[0]
    assert (largest.a, largest.b, largest.c, largest.d, largest.e) == (0xFF, 0xFFFF, 0xFFFF_FFFF, 0x7FFF, 0x7FFF_FFFF)
    assert (largest.g, largest.yes, largest.blob, largest.two) == (1e300, True, b"\0\1\2", "255")


def test_reserved_bytes_are_ignored_and_any_number_is_true() -> None:
    data = bytearray(NUMBERS.pack(SMALL))
    data[29:31] = b"\xff\xff"  # behind the flag
    data[34] = data[43] = data[45] = 0xFF
    data[25:29] = b"\0\0\0\x80"
    read = NUMBERS.unpack(bytes(data))
    assert read.yes is True
    assert (read.blob, read.a) == (b"abc", 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("a", -1), ("a", 0x100), ("b", -1), ("b", 0x1_0000), ("c", -1), ("c", 0x1_0000_0000)],
        *[("d", -0x8001), ("d", 0x8000), ("e", -0x8000_0001), ("e", 0x8000_0000)],
        *[("a", 1 << 200), ("c", 1 << 200), ("e", -1 << 200), ("a", 1.5), ("a", "1")],
        *[("f", 1e39), ("f", -1e39), ("f", 10**400), ("g", 10**400), ("f", "1")],
        *[("blob", b""), ("blob", b"abcd"), ("row", ()), ("row", (1.0,) * 3), ("row", (1e39, 0.0)), ("row", ("x", 1))],
        *[("two", 256), ("two", -1)],
    ],
    ids=lambda value: str(value)[:20],
)
def test_value_without_a_place_names_its_field(field: str, value: Any) -> None:
    values = {name: getattr(SMALL, name) for name in Numbers.__dataclass_fields__} | {field: value}
    with pytest.raises(InvalidRequestError, match=f"^{field}: "):
        NUMBERS.pack(Numbers(**values))


@pytest.mark.parametrize("value", [float("inf"), float("-inf")], ids=str)
def test_infinity_passes(value: float) -> None:
    layout = Layout(Pair)
    assert layout.unpack(layout.pack(Pair(1, value))) == Pair(1, value)


def test_nan_passes() -> None:
    layout = Layout(Pair)
    assert layout.pack(Pair(1, float("nan"))) == b"\x01\x00\x00\xc0\x7f"
    read = layout.unpack(b"\x01\x00\x00\xc0\x7f")
    assert math.isnan(read.value)


class Pair(NamedTuple):
    number: U8
    value: F32


@dataclass(frozen=True)
class Variable:
    first: U8
    blob: Annotated[bytes, CountedBytes()]
    middle: U16
    row: Annotated[tuple[int, ...], CountedNumbers("H")]
    pairs: Annotated[tuple[Pair, ...], CountedRecords(Layout(Pair))]
    last: U8 = 7


VARIABLE = Layout(Variable)
FILLED = Variable(1, b"\0xy", 0x0302, (4, 0xFFFF), (Pair(5, 0.5), Pair(6, -1.5)))
FILLED_BYTES = b"".join(
    (
        b"\x01",
        b"\x03\0\0\0" + b"\0xy",
        b"\x02\x03",
        b"\x02\0\0\0" + b"\x04\x00\xff\xff",
        b"\x02\0\0\0" + b"\x05" + struct.pack("<f", 0.5) + b"\x06" + struct.pack("<f", -1.5),
        b"\x07",
    )
)


def test_fields_of_variable_size() -> None:
    assert VARIABLE.pack(FILLED) == FILLED_BYTES
    assert VARIABLE.unpack(FILLED_BYTES) == FILLED
    assert VARIABLE.fixed_size is None
    assert VARIABLE.min_size == len(VARIABLE.pack(Variable(1, b"", 2, (), ()))) == 16


def test_message_inside_other_bytes() -> None:
    assert VARIABLE.unpack_from(b"ab" + FILLED_BYTES + b"cd", 2) == (FILLED, 2 + len(FILLED_BYTES))


@pytest.mark.parametrize("size", range(len(FILLED_BYTES)))
def test_message_that_ends_too_early(size: int) -> None:
    with pytest.raises(ProtocolError):
        VARIABLE.unpack(FILLED_BYTES[:size])


def test_message_with_bytes_too_many() -> None:
    with pytest.raises(ProtocolError, match="2 bytes too many"):
        VARIABLE.unpack(FILLED_BYTES + b"ab")


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        (CountedBytes(), "4294967295 bytes announced, 8 present"),
        (CountedNumbers("H"), "4294967295 numbers announced, room for fewer"),
        (CountedRecords(Layout(Pair)), "4294967295 records announced, room for fewer"),
    ],
    ids=["bytes", "numbers", "records"],
)
def test_huge_count_is_no_allocation(codec: Codec, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        codec.unpack_from(b"\xff\xff\xff\xff" + bytes(8), 0)


def test_record_is_short_though_the_count_fits() -> None:
    @dataclass(frozen=True)
    class Blobs:
        blobs: Annotated[tuple[Variable, ...], CountedRecords(VARIABLE)]

    with pytest.raises(ProtocolError):
        Layout(Blobs).unpack(b"\x02\0\0\0" + FILLED_BYTES)


@pytest.mark.parametrize(
    ("message", "match"),
    [
        (Variable(1, b"", 2, (0x1_0000,), ()), "row: "),
        (Variable(1, b"", 2, (-1,), ()), "row: "),
        (Variable(1, b"", 2, (), (Pair(256, 0.0),)), "pairs: number: "),
        (Variable(1, b"", 2, (), (Pair(0, 1e39),)), "pairs: value: "),
    ],
    ids=["number too large", "number too small", "record", "float in a record"],
)
def test_refusal_inside_a_variable_field_names_it(message: Variable, match: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"^{match}"):
        VARIABLE.pack(message)


def test_float_overflow_in_counted_numbers_names_it() -> None:
    @dataclass(frozen=True)
    class Row:
        row: Annotated[tuple[float, ...], CountedNumbers("f")]

    with pytest.raises(InvalidRequestError, match=r"^row: "):
        Layout(Row).pack(Row((1e39,)))


def test_codec_can_be_replaced() -> None:
    layout = Layout(Variable, replace={"row": CountedNumbers("I")})
    assert layout.pack(Variable(1, b"", 2, (3,), ()))[7:15] == b"\x01\0\0\0\x03\0\0\0"
    assert layout.unpack(layout.pack(FILLED)) == FILLED


@dataclass(frozen=True)
class Tailed:
    first: U8
    second_count: U16
    first_count: U8
    firsts: Annotated[tuple[str, ...], CountedTexts("first_count")]
    seconds: Annotated[tuple[str, ...], CountedTexts("second_count")]
    tail: Annotated[bytes, Rest()]


def test_texts_counted_by_earlier_fields_and_a_rest() -> None:
    message = Tailed(9, 1, 2, ("\N{GREEK CAPITAL LETTER OMEGA}", ""), ("b",), b"\0rest")
    data = b"\x09\x01\x00\x02" + b"\x02\0\0\0\xce\xa9" + b"\0\0\0\0" + b"\x01\0\0\0b" + b"\0rest"
    layout = Layout(Tailed)
    assert layout.pack(message) == data
    assert layout.unpack(data) == message
    assert layout.fixed_size is None
    assert layout.min_size == 4


@dataclass(frozen=True)
class Sized:
    first: U8
    data: Annotated[bytes, SizedRest()]


def test_a_rest_with_its_size_before_it() -> None:
    layout = Layout(Sized)
    assert layout.pack(Sized(1, b"ab")) == b"\x01\x02\0\0\0\0\0\0\0ab"
    assert layout.unpack(b"\x01\x02\0\0\0\0\0\0\0ab") == Sized(1, b"ab")
    assert layout.min_size == 9
    for data in (b"\x01\x02\0\0\0\0\0\0", b"\x01\x02\0\0\0\0\0\0\0a", b"\x01\x02\0\0\0\0\0\0\0abc"):
        with pytest.raises(ProtocolError):
            layout.unpack(data)
