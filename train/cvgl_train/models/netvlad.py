"""NetVLAD: local features pooled as their residuals to learnt cluster centres (Arandjelović et al. 2016)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cvgl.errors import ModelError

__all__ = ["NetVlad", "sample_features"]

NEAR_HARD = 0.01
"""Weight of the second nearest centre beside the nearest one's, on average, after `NetVlad.set_centres`."""


class NetVlad(nn.Module):
    """(B, C, H, W) local features to (B, K x C) vectors of unit length, centre by centre.

    Every local feature is brought to unit length and shared out among K centres by a softmax (equation 3 of the paper,
    whose weights and biases are learnt apart from the centres); per centre the weighted residuals are summed (equation
    4), each centre's sum is brought to unit length (intra-normalisation), then the whole.

    Args:
        clusters: K.
        size: C, channels of a local feature.
    """

    def __init__(self, clusters: int, size: int) -> None:
        super().__init__()
        if clusters < 2 or size < 1:
            raise ModelError("not a number of clusters", field="clusters", found=clusters, expected="at least 2")
        self.clusters = clusters
        self.size = size
        # w and b of the softmax.
        self.assignment = nn.Conv2d(size, clusters, 1)
        self.centres = nn.Parameter(torch.empty(clusters, size))
        for values in self.parameters():
            # As in the layer that CVM-Net uses, for training without `set_centres`.
            nn.init.normal_(values, std=1 / math.sqrt(size))

    def assign(self, features: Tensor) -> Tensor:
        """(B, K, H x W) share of each centre in each local feature; `features` (B, C, H, W) have unit length."""
        return self.assignment(features).flatten(2).softmax(1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) to (B, K x C)."""
        features = F.normalize(features, dim=1)
        shares = self.assign(features)
        # Sum of share x (feature - centre), without a tensor of all residuals.
        sums = shares @ features.flatten(2).transpose(1, 2) - shares.sum(2)[..., None] * self.centres
        return F.normalize(F.normalize(sums, dim=2).flatten(1), dim=1)

    @torch.no_grad()
    def set_centres(self, samples: NDArray[np.float32], seed: int) -> float:
        """Start from clusters of local features, as the original does, instead of from random numbers.

        The centres are those of k-means. Weights and biases are those of a softmax over -alpha x squared distance
        (w = 2 alpha c, b = -alpha |c|²), with the alpha for which exp(-alpha x gap) is 0.01 at the mean gap between
        the squared distances to the nearest and the second nearest centre; so do the authors in their released code
        for the layer with biases ("vladv2").

        Args:
            samples: (N, C) local features of unit length.
            seed: of k-means.

        Returns:
            alpha.

        Raises:
            ModelError: fewer different samples than clusters, or of another length.
        """
        from sklearn.cluster import KMeans  # type: ignore[import-untyped]

        if samples.ndim != 2 or samples.shape[1] != self.size:
            raise ModelError("wrong features", field="samples", found=samples.shape, expected=f"(N, {self.size})")
        distinct = len(np.unique(samples, axis=0))
        if distinct < self.clusters:
            message = "too few different local features for the clusters; use more training images"
            raise ModelError(message, field="samples", found=distinct, expected=f"at least {self.clusters}")
        found = KMeans(self.clusters, n_init=1, max_iter=100, random_state=seed).fit(samples)
        centres = found.cluster_centers_.astype(np.float64)
        squares = (centres**2).sum(1)
        distances = (samples.astype(np.float64) ** 2).sum(1)[:, None] - 2 * samples @ centres.T + squares
        nearest = np.partition(distances, 1, axis=1)[:, :2]
        alpha = -math.log(NEAR_HARD) / max(float((nearest[:, 1] - nearest[:, 0]).mean()), 1e-9)
        starts = {"assignment.weight": 2 * alpha * centres, "assignment.bias": -alpha * squares, "centres": centres}
        for name, target in self.named_parameters():
            target.copy_(torch.from_numpy(starts[name]).reshape(target.shape))
        return alpha


@torch.no_grad()
def sample_features(
    local: Callable[[Tensor], Tensor],
    batches: Iterable[Tensor],
    seed: int,
    *,
    per_image: int = 100,
    total: int = 50_000,
) -> NDArray[np.float32]:
    """Local features of unit length from many images, as the original samples them for k-means.

    Args:
        local: (B, 3, H, W) images to (B, C, h, w) local features.
        batches: of images; no more are taken than needed.
        seed: of the choice of places.
        per_image, total: at most; the defaults are the original's.

    Returns:
        (N, C), in the images' order.

    Raises:
        ModelError: no images.
    """
    rng = np.random.default_rng(seed)
    rows: list[NDArray[np.float32]] = []
    count = 0
    for images in batches:
        for features in F.normalize(local(images).float(), dim=1).flatten(2).transpose(1, 2).cpu().numpy():
            wanted = min(per_image, len(features), total - count)
            rows.append(features[np.sort(rng.choice(len(features), wanted, replace=False))])
            count += wanted
        if count >= total:
            break
    if not count:
        raise ModelError("no training images to find clusters in", field="batches")
    return np.concatenate(rows)
