"""A token given or stored is in no output, file or error; and what a record says is text on its page, never markup."""

import pytest
from hub_server import TOKEN
from records import run_record

from hf_unlearn.cli import parsing as cli
from hf_unlearn.cli.flags import TrainingFlags
from hf_unlearn.report.page import page

SECRET = "a-token-of-another-kind"


def fails() -> None:
    raise ValueError(f"no such repository for Bearer {TOKEN}\nand {SECRET}")


@pytest.mark.parametrize("traceback", ["0", "1"])
def test_an_error_and_its_traceback_hold_no_token(monkeypatch, capsys, traceback):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("HF_UNLEARN_TRACEBACK", traceback)
    with pytest.raises(SystemExit) as stop:
        cli.run(fails)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "<token>" in error and TOKEN not in error and SECRET not in error
    assert ("Traceback" in error) == (traceback == "1")


def test_a_config_that_cannot_be_read_is_not_quoted_with_its_token(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text(f"hub_token: {TOKEN}\n  x: [")
    with pytest.raises(SystemExit):
        cli.parse((TrainingFlags,), ["--config", str(tmp_path / "c.yaml")])
    (tmp_path / "c.yaml").write_text(f"{TOKEN}: 3\n")
    with pytest.raises(SystemExit):
        cli.parse((TrainingFlags,), ["--config", str(tmp_path / "c.yaml")])
    error = capsys.readouterr().err
    assert error.count("error:") == 2 and TOKEN not in error


def test_what_is_printed_of_a_configuration_has_no_token():
    flags, method = cli.parse((TrainingFlags,), ["--hub_token", TOKEN])
    assert flags.hub_token == TOKEN
    assert TOKEN not in cli.resolved((flags, method)) + repr(flags) + repr(flags.config())


EVIL = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'\"onmouseover=alert(1) x='",
    "</style><b>",
    "{{ 7 * 7 }}",
]


@pytest.mark.parametrize("text", EVIL)
def test_names_of_a_record_are_text_on_its_page(tmp_path, text):
    """Class names, prompts and folders; tests/test_page.py parses the whole page."""
    per_class = [{"name": text, "forget": True, "before": 1.0, "after": 0.0}]
    data = {"forget": {"samples": 3, "fingerprint": "ab", "source": text}}
    html = page(run_record(forgotten=text, per_class=per_class, data=data, picture=None), tmp_path)
    assert text not in html or text == "{{ 7 * 7 }}"
    assert "49" not in html.split("<body>")[1].split("<section")[0]
