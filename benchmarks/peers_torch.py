"""What research code ships for retrieval: the network in eager PyTorch, torchvision before, a full product behind."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms import v2

from cvgl.bench.peers_embed import Input, Task
from cvgl.errors import ModelError
from cvgl.frame import Frame
from cvgl_train.adapt import base_weights
from cvgl_train.models.nano import Nano, load_weights

__all__ = ["eager", "network", "research"]


def network(task: Task, threads: int) -> Nano:
    """The network that the mission runs, in PyTorch: of an adapted one the architecture, with the weights that ship.

    Args:
        task: of the mission.
        threads: for everything that torch does in this process.

    Raises:
        ModelError: the mission runs another network than the project's own.
    """
    torch.set_num_threads(threads)
    found = load_weights(base_weights()).eval()
    expected = (found.config.input_px, found.config.descriptor_size)
    model = task.localizer.model
    if (task.size, model.descriptor_size) != expected or model.architecture != "cvgl-nano":
        raise ModelError("not the network that ships", field="architecture", found=model.architecture)
    return found


def eager(net: Nano) -> Callable[[Input], NDArray[np.float32]]:
    """The network alone: input to descriptor (D,)."""

    @torch.inference_mode()
    def run(picture: Input) -> NDArray[np.float32]:
        return np.asarray(net(torch.from_numpy(picture))[0].numpy())

    return run


def research(task: Task, net: Nano, k: int) -> Callable[[Frame], NDArray[np.int64]]:
    """Frame to the k most similar tiles, as published evaluation code does it.

    The whole picture is resized to the network's square with torchvision's antialiasing; lens, attitude and heading
    stay in it. Gallery descriptors are one matrix in memory.
    """
    prepare = v2.Compose(
        [
            v2.Resize((task.size, task.size), antialias=True),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(list(task.view.mean), list(task.view.std)),
        ]
    )
    gallery = torch.from_numpy(np.asarray(task.localizer.gallery.descriptors, np.float32))

    @torch.inference_mode()
    def run(frame: Frame) -> NDArray[np.int64]:
        picture = torch.from_numpy(frame.image).permute(2, 0, 1)[[2, 1, 0]]
        similarity = net(prepare(picture)[None]) @ gallery.T
        return np.asarray(similarity.topk(min(k, len(gallery)))[1][0].numpy())

    return run
