"""Faults on demand, by name, and how often each is drawn."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from difflib import get_close_matches

from epc.compiler.contract.draws import SEED_BITS, draw
from epc.runtime.judging.scripted.calls import ASKED, Call, schema
from epc.runtime.judging.scripted.wire import Gone, Page, Problem, Result, Said

OUTSIDE = 10**6
"""The score of a reply that is out of range."""


def _outside(call: Call, text: str) -> Result:
    """The reply with its first number beside any range; where it has none, with one field more."""
    kinds = (schema(call.request) or {}).get("properties", {})
    name = next((name for name, kind in kinds.items() if kind.get("type") == "integer"), "beside")
    try:
        return Said(text=json.dumps({**json.loads(text), name: OUTSIDE}))
    except (ValueError, TypeError):
        return Said(text=json.dumps({name: OUTSIDE}))


WIRE: Mapping[str, Callable[[Call, str], Result]] = {
    # What can go wrong with any request over HTTP: name -> (call, what would have been answered) -> what is sent.
    "429": lambda call, text: Problem(status=429, message="slow down"),
    "429 retry-after": lambda call, text: Problem(status=429, message="slow down", headers={"retry-after": "0.01"}),
    "429 retry-after long": lambda call, text: Problem(
        status=429, message="slow down", headers={"retry-after": "86400"}
    ),
    "529": lambda call, text: Problem(status=529, message="overloaded"),
    "500": lambda call, text: Problem(status=500, message="internal error"),
    "503 html": lambda call, text: Page(body="<html>bad gateway</html>", status=503),
    "401": lambda call, text: Problem(status=401, message="invalid x-api-key"),
    "403": lambda call, text: Problem(status=403, message="not allowed"),
    "404": lambda call, text: Problem(status=404, message=f"model: {call.request.get('model')}"),
    "413": lambda call, text: Problem(status=413, message="Request exceeds the maximum size"),
    "reset": lambda call, text: Gone(how="reset"),
    "lost reply": lambda call, text: Gone(how="lost"),
    "broken body": lambda call, text: Said(text=text, cut=40),
    "page": lambda call, text: Page(body="<html>It works!</html>"),
    "not a message": lambda call, text: Page(body='{"ok": true}', content_type="application/json"),
}
REPLY: Mapping[str, Callable[[Call, str], Result]] = {
    # What can be wrong with the reply of a judge, alone or in a batch.
    "400": lambda call, text: Problem(status=400, message="messages: too long"),
    "errored": lambda call, text: Problem(status=500, message="internal error"),
    "no reply": lambda call, text: Gone(how="silent"),
    "empty": lambda call, text: Said(text="", blocks=False),
    "refusal": lambda call, text: Said(text="I will not rate this.", stop="refusal"),
    "refusal empty": lambda call, text: Said(text="", stop="refusal", blocks=False),
    "max_tokens": lambda call, text: Said(text=text[: len(text) // 2], stop="max_tokens"),
    "no JSON": lambda call, text: Said(text="It is rather aligned."),
    "fenced": lambda call, text: Said(text=f"```json\n{text}\n```"),
    "out of range": _outside,
}
FAULTS: Mapping[str, Callable[[Call, str], Result]] = {**WIRE, **REPLY}


def by_rate(rates: Mapping[str, float], *, seed: int = 0) -> Callable[[Call], str | None]:
    """Draw the fault of a call: its name, or None for no fault.

    A draw of (seed, body, how often this body came before), so that neither the order of the calls nor
    their number in flight changes what fails. Faults of the wire do not occur within a batch, those of a
    reply not in requests about a batch. Raises ValueError for a name that is none, for a rate outside
    [0, 1] and for rates whose sum exceeds 1.
    """
    for name, rate in rates.items():
        if name not in FAULTS:
            meant = get_close_matches(name, FAULTS, n=1)
            raise ValueError(f"no fault is called {name!r}; " + (f"{meant[0]!r}?" if meant else ", ".join(FAULTS)))
        if not 0 <= rate <= 1:
            raise ValueError(f"the rate of {name!r} must lie between 0 and 1, not {rate}")
    if sum(rates.values()) > 1 + 1e-9:
        raise ValueError(f"the rates of the faults together are {sum(rates.values()):g}, above 1")
    steps = [(name, round(rate * (1 << SEED_BITS))) for name, rate in rates.items() if rate]

    def fault(call: Call) -> str | None:
        if not steps:
            return None
        left = draw("fault", seed, call.digest, call.nth)
        for name, step in steps:
            left -= step
            if left < 0:
                applies = name in REPLY if call.route == "item" else name in WIRE or call.route in ASKED
                return name if applies else None
        return None

    return fault
