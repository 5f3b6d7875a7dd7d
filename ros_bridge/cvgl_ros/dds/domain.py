"""Which network the bus may use.

Cyclone DDS takes its settings as XML. Without a word from the user the bridge keeps to the loopback interface, so that
nothing is heard from or told to a network that nobody named.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from xml.sax.saxutils import quoteattr

from cvgl_ros.parameters import ParameterError

__all__ = ["LOOPBACK", "domain_id", "domain_xml", "own_interfaces"]

LOOPBACK = "lo"
_MOST_DOMAIN = 232
# What the kernel allows by net.core.rmem_max is taken, up to this: an image comes in hundreds of datagrams at once.
_RECEIVE_BUFFER = "10MB"
# Larger messages are let go before they are put together: an image of 50 megapixels in four bytes each, and some.
_LARGEST = "210MB"


def domain_id(given: int | None = None) -> int:
    """The domain: what was given, else ROS_DOMAIN_ID, else 0.

    Raises:
        ParameterError: none from 0 to 232.
    """
    text = os.environ.get("ROS_DOMAIN_ID", "") if given is None else str(given)
    try:
        number = int(text or "0")
    except ValueError:
        number = -1
    if not 0 <= number <= _MOST_DOMAIN:
        raise ParameterError("not a domain", field="domain", found=text, expected=f"0 to {_MOST_DOMAIN}")
    return number


def own_interfaces(interfaces: Sequence[str] = ()) -> tuple[str, ...]:
    """The interfaces (names or addresses) that the bridge keeps to; none where CYCLONEDDS_URI decides."""
    if interfaces:
        return tuple(interfaces)
    return () if os.environ.get("CYCLONEDDS_URI", "") else (LOOPBACK,)


def domain_xml(interfaces: Sequence[str] = ()) -> str:
    """Cyclone's settings: the named interfaces (names or addresses) only; without any, what CYCLONEDDS_URI says, and
    without that loopback."""
    own = own_interfaces(interfaces)
    if not own:
        return os.environ["CYCLONEDDS_URI"]
    parts = []
    for interface in own:
        key = "address" if interface[:1].isdigit() or ":" in interface else "name"
        parts.append(f"<NetworkInterface {key}={quoteattr(interface)}/>")
    return (
        f"<CycloneDDS><Domain><General><Interfaces>{''.join(parts)}</Interfaces></General>"
        f'<Internal><SocketReceiveBufferSize min="default" max="{_RECEIVE_BUFFER}"/>'
        f"<MaxSampleSize>{_LARGEST}</MaxSampleSize></Internal></Domain></CycloneDDS>"
    )
