"""What a script hands to the synchronous API: its configuration dictionary, and where user and password are."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cti_mqtt.client.session import Credentials
from cti_mqtt.errors import ConfigurationError

M = TypeVar("M", bound=BaseModel)

USERNAME, PASSWORD = "ARBIN_CTI_USERNAME", "ARBIN_CTI_PASSWORD"


class CyclerSettings(BaseModel):
    """The configuration dictionary of `CyclerInterface`; other keys are ignored, so one dictionary can serve both.

    Attributes:
        ip_address: of the PC that MITS Pro runs on, or its name.
        port: of CTI there, as a rule 9031.
        timeout_s: how long to wait for the connection, and for each answer.
        msg_buffer_size: accepted for compatibility, has no effect: messages of any size are read whole.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    ip_address: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)]
    timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3.0
    msg_buffer_size: int = 4096


class ChannelSettings(CyclerSettings):
    """The configuration dictionary of `ChannelInterface`.

    Attributes:
        channel: from 1.
        test_name: what `start_test` calls the test.
        schedule_name: what `assign_schedule` and `start_test` assign.
        capacity_ah: needed on MITS 7 only, where an assignment overwrites the channel's capacity.
    """

    channel: Annotated[int, Field(ge=1)]
    test_name: str | None = None
    schedule_name: str | None = None
    capacity_ah: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


def validated(kind: type[M], config: Mapping[str, Any]) -> M:
    """The configuration dictionary, checked.

    Raises:
        ConfigurationError: with every mistake.
    """
    try:
        return kind.model_validate(dict(config))
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}"
            for detail in error.errors(include_url=False, include_input=False)
        ]
        raise ConfigurationError("config", problems) from None


def credentials_from(env_path: str | os.PathLike[str] | None) -> Credentials:
    """User and password from a file, else from the environment: the order of pycti-arbin. The environment is only read.

    Args:
        env_path: the file, which need not exist; None: `.env` in the working directory.

    Raises:
        ConfigurationError: one of them is set nowhere.
    """
    path = Path(".env") if env_path is None else Path(env_path)
    found = {**os.environ, **{key: value for key, value in dotenv_values(path).items() if value is not None}}
    problems = [
        f"{name}: set neither there nor in the environment" for name in (USERNAME, PASSWORD) if not found.get(name)
    ]
    if problems:
        raise ConfigurationError(str(path), problems)
    return Credentials(found[USERNAME], found[PASSWORD])
