"""32-bit floats as text: with the digits that they have, 3.7012 and not 3.7011999130249023; pure."""

from collections.abc import Sequence

import numpy as np
import orjson


def f32_texts(values: Sequence[float]) -> list[str]:
    """Each 32-bit float in JSON, with the fewest digits that tell it from others; what is no number is `null`."""
    if not values:
        return []
    return orjson.dumps(np.array(values, np.float32), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].decode().split(",")


def f64_texts(values: Sequence[float]) -> list[str]:
    """Each 64-bit float in JSON; `null` for what is no number."""
    return orjson.dumps(values)[1:-1].decode().split(",") if values else []


def shortest_float(value: float) -> float:
    """The float with the fewest digits that is `value` as a 32-bit float; what is no number comes back as it is."""
    (text,) = f32_texts([value])
    return value if text == "null" else float(text)
