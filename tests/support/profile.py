"""How often tests repeat what is drawn at random: enough to find a mistake in the suite, and more in a soak.

`HOLDFAST_TEST_PROFILE=soak` repeats twenty times as often.
"""

from __future__ import annotations

import os
from typing import Final

from hypothesis import settings

SOAK: Final = os.environ.get("HOLDFAST_TEST_PROFILE") == "soak"


def repetitions(suite: int) -> int:
    """Return how often something is repeated that is repeated `suite` times in the suite."""
    return 20 * suite if SOAK else suite


def examples(suite: int) -> settings:
    """Return Hypothesis settings for `suite` examples in the suite."""
    return settings(max_examples=repetitions(suite), deadline=None)
