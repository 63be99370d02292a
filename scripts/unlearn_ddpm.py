"""The same as `hf-unlearn ddpm`, for `accelerate launch scripts/unlearn_ddpm.py ...`."""

import sys

from hf_unlearn.cli.commands.ddpm import ddpm_command
from hf_unlearn.cli.terminal import run


def main() -> None:
    ddpm_command(sys.argv[1:])


if __name__ == "__main__":
    run(main)
