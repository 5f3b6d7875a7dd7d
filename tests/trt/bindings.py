"""TensorRT's genuine Python bindings without TensorRT: the wheels of several versions over stub libraries.

``python tests/trt/bindings.py`` fetches what is missing into ``build/trt-bindings/``; it ends with status 0 also where
the package index has nothing for this interpreter, and says so. ``python tests/trt/bindings.py --run VERSION FILE``
runs the pytest checks of a file with that version's bindings importable as ``tensorrt``, in this process: two versions
cannot live in one. Status 77 means that these bindings are not here; the reason is on stdout.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

__all__ = ["VERSIONS", "folder_of", "main", "prepare"]

VERSIONS = ("10.3.0", "10.13.3.9", "11.4.0.106")
NOT_HERE = 77
_ROOT = Path(__file__).resolve().parents[2]
_LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
# NVIDIA's own ``tensorrt`` package is such a front over ``tensorrt_bindings``; it also loads the libraries by itself.
_FRONT = "from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n"


def folder_of(version: str) -> Path:
    """Where a version's bindings lie for this interpreter; on PYTHONPATH they are ``import tensorrt``."""
    return _ROOT / "build" / "trt-bindings" / (sys.implementation.cache_tag or "python") / version


def prepare(version: str) -> str | None:
    """Fetch a version's bindings and compile its stub libraries, unless that is done.

    Returns:
        None, or why there are none.
    """
    folder = folder_of(version)
    if folder.is_dir():
        return None
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        made = Path(name) / version
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--retries=1", "--target", str(made), f"tensorrt-cu12-bindings=={version}"]
        fetched = subprocess.run(command, capture_output=True, text=True)
        if fetched.returncode != 0:
            return "the package index gives no wheel: " + _last_line(fetched.stderr)
        package = made / "tensorrt_bindings"
        for library in _LIBRARIES:
            soname = f"lib{library}.so.{version.split('.')[0]}"
            # The bindings look for their libraries beside themselves first.
            command = [_compiler(), "-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o", str(package / soname)]
            try:
                built = subprocess.run(
                    [*command, str(Path(__file__).with_name("stubs.c"))], capture_output=True, text=True
                )
            except FileNotFoundError:
                return f"no C compiler: {command[0]}"
            if built.returncode != 0:
                return "the stub libraries do not compile: " + _last_line(built.stderr)
        (made / "tensorrt").mkdir()
        (made / "tensorrt" / "__init__.py").write_text(_FRONT, encoding="utf-8")
        tried = subprocess.run(
            [sys.executable, "-c", "import tensorrt; print(tensorrt.__version__)"],
            env={**os.environ, "PYTHONPATH": str(made)},
            capture_output=True,
            text=True,
        )
        if tried.stdout.strip() != version:
            return "the bindings do not import: " + _last_line(tried.stderr or tried.stdout)
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was as quick
                raise
    return None


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", nargs=2, metavar=("VERSION", "FILE"))
    parser.add_argument("--again", action="store_true", help="fetch and compile anew")
    options = parser.parse_args(arguments)
    if options.run:
        return _run(*options.run)
    for version in VERSIONS:
        if options.again:
            shutil.rmtree(folder_of(version), ignore_errors=True)
        reason = prepare(version)
        print(f"tensorrt {version}: {reason or folder_of(version)}")
    return 0


def _run(version: str, file: str) -> int:
    folder = folder_of(version)
    if not folder.is_dir():
        print(f"no TensorRT {version} bindings in {folder}: run python tests/trt/bindings.py")
        return NOT_HERE
    sys.path[:0] = [str(folder), str(Path(__file__).with_name("doubles"))]
    import pytest

    # On their own: neither the project's settings and plugins nor its conftest are theirs.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    here = str(Path(__file__).parent)
    settings = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", here, "--confcutdir", here]
    return int(pytest.main([*settings, "--import-mode=importlib", "-p", "tensorrt_double", file]))


def _compiler() -> str:
    return (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]


if __name__ == "__main__":
    sys.exit(main())
