"""MAVLink 2 message signing (https://mavlink.io/en/guide/message_signing.html): keys, and whose frames are believed."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable
from pathlib import Path

from cvgl.errors import CvglError
from cvgl.mavlink.framing import SIGNATURE, is_signed, source_of

__all__ = ["Signing", "read_key"]

# Signatures count tens of microseconds since the beginning of 2015.
_EPOCH_S = 1_420_070_400
_A_SECOND = 100_000
_KEY = 32


def read_key(path: str | Path) -> bytes:
    """The 32 bytes of a key file: as they are, or as 64 hexadecimal digits.

    Raises:
        CvglError: not readable, or of another length.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as reason:
        raise CvglError(f"not readable: {reason.strerror}", file=path) from reason
    if len(data) == _KEY:
        return data
    try:
        key = bytes.fromhex(data.decode("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != _KEY:
        raise CvglError("not a signing key", file=path, found=f"{len(data)} bytes", expected="32 bytes, or 64 digits")
    return key


class Signing:
    """Tells signed frames that may be believed from others.

    pymavlink's own check notes the time of a frame before it has seen that the signature is right, so that one forged
    frame with a time in the future makes it refuse the true ones; this one notes it afterwards.

    Args:
        key: 32 bytes that both sides have.
        required: refuse frames without a signature.
        wall: Unix seconds.
    """

    def __init__(self, key: bytes, required: bool, wall: Callable[[], float] = time.time) -> None:
        self.key = key
        self.required = required
        self._wall = wall
        self._newest = 0
        self._streams: dict[tuple[int, int, int], int] = {}

    def now(self) -> int:
        """The time of a frame that is sent next: later than every one before and every one received."""
        self._newest = max(self._newest + 1, round((self._wall() - _EPOCH_S) * _A_SECOND))
        return self._newest

    def refusal(self, frame: bytes) -> str:
        """Why a frame is not to be believed; empty if it is."""
        if not is_signed(frame):
            return "not signed" if self.required else ""
        expected = hashlib.sha256(self.key + frame[:-6]).digest()[:6]
        if not hmac.compare_digest(expected, frame[-6:]):
            return "wrongly signed"
        moment = int.from_bytes(frame[-12:-6], "little")
        stream = (frame[-SIGNATURE], *source_of(frame))
        # A new stream may be up to a minute behind, as the standard has it; an old one may only go on.
        local = max(self._newest, round((self._wall() - _EPOCH_S) * _A_SECOND))
        if moment <= self._streams.get(stream, local - 60 * _A_SECOND):
            return "signed in the past"
        self._streams[stream] = moment
        self._newest = max(self._newest, moment)
        return ""
