"""A component beside the autopilot: camera frames and the autopilot's telemetry in, fixes out, over MAVLink 2.

It answers to one autopilot: the first that is heard (signed, where signatures are required) at one address. What others
send is not taken, and nothing is sent to them; another autopilot is taken only when the first has been silent for
seconds. No message stops the node: what cannot be used is counted, with its reason.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymavlink.dialects.v20 import ardupilotmega as dialect

from cvgl.errors import CvglError, FrameError
from cvgl.fix import Fix
from cvgl.geo import LocalFrame
from cvgl.mavlink import outgoing
from cvgl.mavlink.framing import Splitter, message_id, source_of
from cvgl.mavlink.links import Link
from cvgl.mavlink.options import Options
from cvgl.mavlink.outgoing import Target, Times
from cvgl.mavlink.rate import RateLimit
from cvgl.mavlink.signing import Signing
from cvgl.mavlink.telemetry import MESSAGES, Telemetry
from cvgl.mavlink.timesync import ClockOffset, Exchange
from cvgl.node.attitude import Attitude
from cvgl.node.clock import SteadyClock
from cvgl.node.health import ERROR, OK
from cvgl.node.log import harmless
from cvgl.node.tracks import Track
from cvgl.node.worker import Answer, Locator, Pace, Paired, Worker

__all__ = ["MavlinkNode"]

_AUTOPILOT = 1  # MAV_COMP_ID_AUTOPILOT1
_KINDS = {"ardupilot": dialect.MAV_AUTOPILOT_ARDUPILOTMEGA, "px4": dialect.MAV_AUTOPILOT_PX4}
_SILENT_S = 5.0
_TICK_S = 0.02
_HEARTBEAT_S = 1.0
# Often until the clocks are known, then often enough for their drift.
_SYNC_FAST_S, _SYNC_SLOW_S = 0.1, 0.5
_QUESTIONS = 20
_REQUEST_S = 5.0
_TRIGGER_S = 1.0
_JUMP_S = 1.0
_TEXT = 50
# Autopilots fill a network packet; what is longer is cut.
_LONGEST_DATAGRAM = 4096
_LISTENED = {"HEARTBEAT", "TIMESYNC", "COMMAND_ACK", *MESSAGES}
_NUMBERS = {m.msgname: number for number, m in dialect.mavlink_map.items() if m.msgname in _LISTENED}
_EXTRAS = {number: dialect.mavlink_map[number].crc_extra for number in _NUMBERS.values()}


class MavlinkNode:
    """Joins a localiser to an autopilot. Frames come in by ``frame``, from one thread.

    Args:
        localizer: what ``cvgl.Localizer.open`` returns. The node's worker is the only one to use it.
        options: see there.
        link: where the autopilot is; the node closes it.
        signing: whose frames are believed, and what signs ours; None without signatures.
        now: nanoseconds; the clock of frames, which TIMESYNC tells the autopilot.
        log: called with ``"error"``, ``"warning"`` or ``"info"`` and a text for people.
    """

    def __init__(
        self,
        localizer: Locator,
        options: Options,
        link: Link,
        signing: Signing | None = None,
        now: Callable[[], int] | None = None,
        log: Callable[[str, str], None] = lambda level, text: None,
    ) -> None:
        self._options = options
        self._localizer = localizer
        self._link = link
        self._signing = signing
        self._now = now or SteadyClock()
        self._log = harmless(log)
        self._offset = ClockOffset()
        self._telemetry = Telemetry(self._offset, options.height)
        self._worker = Worker(localizer, self, self._now, log)

        self._reader = dialect.MAVLink(None)
        self._writer = dialect.MAVLink(None, options.system or 1, options.component)
        if signing is not None:
            self._writer.signing.secret_key = signing.key
            self._writer.signing.sign_outgoing = True
        self._sending = threading.Lock()
        self._splitter = Splitter(_EXTRAS)
        self._counts: Counter[str] = Counter()  # by the receiving thread alone, but for what is sent
        self._target: Target | None = None
        self._peer: Any = None
        self._heard_at = -1e9  # seconds, steady
        self._limit = RateLimit(options.rate_hz)
        self._stranger_said = ""
        self._questions: list[int] = []
        self._latest: dict[str, float] = {}
        self._due: dict[str, float] = {}
        self._fixed_at = -1e9
        self._told: bool | None = None
        self._reason = "no frame yet"
        self._acknowledged: int | None = None
        self._stopping = threading.Event()
        self._receiver = threading.Thread(target=self._receive, name="cvgl-mavlink", daemon=True)

    def start(self) -> None:
        """Begin to listen and to answer."""
        self._worker.start()
        self._receiver.start()

    def close(self) -> None:
        """Finish the frame, stop, and let the link go."""
        self._stopping.set()
        self._worker.close()
        if self._receiver.is_alive():
            self._receiver.join()
        self._link.close()

    def is_alive(self) -> bool:
        """Whether both threads run."""
        return self._worker.is_alive() and self._receiver.is_alive()

    def reset(self, prior: Any) -> None:
        """Begin a sequence around a prior."""
        self._worker.reset(prior)

    def frame(self, image: NDArray[np.uint8], stamp: int, pixels: str = "bgr") -> None:
        """A picture of the camera.

        Args:
            image: in the layout that ``pixels`` names (see :class:`cvgl.Frame`).
            stamp: of its exposure on the node's clock; of its arrival where exposures are ``triggered``.
        """
        with self._worker.changed:
            self._worker.health.arrived()
            if self._options.triggered:
                found = self._telemetry.trigger_before(stamp, _TRIGGER_S)
                if found is None:
                    self._worker.health.refuse(f"camera: no trigger within {_TRIGGER_S:g} s before the frame")
                    return
                stamp = found
            self._worker.put((image, pixels), stamp)

    def state(self) -> tuple[int, str]:
        """Level (``cvgl.node.health``) and a sentence about now."""
        if self._target is None:
            return ERROR, "autopilot: not heard" + (f" ({self._stranger_said})" if self._stranger_said else "")
        if time.monotonic() - self._heard_at > _SILENT_S:
            return ERROR, f"autopilot: silent for {time.monotonic() - self._heard_at:.0f} s"
        sources = ("height", "attitude")
        with self._worker.changed:
            return self._worker.health.state(self._options.camera_timeout_s, sources)

    def values(self) -> dict[str, str]:
        """What there is to report, by name."""
        with self._worker.changed:
            values = self._worker.health.values(self._worker.dropped)
            values["telemetry_clock_jumps"] = str(self._telemetry.jumps)
            values["height_source"] = self._telemetry.last_height
        now = self._now()
        values["autopilot"] = "" if self._target is None else f"{self._target.system}"
        values["clock"] = f"{self._offset.uncertainty(now) * 1e-6:.2f} ms" if self._offset.known else "not known"
        values["clock_jumps_autopilot"] = str(self._offset.jumps)
        values["damaged"] = str(self._splitter.damaged)
        for name in ("foreign", "undecodable", "not signed", "wrongly signed", "signed in the past"):
            values[name.replace(" ", "_")] = str(self._counts[name])
        for name in ("sent", "withheld", "accepted", "declined"):
            values[name] = str(self._counts[name])
        values["engine"] = str(getattr(self._localizer.model, "runtime", ""))
        return values

    # -- what the worker asks for --------------------------------------------------------------------------------

    def pace(self) -> Pace:
        """As the options have it."""
        return Pace(self._options.tracking, not self._options.coarse, self._options.wait_s, _JUMP_S)

    def awaited(self) -> Sequence[Track[Any]]:
        """The attitude: it comes often enough to be worth waiting for."""
        return (self._telemetry.attitudes,)

    def paired(self, stamp: int) -> Paired:
        """Telemetry at an exposure.

        Raises:
            FrameError: no height near it.
        """
        attitude = self._telemetry.attitude_at(stamp)
        if attitude.pitch is None:
            self._worker.health.counts["without_attitude"] += 1
            self._worker.health.counts["without_heading"] += self._options.heading
        height = self._telemetry.height_at(stamp, attitude) + self._options.height_offset_m
        velocity = self._telemetry.velocity_at(stamp, self._now()) if self._options.velocity else None
        heading = attitude.heading if self._options.heading else None
        return Paired(height, Attitude(heading, attitude.pitch, attitude.roll), velocity)

    def picture(self, message: Any) -> tuple[NDArray[np.uint8], str]:
        """What ``frame`` was given."""
        image, pixels = message
        return image, pixels

    def answered(self, answer: Answer) -> None:
        """Send a fix; nothing where there is none."""
        self._reason = answer.fix.reason
        if not answer.fix:
            return
        now = time.monotonic()
        self._fixed_at = now
        if not self._limit.allows(now):
            self._counts["withheld"] += 1
            return
        message = self._message(answer.fix, Times(answer.stamp, self._now()))
        if message is not None:
            self._counts["sent"] += self._send(message)

    def refused(self, stamp: int, reason: str) -> None:
        """Keep why; ``state`` and the text on loss tell it."""
        self._reason = reason

    def _message(self, fix: Fix, times: Times) -> Any:
        target, options = self._target, self._options
        if target is None:
            return None
        if options.output == "global":
            return outgoing.global_position(dialect, fix, times, target, options.sensor)
        if options.output == "external":
            return outgoing.external_position(dialect, fix, times, target)
        if options.output == "gps":
            return outgoing.gps_input(dialect, fix, times, options.sensor)
        if self._telemetry.origin is None:
            self._counts["withheld"] += 1
            return None
        origin = LocalFrame(*self._telemetry.origin)
        resets = self._worker.health.counts["clock_jumps"]
        make = outgoing.vision_position if options.output == "vision" else outgoing.odometry
        return make(dialect, fix, times, origin, resets)

    # -- the link ------------------------------------------------------------------------------------------------

    def _send(self, message: Any) -> bool:
        """Send to the autopilot; before one is heard only a link that leads to it by itself carries anything."""
        with self._sending:
            if self._signing is not None:
                self._writer.signing.timestamp = self._signing.now()
            try:
                packed = message.pack(self._writer)
            except Exception as error:  # a number that a field cannot hold must not end the flight
                self._log("error", f"not sent: {message.get_type()}: {error!r}")
                return False
            self._writer.seq = (self._writer.seq + 1) % 256
            self._link.send(packed, self._peer)
        return True

    def _receive(self) -> None:
        while not self._stopping.is_set():
            try:
                came = self._link.receive(_TICK_S)
                if came is not None:
                    self._take(*came)
                self._tick(time.monotonic())
            except Exception:  # whatever one message does, the next one is still to be read
                self._counts["undecodable"] += 1
                self._log("error", traceback.format_exc())

    def _take(self, data: bytes, sender: Any) -> None:
        if self._target is not None and sender != self._peer and time.monotonic() - self._heard_at <= _SILENT_S:
            # Not even looked into: a stranger must not keep the processor busy.
            self._counts["foreign"] += 1
            return
        frames = self._splitter.feed(data[:_LONGEST_DATAGRAM] if self._link.datagrams else data)
        if self._link.datagrams:
            self._splitter.clear()
        for frame in frames:
            # Before its signature is looked at: what is not the autopilot's must not cost more than this.
            system, component = source_of(frame)
            beats = message_id(frame) == _NUMBERS["HEARTBEAT"]
            if component != _AUTOPILOT or not (beats or self._is_ours(system, sender)):
                self._counts["foreign"] += 1
                continue
            refusal = self._signing.refusal(frame) if self._signing is not None else ""
            if refusal:
                self._counts[refusal] += 1
                continue
            try:
                message = self._reader.decode(bytearray(frame))
                self._handle(message, system, sender)
            except (FrameError, CvglError) as error:
                with self._worker.changed:
                    reason = f"{dialect.mavlink_map[message_id(frame)].msgname}: {error}"
                    self._worker.health.refuse(reason, "telemetry_refused")
            except Exception as error:  # pymavlink raises more than its own error on hostile contents
                self._counts["undecodable"] += 1
                with self._worker.changed:
                    self._worker.health.refuse(f"not decodable: {error!r}", "malformed")

    def _is_ours(self, system: int, sender: Any) -> bool:
        return self._target is not None and system == self._target.system and sender == self._peer

    def _handle(self, message: Any, system: int, sender: Any) -> None:
        kind = message.get_type()
        if kind == "HEARTBEAT":
            self._meet(message, system, sender)
        elif kind == "TIMESYNC":
            self._synchronise(message)
        elif kind == "COMMAND_ACK":
            self._acknowledge(message)
        else:
            now = self._now()
            self._latest[kind] = time.monotonic()
            with self._worker.changed:
                source = self._telemetry.take(message, now)
                if source:
                    self._worker.health.heard(source)
                    self._worker.changed.notify_all()

    def _meet(self, message: Any, system: int, sender: Any) -> None:
        if message.autopilot == dialect.MAV_AUTOPILOT_INVALID or self._options.system not in (0, system):
            return
        now = time.monotonic()
        other = [name for name, number in _KINDS.items() if number == message.autopilot]
        if other and other[0] != self._options.autopilot:
            said = f"system {system} is {other[0]}, not {self._options.autopilot}"
            if said != self._stranger_said:
                self._stranger_said = said
                self._log("error", said)
            return
        if self._is_ours(system, sender):
            self._heard_at = now
            return
        if self._target is not None and now - self._heard_at <= _SILENT_S:
            self._counts["foreign"] += 1
            return
        with self._sending:
            self._target, self._peer = Target(system), sender
            self._writer.srcSystem = system
        self._heard_at = now
        self._questions.clear()
        self._log("info", f"autopilot: system {system}")

    def _synchronise(self, message: Any) -> None:
        now = self._now()
        if message.tc1 == 0:
            self._send(dialect.MAVLink_timesync_message(now, message.ts1))
        elif message.ts1 in self._questions:
            # Only to what was asked: others on the link ask too, and anybody can answer what nobody asked.
            self._questions.remove(message.ts1)
            with self._worker.changed:
                self._offset.add(Exchange(message.ts1, message.tc1, now))

    def _acknowledge(self, message: Any) -> None:
        if message.command != dialect.MAV_CMD_EXTERNAL_POSITION_ESTIMATE:
            return
        accepted = message.result == dialect.MAV_RESULT_ACCEPTED
        self._counts["accepted" if accepted else "declined"] += 1
        if message.result != self._acknowledged:
            self._acknowledged = message.result
            result = dialect.enums["MAV_RESULT"].get(message.result)
            name = result.name if result is not None else str(message.result)
            self._log("info" if accepted else "warning", f"autopilot: external position: {name}")

    # -- what is sent by the clock -------------------------------------------------------------------------------

    def _tick(self, now: float) -> None:
        if self._is_due("heartbeat", now, _HEARTBEAT_S):
            self._send(self._heartbeat())
        if self._target is None:
            return
        if self._is_due("timesync", now, _SYNC_SLOW_S if self._offset.known else _SYNC_FAST_S):
            asked = self._now()
            self._questions = [*self._questions[-_QUESTIONS:], asked]
            self._send(dialect.MAVLink_timesync_message(0, asked))
        if self._options.request and self._is_due("request", now, _REQUEST_S):
            self._request(now)
        self._tell(now)

    def _is_due(self, what: str, now: float, period_s: float) -> bool:
        if now < self._due.get(what, -1e9):
            return False
        self._due[what] = now + period_s
        return True

    def _heartbeat(self) -> Any:
        level, _ = self.state()
        if level == OK:
            status = dialect.MAV_STATE_ACTIVE
        else:
            status = dialect.MAV_STATE_CRITICAL if level == ERROR else dialect.MAV_STATE_STANDBY
        return dialect.MAVLink_heartbeat_message(
            dialect.MAV_TYPE_ONBOARD_CONTROLLER, dialect.MAV_AUTOPILOT_INVALID, 0, 0, status, 3
        )

    def _request(self, now: float) -> None:
        """Ask for what is needed and does not come."""
        target = self._target
        if target is None:
            return
        for name, rate in MESSAGES.items():
            if rate and now - self._latest.get(name, -1e9) > _REQUEST_S:
                self._send(self._command(target, dialect.MAV_CMD_SET_MESSAGE_INTERVAL, _NUMBERS[name], 1e6 / rate))
        if self._options.output in ("vision", "odometry") and self._telemetry.origin is None:
            self._send(self._command(target, dialect.MAV_CMD_REQUEST_MESSAGE, _NUMBERS["GPS_GLOBAL_ORIGIN"], 0.0))

    @staticmethod
    def _command(target: Target, command: int, first: float, second: float) -> Any:
        return dialect.MAVLink_command_long_message(
            target.system, target.component, command, 0, first, second, 0.0, 0.0, 0.0, 0.0, 0.0
        )

    def _tell(self, now: float) -> None:
        """Loss and recovery, as text for the pilot."""
        found = now - self._fixed_at <= self._options.lost_s
        if found == self._told or (self._told is None and not found):
            return
        self._told = found
        if found:
            text, severity = "cvgl: position found", dialect.MAV_SEVERITY_INFO
        else:
            _, state = self.state()
            reason = state if state.startswith(("camera", "telemetry", "autopilot")) else self._reason
            text, severity = f"cvgl: position lost: {reason}", dialect.MAV_SEVERITY_WARNING
        # A text of 50 characters has no zero at its end.
        self._send(dialect.MAVLink_statustext_message(severity, text.encode("ascii", "replace")[:_TEXT]))
