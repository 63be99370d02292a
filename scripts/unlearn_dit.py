"""The same as `hf-unlearn dit`, for `accelerate launch scripts/unlearn_dit.py ...`."""

import sys

from hf_unlearn.cli.commands.dit import dit_command
from hf_unlearn.cli.terminal import run


def main() -> None:
    dit_command(sys.argv[1:])


if __name__ == "__main__":
    run(main)
