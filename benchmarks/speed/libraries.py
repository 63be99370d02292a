"""What the processes that measure memory have imported before they begin."""

from hf_unlearn import FineTune, SFRon, UnlearnTrainer

from . import setting

__all__ = ["FineTune", "SFRon", "UnlearnTrainer", "setting"]
