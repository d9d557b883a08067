"""The rest of the commands on port 9031 beside their bytes, written by hand from the protocol document."""

from cti_mqtt.cti.messages.extended import (
    ExtendedResume,
    ExtendedStart,
    GetResumeDataFeedback,
    GetResumeDataRequest,
    GetStartDataFeedback,
    GetStartDataRequest,
    ResumeData,
    ResumeExtendedRequest,
    ResumeState,
    StartData,
    StartExtendedRequest,
)
from cti_mqtt.cti.messages.service import (
    GetSerialFeedback,
    GetSerialRequest,
    SendMessageFeedback,
    SendMessageRequest,
    StartCalibrationFeedback,
    StartCalibrationRequest,
)
from cti_mqtt.cti.messages.tests import (
    ContinueFeedback,
    ContinueRequest,
    JumpFeedback,
    JumpRequest,
    ResumeFeedback,
    ResumeRequest,
)
from cti_mqtt.cti.messages.variables import (
    MetaVariableUpdate,
    UpdateHeader,
    UpdateMetaVariablesFeedback,
    UpdateMetaVariablesRequest,
    Updates,
)
from cti_mqtt.cti.results import (
    CalibrationResult,
    ContinueResult,
    JumpResult,
    ResumeResult,
    SendMessageResult,
    StartDataCode,
    UpdateMetaVariablesResult,
)
from tests.cti.by_hand import FEEDBACK, REQUEST, Golden, f32, f64, i32, reserved, u8, u16, u32, wchar

MV = tuple(index + 0.25 for index in range(16))

STATE = ResumeState(
    cycle=7,
    test_time=1000.1,
    step_time=20.2,
    charge_capacity=1.5,
    discharge_capacity=0.5,
    charge_energy=6.0,
    discharge_energy=2.0,
    tc_time=(11.0, 12.0, 13.0, 14.0),
    tc_charge_capacity=(21.0, 22.0),
    tc_discharge_capacity=(31.0, 32.0),
    tc_charge_energy=(41.0, 42.0),
    tc_discharge_energy=(51.0, 52.0),
    counter=(61.0, 62.0, 63.0, 64.0),
    charge_capacity_time=71.0,
    discharge_capacity_time=72.0,
    meta_variables=MV,
)
STATE_BYTES = b"".join(
    (
        u32(7),
        f64(1000.1, 20.2, 1.5, 0.5, 6.0, 2.0),
        f64(11.0, 12.0, 13.0, 14.0),
        f64(21.0, 22.0, 31.0, 32.0),
        f64(41.0, 42.0, 51.0, 52.0),
        f32(61.0, 62.0, 63.0, 64.0),
        f64(71.0, 72.0),
        f32(*MV),
    )
)
NEW_STATE_BYTES = u32(1) + f64(*[0.0] * 18) + f32(*[0.0] * 4) + f64(0.0, 0.0) + f32(*[0.0] * 16)


def counted(text: str) -> bytes:
    return u32(len(text.encode())) + text.encode()


UPDATES = (MetaVariableUpdate(3, 52, 1.5), MetaVariableUpdate(0x102, 116, -2.5))
UPDATES_BYTES = u16(3) + u16(52) + f32(1.5) + u16(0x102) + u16(116) + f32(-2.5)

