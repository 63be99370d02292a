"""Requests one after another on one model: learn, forget, keep the rest from a bounded memory."""

from .figures import Course
from .ledger import Book, Entry, Ledger
from .memory import ReplayMemory
from .registry import STRATEGIES, strategy_of
from .requests import Part, Request, request_of, requests_of
from .runner import Sequence
from .strategies import Strategy
from .tasks import Standing, Tasks

__all__ = [
    "STRATEGIES",
    "Book",
    "Course",
    "Entry",
    "Ledger",
    "Part",
    "ReplayMemory",
    "Request",
    "Sequence",
    "Standing",
    "Strategy",
    "Tasks",
    "request_of",
    "requests_of",
    "strategy_of",
]
