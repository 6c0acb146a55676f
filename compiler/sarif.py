"""Diagnostics as SARIF 2.1.0, the interchange format of static analysers (OASIS standard, errata 01).

Columns count Unicode code points. A warning that the spec accepts is a result with a suppression of kind
`inSource`, whose justification is the reason; every other result has an empty list, which says that it is not
suppressed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from epc import __version__
from epc.compiler.diagnostics import Allowed, Diagnostic, Diagnostics, Label, Span, explained
from epc.compiler.explain import Explanation, explanations, severity

SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def _uri(file: str) -> str:
    return Path(file).as_uri() if Path(file).is_absolute() else quote(Path(file).as_posix())


def _location(span: Span) -> dict[str, Any]:
    return {
        "physicalLocation": {
            "artifactLocation": {"uri": _uri(span.file)},
            "region": {"startLine": span.line, "startColumn": span.column, "endColumn": span.column + span.length},
        }
    }


def _related(number: int, label: Label) -> dict[str, Any]:
    return {"id": number, **_location(label.span), "message": {"text": label.text}}


def _result(diagnostic: Diagnostic, rules: list[str], allowed: Allowed | None = None) -> dict[str, Any]:
    suppressions = []
    if allowed is not None:
        suppressions = [{"kind": "inSource", "justification": allowed.reason, "location": _location(allowed.by)}]
    return {
        "ruleId": diagnostic.code,
        "ruleIndex": rules.index(diagnostic.code),
        "level": diagnostic.severity,
        "message": {"text": explained(diagnostic)},
        "locations": [_location(diagnostic.span)],
        "relatedLocations": [_related(number, label) for number, label in enumerate(diagnostic.labels, start=1)],
        "suppressions": suppressions,
    }


def _rule(code: str, explanation: Explanation | None) -> dict[str, Any]:
    rule: dict[str, Any] = {"id": code, "defaultConfiguration": {"level": severity(code)}}
    if explanation is not None:
        rule["shortDescription"] = {"text": explanation.what}
        rule["help"] = {"text": explanation.text(code)}
    return rule


def sarif(diagnostics: Diagnostics) -> str:
    """One run of epc as SARIF text: the rules that were broken, and a result for each time."""
    counted, accepted = list(diagnostics), diagnostics.allowed
    rules = sorted({item.code for item in counted} | {item.diagnostic.code for item in accepted})
    explained_in = explanations(rules)
    driver = {"name": "epc", "version": __version__, "rules": [_rule(code, explained_in.get(code)) for code in rules]}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [
            *(_result(item, rules) for item in counted),
            *(_result(item.diagnostic, rules, item) for item in accepted),
        ],
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1, ensure_ascii=False)
