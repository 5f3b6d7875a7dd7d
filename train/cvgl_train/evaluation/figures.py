"""The pictures of an evaluation: what queries found, what a model looks at, how its scores and descriptors lie."""

from __future__ import annotations

from cvgl_train.evaluation.charts import descriptor_pca, pssr_histogram, training_curve
from cvgl_train.evaluation.panels import PanelRow, Retrieved, hsm_panel, panel_rows, retrieval_panel

__all__ = [
    "PanelRow",
    "Retrieved",
    "descriptor_pca",
    "hsm_panel",
    "panel_rows",
    "pssr_histogram",
    "retrieval_panel",
    "training_curve",
]
