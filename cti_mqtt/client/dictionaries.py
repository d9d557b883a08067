"""Typed messages -> the dictionaries of the synchronous API, with the keys that pycti-arbin gave them.

The keys, their order and the types of their values are pycti-arbin's (0.0.13), so that scripts find what they look for.
Channels in here are counted from 0, as on the wire; that too is what those scripts expect.
"""

from typing import Any

from cti_mqtt.cti.commands import BY_CLASS
from cti_mqtt.cti.frame import OVERHEAD, TOKEN
from cti_mqtt.cti.messages.channels import AUX_KINDS, RECORD, ChannelRecord, ChannelsInfoFeedback, Extras
from cti_mqtt.cti.messages.session import LoginFeedback

Dictionary = dict[str, Any]

_HEADER = int.from_bytes(TOKEN, "little")
_COUNT_SIZE = 4  # the number of records in front of them
_AUX_SIZE, _BMS_SIZE, _SMB_SIZE, _NUMBER_SIZE = 8, 12, 8, 8
_BYTE_ORDER_MARK = "\ufeff"


def login_dictionary(info: LoginFeedback) -> Dictionary:
    """What `get_login_feedback` returns; `ip_address` is readable here ("192.0.2.10")."""
    return {
        **_frame(LoginFeedback, OVERHEAD + BY_CLASS[LoginFeedback][1].layout.min_size + len(info.picture)),
        "result": info.result.text,
        "ip_address": info.ip,
        "cycler_sn": info.serial,
        "note": info.note,
        "nick_name": info.nickname,
        "location": info.location,
        "emergency_contact": info.emergency_contact,
        "other_comments": info.comments,
        "email": info.email,
        "call": info.phone,
        "itac": info.itac,
        "version": info.version,
        "allow_control": int(info.allow_control),
        "num_channels": info.channel_count,
        "user_type": int(info.user_type),
        "picture_length": len(info.picture),
    }


def status_dictionary(record: ChannelRecord, *, extras: bool = False) -> Dictionary:
    """What `read_channel_status` returns: s, V, A, W, Ah, Wh, ohm.

    However the cycler split its answer, `number_of_channels` and `msg_length` are those of a frame with this record
    alone.

    Args:
        record: the reading.
        extras: whether to add the keys `bms` and `smb`, which pycti-arbin does not have.
    """
    dictionary = {
        **_frame(ChannelsInfoFeedback, OVERHEAD + _COUNT_SIZE + RECORD.min_size + _size(record.extras)),
        "number_of_channels": 1,
        **_state(record),
        **_measured(record),
        **_counts(record.extras),
        **_auxiliaries(record.extras),
    }
    if extras:
        dictionary["bms"] = [entry_dictionary(entry) for entry in record.extras.bms]
        dictionary["smb"] = [entry_dictionary(entry) for entry in record.extras.smb]
    return dictionary


def entry_dictionary(entry: Any) -> Dictionary:
    """A BMS or SMB value."""
    return {"index": entry.index, "value": entry.value, "unit": entry.unit}


def _frame(message: type[Any], size: int) -> Dictionary:
    return {
        "header": _HEADER,
        "msg_length": size,
        "command_code": int(BY_CLASS[message][1].code),
        "extended_command_code": 0,
    }


def _state(record: ChannelRecord) -> Dictionary:
    return {
        "channel": record.channel,
        "status": record.status.text,
        "comm_failure": int(record.comm_failure),
        "schedule": record.schedule,
        "testname": record.test_name,
        "exit_condition": record.exit_condition,
        "step_and_cycle_format": record.step_and_cycle,
        # ArbinSpoofer writes these three with a byte order mark, and pycti-arbin takes it away again.
        "barcode": record.barcode.removeprefix(_BYTE_ORDER_MARK),
        "can_config_name": record.can_config.removeprefix(_BYTE_ORDER_MARK),
        "smb_config_name": record.smb_config.removeprefix(_BYTE_ORDER_MARK),
        "master_channel": record.master_channel,
    }


def _measured(record: ChannelRecord) -> Dictionary:
    return {
        "test_time_s": record.test_time,
        "step_time_s": record.step_time,
        "voltage_v": record.voltage,
        "current_a": record.current,
        "power_w": record.power,
        "charge_capacity_ah": record.charge_capacity,
        "discharge_capacity_ah": record.discharge_capacity,
        "charge_energy_wh": record.charge_energy,
        "discharge_energy_wh": record.discharge_energy,
        "internal_resistance_ohm": record.internal_resistance,
        "dvdt_vbys": record.dvdt,
        "acr_ohm": record.acr,
        "aci_ohm": record.aci,
        "aci_phase_degrees": record.aci_phase,
    }


def _counts(extras: Extras) -> Dictionary:
    return {
        **{f"aux_{kind}_count": len(extras.aux.get(kind, ())) for kind in AUX_KINDS},
        "bms_count": len(extras.bms),
        "smb_count": len(extras.smb),
    }


def _auxiliaries(extras: Extras) -> Dictionary:
    lists: Dictionary = {}
    for kind in AUX_KINDS:
        readings = extras.aux.get(kind, ())
        lists[f"aux_{kind}"] = [reading.value for reading in readings]
        lists[f"aux_{kind}_dt"] = [reading.dt for reading in readings]
    return lists


def _size(extras: Extras) -> int:
    """Bytes that the variable part takes by v4.5."""
    aux = sum(map(len, extras.aux.values())) * _AUX_SIZE
    bms = sum(_BMS_SIZE + _text_size(entry.unit) for entry in extras.bms)
    smb = sum(
        _SMB_SIZE + (_text_size(entry.value) if isinstance(entry.value, str) else _NUMBER_SIZE) + _text_size(entry.unit)
        for entry in extras.smb
    )
    return aux + bms + smb


def _text_size(text: str) -> int:
    return len(text.encode()) + 1
