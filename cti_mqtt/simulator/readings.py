"""A channel -> the record that Get channels info shows."""

from cti_mqtt.cti.messages.channels import AuxOption, AuxReading, BmsReading, ChannelRecord, Extras, SmbReading
from cti_mqtt.simulator.channel import Channel


def record(
    index: int, channel: Channel, options: AuxOption, *, bms_count: int = 0, smb_count: int = 0
) -> ChannelRecord:
    """The reading of a channel at the time it stands at.

    Args:
        index: the channel's number, 0-based.
        channel: the channel.
        options: which additional values were asked for.
        bms_count: how many BMS values the battery has.
        smb_count: how many smart-battery values, numbers and texts in turn.
    """
    run = channel.run
    voltage_v, current_a = channel.voltage_v, channel.current_a
    return ChannelRecord(
        channel=index,
        status=channel.status,
        comm_failure=False,
        schedule=channel.schedule.name if channel.schedule else "",
        test_name=channel.test_name,
        exit_condition=run.exit_condition if run else "N/A",
        step_and_cycle=run.step_and_cycle if run else "",
        barcode=channel.barcode,
        can_config="Simulated.can" if bms_count else "",
        smb_config="Simulated.smb" if smb_count else "",
        master_channel=index,
        test_time=run.test_time_s if run else 0.0,
        step_time=run.step_time_s if run else 0.0,
        voltage=voltage_v,
        current=current_a,
        power=voltage_v * current_a,
        charge_capacity=run.charge_ah if run else 0.0,
        discharge_capacity=run.discharge_ah if run else 0.0,
        charge_energy=run.charge_wh if run else 0.0,
        discharge_energy=run.discharge_wh if run else 0.0,
        internal_resistance=0.0,
        dvdt=run.dvdt if run else 0.0,
        acr=0.0,
        aci=0.0,
        aci_phase=0.0,
        extras=_extras(channel, options, bms_count, smb_count),
    )


def _extras(channel: Channel, options: AuxOption, bms_count: int, smb_count: int) -> Extras:
    state = channel.battery.state
    aux = {"temperature": (AuxReading(state.temperature_c, 0.0),)} if options & AuxOption.AUXILIARY else {}
    bms: tuple[BmsReading, ...] = ()
    smb: tuple[SmbReading, ...] = ()
    if options & AuxOption.BMS:
        values = ((channel.voltage_v, "V"), (state.temperature_c, "degC"), (100 * state.soc, "%"))
        bms = tuple(BmsReading(i + 1, *values[i % len(values)]) for i in range(bms_count))
    if options & AuxOption.SMB:
        entries = ((1000 * channel.voltage_v, "mV"), ("simulated", ""))
        smb = tuple(SmbReading(i + 1, *entries[i % len(entries)]) for i in range(smb_count))
    return Extras(aux, bms, smb)
