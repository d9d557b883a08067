"""The operations beyond start and stop, against the simulator."""

import time
from datetime import datetime

import pytest

from cti_mqtt.cti.codes import ChannelStatus
from cti_mqtt.cti.messages.extended import ExtendedResume, ExtendedStart
from cti_mqtt.cti.messages.variables import UpdateHeader
from cti_mqtt.cti.results import (
    CalibrationResult,
    ContinueResult,
    JumpResult,
    ResumeResult,
    SendMessageResult,
    SetMetaVariableResult,
    StartDataCode,
    StartResult,
    UpdateMetaVariablesResult,
)
from cti_mqtt.errors import InvalidRequestError, UnsupportedCommandError, WithdrawnError
from cti_mqtt.simulator import Document, UpdateAnswer
from tests.client.conftest import Serve, connect


class TestLifeOfATest:
    async def test_resume(self, serve: Serve) -> None:
        server = await serve(4)
        async with connect(server) as cycler:
            assert await cycler.resume(2) is ResumeResult.NO_SCHEDULE_ASSIGNED
            await cycler.assign(2, "Rest.sdx")
            await cycler.start([2], "T")
            assert await cycler.resume(2) is ResumeResult.RUNNING_OR_UNSAFE
            await cycler.stop(2)
            assert await cycler.resume(2) is ResumeResult.OK
            assert (await cycler.read_channels())[2].test_name == "T"
            await cycler.stop(2)
            results = await cycler.resume_all()
            assert results[2] == 0
            assert all(results[channel] != 0 for channel in (1, 3, 4))

    async def test_assign_all(self, serve: Serve) -> None:
        server = await serve(4)
        async with connect(server) as cycler:
            assert dict(await cycler.assign_all("Rest.sdx", barcode="B")) == dict.fromkeys(range(1, 5), 0)
            assert {record.barcode for record in (await cycler.read_channels()).values()} == {"B"}
        assert len(server.recorder.commands("assign")) == 1

    @pytest.mark.parametrize("names_channel", [True, False])
    async def test_continue(self, serve: Serve, names_channel: bool) -> None:
        """Successes may come without their channel."""
        server = await serve(4, start_names_channel=names_channel)
        async with connect(server) as cycler:
            await cycler.assign(1, "Pause.sdx")
            await cycler.start([1], "T")
            steps = (await cycler.get_start_data([1]))[1].steps
            for step in range(1, len(steps) + 1):
                await cycler.jump(1, step)
                if (await cycler.read_channels())[1].status is ChannelStatus.PAUSE:
                    break
            results = await cycler.continue_tests([1, 2])
            assert dict(results) == {1: ContinueResult.OK, 2: ContinueResult.NOT_PAUSED}
            assert (await cycler.read_channels())[1].status is not ChannelStatus.PAUSE
        assert len(server.recorder.commands("continue")) == 1

    async def test_jump(self, serve: Serve) -> None:
        server = await serve(4)
        async with connect(server) as cycler:
            assert await cycler.jump(1, 2) is JumpResult.NOT_RUNNING
            await cycler.assign(1, "CCCV.sdx")
            await cycler.start([1], "T")
            assert await cycler.jump(1, 2) is JumpResult.OK
            assert "] 2: " in (await cycler.read_channels())[1].step_and_cycle
            assert await cycler.jump(1, 99) is JumpResult.OK
            assert (await cycler.read_channels())[1].status is ChannelStatus.FINISHED
            with pytest.raises(InvalidRequestError, match="no step 0"):
                await cycler.jump(1, 0)

    async def test_gates_hold_for_all_of_them(self, serve: Serve) -> None:
        def closed() -> None:
            raise WithdrawnError("no")

        server = await serve(4)
        async with connect(server) as cycler:
            start = [ExtendedStart(0, "T", "Rest.sdx")]
            for attempt in (
                cycler.resume(1, gate=closed),
                cycler.resume_all(gate=closed),
                cycler.continue_tests([1], gate=closed),
                cycler.jump(1, 1, gate=closed),
                cycler.assign_all("Rest.sdx", gate=closed),
                cycler.update_meta_variables({1: {1: 1.0}}, gate=closed),
                cycler.start_extended(start, gate=closed),
                cycler.resume_extended([ExtendedResume(0, "T", "Rest.sdx")], gate=closed),
            ):
                with pytest.raises(WithdrawnError):
                    await attempt
        assert {entry["command"] for entry in server.recorder.entries} == {"login"}


