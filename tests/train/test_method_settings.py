"""Settings with which a method cannot be built are refused, by field, with what was found and what would do."""

from __future__ import annotations

from typing import Any

import pytest

from cvgl.errors import ModelError
from cvgl_train.registry import create_model

SAIG: dict[str, Any] = {
    "depth": 2,
    "width": 24,
    "heads": 3,
    "stem": (4, 8, 8, 8, 8, 16),
    "query_size": (32, 64),
    "reference_size": (48, 48),
}
SMALL: dict[str, dict[str, Any]] = {
    "frgeo": {"backbone": "convnext_atto", "query_size": (64, 128), "reference_size": (64, 64)},
    "fsra": {"classes": 5, "image_size": 64, "width": 96, "depth": 2, "bottleneck": 16},
    "lpn": {"backbone": "resnet18", "classes": 5, "image_size": 64, "bottleneck": 16, "blocks": 2},
    "saig-s": SAIG,
}


@pytest.mark.parametrize(
    ("method", "changes", "field", "words"),
    [
        ("frgeo", {"query_layout": "square"}, "query_layout", ("'square'", "map or panorama or none")),
        ("frgeo", {"reference_layout": "strips"}, "reference_layout", ("'strips'",)),
        ("frgeo", {"query_size": (64, 64)}, "query_layout", ("2 x 2 cells", "larger image")),
        ("frgeo", {"reference_size": (64, 100)}, "reference_size", ("(64, 100)", "multiples of 32 x 32")),
        ("frgeo", {"query_size": (0, 128)}, "query_size", ()),
        ("frgeo", {"reference_layout": "none"}, "reference_layout", ("'none'", "'panorama'")),
        ("frgeo", {"backbone": "no_such_net"}, "backbone", ("no_such_net",)),
        ("frgeo", {"backbone": "resnet18"}, "backbone", ("resnet18", "ConvNeXt")),
        ("frgeo", {"backbone": "convnext_tiny_hnf"}, "backbone", ("LayerNorm",)),
        ("frgeo", {"backbone": "vit_relpos_small_patch16_224"}, "backbone", ("vision transformer",)),
        ("frgeo", {"layout": "map"}, "layout", ("query_layout",)),
        ("fsra", {"regions": -1}, "regions", ()),
        ("fsra", {"regions": 17}, "regions", ()),
        ("fsra", {"image_size": 60}, "image_size", ()),
        ("fsra", {"image_size": (64, 0)}, "image_size", ()),
        ("fsra", {"heads": 7}, "heads", ()),
        ("fsra", {"depth": 0}, "depth", ()),
        ("fsra", {"classes": 0}, "classes", ()),
        ("fsra", {"bottleneck": 0}, "bottleneck", ()),
        ("fsra", {"dropout": 1.0}, "dropout", ()),
        ("fsra", {"drop_path": -0.1}, "drop_path", ()),
        ("fsra", {"region": 3}, "region", ()),
        ("lpn", {"backbone": "vgg11"}, "backbone", ()),
        ("lpn", {"image_size": 100}, "image_size", ()),
        ("lpn", {"image_size": 0}, "image_size", ()),
        ("lpn", {"blocks": 0}, "blocks", ()),
        ("lpn", {"classes": 0}, "classes", ()),
        ("lpn", {"dropout": -0.5}, "dropout", ()),
        ("saig-s", {"head": "mean"}, "head", ("'mean'", "smd or gap")),
        ("saig-s", {"query_size": (32, 60)}, "query_size", ("(32, 60)", "16")),
        ("saig-s", {"reference_size": (48,)}, "reference_size", ()),
        ("saig-s", {"heads": 5}, "heads", ("5", "24")),
        ("saig-s", {"heads": 0}, "heads", ()),
        ("saig-s", {"stem": (4, 8)}, "stem", ("6 numbers",)),
        ("saig-s", {"depth": 0}, "depth", ()),
        ("saig-s", {"mlp_ratio": 4}, "mlp_ratio", ("depth",)),
    ],
)
def test_settings_that_cannot_be_are_named(
    method: str, changes: dict[str, Any], field: str, words: tuple[str, ...]
) -> None:
    with pytest.raises(ModelError) as caught:
        create_model(method, **{**SMALL[method], **changes})
    assert caught.value.field == field
    assert all(word in str(caught.value) for word in words)
