"""hf-unlearn sd: the former name of `hf-unlearn t2i`, which still works."""

from .t2i import BASIC, KINDS, flag_classes, t2i_command

__all__ = ["BASIC", "KINDS", "flag_classes", "sd_command"]


def sd_command(argv: list[str]) -> None:
    """hf-unlearn sd --concept ..."""
    t2i_command(argv, "sd")
