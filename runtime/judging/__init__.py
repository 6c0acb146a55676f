"""Completions to judgements: rubric filled, model asked, replies typed and kept.

One file a provider; everything else is the same for all of them.
"""

from typing import Final

GOES_ON: Final = "batch under way: "
"""How a step that is interrupted begins a line about what its provider goes on with."""
