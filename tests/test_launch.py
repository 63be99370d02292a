"""The launch files of the package, also at scripts/accelerate: what accelerate and DeepSpeed make of them."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DeepSpeedPlugin, FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from conftest import config, tiny_pipeline

from hf_unlearn import L1Sparse, NegGradPlus, SFRon, UnlearnTrainer, split_by_label
from hf_unlearn.__main__ import main
from hf_unlearn.training.fsdp import check_launch

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "src/hf_unlearn/cli/accelerate"
KINDS = {
    "single_gpu": "NO",
    "multi_gpu": "MULTI_GPU",
    "fsdp2": "FSDP",
    "deepspeed_zero2": "DEEPSPEED",
    "deepspeed_zero3": "DEEPSPEED",
}


def launched(name: str):
    """The arguments of `accelerate launch --config_file NAME script.py`, checked by accelerate."""
    args = launch_command_parser().parse_args(["--config_file", str(FOLDER / f"{name}.yaml"), "script.py"])
    args, defaults, _ = _validate_launch_command(args)
    args.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
    return args


def test_every_file_is_tested():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(KINDS)
    assert (ROOT / "scripts/accelerate").resolve() == FOLDER


def test_env_says_where_they_are(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["hf-unlearn", "env", "--accelerate_config", "fsdp2"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0 and capsys.readouterr().out == f"{FOLDER / 'fsdp2.yaml'}\n"


@pytest.mark.parametrize("name", KINDS)
def test_accelerate_loads_it_whole(name):
    """Its loader drops nothing, so that no key is misspelt."""
    path = FOLDER / f"{name}.yaml"
    loaded, written = load_config_from_file(str(path)), yaml.safe_load(path.read_text())
    assert str(loaded.distributed_type.value) == KINDS[name] == written.pop("distributed_type")
    assert {key: getattr(loaded, key) for key in written if key != "compute_environment"} == {
        key: value for key, value in written.items() if key != "compute_environment"
    }


def test_the_launcher_takes_them():
    assert launched("multi_gpu").multi_gpu and launched("multi_gpu").num_processes == 2
    assert launched("fsdp2").use_fsdp and launched("fsdp2").fsdp_version == 2
    assert [launched(f"deepspeed_zero{stage}").zero_stage for stage in (2, 3)] == [2, 3]


def set_environment(monkeypatch, values):
    for key, value in values.items():
        if key.startswith(("FSDP_", "ACCELERATE_")):
            monkeypatch.setenv(key, value)


def test_fsdp_environment_is_what_the_trainer_works_with(monkeypatch):
    set_environment(monkeypatch, prepare_multi_gpu_env(launched("fsdp2")))
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward and not plugin.cpu_ram_efficient_loading
    assert plugin.transformer_cls_names_to_wrap == ["BasicTransformerBlock"]
    assert plugin.state_dict_type.name == "SHARDED_STATE_DICT"


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_reads_the_configuration(monkeypatch, stage):
    """As far as its package goes without a GPU: its own parser."""
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    runtime = pytest.importorskip("deepspeed.runtime.config", reason="pip install deepspeed: no test needs it besides")
    for key, value in {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0}.items():
        monkeypatch.setenv(key, str(value))
    set_environment(monkeypatch, prepare_deepspeed_cmd_env(launched(f"deepspeed_zero{stage}"))[1])
    plugin = DeepSpeedPlugin()
    plugin.set_mixed_precision("bf16")
    sizes = {"train_batch_size": 2, "train_micro_batch_size_per_gpu": 2, "steps_per_print": 1000}
    read = runtime.DeepSpeedConfig({**plugin.deepspeed_config, **sizes})
    assert read.zero_optimization_stage == stage and read.gradient_clipping == 1.0 and read.bfloat16_config.enabled


# ---- what cannot work says so ----------------------------------------------------------------
def refusal(images, tmp_path, method, **values):
    """What `check_launch` says to a trainer that finds itself under FSDP or DeepSpeed."""
    plugin = SimpleNamespace(fsdp_version=2, cpu_ram_efficient_loading=False)
    vars(plugin).update({k: v for k, v in values.items() if k in vars(plugin)})
    state = SimpleNamespace(fsdp_plugin=plugin)
    given = UnlearnTrainer(tiny_pipeline(), config(tmp_path), method, *split_by_label(images, 1))
    deepspeed = values.get("deepspeed", False)
    launcher = SimpleNamespace(state=state)
    check_launch(given.objective, method, given.args, launcher, deepspeed, fsdp=not deepspeed)


@pytest.mark.parametrize(
    ("method", "values", "words"),
    [
        (SFRon(), {"deepspeed": True}, "fsdp2.yaml"),
        (SFRon(), {"fsdp_version": 1}, "fsdp_version: 2"),
        (SFRon(), {"cpu_ram_efficient_loading": True}, "fsdp_cpu_ram_efficient_loading: false"),
        (L1Sparse(), {}, "multi_gpu.yaml"),
        (SFRon(resist_relearning=1), {}, "whole weights in every step with these options"),
    ],
)
def test_launches_that_cannot_work_are_refused(images, tmp_path, method, values, words):
    with pytest.raises(ValueError, match=words):
        refusal(images, tmp_path, method, **values)


def test_launches_that_work_are_not(images, tmp_path):
    refusal(images, tmp_path, SFRon())
    refusal(images, tmp_path, NegGradPlus(), deepspeed=True)
