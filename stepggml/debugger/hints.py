"""Close matches, for messages about names that do not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, words: Iterable[str], n: int = 3) -> str:
    """ ", did you mean a, b?" of the closest words, or nothing."""
    if len(word) > 80:
        return ""
    close = difflib.get_close_matches(word, list(words), n=n, cutoff=0.6)
    return f", did you mean {', '.join(close)}?" if close else ""
