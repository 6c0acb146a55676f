"""Two registrations compared: what differs, in which group, and what that means for comparing their numbers.

`registration` brings a lock or a spec into one form, `differences` finds what differs, `rules` says where each part
of a plan belongs and what a difference of it means, `consistency` is the result, `render` prints it. `content` and
`locks` answer what an arm is made of, and which earlier registrations have one.
"""

from epc.compiler.comparison.consistency import Consistency, GroupResult, compare
from epc.compiler.comparison.content import (
    UNKNOWN,
    condition_content,
    content_differences,
    evaluation_content,
    known_hash,
    pinned,
    same_content,
)
from epc.compiler.comparison.locks import Lock, Unreadable, locks_with, prior_locks, read_lock
from epc.compiler.comparison.registration import Registration
from epc.compiler.comparison.render import as_data, as_text

__all__ = [
    "UNKNOWN",
    "Consistency",
    "GroupResult",
    "Lock",
    "Registration",
    "Unreadable",
    "as_data",
    "as_text",
    "compare",
    "condition_content",
    "content_differences",
    "evaluation_content",
    "known_hash",
    "locks_with",
    "pinned",
    "prior_locks",
    "read_lock",
    "same_content",
]
