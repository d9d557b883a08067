"""Every message beside its bytes, written by hand from the protocol document, field by field.

The project's own layout has no part in the bytes, so that a wrong order of fields cannot hide behind a pack and an
unpack that agree with each other.
"""

from cti_mqtt.cti.codes import ChannelStatus, Selection, UserType
from cti_mqtt.cti.frame import Direction
from cti_mqtt.cti.messages.channels import (
    AuxOption,
    AuxReading,
    BmsReading,
    ChannelRecord,
    ChannelsInfoFeedback,
    ChannelsInfoRequest,
    Extras,
    SmbReading,
)
from cti_mqtt.cti.messages.service import UnknownCommandFeedback
from cti_mqtt.cti.messages.session import ConnectFeedback, ConnectRequest, LoginFeedback, LoginRequest
from cti_mqtt.cti.messages.tests import (
    AssignFeedback,
    AssignRequest,
    StartFeedback,
    StartRequest,
    StopFeedback,
    StopRequest,
)
from cti_mqtt.cti.messages.variables import SetMetaVariableFeedback, SetMetaVariableRequest
from cti_mqtt.cti.results import (
    AssignResult,
    ConnectResult,
    LoginResult,
    SetMetaVariableResult,
    StartResult,
    StopResult,
)
from tests.cti.by_hand import (
    FEEDBACK,
    REQUEST,
    TOKEN,
    Golden,
    char,
    damaged,
    f32,
    f64,
    frame,
    i16,
    i32,
    misplaced,
    reserved,
    u8,
    u16,
    u32,
    wchar,
    wire_checksum,
)
from tests.cti.golden_files import FILES
from tests.cti.golden_rest import REST

__all__ = [
    "FEEDBACK",
    "GOLDEN",
    "REQUEST",
    "TOKEN",
    "Golden",
    "by_name",
    "char",
    "damaged",
    "f32",
    "f64",
    "frame",
    "i16",
    "i32",
    "misplaced",
    "of_direction",
    "reserved",
    "u8",
    "u16",
    "u32",
    "wchar",
    "wire_checksum",
]

MV = tuple(index + 0.5 for index in range(16))

RECORD = ChannelRecord(
    channel=6,
    status=ChannelStatus.CHARGE,
    comm_failure=True,
    schedule="Zyklus-Ω.sdx",
    test_name="test 😀",
    exit_condition="PV_CHAN_Voltage >= 4.2 µ",
    step_and_cycle="[1] 1: Step_A, Rest",
    barcode="BAR-1",
    can_config="bms.can",
    smb_config="pack.smb",
    master_channel=5,
    test_time=3600.1,
    step_time=60.2,
    voltage=3.5,
    current=-1.25,
    power=-4.375,
    charge_capacity=0.5,
    discharge_capacity=0.25,
    charge_energy=1.75,
    discharge_energy=0.875,
    internal_resistance=0.0625,
    dvdt=-0.03125,
    acr=0.015625,
    aci=2.5,
    aci_phase=-45.0,
)

RECORD_FIXED = b"".join(
    (
        u32(6),
        i16(2),
        u8(1),
        wchar("Zyklus-Ω.sdx", 200),
        wchar("test 😀", 72),
        char("PV_CHAN_Voltage >= 4.2 µ", 100),
        char("[1] 1: Step_A, Rest", 64),
        wchar("BAR-1", 72),
        wchar("bms.can", 200),
        wchar("pack.smb", 200),
        u16(5),
        f64(3600.1, 60.2),
        f32(3.5, -1.25, -4.375),
        f32(0.5, 0.25),
        f32(1.75, 0.875),
        f32(0.0625),
        f32(-0.03125),
        f32(0.015625, 2.5, -45.0),
    )
)
"""The fields before the counts; those take another 28 bytes."""

NO_COUNTS = reserved(2 * 14)

