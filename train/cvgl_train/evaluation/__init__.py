"""How good a model is: ranks that ties cannot fool, the published metrics, robustness, cost, tables and figures."""

from __future__ import annotations
