"""Requests to diffusion models, which replay what they know themselves."""

from .classes import ClassPainter
from .painter import Painter
from .prompts import PromptPainter
from .runner import DiffusionSequence
from .standing import Standing

__all__ = ["ClassPainter", "DiffusionSequence", "Painter", "PromptPainter", "Standing"]
