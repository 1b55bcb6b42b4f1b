"""Statistics behind the verdicts: always-valid tests, control charts, ranking quality, intervals.

Pure mathematics. Each function or class states its guarantee, its assumptions and its source.
"""

from holdfast.stats.auc import auc_interval, paired_auc_difference
from holdfast.stats.betting import BettingTest
from holdfast.stats.discordant_pairs import DiscordantTest, RateTest
from holdfast.stats.e_detector import Detector
from holdfast.stats.hypergeometric import HypergeometricTest
from holdfast.stats.interval import Interval, mean_interval, wilson
from holdfast.stats.level_test import LevelTest, upper_level

__all__ = [
    "BettingTest",
    "Detector",
    "DiscordantTest",
    "HypergeometricTest",
    "Interval",
    "LevelTest",
    "RateTest",
    "auc_interval",
    "mean_interval",
    "paired_auc_difference",
    "upper_level",
    "wilson",
]
