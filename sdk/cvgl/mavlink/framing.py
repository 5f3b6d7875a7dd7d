"""MAVLink frames out of bytes: what is cut off, damaged or no MAVLink at all is passed over."""

from __future__ import annotations

from collections.abc import Mapping

from pymavlink.generator.mavcrc import x25crc

__all__ = ["MARKERS", "SIGNATURE", "Splitter", "is_signed", "message_id", "source_of"]

_V1, _V2 = 0xFE, 0xFD
MARKERS = (_V1, _V2)
#: Bytes of a signature: link, time, hash.
SIGNATURE = 13
_SIGNED = 0x01
_HEADERS = {_V1: 6, _V2: 10}
_LONGEST = 10 + 255 + 2 + SIGNATURE


def is_signed(frame: bytes) -> bool:
    """Whether a frame carries a signature."""
    return frame[0] == _V2 and bool(frame[2] & _SIGNED)


def message_id(frame: bytes) -> int:
    """The number of a frame's message."""
    return frame[5] if frame[0] == _V1 else int.from_bytes(frame[7:10], "little")


def source_of(frame: bytes) -> tuple[int, int]:
    """System and component that a frame says it is from."""
    return (frame[3], frame[4]) if frame[0] == _V1 else (frame[5], frame[6])


class Splitter:
    """Finds frames in a stream.

    A frame counts once its checksum is right, so that noise costs the bytes it took and not the messages after it.

    Args:
        extras: byte that each message's number adds to its checksum. Others are not looked for.
    """

    def __init__(self, extras: Mapping[int, int]) -> None:
        self._extras = extras
        self._buffer = b""
        self.damaged = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that are complete now; what is left waits for more."""
        buffer = self._buffer + data
        frames = []
        at = 0
        while True:
            found = [place for marker in MARKERS if (place := buffer.find(marker, at)) >= 0]
            if not found:
                at = len(buffer)
                break
            at = min(found)
            header = _HEADERS[buffer[at]]
            if len(buffer) - at < header:
                break
            head = buffer[at : at + header]
            number = message_id(head)
            if number not in self._extras or (head[0] == _V2 and head[2] & ~_SIGNED):
                at += 1
                continue
            length = header + head[1] + 2 + (SIGNATURE if is_signed(head) else 0)
            if len(buffer) - at < length:
                break
            frame = buffer[at : at + length]
            if self._sound(frame, header, number):
                frames.append(frame)
                at += length
            else:
                self.damaged += 1
                at += 1
        # No frame is longer: what has waited for more than that is none.
        self._buffer = buffer[max(at, len(buffer) - _LONGEST) :]
        return frames

    def clear(self) -> None:
        """Forget what is left; a datagram ends with its last frame."""
        self._buffer = b""

    def _sound(self, frame: bytes, header: int, number: int) -> bool:
        end = header + frame[1]
        checksum = x25crc(bytearray(frame[1:end]))
        checksum.accumulate(bytes([self._extras[number]]))
        return bool(checksum.crc == int.from_bytes(frame[end : end + 2], "little"))