# Two voltages, one of each other kind; kinds in the order of the counts, typed from the document.
AUX_COUNTS = (2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
AUX = {
    "voltage": (AuxReading(value=1.0, dt=0.5), AuxReading(value=2.0, dt=-0.5)),
    "temperature": (AuxReading(25.0, 0.25),),
    "pressure": (AuxReading(3.0, 0.125),),
    "external": (AuxReading(4.0, 0.75),),
    "flow": (AuxReading(5.0, 1.5),),
    "ao": (AuxReading(6.0, 2.5),),
    "di": (AuxReading(7.0, 3.5),),
    "do": (AuxReading(8.0, 4.5),),
    "humidity": (AuxReading(9.0, 5.5),),
    "safety": (AuxReading(10.0, 6.5),),
    "ph": (AuxReading(11.0, 7.5),),
    "density": (AuxReading(12.0, 8.5),),
}
AUX_BYTES = f32(
    *(1.0, 0.5, 2.0, -0.5),
    *(25.0, 0.25),
    *(3.0, 0.125),
    *(4.0, 0.75),
    *(5.0, 1.5),
    *(6.0, 2.5),
    *(7.0, 3.5),
    *(8.0, 4.5),
    *(9.0, 5.5),
    *(10.0, 6.5),
    *(11.0, 7.5),
    *(12.0, 8.5),
)
EXTRAS = Extras(
    AUX,
    (BmsReading(index=17, value=3.3, unit="V"), BmsReading(index=18, value=-40.5, unit="°C")),
    (
        SmbReading(index=1, value=12.6, unit="mV"),
        SmbReading(index=2, value="SANYO", unit="text"),
        SmbReading(index=3, value="", unit=""),
    ),
)
EXTRAS_COUNTS = b"".join(map(u16, AUX_COUNTS)) + u16(2) + u16(3)
EXTRAS_BYTES = b"".join(
    (
        EXTRAS_COUNTS,
        AUX_BYTES,
        u32(17) + f64(3.3) + b"V\0",
        u32(18) + f64(-40.5) + "°C".encode() + b"\0",
        u32(1) + u32(0) + f64(12.6) + b"mV\0",
        u32(2) + u32(1) + b"SANYO\0" + b"text\0",
        u32(3) + u32(1) + b"\0" + b"\0",
    )
)

# The same by v1.1, which has no units and no SMB values.
EXTRAS_BYTES_WITHOUT_UNITS = b"".join(
    (
        EXTRAS_COUNTS,
        AUX_BYTES,
        u32(17) + f64(3.3),
        u32(18) + f64(-40.5),
        u32(1) + u32(1),
        u32(2) + u32(1),
        u32(3) + u32(1),
    )
)
EXTRAS_WITHOUT_UNITS = Extras(
    AUX,
    (BmsReading(17, 3.3, ""), BmsReading(18, -40.5, "")),
    (SmbReading(1, "", ""), SmbReading(2, "", ""), SmbReading(3, "", "")),
)

LOGIN_FEEDBACK = LoginFeedback(
    result=LoginResult.SUCCESS,
    ip="192.168.1.250",
    serial="207855",
    note="a note",
    nickname="Cycler Ω",
    location="Lab 2",
    emergency_contact="Ms. Å",
    comments="none 😀",
    email="lab@example.org",
    phone="+49 123",
    itac=77,
    version=2,
    allow_control=True,
    channel_count=16,
    user_type=UserType.SUPER_USER,
)
LOGIN_FEEDBACK_FIXED = b"".join(
    (
        u32(1),
        bytes([192, 168, 1, 250]),
        char("207855", 16),
        char("a note", 256),
        wchar("Cycler Ω", 1024),
        wchar("Lab 2", 1024),
        wchar("Ms. Å", 1024),
        wchar("none 😀", 1024),
        wchar("lab@example.org", 64),
        wchar("+49 123", 16),
        u32(77),
        u32(2),
        u32(1),
        u32(16),
        u32(1),
    )
)

GOLDEN = (
    Golden(LoginRequest(user="admin", password="secret"), REQUEST, 0xEEAB0001, char("admin", 32) + char("secret", 32)),
    Golden(LoginRequest(user="u" * 32, password="p" * 32), REQUEST, 0xEEAB0001, b"u" * 32 + b"p" * 32, "-full"),
    Golden(LOGIN_FEEDBACK, FEEDBACK, 0xEEBA0001, LOGIN_FEEDBACK_FIXED + u32(0)),
    Golden(
        LoginFeedback(
            result=LoginResult.ALREADY_LOGGED_IN,
            ip="1.2.3.4",
            serial="s",
            note="n",
            nickname="a",
            location="b",
            emergency_contact="c",
            comments="d",
            email="e",
            phone="f",
            itac=3,
            version=0x01000002,
            allow_control=False,
            channel_count=64,
            user_type=UserType.USER,
            picture=b"\x89PNG\0\xff",
        ),
        FEEDBACK,
        0xEEBA0001,
        b"".join(
            (
                u32(3),
                bytes([1, 2, 3, 4]),
                char("s", 16),
                char("n", 256),
                wchar("a", 1024),
                wchar("b", 1024),
                wchar("c", 1024),
                wchar("d", 1024),
                wchar("e", 64),
                wchar("f", 16),
                u32(3),
                u32(0x01000002),
                u32(0),
                u32(64),
                u32(0),
                u32(6),
                b"\x89PNG\0\xff",
            )
        ),
        "-picture",
    ),
    Golden(ConnectRequest(kick_out=1), REQUEST, 0xEEAB0002, u32(1) + reserved(32)),
    Golden(
        ConnectFeedback(kick_out=2, result=ConnectResult.REFUSED), FEEDBACK, 0xEEBA0002, u32(2) + u32(1) + reserved(32)
    ),
    Golden(
        ChannelsInfoRequest(),
        REQUEST,
        0xEEAB0003,
        i16(-1) + i16(1) + u32(0x700) + reserved(32),
        "-all",
    ),
    Golden(
        ChannelsInfoRequest(channel=5, selection=Selection.UNSAFE, aux_options=AuxOption.SMB),
        REQUEST,
        0xEEAB0003,
        i16(5) + i16(3) + u32(0x200) + reserved(32),
    ),
    Golden(ChannelsInfoFeedback(()), FEEDBACK, 0xEEBA0003, u32(0), "-empty"),
    Golden(ChannelsInfoFeedback((RECORD,)), FEEDBACK, 0xEEBA0003, u32(1) + RECORD_FIXED + NO_COUNTS),
    Golden(
        ChannelsInfoFeedback((RECORD, RECORD._replace(extras=EXTRAS), RECORD)),
        FEEDBACK,
        0xEEBA0003,
        u32(3) + RECORD_FIXED + NO_COUNTS + RECORD_FIXED + EXTRAS_BYTES + RECORD_FIXED + NO_COUNTS,
        "-extras",
    ),
    Golden(
        AssignRequest(
            channel=3, all_channels=True, schedule="Zyklus.sdx", capacity=2.5, barcode="BAR-Ω", meta_variables=MV
        ),
        REQUEST,
        0xBB210001,
        i32(3) + u8(1) + wchar("Zyklus.sdx", 200) + f32(2.5) + wchar("BAR-Ω", 72) + f32(*MV) + reserved(32),
    ),
    Golden(
        AssignRequest(channel=-1, all_channels=False, schedule="a"),
        REQUEST,
        0xBB210001,
        i32(-1) + u8(0) + wchar("a", 200) + f32(0) + wchar("", 72) + f32(*[0.0] * 16) + reserved(32),
        "-defaults",
    ),
    Golden(
        AssignFeedback(channel=3, result=AssignResult.SCHEDULE_NOT_FOUND),
        FEEDBACK,
        0xBB120001,
        i32(3) + u8(0x13) + reserved(101),
    ),
    Golden(StartRequest(test_name="run", channels=(4,)), REQUEST, 0xBB320004, wchar("run", 72) + u32(1) + u16(4)),
    Golden(StartRequest(test_name="", channels=()), REQUEST, 0xBB320004, wchar("", 72) + u32(0), "-none"),
    Golden(
        StartRequest(test_name="run", channels=(7, 0x102, 65535)),
        REQUEST,
        0xBB320004,
        wchar("run", 72) + u32(3) + u16(7) + u16(0x102) + u16(65535),
        "-three",
    ),
    Golden(StartFeedback(channel=-1, result=StartResult.OK), FEEDBACK, 0xBB230004, i32(-1) + u8(0) + reserved(101)),
    Golden(StopRequest(channel=9, all_channels=False), REQUEST, 0xBB310001, u32(9) + u8(0) + reserved(101)),
    Golden(StopRequest(channel=0, all_channels=True), REQUEST, 0xBB310001, u32(0) + u8(1) + reserved(101), "-all"),
    Golden(
        StopFeedback(channel=9, result=StopResult.NOT_RUNNING), FEEDBACK, 0xBB130001, i32(9) + u8(0x12) + reserved(101)
    ),
    Golden(
        SetMetaVariableRequest(channel=5, mv_type=1, meta_code=107, value_type=1, value=-2.5),
        REQUEST,
        0xBB150001,
        u32(5) + i32(1) + i32(107) + reserved(16) + i32(1) + f32(-2.5) + reserved(16),
    ),
    Golden(
        SetMetaVariableRequest(channel=5, mv_type=-2, meta_code=-3, value_type=-4, value=1.5),
        REQUEST,
        0xBB150001,
        u32(5) + i32(-2) + i32(-3) + reserved(16) + i32(-4) + f32(1.5) + reserved(16),
        "-distinct",
    ),
    Golden(
        SetMetaVariableFeedback(channel=5, result=SetMetaVariableResult.META_CODE_DOES_NOT_EXIST),
        FEEDBACK,
        0xBB510001,
        i32(5) + u8(0x11) + reserved(101),
    ),
    Golden(
        UnknownCommandFeedback(command=0xBB150002, extended=7),
        FEEDBACK,
        0xBB111111,
        u32(0xBB150002) + u32(7) + reserved(128),
    ),
    *REST,
    *FILES,
)


def by_name(name: str) -> Golden:
    """The one of that name."""
    (found,) = (golden for golden in GOLDEN if golden.name == name)
    return found


def of_direction(direction: Direction) -> tuple[Golden, ...]:
    """Those that one side receives."""
    return tuple(golden for golden in GOLDEN if golden.direction is direction)
