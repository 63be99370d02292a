"""The same as `hf-unlearn classify`, for `accelerate launch scripts/unlearn_classification.py ...`."""

import sys

from hf_unlearn.cli.commands.classify import classify_command
from hf_unlearn.cli.terminal import run


def main() -> None:
    classify_command(sys.argv[1:])


if __name__ == "__main__":
    run(main)
