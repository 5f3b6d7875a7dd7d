"""Keeps Cyclone's sockets to the interfaces that were named.

Cyclone DDS binds the sockets that receive to all addresses, and has no setting against it. So each gets a filter in the
kernel (classic BPF, ``SO_ATTACH_FILTER``), which drops what came in over another interface before Cyclone sees it. The
loopback interface is always let through: what comes in over it is of this computer.
"""

from __future__ import annotations

import ctypes
import fcntl
import ipaddress
import os
import socket
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

__all__ = ["indices_of", "keep_to", "udp_sockets"]

_SO_ATTACH_FILTER = 26
_SIOCGIFADDR = 0x8915
# linux/filter.h: load the index of the interface; jump if equal; return a number of bytes to keep.
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_INTERFACE_INDEX = 0xFFFFF000 + 8  # SKF_AD_OFF + SKF_AD_IFINDEX
_ALL = 0xFFFFFFFF
_MOST = 64


def udp_sockets() -> set[tuple[int, int]]:
    """File descriptors and inodes of this process's UDP sockets."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            about = os.fstat(int(name))
            if not stat.S_ISSOCK(about.st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as one:
                if one.family in (socket.AF_INET, socket.AF_INET6) and one.type == socket.SOCK_DGRAM:
                    found.add((int(name), about.st_ino))
        except OSError:  # closed in the meantime
            continue
    return found


def indices_of(interfaces: Iterable[str]) -> set[int]:
    """Indices of interfaces by name or IP address; of loopback as well.

    Raises:
        OSError: no such interface.
    """
    return {socket.if_nametoindex("lo"), *(_index_of(one) for one in interfaces)}


def _index_of(interface: str) -> int:
    try:
        address = ipaddress.ip_address(interface)
    except ValueError:
        return socket.if_nametoindex(interface)
    if address.version == 6:
        for line in Path("/proc/net/if_inet6").read_text(encoding="ascii").splitlines():
            digits, number, *_ = line.split()
            if int(digits, 16) == int(address):
                return int(number, 16)
    else:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            for index, name in socket.if_nameindex():
                try:
                    found = fcntl.ioctl(one, _SIOCGIFADDR, struct.pack("256s", name.encode()))
                except OSError:  # has none
                    continue
                if found[20:24] == address.packed:
                    return index
    raise OSError(f"no interface has the address {interface}")


def keep_to(sockets: Iterable[tuple[int, int]], interfaces: Iterable[str]) -> None:
    """Let sockets receive over some interfaces only.

    Args:
        sockets: of ``udp_sockets``.
        interfaces: names or IP addresses.

    Raises:
        OSError: no such interface, or a kernel that cannot.
        ValueError: too many interfaces.
    """
    program = _program(sorted(indices_of(interfaces)))
    lines = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: a count, and where the instructions lie.
    told = struct.pack("@HP", len(program) // 8, ctypes.addressof(lines))
    for number, _ in sockets:
        with socket.socket(fileno=os.dup(number)) as one:
            one.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, told)


def _program(indices: list[int]) -> bytes:
    """Instructions: everything of a packet if its interface is one of these, else nothing."""
    if len(indices) > _MOST:
        raise ValueError(f"{len(indices)} interfaces, at most {_MOST}")
    lines = [(_LOAD_WORD, 0, 0, _INTERFACE_INDEX)]
    for at, index in enumerate(indices):
        # True: over the other comparisons and the refusal behind them.
        lines.append((_JUMP_IF_EQUAL, len(indices) - at, 0, index))
    lines += [(_RETURN, 0, 0, 0), (_RETURN, 0, 0, _ALL)]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)
