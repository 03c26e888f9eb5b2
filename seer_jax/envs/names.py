"""What a name that no environment has may have meant."""

import difflib
from collections.abc import Mapping


def did_you_mean(name: str, known: Mapping[str, str]) -> str:
    """The names nearest to this one, as a sentence and a space; empty if none is near.

    Args:
        name: spelt as the keys of `known`.
        known: the names as users see them, by a plainer spelling.
    """
    nearest = [known[n] for n in difflib.get_close_matches(name, known, n=3, cutoff=0.5)]
    return f"Did you mean {' or '.join(nearest)}? " if nearest else ""
