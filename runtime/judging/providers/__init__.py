"""Who can be asked, one file each, and what the servers among them have in common."""

from __future__ import annotations

import email.utils
import os
import time
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from epc.runtime.errors import Fault


class Variables(NamedTuple):
    """Environment variables of a provider."""

    key: str
    url: str


VARIABLES: Final[Mapping[str, Variables]] = {
    "anthropic": Variables("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"),
    "openai": Variables("OPENAI_API_KEY", "OPENAI_BASE_URL"),
}
TRANSIENT: Final = frozenset({408, 409, 429})
"""Statuses below 500 that may pass: timeout, conflict, rate limit."""
DENIED: Final = frozenset({401, 402, 403, 404})
"""Statuses that tell of the key, the account, the permission or the model, and so of every request."""
SHOWN: Final = 500
"""Characters of an error or of a broken body that are kept."""


def setting(variable: str) -> str:
    """An environment variable without the white space around it, empty where it is not set."""
    return os.environ.get(variable, "").strip()


def require_address(url: str, *, variable: str, example: str) -> None:
    """Raise Fault R0813 for what is no address of a server."""
    if not url.startswith(("https://", "http://")):
        raise Fault(
            "R0813", variable, f"{url} is no address of a server", f"write it with its scheme, such as {example}",
        )  # fmt: skip


def kind_of(status: int, *, spoken: bool) -> Literal["transient", "unreachable", "rejected", "denied"]:
    """What an HTTP status other than 200 means; `spoken`: the body is an error as this API writes it.

    A refusal in another language is that of a proxy or of another server, and no word of the provider.
    """
    if status in TRANSIENT or status >= 500:
        return "transient"
    if status in DENIED:
        return "denied" if spoken else "unreachable"
    return "rejected"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a reply asks to wait: `retry-after-ms`, or `retry-after` in seconds or as a date."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        value = headers.get("retry-after", "")
        if not value:
            return None
        if value.replace(".", "", 1).isdigit():
            return float(value)
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def one_line(text: str) -> str:
    """What a server said, as it is shown in an error."""
    return readable(" ".join(text.split()))[:SHOWN]


def readable(text: str) -> str:
    """Text that can be written as UTF-8: half a surrogate pair, which JSON may hold, is spelt out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
