"""``cvgl-mavlink``: fixes for PX4 and ArduPilot, from a camera and the autopilot's own telemetry."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from cvgl.cli.common import main
from cvgl.cli.locate import parse_start

__all__ = ["app", "app_main"]

app = typer.Typer(add_completion=False)

_HELP = """
Localise a vehicle and tell its autopilot, over MAVLink 2.

\b
Takes from the autopilot:
  ATTITUDE_QUATERNION or ATTITUDE             attitude and heading
  DISTANCE_SENSOR, ALTITUDE, TERRAIN_REPORT,
  GLOBAL_POSITION_INT (relative_alt)          height above ground, the first of these that is there
  TIMESYNC, HEARTBEAT                         clock and presence
  CAMERA_TRIGGER, CAMERA_IMAGE_CAPTURED       exposures, with --triggered
  LOCAL_POSITION_NED                          velocity, with --velocity
\b
Gives, where there is a fix, and nothing where there is none:
  px4        GLOBAL_POSITION_SENSOR; or VISION_POSITION_ESTIMATE, ODOMETRY
  ardupilot  MAV_CMD_EXTERNAL_POSITION_ESTIMATE; or GPS_INPUT
and HEARTBEAT, and STATUSTEXT when the position is lost and found.

\b
Examples:
  cvgl-mavlink MISSION --device serial:/dev/ttyTHS1:921600 --autopilot px4
  cvgl-mavlink MISSION --device udpin:127.0.0.1:14540 --autopilot px4 --camera rtsp://10.0.0.5/live
  cvgl-mavlink MISSION --device udpout:192.168.1.10:14550 --autopilot ardupilot --signing-key key --signing required
"""


@app.command(help=_HELP)
def run(
    mission: Annotated[Path, typer.Argument(help="The mission folder that cvgl-prepare made.")],
    device: Annotated[
        str,
        typer.Option(help="udpin:ADDRESS:PORT (wait there), udpout:ADDRESS:PORT (call there), serial:PATH[:BAUD]."),
    ],
    autopilot: Annotated[str, typer.Option(help="px4 or ardupilot.")],
    camera: Annotated[
        str, typer.Option(help="A V4L2 device, rtsp://..., a GStreamer pipeline or a video file.")
    ] = "/dev/video0",
    output: Annotated[
        str, typer.Option(help="px4: global, vision, odometry; ardupilot: external, gps. Default: the first.")
    ] = "",
    rate: Annotated[float, typer.Option(help="The most fixes a second; 0: as the output is meant.")] = 0.0,
    start: Annotated[
        str | None, typer.Option(metavar="LAT,LON,SIGMA_M", help="Where the aircraft may be at first.")
    ] = None,
    height: Annotated[str, typer.Option(help="auto, range, clearance, terrain or relative.")] = "auto",
    height_offset: Annotated[float, typer.Option(help="Added to it, metres.")] = 0.0,
    heading: Annotated[bool, typer.Option(help="Take the heading from the autopilot.")] = True,
    velocity: Annotated[bool, typer.Option(help="Take its velocity, while it reports no GNSS fix.")] = False,
    triggered: Annotated[bool, typer.Option(help="Exposures are those of CAMERA_TRIGGER.")] = False,
    camera_delay: Annotated[
        float, typer.Option(min=0.0, max=2.0, help="From exposure to arrival, seconds, where the camera has no stamps.")
    ] = 0.0,
    tracking: Annotated[bool, typer.Option(help="Search where the aircraft can have flown.")] = True,
    coarse: Annotated[bool, typer.Option(help="Send coarse fixes too, with their covariance.")] = False,
    system: Annotated[int, typer.Option(help="The autopilot's system; 0: the first that is heard.")] = 0,
    component: Annotated[int, typer.Option(help="Our component in its system.")] = 197,
    sensor: Annotated[int, typer.Option(help="Number of this sensor: EKF2_AGPn_ID, or the GPS's.")] = 1,
    signing_key: Annotated[Path | None, typer.Option(help="File with the key: 32 bytes, or 64 hex digits.")] = None,
    signing: Annotated[str, typer.Option(help="With a key: accepted (unsigned too) or required.")] = "required",
    request: Annotated[bool, typer.Option(help="Ask the autopilot for the messages.")] = True,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads to compute with.")] = None,
    report: Annotated[float, typer.Option(min=0.1, help="Seconds between the lines that say how it goes.")] = 10.0,
) -> None:
    """Run until interrupted."""
    from cvgl.mavlink.links import open_link, parse_device
    from cvgl.mavlink.node import MavlinkNode
    from cvgl.mavlink.options import Options
    from cvgl.mavlink.signing import Signing, read_key
    from cvgl.node.clock import SteadyClock
    from cvgl.node.video import VideoCamera

    if signing not in ("accepted", "required"):
        raise typer.BadParameter(f"{signing}: accepted or required", param_hint="--signing")
    options = Options(
        autopilot=autopilot,
        output=output,
        rate_hz=rate,
        system=system,
        component=component,
        sensor=sensor,
        height=height,
        height_offset_m=height_offset,
        heading=heading,
        velocity=velocity,
        triggered=triggered,
        tracking=tracking,
        coarse=coarse,
        request=request,
    )
    where = parse_device(device)
    prior = None if start is None else parse_start(start)
    keys = None if signing_key is None else Signing(read_key(signing_key), signing == "required")
    clock = SteadyClock()

    from cvgl import Localizer

    localizer = Localizer.open(mission, threads=threads)
    node = MavlinkNode(localizer, options, open_link(where), keys, clock, _log)
    if prior is not None:
        node.reset(prior)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        video = VideoCamera(camera, node.frame, clock, _log, delay_s=camera_delay)
        node.start()
        video.start()
        print(f"localising for {autopilot} on {device}; stop with Ctrl-C", flush=True)
        while not stop.wait(report):
            _tell(node)
        video.close()
    finally:
        node.close()


def _tell(node: Any) -> None:
    level, text = node.state()
    values = node.values()
    names = ("sent", "fix_rate_hz", "delay_ms_p99", "dropped", "height_source", "clock")
    told = ", ".join(f"{name} {values[name]}" for name in names if values.get(name))
    _log(("info", "warning", "error")[level], f"{text} ({told})")


def _log(level: str, text: str) -> None:
    print(f"{level}: {text}", file=sys.stderr, flush=True)


def app_main() -> None:
    """Entry point of ``cvgl-mavlink``."""
    main(app)


if __name__ == "__main__":
    app_main()
