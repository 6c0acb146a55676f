"""Numbers with their nouns."""

from __future__ import annotations


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def plural(number: int, noun: str) -> str:
    return noun if number == 1 else f"{noun}s"