class TestUpdates:
    @pytest.mark.parametrize("answer", UpdateAnswer)
    @pytest.mark.parametrize("header", UpdateHeader)
    async def test_one_packet(self, serve: Serve, answer: UpdateAnswer, header: UpdateHeader) -> None:
        server = await serve(4, advanced_answer=answer)
        async with connect(server) as cycler:
            await cycler.assign_all("ClosedLoop.sdx")
            await cycler.start([1, 2], "T")
            results = await cycler.update_meta_variables({1: {1: 1.0, 2: 5.0}, 2: {1: 2.0}}, header=header)
            assert dict(results) == dict.fromkeys((1, 2), UpdateMetaVariablesResult.OK)
            readings = await cycler.read_channels()
            assert (readings[1].current, readings[2].current) == (1.0, 2.0)
        assert len(server.recorder.commands("update_meta_variables")) == 1

    async def test_packets_keep_their_distance(self, serve: Serve) -> None:
        server = await serve(16)
        async with connect(server) as cycler:
            await cycler.assign_all("ClosedLoop.sdx")
            await cycler.start(list(range(1, 17)), "T")
            began = time.monotonic()
            values = {channel: dict.fromkeys(range(1, 16), 0.5) for channel in range(1, 17)}  # 240 values
            results = await cycler.update_meta_variables(values)
            assert set(results.values()) == {UpdateMetaVariablesResult.OK}
            await cycler.update_meta_variables({1: {1: 1.0}})
            assert time.monotonic() - began >= 0.4
        assert len(server.recorder.commands("update_meta_variables")) == 3

    async def test_channels_answer_for_themselves(self, serve: Serve) -> None:
        server = await serve(4, advanced_answer=UpdateAnswer.CHANNEL)
        async with connect(server) as cycler:
            await cycler.assign(1, "ClosedLoop.sdx")
            await cycler.start([1], "T")
            results = await cycler.update_meta_variables({1: {1: 1.0}, 2: {1: 1.0}})
            assert dict(results) == {1: UpdateMetaVariablesResult.OK, 2: UpdateMetaVariablesResult.NOT_RUNNING}

    async def test_a_server_that_knows_no_packets(self, serve: Serve) -> None:
        server = await serve(4, unknown=frozenset({"update_meta_variables"}))
        async with connect(server) as cycler:
            await cycler.assign(1, "ClosedLoop.sdx")
            await cycler.start([1], "T")
            for _ in range(2):
                results = await cycler.update_meta_variables({1: {1: 1.0, 2: 2.0}, 2: {1: 1.0}})
                assert dict(results) == {1: SetMetaVariableResult.OK, 2: SetMetaVariableResult.NOT_RUNNING}
        assert len(server.recorder.commands("update_meta_variables")) == 1
        assert len(server.recorder.commands("set_meta_variable")) == 6

    async def test_without_falling_back(self, serve: Serve) -> None:
        server = await serve(4, unknown=frozenset({"update_meta_variables"}))
        async with connect(server) as cycler:
            for _ in range(2):
                with pytest.raises(UnsupportedCommandError):
                    await cycler.update_meta_variables({1: {1: 1.0}}, fall_back=False)
        assert [entry["command"] for entry in server.recorder.entries] == ["login", "update_meta_variables"]


class TestTheCycler:
    async def test_serial_and_message(self, serve: Serve) -> None:
        server = await serve(4)
        async with connect(server) as cycler:
            assert await cycler.get_serial() == 1
            shown = await cycler.send_message("warm", datetime(2026, 1, 2, 3, 4, 5))  # noqa: DTZ001  # for people
            assert shown is SendMessageResult.SHOWN
            with pytest.raises(InvalidRequestError, match="too long"):
                await cycler.send_message("x" * 1024, datetime(2026, 1, 2, 3, 4, 5))  # noqa: DTZ001
        assert server.recorder.commands("send_message")[0]["arguments"]["message"] == "2026-01-02 03:04:05<-->warm"

    @pytest.mark.parametrize("document", Document)
    async def test_calibration(self, serve: Serve, document: Document) -> None:
        server = await serve(4, calibration=document)
        async with connect(server) as cycler:
            assert await cycler.start_calibration() is CalibrationResult.STARTED
            await cycler.assign(1, "Rest.sdx")
            await cycler.start([1], "T")
            assert await cycler.start_calibration() is not CalibrationResult.STARTED

    async def test_start_data_and_extended_start(self, serve: Serve) -> None:
        server = await serve(4)
        async with connect(server) as cycler:
            await cycler.assign(2, "CCCV.sdx")
            data = await cycler.get_start_data([2, 2])
            assert (data[2].schedule, data[2].steps[0], len(data[2].meta_variables)) == ("CCCV.sdx", "Step_A", 16)
            results = await cycler.start_extended([ExtendedStart(1, "T", "CCCV.sdx", start_step=1)])
            assert dict(results) == {2: StartResult.OK}
            assert "] 2: " in (await cycler.read_channels())[2].step_and_cycle
            with pytest.raises(InvalidRequestError, match="one test name"):
                await cycler.start_extended([ExtendedStart(1, "T", "a"), ExtendedStart(2, "U", "a")])

    async def test_resume_data_and_extended_resume(self, serve: Serve) -> None:
        server = await serve(4)
        async with connect(server) as cycler:
            assert (await cycler.get_resume_data([1]))[1].code is StartDataCode.NO_RESUME_TABLE
            await cycler.assign(1, "CCCV.sdx")
            await cycler.start([1], "T")
            await cycler.stop(1)
            data = (await cycler.get_resume_data([1]))[1]
            assert (data.test_name, data.schedule, data.code) == ("T", "CCCV.sdx", StartDataCode.OK)
            results = await cycler.resume_extended([ExtendedResume(0, "T", "CCCV.sdx", 2, data.state)])
            assert dict(results) == {1: ResumeResult.OK}
            assert "] 3: " in (await cycler.read_channels())[1].step_and_cycle
