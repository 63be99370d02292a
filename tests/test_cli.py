from dataclasses import dataclass, field

import pytest

from hf_unlearn import UnlearnConfig, cli


@dataclass
class Flags:
    forget_class: list[str] | None = field(default=None)


@pytest.mark.parametrize(
    ("argv", "classes"),
    [
        ([], None),
        (["--forget_class", "a", "b"], ["a", "b"]),
        (["--forget_class", "a", "--forget_class", "b", "c"], ["a", "b", "c"]),
    ],
)
def test_list_flags_may_be_repeated(argv, classes):
    assert cli.parse((Flags,), argv)[0].forget_class == classes


def test_a_list_flag_replaces_what_the_yaml_says(tmp_path):
    (tmp_path / "c.yaml").write_text("forget_class: [a, b]")
    argv = ["--config", str(tmp_path / "c.yaml")]
    assert cli.parse((Flags,), argv)[0].forget_class == ["a", "b"]
    assert cli.parse((Flags,), [*argv, "--forget_class", "c", "--forget_class", "d"])[0].forget_class == ["c", "d"]


def test_help_of_the_training_arguments_is_printed(capsys):
    """argparse formats help texts with %, so a bare one in any of them would be an error."""
    with pytest.raises(SystemExit) as stop:
        cli.parse((UnlearnConfig,), ["--help"])
    assert stop.value.code == 0 and "--push_masks" in capsys.readouterr().out
