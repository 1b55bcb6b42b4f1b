"""Training: learners, the heuristic, the time split, and the file of a version."""

from holdfast.train.gradient_boosting import LightGBM
from holdfast.train.heuristic import GroupMean
from holdfast.train.learner import Learner
from holdfast.train.logistic import LogisticRegression
from holdfast.train.split import Split, time_split

__all__ = ["GroupMean", "Learner", "LightGBM", "LogisticRegression", "Split", "time_split"]
