"""The one exception a user sees: place, fact, remedy. A traceback is a bug."""

from __future__ import annotations

EXIT_OK = 0
EXIT_STEP_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


class Fault(Exception):
    """Something outside epc is not as it must be.

    `place` is a file, with a line where there is one; `fact` says what is wrong; `remedy` what to
    do about it; `code` is R#### and stable, so that it can be searched for.
    """

    def __init__(self, code: str, place: str, fact: str, remedy: str, *, exit_code: int = EXIT_BAD_INPUT) -> None:
        super().__init__(f"{code}: {fact} ({place}); {remedy}")
        self.code = code
        self.place = place
        self.fact = fact
        self.remedy = remedy
        self.exit_code = exit_code

    def render(self) -> str:
        """The error as a user reads it, three lines."""
        return f"error[{self.code}]: {self.fact}\n  --> {self.place}\n  = help: {self.remedy}"
