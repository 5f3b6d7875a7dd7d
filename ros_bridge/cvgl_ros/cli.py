"""``cvgl-ros``: the bridge on a DDS bus, for vehicles that have no ROS installed."""

from __future__ import annotations

import os
import signal
import sys
import threading
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cvgl.cli.common import main
from cvgl.errors import CvglError, MissingDependencyError
from cvgl_ros.parameters import ParameterError, Parameters, read_parameters

if TYPE_CHECKING:
    from cvgl_ros.bridge import Bridge

__all__ = ["app", "app_main"]

app = typer.Typer(add_completion=False)
_NODE = "localizer"

_HELP = """
Localise a vehicle and publish its position to ROS 2, without ROS.

The command joins a DDS domain as a ROS 2 node would. It takes a camera and telemetry and gives fixes; every ROS 2
graph in the same domain and on the same network sees its topics.

\b
Takes (rename with --remap):
  image, image/compressed  sensor_msgs, stamped with the exposure
  camera_info              sensor_msgs, where use_camera_info is true
  imu or odometry          attitude and heading; or heading, a Float64
  range, height, odometry  height above ground; or altitude
  prior, prior_pose        NavSatFix, PoseWithCovarianceStamped
  trigger                  std_msgs/Empty: search the whole map
\b
Gives, under visual_localization/:
  fix                      NavSatFix, once altitude_source is set
  pose                     PoseWithCovarianceStamped in the map frame
  map_origin               where that frame begins (latched)
  status                   for each frame, and why there is no fix
  trigger_localization     std_srvs/Trigger, a service
and /diagnostics once a second.

\b
Examples:
  cvgl-ros MISSION --set altitude_source=planar
  cvgl-ros MISSION --params my.yaml --interface eth0 --domain 5
  cvgl-ros MISSION --remap image:=/camera/image_raw
  cvgl-ros MISSION --set camera_source=/dev/video0

Without --interface the bus stays on the loopback interface, unless CYCLONEDDS_URI says otherwise. Parameters that may
change while flying are read again when the parameter file changes. --write-params gives a file that explains each.
"""


def _write_params(path: Path | None) -> None:
    if path is None:
        return
    if path.exists():
        raise ParameterError("is there already", file=path)
    path.write_bytes((files("cvgl_ros") / "localizer.yaml").read_bytes())
    print(f"written: {path}")
    raise typer.Exit()


@app.command(help=_HELP)
def run(
    mission: Annotated[Path, typer.Argument(help="The mission folder that cvgl-prepare made.")],
    params: Annotated[Path | None, typer.Option(help="Parameter file in ROS layout.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="One parameter, NAME=VALUE; more than once.")] = None,
    domain: Annotated[int | None, typer.Option(help="DDS domain; else ROS_DOMAIN_ID, else 0.")] = None,
    interface: Annotated[
        list[str] | None, typer.Option(help="Network interface (name or address); more than once. Default: loopback.")
    ] = None,
    namespace: Annotated[str, typer.Option(help="Namespace of all relative names.")] = "/",
    remap: Annotated[list[str] | None, typer.Option(help="Another name for a topic, FROM:=TO; more than once.")] = None,
    write_params: Annotated[
        Path | None,
        typer.Option(callback=_write_params, is_eager=True, help="Write every parameter, explained, and end."),
    ] = None,
    distro: Annotated[str, typer.Option(help="The ROS graph's: humble or jazzy.")] = "humble",
) -> None:
    """Run until interrupted."""
    from cvgl import Localizer
    from cvgl_ros.bridge import Bridge

    if distro not in ("humble", "jazzy"):
        raise typer.BadParameter(f"{distro}: humble or jazzy", param_hint="--distro")
    transport_class, resolve_domain, check_namespace, parse_remaps = _dds()
    parameters = _parameters(mission, params, set_ or [])
    localizer = Localizer.open(parameters.mission, threads=parameters.threads or None)
    transport = transport_class(
        resolve_domain(domain),
        interface or (),
        check_namespace(namespace),
        parse_remaps(remap or []),
        jazzy=distro == "jazzy",
        log=_log,
    )
    bridge = Bridge(localizer, parameters, transport.publish, transport.now, _log)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        transport.attach(bridge)
        print(f"localising in domain {resolve_domain(domain)}; stop with Ctrl-C", flush=True)
        _watch(bridge, stop, mission, params, set_ or [])
    finally:
        transport.close()


def _parameters(mission: Path, params: Path | None, changes: list[str]) -> Parameters:
    import yaml

    values: dict[str, Any] = {} if params is None else read_parameters(params, _NODE)
    for change in changes:
        name, sign, text = change.partition("=")
        if not sign:
            raise typer.BadParameter(f"{change}: NAME=VALUE", param_hint="--set")
        try:
            values[name] = yaml.safe_load(text)
        except yaml.YAMLError as reason:
            raise typer.BadParameter(f"{change}: {reason}", param_hint="--set") from reason
    values["mission"] = str(mission)
    return Parameters.from_dict(values, params)


def _watch(bridge: Bridge, stop: threading.Event, mission: Path, params: Path | None, changes: list[str]) -> None:
    """Wait for the end; take over what may change when the parameter file does."""
    last = _modified(params)
    while not stop.wait(0.5):
        now = _modified(params)
        if now == last:
            continue
        last = now
        try:
            changed = bridge.update(_parameters(mission, params, changes))
            _log("info", f"parameters changed: {', '.join(sorted(changed)) or 'none'}")
        except CvglError as error:
            _log("warning", f"parameters kept as they were: {error}")


def _modified(path: Path | None) -> int:
    if path is None:
        return 0
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _dds() -> tuple[Any, Any, Any, Any]:
    try:
        from cvgl_ros.dds.domain import domain_id
        from cvgl_ros.dds.names import check_namespace, parse_remaps
        from cvgl_ros.dds.transport import DdsTransport
    except ImportError as reason:
        message = f"this needs {reason.name or 'cyclonedds'}: pip install 'cvgl[ros]'"
        raise MissingDependencyError(message) from reason
    return DdsTransport, domain_id, check_namespace, parse_remaps


def _log(level: str, text: str) -> None:
    print(f"{level}: {text}", file=sys.stderr, flush=True)


def app_main() -> None:
    """Entry point of ``cvgl-ros``."""
    main(app)


if __name__ == "__main__":
    app_main()
