"""Ids of the places in report.html that are linked to."""

from __future__ import annotations


def slug(name: str) -> str:
    """Letters, digits, underscores and hyphens; distinct names of a spec stay distinct enough to link."""
    return "".join(char if char.isascii() and (char.isalnum() or char == "_") else "-" for char in name)


def analysis_anchor(name: str) -> str:
    return f"analysis-{slug(name)}"


def step_anchor(name: str) -> str:
    """Where a step of the run stands with what it recorded."""
    return f"step-{slug(name)}"


def rows_anchor(metric: str, condition: str) -> str:
    """Where the stored rows of a metric in an arm are named, with their hash."""
    return f"rows-{slug(metric)}-in-{slug(condition)}"
