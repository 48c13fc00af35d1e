"""report.json -> report.html: what an evaluation found, for people."""

from __future__ import annotations

from privdiff_training.evaluation.report.page import write_report

__all__ = ["write_report"]
