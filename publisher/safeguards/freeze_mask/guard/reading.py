"""A freeze mask from a file."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from publisher.api.freeze_mask import FreezeMask
from publisher.errors import ModelError
from publisher.strict_json import JsonError, strict_object

MAX_BYTES = 64 * 1024 * 1024


def read_mask(path: Path) -> FreezeMask:
    """Read a mask.

    Args:
        path: of ``freeze-mask.json``.

    Raises:
        ModelError: it is not there, too large, or no mask.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(f"is larger than {MAX_BYTES} bytes", where=str(path))
        return FreezeMask.parse(strict_object(path.read_bytes()))
    except (OSError, JsonError) as error:
        raise ModelError(f"the freeze mask cannot be read: {error}", where=str(path)) from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"the freeze mask is malformed: {place}: {first['msg']}", where=str(path)) from error