REST = (
    Golden(ResumeRequest(channel=9, all_channels=False), REQUEST, 0xBB310002, i32(9) + u8(0) + reserved(101)),
    Golden(ResumeRequest(channel=-1, all_channels=True), REQUEST, 0xBB310002, i32(-1) + u8(1) + reserved(101), "-all"),
    Golden(
        ResumeFeedback(channel=9, result=ResumeResult.LOAD_RESUME),
        FEEDBACK,
        0xBB130002,
        i32(9) + u8(0x24) + reserved(101),
    ),
    Golden(ContinueRequest(channels=()), REQUEST, 0xBB320006, u32(0), "-none"),
    Golden(ContinueRequest(channels=(2, 0x103)), REQUEST, 0xBB320006, u32(2) + u16(2) + u16(0x103)),
    Golden(
        ContinueFeedback(channel=-1, result=ContinueResult.OK), FEEDBACK, 0xBB230006, i32(-1) + u8(0) + reserved(101)
    ),
    Golden(JumpRequest(step=3, channel=5), REQUEST, 0xBB320005, i32(3) + i32(5) + reserved(101)),
    Golden(
        JumpFeedback(channel=5, result=JumpResult.INVALID_STEP_LIMIT),
        FEEDBACK,
        0xBB230005,
        i32(5) + u8(0x24) + reserved(101),
    ),
    Golden(
        UpdateMetaVariablesRequest(Updates(UPDATES)),
        REQUEST,
        0xBB150002,
        u16(2) + reserved(18) + UPDATES_BYTES,
    ),
    Golden(
        UpdateMetaVariablesRequest(Updates(UPDATES, UpdateHeader.V45)),
        REQUEST,
        0xBB150002,
        u16(2) + u32(0) + reserved(18) + UPDATES_BYTES,
        "-v45",
    ),
    Golden(UpdateMetaVariablesRequest(Updates(())), REQUEST, 0xBB150002, u16(0) + reserved(18), "-none"),
    Golden(
        UpdateMetaVariablesFeedback(channel=3, result=UpdateMetaVariablesResult.UPDATED_WITHIN_200_MS),
        FEEDBACK,
        0xBB510002,
        i32(3) + u8(0x14) + reserved(101),
    ),
    Golden(GetSerialRequest(), REQUEST, 0xBB340001, u32(0) + u8(0) + reserved(101), "-default"),
    Golden(GetSerialRequest(first=7, second=8), REQUEST, 0xBB340001, u32(7) + u8(8) + reserved(101)),
    Golden(GetSerialFeedback(serial=207855, result=1), FEEDBACK, 0xBB430001, u32(207855) + u8(1) + reserved(101)),
    Golden(GetStartDataRequest(channels=(1, 2, 0x304)), REQUEST, 0xCD130001, u32(3) + u16(1) + u16(2) + u16(0x304)),
    Golden(
        GetStartDataFeedback(
            (
                StartData(1, StartDataCode.OK, 2, 1, "Zyklus.sdx", MV, ("cell Ω", ""), ("Step_A",)),
                StartData(2, StartDataCode.EMPTY_TEST_NAME, 0, 0, "", (0.0,) * 16, (), ()),
            )
        ),
        FEEDBACK,
        0xCD310001,
        b"".join(
            (
                u32(2),
                u32(1) + u32(0) + u32(2) + u32(1) + wchar("Zyklus.sdx", 200) + f32(*MV),
                counted("cell Ω") + counted("") + counted("Step_A"),
                u32(2) + u32(35) + u32(0) + u32(0) + wchar("", 200) + f32(*[0.0] * 16),
            )
        ),
    ),
    Golden(
        StartExtendedRequest(
            (
                ExtendedStart(4, "cell-42", "Zyklus.sdx", "Ms. Å", "no comment", 3, STATE),
                ExtendedStart(5, "", ""),
            )
        ),
        REQUEST,
        0xCD130002,
        b"".join(
            (
                u32(2),
                u32(4) + wchar("cell-42", 72) + wchar("Zyklus.sdx", 200) + wchar("Ms. Å", 64) + wchar("no comment", 64),
                u32(3) + STATE_BYTES,
                u32(5) + wchar("", 72) + wchar("", 200) + wchar("", 64) + wchar("", 64) + u32(0) + NEW_STATE_BYTES,
            )
        ),
    ),
    Golden(GetResumeDataRequest(channels=(6,)), REQUEST, 0xCD130003, u32(1) + u16(6)),
    Golden(
        GetResumeDataFeedback(
            (
                ResumeData(
                    channel=6,
                    code=StartDataCode.NO_RESUME_TABLE,
                    step_count=2,
                    test_name="cell-42",
                    schedule="Zyklus.sdx",
                    creator="Ms. Å",
                    comment="none",
                    start_time="2026-01-02 03:04:05",
                    state=STATE,
                    steps=("Step_A", "CC"),
                ),
            )
        ),
        FEEDBACK,
        0xCD310003,
        b"".join(
            (
                u32(1),
                u32(6) + u32(36) + u32(2) + wchar("cell-42", 72) + wchar("Zyklus.sdx", 200) + wchar("Ms. Å", 64),
                wchar("none", 64) + wchar("2026-01-02 03:04:05", 64) + STATE_BYTES,
                counted("Step_A") + counted("CC"),
            )
        ),
    ),
    Golden(
        ResumeExtendedRequest((ExtendedResume(4, "cell-42", "Zyklus.sdx", 3, STATE),)),
        REQUEST,
        0xCD130004,
        u32(1) + u32(4) + wchar("cell-42", 72) + wchar("Zyklus.sdx", 200) + u32(3) + STATE_BYTES,
    ),
    Golden(StartCalibrationRequest(), REQUEST, 0xCD140001, reserved(102)),
    Golden(StartCalibrationFeedback(CalibrationResult.STARTED), FEEDBACK, 0xCD410001, u32(1)),
    Golden(StartCalibrationFeedback(CalibrationResult.FAILED_V45), FEEDBACK, 0xCD410001, u32(2), "-v45"),
    Golden(
        SendMessageRequest("[01/02/2026 03:04:05]<-->[Hallo Ω]"),
        REQUEST,
        0xCD140002,
        wchar("[01/02/2026 03:04:05]<-->[Hallo Ω]", 1024),
    ),
    Golden(SendMessageFeedback(SendMessageResult.SHOWN), FEEDBACK, 0xCD410002, u32(1)),
)
