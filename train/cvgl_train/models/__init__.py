"""One file a method; `cvgl_train.registry` lists them."""

from __future__ import annotations
