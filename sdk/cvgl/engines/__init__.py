"""What runs a network: one module per runtime, all with the same small face."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Engine"]


class Engine(Protocol):
    """A network ready to run.

    Attributes:
        description: the runtime and where it runs, for people.
        input_size: (height, width) in pixels.
        descriptor_size: length of one descriptor.
        batch: the batch size that the network insists on; None where any will do.
    """

    description: str
    input_size: tuple[int, int]
    descriptor_size: int
    batch: int | None

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, 3, H, W) normalised RGB to (B, D) descriptors, not necessarily of unit length."""
        ...
