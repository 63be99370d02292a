"""Requests one after another on one model: learn, forget, keep the rest from a bounded memory."""

from .ledger import Book, Entry, Ledger
from .memory import ReplayMemory
from .requests import Part, Request, request_of, requests_of
from .runner import Sequence
from .strategies import STRATEGIES, Strategy, strategy_of
from .tasks import Standing, Tasks

__all__ = [
    "STRATEGIES",
    "Book",
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
