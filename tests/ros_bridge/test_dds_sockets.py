"""Where the bridge's sockets listen: the kernel drops what comes in over an interface that was not named."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cvgl_ros.dds.sockets import indices_of, keep_to, udp_sockets

if not Path("/proc/self/fd").is_dir():
    pytest.skip("no /proc here", allow_module_level=True)

# In namespaces of its own: two interfaces that are joined, the far one in another namespace. It prints how many bytes
# arrive from the far side at a socket on all addresses: without a filter, kept to loopback, kept to the near interface.
_SCRIPT = r'''
import ctypes, os, socket, subprocess, sys, time
from cvgl_ros.dds.sockets import keep_to, udp_sockets

def run(*words):
    subprocess.run(words, check=True, capture_output=True)

talk = """
import socket, sys
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for line in sys.stdin:
    one.sendto(b"hello", ("10.77.0.1", int(line)))
"""
script = "echo; read line; ip link set lo up; ip addr add 10.77.0.2/24 dev far; ip link set far up; echo; exec "
words = ["unshare", "-n", "sh", "-c", script + '"$@"', "sh", sys.executable, "-c", talk]
far = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
far.stdout.readline()
run("ip", "link", "set", "lo", "up")
run("ip", "link", "add", "near", "type", "veth", "peer", "name", "far")
run("ip", "link", "set", "far", "netns", str(far.pid))
run("ip", "addr", "add", "10.77.0.1/24", "dev", "near")
run("ip", "link", "set", "near", "up")
far.stdin.write("\n"); far.stdout.readline()
for kept in (None, [], ["near"]):
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind(("0.0.0.0", 0)); one.settimeout(1.0)
    if kept is not None:
        keep_to({own for own in udp_sockets() if own[0] == one.fileno()}, kept)
    got = 0
    for _ in range(5):
        far.stdin.write(str(one.getsockname()[1]) + "\n")
        try:
            got += len(one.recv(100)); break
        except TimeoutError:
            pass
    print(got)
far.kill()
'''


def test_own_sockets_are_found() -> None:
    before = udp_sockets()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one, socket.socket() as stream:
        one.bind(("127.0.0.1", 0))
        assert {number for number, _ in udp_sockets() - before} == {one.fileno()}
        assert stream.fileno() not in {number for number, _ in udp_sockets()}


def test_what_comes_over_loopback_arrives() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two,
    ):
        one.bind(("0.0.0.0", 0))
        one.settimeout(5.0)
        keep_to({own for own in udp_sockets() if own[0] == one.fileno()}, [])
        two.sendto(b"hello", ("127.0.0.1", one.getsockname()[1]))
        assert one.recv(10) == b"hello"


def test_an_interface_that_is_none() -> None:
    for name in ("no-such-interface", "203.0.113.9", "2001:db8::9"):
        with pytest.raises(OSError):
            indices_of([name])


def test_an_interface_by_its_address() -> None:
    assert indices_of(["127.0.0.1"]) == indices_of(["::1"]) == indices_of(["lo"]) == indices_of([])


def test_what_comes_over_another_interface_does_not() -> None:
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("no unshare or ip here")
    if subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode != 0:
        pytest.skip("network namespaces need rights that are not given here")
    done = subprocess.run(
        ["unshare", "-n", sys.executable, "-c", _SCRIPT],
        capture_output=True,
        text=True,
        timeout=60,
        env=dict(os.environ),
    )
    if "Operation not" in done.stderr or "Unknown device type" in done.stderr:
        pytest.skip("no pairs of interfaces here")
    assert done.stdout.split() == ["5", "0", "5"], done.stderr


def test_every_socket_of_the_bridge_is_kept_to_loopback(serve: Any, answering: Any) -> None:
    before = udp_sockets()
    serve(answering)
    opened = udp_sockets() - before
    assert opened
    for number, _ in opened:
        with socket.socket(fileno=os.dup(number)) as one:
            address, port = one.getsockname()[:2]
            # Bound to loopback, or filtered in the kernel: SO_GET_FILTER tells how many instructions there are.
            assert address.startswith("127.") or one.getsockopt(socket.SOL_SOCKET, 26, 64), port
