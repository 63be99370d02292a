"""hf-unlearn requests RUN_DIR: a model that is asked, again and again, to learn and to forget."""

import argparse
import json
from dataclasses import asdict
from typing import Any

from ..terminal import CommandParser, check_writable

ACTIONS = ("list", "add", "run", "status", "report")
PARTS = ("tasks", "classes", "samples")


def requests_command(argv: list[str]) -> None:
    """hf-unlearn requests RUN_DIR"""
    parser = CommandParser(
        prog="hf-unlearn requests",
        description="Requests to learn and to forget, one after another, on one model. RUN_DIR holds the ledger, the "
        "replay memory and the model after the last request that is done; `run` goes on where a killed one was.",
    )
    parser.add_argument("run_dir", help="Folder of the sequence.")
    parser.add_argument("action", nargs="?", choices=ACTIONS, default="list", help="What to do; by default list.")
    parser.add_argument(
        "words", nargs="*", help="Requests for `add`: 0R learns task 0, 1T learns it for a time, 2F forgets it."
    )
    parser.add_argument(
        "--file", help="YAML file with model, data, tasks or prompts, memory and method, and with `requests`."
    )
    for part in PARTS:
        for verb in ("learn", "forget"):
            said = f"Numbers of {part} that `add` asks to {verb}."
            parser.add_argument(f"--{verb}_{part}", type=int, nargs="+", metavar="N", help=said)
    parser.add_argument("--forget_concept", help="Concept that `add` asks a text-to-image model to forget.")
    parser.add_argument("--anchor_concept", help="What it is to draw instead.")
    parser.add_argument("--learn_concept", help="Concept that `add` asks it to learn, from --images.")
    parser.add_argument("--images", help="Folder of pictures of --learn_concept.")
    parser.add_argument("--prompt_templates", nargs="+", help='Prompts with "{}" in the place of the concept.')
    parser.add_argument("--temporary", action="store_true", help="What is learnt may be forgotten later (T).")
    parser.add_argument("--json", action="store_true", help="Print the ledger as JSON.")
    options = parser.parse_args(argv)
    asked = _asked(options)
    if options.action == "add" and not (asked or options.file):
        parser.error(
            "add needs a request: words such as 1T, --learn_tasks, --forget_classes, --forget_concept, ..., or --file"
        )
    if options.action != "add" and asked:
        parser.error(f"requests are for add, not for {options.action}")
    if options.action in ("add", "run"):
        ledger = _change(options, asked)
    else:
        ledger = _read(options.run_dir)
    _say(options, ledger)


def _asked(options: argparse.Namespace) -> list[Any]:
    """What the words and flags of a command ask for."""
    found: dict[str, Any] = {}
    for verb in ("learn", "forget"):
        part = {name: given for name in PARTS if (given := getattr(options, f"{verb}_{name}"))}
        if part:
            found[verb] = part
    for verb, others in (("learn", {"images": options.images}), ("forget", {"anchor": options.anchor_concept})):
        concept = getattr(options, f"{verb}_concept")
        if concept:
            part = {"concept": concept, "templates": options.prompt_templates, **others}
            found[verb] = {name: value for name, value in part.items() if value}
        elif any(others.values()):
            raise ValueError(f"--{'images' if verb == 'learn' else 'anchor_concept'} is said of --{verb}_concept")
    if options.temporary:
        found["temporary"] = True
    return [*options.words, *([found] if found else [])]


def _read(folder: str) -> Any:
    from ...sequences.ledger import Book

    book = Book(folder)
    if not book.exists:
        raise ValueError(f"{folder} holds no ledger of requests: add some with --file")
    return book.read()


def _change(options: argparse.Namespace, asked: list[Any]) -> Any:
    """Add to the queue, or carry it out."""
    from ...common.bars import phase
    from ...sequences.requests import requests_of
    from ...sequences.setup import read_file, store_setup, stored_setup

    given, listed = read_file(options.file) if options.file else (None, [])
    setup = stored_setup(options.run_dir, given)
    phase("loading model and data")
    wanted = [*listed, *(requests_of(asked) if asked else [])]
    sequence = setup.sequence(options.run_dir)
    adds = options.action == "add"
    if not adds and wanted:
        wanted = sequence.queue.missing(wanted)
    sequence.queue.check(wanted)
    check_writable(options.run_dir)
    store_setup(options.run_dir, setup)
    if wanted:
        sequence.add(wanted)
    return sequence.ledger if adds else sequence.run()


def _say(options: argparse.Namespace, ledger: Any) -> None:
    from ...sequences.report import listing, status, summary, write_report

    path = write_report(ledger, options.run_dir) if options.action == "report" else None
    if options.json:
        print(json.dumps({**asdict(ledger), **({} if path is None else {"report": str(path)})}))
        return
    if options.action in ("list", "add", "run"):
        print(f"{listing(ledger)}\n")
    print(status(ledger))
    if options.action in ("run", "report"):
        print("".join(f"{name} {value}: {said}\n" for name, value, said in summary(ledger)), end="")
    if path is not None:
        print(path)
