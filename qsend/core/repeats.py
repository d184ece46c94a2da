"""What was said of late, so that the log is told the same thing once."""

from __future__ import annotations

REPEAT_S = 60.0
"""A full disk meets every client."""
_TEXTS_MAX = 1000


class Repeats:
    """Texts, and when each may be said again."""

    def __init__(self, repeat_s: float = REPEAT_S) -> None:
        """`repeat_s`: how long a text is not repeated."""
        self._repeat_s = repeat_s
        self._until_mono: dict[str, float] = {}

    def is_news(self, text: str, now_mono: float) -> bool:
        """Whether to say it now; then it counts as said."""
        if now_mono < self._until_mono.get(text, now_mono):
            return False
        if len(self._until_mono) > _TEXTS_MAX:
            self._until_mono.clear()
        self._until_mono[text] = now_mono + self._repeat_s
        return True
