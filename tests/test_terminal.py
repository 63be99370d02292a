"""What a person sees while a command runs: never silent, and nothing of libraries that concerns nobody."""

import importlib.util
import io
import logging
import os
import subprocess
import sys
import warnings
from datetime import date
from pathlib import Path

import pytest

from hf_unlearn.cli.commands import COMMANDS
from hf_unlearn.cli.quiet import quiet_libraries
from hf_unlearn.cli.watch import ERASE, QUIET, Watch, Watched, clock_text
from hf_unlearn.common.bars import listen, phase
from hf_unlearn.evaluation.judge import ASSETS

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def silence():
    spec = importlib.util.spec_from_file_location("silence", ROOT / "tools" / "silence.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["silence"] = module
    spec.loader.exec_module(module)
    return module


# ---- libraries' messages ---------------------------------------------------------------------------
UNNEEDED = (
    (
        "diffusers.configuration_utils",
        "The config attributes {'block_out_channels': [1]} were passed to AutoencoderTiny, but are not expected and "
        "will be ignored. Please verify your config.json configuration file.",
    ),
    (
        "diffusers.pipelines.pipeline_utils",
        "Expected types for vae: (<class 'diffusers.models.autoencoders.autoencoder_kl.AutoencoderKL'>,), got <class "
        "'diffusers.models.autoencoders.autoencoder_tiny.AutoencoderTiny'>.",
    ),
    (
        "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
        "You have disabled the safety checker for <class 'x.StableDiffusionPipeline'> by passing "
        "`safety_checker=None`. Ensure that you abide",
    ),
    ("diffusers.loaders.peft", "No LoRA keys associated to CLIPTextModel found with the prefix='text_encoder'. This"),
    (
        "transformers.utils.import_utils",
        "`CLIPImageProcessor` requires torchvision (not installed); falling back to `CLIPImageProcessorPil` for",
    ),
    (
        "transformers.models.auto.image_processing_auto",
        "Requested torchvision backend is not available. Falling back to pil backend.",
    ),
)
NEEDED = (
    (
        "diffusers.configuration_utils",
        "The config attributes {'a': 1} were passed to UNet2DModel, but are not expected",
    ),
    ("diffusers.pipelines.pipeline_utils", "Expected types for vae: (X,), got <class 'other.Vae'>."),
    ("diffusers.loaders.peft", "Some weights were not loaded"),
    ("transformers.modeling_utils", "Requested torchvision backend is not available. It is needed for video."),
    ("somewhere.else", UNNEEDED[0][1]),
)


@pytest.fixture
def heard():
    """What the handlers of both libraries wrote; and those of another."""
    stream, kept = io.StringIO(), []
    for name in ("diffusers", "transformers", "somewhere"):
        logger, handler = logging.getLogger(name), logging.StreamHandler(stream)
        logger.addHandler(handler)
        kept.append((logger, handler))
    yield stream
    for logger, handler in kept:
        logger.removeHandler(handler)


@pytest.mark.parametrize(("name", "text"), UNNEEDED)
def test_what_concerns_nobody_is_not_shown(heard, name, text):
    with quiet_libraries():
        logging.getLogger(name).warning(text)
        assert heard.getvalue() == ""
        logging.getLogger(name).error(text)  # an error is never hidden
    assert heard.getvalue() == f"{text}\n"
    logging.getLogger(name).warning(text)  # nor anything behind a command
    assert heard.getvalue() == f"{text}\n" * 2


@pytest.mark.parametrize(("name", "text"), NEEDED)
def test_everything_else_is_shown(heard, name, text):
    with quiet_libraries():
        logging.getLogger(name).warning(text)
    assert heard.getvalue() == f"{text}\n"


def test_the_real_messages_are_those(heard, tmp_path):
    """Of the installed versions: another wording would show again."""
    with quiet_libraries():
        from diffusers import AutoencoderTiny, StableDiffusionPipeline

        folder = ASSETS / "emoji_sd"
        StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
        AutoencoderTiny.from_config({**AutoencoderTiny.load_config(folder / "vae"), "unknown": 1})
    assert heard.getvalue() == ""


def test_other_warnings_of_python_are_shown():
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        with quiet_libraries():
            for module in ("transformers.modeling_utils", "mine"):
                text = "`is_gradient_checkpointing` is deprecated and will be removed"
                warnings.warn_explicit(text, FutureWarning, "x.py", 1, module)
    assert len(found) == 1


# ---- the line where nothing is printed -------------------------------------------------------------
def watch() -> tuple[Watch, io.StringIO, list[float]]:
    now, screen = [0.0], io.StringIO()
    return Watch(screen, lambda: now[0]), screen, now


def test_a_quiet_phase_is_named_with_its_time_and_what_is_left():
    made, screen, now = watch()
    made.enter("evaluate", expected=60)
    now[0] = QUIET - 0.1
    made.beat()
    assert screen.getvalue() == ""
    now[0] = 21.0
    made.beat()
    assert screen.getvalue() == f"{ERASE}evaluate: 0:21, about 0:39 left"
    now[0] = 75.0  # longer than last time: nothing is promised
    assert made.line(75.0) == "evaluate: 1:15"


def test_rooms_below_the_commands_name_phases_too():
    made, screen, now = watch()
    phase("unheard")
    unheard = listen(made.enter)
    phase("request 1", 30)
    assert (made.phase, made.expected) == ("request 1", 30)
    unheard()
    phase("unheard")
    assert made.phase == "request 1"


def test_what_is_printed_takes_the_lines_place():
    made, screen, now = watch()
    stream = Watched(screen, made)
    made.enter("data")
    now[0] = 5.0
    made.beat()
    stream.write("[2/4] unlearn\n")
    assert screen.getvalue() == f"{ERASE}data: 0:05{ERASE}[2/4] unlearn\n"
    now[0] = 6.0
    made.beat()  # it is not quiet for long enough again
    assert screen.getvalue().endswith("unlearn\n")
    assert not stream.isatty()  # everything else is the stream's


def test_a_bar_that_stands_still_says_for_how_long_and_comes_back():
    made, screen, now = watch()
    stream = Watched(screen, made)
    made.enter("unlearn")
    stream.write("\r 10%|#   | 1/10")
    now[0] = 12.0
    made.beat()
    assert screen.getvalue().endswith(f"{ERASE} 10%|#   | 1/10 (for 0:12)")
    stream.write(" more")
    assert screen.getvalue().endswith(f"{ERASE} 10%|#   | 1/10 more")
    made.beat()
    stream.write("\r 20%|##  | 2/10")
    assert made.tail == " 20%|##  | 2/10"


def test_what_nobody_sees_is_no_sign_of_life():
    """On a terminal that says it has no columns a bar is only carriage returns and blanks."""
    made, screen, now = watch()
    made.enter("evaluate")
    stream = Watched(screen, made)
    for second in range(1, 6):
        now[0] = float(second)
        stream.write("\r")
        stream.write("   ")
        made.beat()
    assert screen.getvalue().endswith(f"{ERASE}evaluate: 0:05")


def test_times():
    assert [clock_text(s) for s in (0.9, 61, 3725)] == ["0:00", "1:01", "1:02:05"]


# ---- the recorder ----------------------------------------------------------------------------------
SCRIPT = (
    "import sys, time, warnings; assert sys.stdout.isatty(); print('begin'); time.sleep(1.2); print('end');"
    "warnings.warn('old'); print('WARNING: something'); sys.exit(3)"
)


def test_the_recorder_has_a_terminal_with_columns(silence, tmp_path, monkeypatch):
    """Without any a bar of tqdm is empty."""
    monkeypatch.delenv("TQDM_DELAY", raising=False)  # a command that a test called in this process sets it
    words = (
        "import os, tqdm; print(os.get_terminal_size().columns, os.getcwd()); list(tqdm.tqdm(range(3), desc='bar'))"
    )
    found = silence.record([sys.executable, "-c", words], folder=tmp_path)
    assert silence.lines_of(found.text)[0] == f"{silence.COLUMNS} {tmp_path}" and "bar: 100%|" in found.text


def test_the_recorder_knows_the_phases_and_interrupts_a_server(silence):
    said = "print('\\rload: 0:05'); print('load: 1:02, about 0:10 left'); print('at 12:30'); print('a: 50%|: 0:09')"
    found = silence.record([sys.executable, "-c", said])
    assert found.phases == {"load": 62} and found.cpu > 0
    served = silence.record(
        [sys.executable, "-c", "print('ready', flush=True); import time; time.sleep(60)"], until="ready"
    )
    assert served.seconds < 30 and "KeyboardInterrupt" in served.text


def test_the_recorder_measures_silence_and_names_foreign_lines(silence, monkeypatch, capsys):
    found = silence.record([sys.executable, "-c", SCRIPT])
    longest, after = found.silences[0]
    assert found.code == 3 and longest >= 1.1 and after == "begin"
    assert found.foreign == ["<string>:1: UserWarning: old", "WARNING: something"]
    monkeypatch.setattr("sys.argv", ["silence.py", "--", sys.executable, "-c", "print('hello')"])
    with pytest.raises(SystemExit) as stop:
        silence.main()
    assert stop.value.code == 0 and "exit code 0" in capsys.readouterr().out
    assert silence.record(["no-such-command"]).code == 127


def test_a_bar_of_a_moment_is_not_shown(silence):
    bars = "lambda: [list(__import__('tqdm').tqdm(range(3), desc='read')), print('done')]"
    found = silence.record([sys.executable, "-c", f"from hf_unlearn.cli.terminal import run; run({bars})"])
    assert silence.lines_of(found.text) == ["done"]


@pytest.mark.long
def test_no_command_is_silent():
    """None is silent for 10 s, fails, or shows what a library printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    words = [sys.executable, str(ROOT / "tools/silence_commands.py")]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_command_has_a_case(silence, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    spec = importlib.util.spec_from_file_location("silence_commands", ROOT / "tools" / "silence_commands.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "silence_commands", module)
    spec.loader.exec_module(module)
    assert {case.words.split()[0] for case in module.CASES} == set(COMMANDS)
    assert [case.name for case in module.wanted(["attack, class"])] == ["ddpm", "attack, class"]
    quiet, loud = silence.Recording(silences=[(9.0, "x")]), silence.Recording(1, silences=[(11.0, "y")], foreign=["w"])
    assert module.wrong(quiet) == [] and len(module.wrong(loud)) == 3
    made = module.table({"env": quiet}, "| `ddpm` | kept |\n| `env` | old |\n| `gone` | 1 |")
    assert made.splitlines()[2:] == ["| `ddpm` | kept |", f"| `env` | {date.today()} | 0 | 0 | 9.0 | – | 0 |"]


def test_a_command_prints_nothing_of_libraries(silence, tmp_path):
    """The emoji model with an adapter: its small autoencoder, no safety checker, an adapter of the UNet alone."""
    words = f"sd --pretrained_model_name_or_path {ASSETS / 'emoji_sd'} --concept rocket --num_forget_images 8"
    words += " --num_retain_images 8 --train_batch_size 2 --max_train_steps 1 --eval_profile quick --use_lora true"
    words += f" --num_inference_steps 2 --output_dir {tmp_path / 'run'} --retain_prompts fluent_cat noto_cat"
    found = silence.record([sys.executable, "-m", "hf_unlearn", *words.split()])
    assert found.code == 0, found.text[-2000:]
    assert found.foreign == []
    lines = [line.strip() for line in silence.ESCAPES.sub("", found.text).splitlines() if line.strip()]
    begins = [
        lines.index(line) for line in ("[1/5] data", "[2/5] masks", "[3/5] unlearn", "[4/5] save", "[5/5] evaluate")
    ]
    plan = next(i for i, line in enumerate(lines) if line.startswith("plan: "))
    verdict = next(i for i, line in enumerate(lines) if line.startswith("NOT TESTED: "))
    assert begins == sorted(begins) and plan < begins[0] and begins[-1] < verdict
    assert "Try: hf-unlearn sd " in lines[verdict] and lines[-1].startswith("hf-unlearn report ")
