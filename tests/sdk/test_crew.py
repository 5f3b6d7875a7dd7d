"""The threads that the compiled core keeps: every caller gets its own rows, whoever else calls, forks or is pinned."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from cvgl.native import rectify

SIDE = 96
PHOTO = np.random.default_rng(2).integers(0, 256, (300, 400), dtype=np.uint8)


def turned(degrees: float, threads: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The photo about its middle, turned, at a third of its detail."""
    c, s = 3 * np.cos(np.radians(degrees)), 3 * np.sin(np.radians(degrees))
    half = (SIDE - 1) / 2
    to_photo = np.array([[c, -s, 199.5 - (c - s) * half], [s, c, 149.5 - (s + c) * half], [0.0, 0.0, 1.0]])
    return rectify(PHOTO, to_photo, 1.0, 1.0, 0.0, 0.0, (), SIDE, SIDE, threads)


def test_many_callers_at_once_each_get_their_own() -> None:
    angles = [7.0 * number for number in range(60)]
    alone = [turned(angle, 1) for angle in angles]
    with ThreadPoolExecutor(6) as callers:
        together = list(callers.map(lambda index: turned(angles[index], 2 + index % 5), range(len(angles))))
    for found, expected in zip(together, alone, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system pins no threads")
def test_a_caller_that_may_use_one_processor_does_its_work_there() -> None:
    def pinned(angle: float) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(allowed)})
        try:
            return turned(angle, 4)
        finally:
            os.sched_setaffinity(0, allowed)

    np.testing.assert_array_equal(pinned(30.0), turned(30.0, 1))
    np.testing.assert_array_equal(turned(31.0, 4), turned(31.0, 1))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
def test_a_forked_child_has_threads_of_its_own() -> None:
    script = textwrap.dedent(
        """
        import os, signal, sys, warnings
        import numpy as np
        from cvgl.native import rectify

        warnings.simplefilter("ignore", DeprecationWarning)
        photo = np.arange(200 * 200, dtype=np.uint32).astype(np.uint8).reshape(200, 200)
        call = lambda threads: rectify(photo, np.diag([2.0, 2.0, 1.0]), 1.0, 1.0, 0.0, 0.0, (), 96, 96, threads)[0]
        expected = call(4).tobytes()
        child = os.fork()
        if child == 0:
            signal.alarm(30)  # ends it, should it wait for threads that it has not got
            os._exit(0 if call(4).tobytes() == expected == call(1).tobytes() else 3)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
