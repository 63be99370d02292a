"""hf-unlearn publish FOLDER REPO: a finished result to the Hub."""

import json
import os
import signal
import sys
from dataclasses import asdict
from typing import NoReturn

from ..terminal import CommandParser


def publish_command(argv: list[str]) -> None:
    """hf-unlearn publish FOLDER REPO"""
    parser = CommandParser(
        prog="hf-unlearn publish",
        description="Upload a finished pipeline, classifier or adapter in one commit, with its card and figures.",
    )
    parser.add_argument("folder", help="Folder that a training command or save_model wrote.")
    parser.add_argument("repo", help="Repository, user/name; it is made if it does not exist.")
    parser.add_argument("--private", action="store_true", help="Make the repository private.")
    parser.add_argument("--token", help="Token; the default is HF_TOKEN, or the login of `hf auth login`.")
    parser.add_argument("--revision", help="Branch; it is made if it does not exist.")
    parser.add_argument(
        "--include_masks", action="store_true", help="Upload masks*.safetensors and fisher*.safetensors too."
    )
    parser.add_argument("--dry_run", action="store_true", help="List what would be uploaded, and exit.")
    parser.add_argument("--json", action="store_true", help="Print the result as JSON.")
    options = parser.parse_args(argv)
    from ...hub.contents import read_contents
    from ...hub.upload import publish
    from ..finish import name_card

    contents = read_contents(options.folder, options.include_masks)  # nothing is touched that is no finished result
    if options.dry_run:
        print(
            json.dumps({"kind": contents.kind, "files": contents.files}) if options.json else "\n".join(contents.files)
        )
        return
    if "/" in options.repo:
        name_card(options.folder, options.repo)
    before = signal.signal(signal.SIGINT, _leave)
    try:
        done = publish(
            options.folder, options.repo, options.token, options.private, options.revision, options.include_masks
        )
    finally:
        signal.signal(signal.SIGINT, before)
    if options.json:
        print(json.dumps(asdict(done)))
        return
    for name in done.removed:
        print(f"removed {name}, which would be loaded instead; the history of {done.repo} keeps it")
    state = "" if done.changed else ", nothing had changed"
    print(f"{done.url}: {done.kind} of {len(done.files)} files, commit {done.commit[:10]}{state}")


def _leave(*_) -> NoReturn:
    """Go at once: the client's threads would first finish their files, and there is nothing here to tidy up."""
    print("interrupted; publish again, what the Hub has already is not sent twice", file=sys.stderr, flush=True)
    os._exit(130)
