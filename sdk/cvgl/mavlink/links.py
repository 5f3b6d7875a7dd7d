"""Devices that carry MAVLink: UDP as the one who waits or the one who calls, and serial lines."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import Any, Protocol

from cvgl.errors import CvglError, MissingDependencyError

__all__ = ["Device", "Link", "SerialLink", "UdpLink", "open_link", "parse_device"]

_EXPECTED = "udpin:ADDRESS:PORT, udpout:ADDRESS:PORT or serial:PATH[:BAUD]"
_LARGEST = 65_536
# A serial line that went away is tried again after this long, twice as long each time.
_SHORTEST_S, _LONGEST_S = 0.5, 5.0


@dataclass(frozen=True)
class Device:
    """Where the autopilot is.

    Args:
        kind: ``udpin`` (waits on an address of this computer), ``udpout`` (calls the address) or ``serial``.
        address: host, or path of the serial line.
        number: UDP port, or bits per second.
    """

    kind: str
    address: str
    number: int


def parse_device(text: str) -> Device:
    """A device from its description; ``udp`` stands for ``udpin``, and an address left out for 127.0.0.1.

    Raises:
        CvglError: not such a description.
    """
    kind, _, rest = text.partition(":")
    if kind == "serial" and rest:
        path, colon, baud = rest.rpartition(":")
        return Device(kind, path, _number(text, baud, 10_000_000)) if colon else Device(kind, rest, 57_600)
    kind = "udpin" if kind == "udp" else kind
    if kind not in ("udpin", "udpout") or not rest:
        raise CvglError("not a device", field="device", found=text, expected=_EXPECTED)
    address, _, port = rest.rpartition(":")
    return Device(kind, address.strip("[]") or "127.0.0.1", _number(text, port, 65_535))


class Link(Protocol):
    """Bytes in and out."""

    datagrams: bool

    def receive(self, timeout_s: float) -> tuple[bytes, Any] | None:
        """What came in and from where; None if nothing did."""

    def send(self, data: bytes, to: Any) -> None:
        """Send; ``to`` is where something came from, or None for where the link leads by itself."""

    def close(self) -> None:
        """Let the device go."""


class UdpLink:
    """UDP on one address: what waits hears only what is sent to that address, what calls hears only whom it called.

    Raises:
        CvglError: the address is not this computer's, is not known, or is taken.
    """

    datagrams = True

    def __init__(self, device: Device) -> None:
        try:
            family, _, _, _, address = socket.getaddrinfo(device.address, device.number, type=socket.SOCK_DGRAM)[0]
            self._socket = socket.socket(family, socket.SOCK_DGRAM)
            if device.kind == "udpin":
                self._socket.bind(address)
            else:
                self._socket.connect(address)
        except OSError as reason:
            where = f"{device.address}:{device.number}"
            raise CvglError(f"cannot be used: {reason.strerror}", field="device", found=where) from reason
        self._waits = device.kind == "udpin"

    @property
    def address(self) -> Any:
        """What the socket is bound to."""
        return self._socket.getsockname()

    def receive(self, timeout_s: float) -> tuple[bytes, Any] | None:
        """A datagram and its sender."""
        self._socket.settimeout(timeout_s)
        try:
            return self._socket.recvfrom(_LARGEST)
        except OSError:  # nothing came; or nobody is there yet, and the network says so
            return None

    def send(self, data: bytes, to: Any) -> None:
        """A datagram; what the network does not take is lost, as datagrams are."""
        try:
            if not self._waits:
                self._socket.send(data)
            elif to is not None:
                self._socket.sendto(data, to)
        except OSError:
            return

    def close(self) -> None:
        """Free the address."""
        self._socket.close()


class SerialLink:
    """A serial line, opened again when it went away.

    Raises:
        MissingDependencyError: pyserial is not installed.
        CvglError: no such line.
    """

    datagrams = False

    def __init__(self, device: Device) -> None:
        try:
            import serial
        except ImportError as reason:
            raise MissingDependencyError("this needs pyserial: pip install 'cvgl[mavlink]'") from reason
        self._serial = serial
        self._device = device
        self._pause_s = _SHORTEST_S
        try:
            self._line: Any = self._open()
        except OSError as reason:
            raise CvglError(f"cannot be used: {reason}", field="device", found=device.address) from reason

    def receive(self, timeout_s: float) -> tuple[bytes, Any] | None:
        """What came in."""
        try:
            if self._line is None:
                time.sleep(self._pause_s)
                self._line = self._open()
            self._line.timeout = timeout_s
            data = self._line.read(1)
            data += self._line.read(self._line.in_waiting)
        except (OSError, TypeError):  # unplugged; pyserial raises TypeError where another thread has closed it
            self._lost()
            return None
        self._pause_s = _SHORTEST_S
        return (bytes(data), None) if data else None

    def send(self, data: bytes, to: Any) -> None:
        """Write; lost while the line is away, and where it takes no more."""
        line = self._line
        if line is None:
            return
        try:
            line.write(data)
        except (OSError, TypeError):
            return

    def close(self) -> None:
        """Let the line go."""
        if self._line is not None:
            self._line.close()

    def _open(self) -> Any:
        return self._serial.Serial(self._device.address, self._device.number, write_timeout=0.2, exclusive=True)

    def _lost(self) -> None:
        if self._line is not None:
            self._line.close()
        self._line = None
        self._pause_s = min(2 * self._pause_s, _LONGEST_S)


def open_link(device: Device) -> Link:
    """Open a device.

    Raises:
        CvglError: it cannot be used.
    """
    return SerialLink(device) if device.kind == "serial" else UdpLink(device)


def _number(text: str, number: str, most: int) -> int:
    if not (number.isascii() and number.isdigit()) or not 0 < int(number) <= most:
        raise CvglError("not a device", field="device", found=text, expected=_EXPECTED)
    return int(number)
