"""What all command lines share: errors become one line on stderr and an exit status."""

from __future__ import annotations

import errno
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from cvgl.errors import EXIT_BAD_INPUT, EXIT_MISSING, CvglError

__all__ = ["command_when_none_is_named", "main"]

# Commands are there in every install; what some of them import is not.
_EXTRA_OF = {
    **dict.fromkeys(
        [
            "torch",
            "torchvision",
            "timm",
            "lightning_fabric",
            "sklearn",
            "scipy",
            "tensorboard",
            "matplotlib",
            "PIL",
            "safetensors",
        ],
        "train",
    ),
    **dict.fromkeys(("onnx", "onnxscript", "ml_dtypes"), "train,export"),
    "cyclonedds": "ros",
    "pycuda": "tensorrt",
    "pymavlink": "mavlink",
    "serial": "mavlink",
    "rosbags": "bag",
}


def main(app: typer.Typer) -> None:
    """Run a command line; an error of ours ends it with one line and its exit status (see cvgl.errors), and
    so do a file or folder that the system does not give and an extra that is not installed."""
    try:
        app()
    except CvglError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in _EXTRA_OF:
            raise
        print(f"error: this needs {module}: pip install 'cvgl[{_EXTRA_OF[module]}]'", file=sys.stderr)
        sys.exit(EXIT_MISSING)
    except OSError as error:
        # A folder that cannot be written, a full disk. What has no file is a fault of ours and keeps its traceback.
        if error.filename is None and error.errno != errno.ENOSPC:
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        print(f"error: {where}{error.strerror}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)


def command_when_none_is_named(name: str) -> type[TyperGroup]:
    """A group for `typer.Typer(cls=...)` whose command ``name`` may be left out: ``tool FILE`` is short for
    ``tool name FILE``."""

    class Group(TyperGroup):
        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            if args and args[0] not in self.commands:
                args.insert(0, name)
            return super().resolve_command(ctx, args)

        def parse_args(self, ctx: Any, args: list[str]) -> Any:
            # Options of the command may come before its argument; the group itself has only --help.
            if args and args[0].startswith("-") and args[0] != "--help":
                args.insert(0, name)
            return super().parse_args(ctx, args)

    return Group
