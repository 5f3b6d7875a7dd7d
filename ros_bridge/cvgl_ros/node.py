"""Starts the ROS 2 node; says what is missing where ROS or the SDK is not there."""

from __future__ import annotations

import sys

from cvgl.errors import EXIT_MISSING

__all__ = ["main"]


def main(args: list[str] | None = None) -> None:
    """Run the node until it is told to stop; exit status 3 without ROS 2."""
    try:
        from cvgl_ros.rclpy_node import run
    except ImportError as reason:
        if (reason.name or "").startswith("cvgl"):
            raise
        print(
            f"error: {reason.name or 'rclpy'} is missing: source a ROS 2 installation (setup.bash) first, or run "
            "cvgl-ros, which needs none",
            file=sys.stderr,
        )
        sys.exit(EXIT_MISSING)
    run(args)


if __name__ == "__main__":
    main()
