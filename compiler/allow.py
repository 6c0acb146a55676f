"""Warnings that a spec accepts: `allow:` entries applied to what the checks found.

W1501: a warning is allowed that nothing gives
Why: An exception outlives its cause: the design is repaired, the sentence that excused it stays. The next warning of
that code would then pass under a reason that somebody wrote about another one.
Example:
    allow: [{code: W1302, reason: the talked arm is sampled to be read by people and decides nothing}]
Fix:
    conditions: {talked: [talk]}     # the arm that the reason speaks of
    allow: [{code: W1302, reason: the talked arm is sampled to be read by people and decides nothing}]

E1502: a code is allowed that epc does not have
Why: A mistyped code allows nothing, while its reason reads as if the warning had been weighed.
Example:
    conditions: {talked: [talk]}
    allow: [{code: W1032, reason: the talked arm is sampled to be read by people and decides nothing}]
Fix:
    conditions: {talked: [talk]}
    allow: [{code: W1302, reason: the talked arm is sampled to be read by people and decides nothing}]

E1503: a warning is allowed at a place that the spec does not have
Why: `at` keeps an exception narrow: the same warning elsewhere still counts. A place that is not there narrows it to
nothing, mostly after an entry was renamed.
Example:
    conditions: {talked: [talk]}
    allow: [{code: W1302, at: conditions.talking, reason: the talked arm is sampled to be read by people}]
Fix:
    conditions: {talked: [talk]}
    allow: [{code: W1302, at: conditions.talked, reason: the talked arm is sampled to be read by people}]

E1504: a warning is allowed, and the reason is none
Why: The reason is registered and printed in the plan, where a reviewer reads it in place of the warning. "TODO: say
why" only takes the warning away. Long mandatory forms get filled with such texts, which is why nothing else is asked for.
Example:
    conditions: {talked: [talk]}
    allow: [{code: W1302, reason: "TODO: say why this is fine"}]
Fix:
    conditions: {talked: [talk]}
    allow: [{code: W1302, reason: the talked arm is sampled to be read by people and decides nothing}]
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from typing import Final

from epc.compiler.diagnostics import Diagnostic, Diagnostics, Span, did_you_mean
from epc.compiler.resolve import Experiment
from epc.compiler.source import Document, PathKey

_LOCAL: Final = frozenset({"W0708", "W0710"})
"""Warnings that depend on whether a tokenizer lies on this machine: an entry for one is never called stale."""
_PLACEHOLDER: Final = re.compile(r"\b(TODO|FIXME|TBD|XXX|lorem ipsum)\b|^\s*(todo|fixme|tbd|xxx)\b")
_FEWEST_LETTERS: Final = 8
"""Different letters; a sentence of twenty characters has more."""


def apply(experiment: Experiment, sink: Diagnostics, *, complete: bool) -> None:
    """Take every warning that the spec accepts out of the count, and report what is wrong with `allow:` itself.

    `complete` says that every check ran, so that an allowance without a warning is stale.
    """
    if not experiment.spec.allow:
        return
    document = experiment.surface.document
    places = _Places(document)
    for index, allowance in enumerate(experiment.spec.allow):
        if _is_placeholder(allowance.reason):
            sink.error(
                "E1504", f'"{allowance.reason}" is no reason', experiment.at("allow", index, "reason"),
                help=f"say why {allowance.code} does not matter in this experiment, for the person who reviews it",
            )  # fmt: skip
        within = None if allowance.at is None else _path(document, allowance.at)
        if allowance.at is not None and within is None:
            sink.error(
                "E1503", f"the spec has no `{allowance.at}`", experiment.at("allow", index, "at"),
                help=_nearest(document, allowance.at),
            )  # fmt: skip
            continue
        matched = [
            found for found in sink if found.code == allowance.code and (within is None or places.inside(found, within))
        ]
        for found in matched:
            sink.allow(found, allowance.reason, experiment.at("allow", index, "code"))
        if not matched:
            _unmatched(experiment, sink, index, complete=complete)


def _unmatched(experiment: Experiment, sink: Diagnostics, index: int, *, complete: bool) -> None:
    from epc.compiler.explain import known_codes  # reads every check, and few specs come here

    allowance = experiment.spec.allow[index]
    known = [code for code in known_codes() if code.startswith("W")]
    place = experiment.at("allow", index, "code")
    if allowance.code not in known:
        sink.error("E1502", f"epc has no warning {allowance.code}", place, help=did_you_mean(allowance.code, known))
        return
    if complete and allowance.code not in _LOCAL:
        where = "" if allowance.at is None else f" at `{allowance.at}`"
        earlier = any(item.diagnostic.code == allowance.code for item in sink.allowed)
        sink.warning(
            "W1501", f"{allowance.code} is allowed{where}, and nothing {'else ' if earlier else ''}gives it{' there' if where else ''}",
            place, help="delete this entry of `allow`, so that a later warning is not excused by an old reason",
        )  # fmt: skip


def _is_placeholder(reason: str) -> bool:
    letters = {letter for letter in reason.casefold() if letter.isalpha()}
    return _PLACEHOLDER.search(reason) is not None or len(letters) < _FEWEST_LETTERS


def _path(document: Document, at: str) -> PathKey | None:
    """`gates.capable` or `verdicts.0` as a path of the document; None where it has none."""
    path: PathKey = ()
    for part in at.split("."):
        steps = [(*path, part), *([(*path, int(part))] if part.isdecimal() else [])]
        found = next((step for step in steps if step in document.spans), None)
        if found is None:
            return None
        path = found
    return path


def _nearest(document: Document, at: str) -> str:
    """What may have been meant: the names beside the first part of `at` that is not there."""
    parts = at.split(".")
    end = next(end for end in range(len(parts)) if _path(document, ".".join(parts[: end + 1])) is None)
    above = (_path(document, ".".join(parts[:end])) or ()) if end else ()
    beside = [str(path[-1]) for path in document.spans if len(path) == len(above) + 1 and path[:-1] == above]
    owner = f"in `{'.'.join(parts[:end])}`, " if end else ""
    return owner + did_you_mean(parts[end], beside)


class _Places:
    """Which part of a document a span lies in: the keys and values that start last before it."""

    def __init__(self, document: Document) -> None:
        starts: dict[str, dict[tuple[int, int], list[PathKey]]] = defaultdict(lambda: defaultdict(list))
        for spans in (document.spans, document.key_spans):
            for path, span in spans.items():
                starts[span.file][span.line, span.column].append(path)
        self._starts = starts
        self._order = {file: sorted(places) for file, places in starts.items()}

    def _paths(self, span: Span) -> list[PathKey]:
        order = self._order.get(span.file, [])
        before = bisect_right(order, (span.line, span.column))
        return self._starts[span.file][order[before - 1]] if before else []

    def inside(self, found: Diagnostic, within: PathKey) -> bool:
        """Whether a diagnostic points into this part; one that points into another file, whether a label of it does."""
        spans = [found.span] if found.span.file in self._order else [label.span for label in found.labels]
        return any(path[: len(within)] == within for span in spans for path in self._paths(span))
