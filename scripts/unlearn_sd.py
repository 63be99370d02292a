"""The same as `hf-unlearn t2i`, for `accelerate launch scripts/unlearn_sd.py ...`."""

import sys

from hf_unlearn.cli.commands.sd import sd_command
from hf_unlearn.cli.terminal import run


def main() -> None:
    sd_command(sys.argv[1:])


if __name__ == "__main__":
    run(main)
