"""The order of every training run: load, data, masks, unlearn, save, evaluate, finish."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, ClassVar

from torch import nn
from transformers.trainer_utils import set_seed

from ...common.bars import phase
from ...common.processes import is_first, say
from ...common.weights import model_digest
from ...evaluation.metric import Metric
from ...evaluation.progress import progress_figures
from ...evaluation.registry import extra_metrics, joined, registered_metrics
from ...report.reading import read_record
from ...report.record import RunRecord
from ...report.recording import record_run, remeasured
from ...saving.export import load_saved
from ...training.config import UnlearnConfig, check_precision
from ...training.trainer import UnlearnTrainer
from ..attacks.flags import Known
from ..finish import finish, prepare_repo
from ..parsing import resolved, without_secrets
from ..plan import Room, masked, outlined, planned, sketch
from ..stages import Stages
from ..terminal import check_writable
from .attack_stage import attacked, check_attack
from .early import check_arguments, check_flags, check_folders, check_model, has_record


class Run:
    """One training run. A family's subclass fills in the steps that `execute` calls, in this order:
    check, begin, load, sets, before, (training), after, evaluate.

    Args:
        parts: what `parse` returned: instances of the command's dataclasses in their order, the method last.

    Attributes:
        forget, retain: the two sets, made by `sets`.
        eval_retain: retain data to evaluate on, where the retain set itself cannot be (a stream).
        holdout: samples that a classifier was never trained on, and that no figure is taken on.
        base_model, revision: folder or Hub id of the original and its revision.
        picture: file in the output folder that shows the result; None if there is none.
        command: words of the command, without secrets; `execute` knows them.
        loaded_weights: hash of the original's weights, in the main process.
    """

    stages: ClassVar[tuple[str, ...]] = ("data", "unlearn", "save", "evaluate")

    def __init__(self, parts: Sequence[Any]):
        self.parts = parts
        self.training: Any = None
        self.lora: Any = None
        self.method: Any = parts[-1]
        self.pipeline: Any = None
        self.objective: Any = None
        self.forget: Any = None
        self.retain: Any = None
        self.eval_retain: Any = None
        self.holdout: Any = None
        self.base_model: str | None = None
        self.revision: str | None = None
        self.others: dict[str, Any] = {}  # given fields of UnlearnConfig that are no flags
        self.picture: str | None = "before_after.png"
        self.command: list[str] | None = None
        self.loaded_weights: str | None = None

    # ---- what a family fills in -------------------------------------------------------------------
    @property
    def forgotten(self) -> str:
        """What is forgotten, in words."""
        raise NotImplementedError

    @property
    def sources(self) -> dict[str, str]:
        """Where the data come from."""
        raise NotImplementedError

    @property
    def forgets(self) -> str | None:
        """Whether that is a "class", "samples" or a "concept"; None: as the labels say."""
        return None

    @property
    def hub_revision(self) -> str | None:
        """Branch to upload to; None is the main one."""
        return None

    @property
    def made_from(self) -> Any:
        """All that the saved result depends on, once model and sets are there. None: a later call trains again."""
        return None

    @property
    def masks_folder(self) -> str | None:
        """Where masks are kept by content; None: they are computed when the training starts."""
        return None

    @property
    def draws(self) -> list[str]:
        """How many images are generated and what for, as far as the flags say; a line each."""
        return ["none are generated"]

    @property
    def has_masks(self) -> bool:
        """Whether weights outside a mask are held."""
        return masked(self.method)

    @property
    def side(self) -> int | None:
        """Height and width of what the network sees; None for its own."""
        return None

    @property
    def all_stages(self) -> list[str]:
        """The stages, with the attack where one is asked for."""
        return [*self.stages, *(["attack"] if self.training.attack != "none" else [])]

    def check_attack(self) -> None:
        """Raise ValueError where the result could not be attacked, as far as the flags say."""

    def known(self) -> Known:
        """What attacks on the result need and neither its files nor its record have."""
        place = None if self.base_model is None else (self.base_model, self.revision)
        return Known(place, command=self.command)

    def digest(self) -> str | None:
        """Hash of the weights of the original, just loaded; None where the run trains it itself."""
        return model_digest(self.pipeline)

    def outlined(self) -> nn.Module | str:
        """Return the network on the meta device, or why it is not known before the model is loaded."""
        return outlined(self.base_model, self.revision)

    def settle(self, network: nn.Module | str, room: Room, stages: Stages) -> str:
        """Choose what the flags leave open, once the model is known, and return what was chosen; "" if nothing was.

        Args:
            network: a sketch of it, or why there is none.
        """
        return ""

    def check(self) -> None:
        """Raise ValueError for flags that cannot work, before anything is written or loaded."""

    def begin(self) -> None:
        """Set up processes and measurements; what these lack is said here, before anything is loaded."""

    def load(self) -> None:
        """Load the model into `pipeline`, and make an `objective` of it that the method can be checked with."""
        raise NotImplementedError

    def sets(self) -> None:
        """Make `forget` and `retain`, and the `objective` where it depends on them, and keep what the evaluation needs
        of the original."""
        raise NotImplementedError

    def config(self) -> UnlearnConfig:
        """Return the arguments of the trainer."""
        return self.training.config()

    def before(self, trainer: UnlearnTrainer) -> None:
        """Measure the original model; called in every process."""

    def after(self, trainer: UnlearnTrainer) -> None:
        """Measure the unlearned model; called in every process."""

    def evaluate(self, trainer: UnlearnTrainer) -> tuple[str, dict[str, Any], Sequence[dict[str, Any]]]:
        """Return the table, the metrics and the rows of classes; called in the main process only."""
        raise NotImplementedError

    def record(
        self, trainer: UnlearnTrainer, metrics: dict[str, Any], rows: Sequence[dict[str, Any]] = ()
    ) -> RunRecord:
        """Return the record of the run."""
        base = (self.base_model, self.revision)
        known: dict[str, Any] = {"picture": self.picture, "forgets": self.forgets, "command": self.command}
        record = record_run(trainer, self.forgotten, metrics, *base, self.sources, rows, **known)
        record.base_model.weights = self.loaded_weights
        return record

    def registered(self, trainer: UnlearnTrainer) -> dict[str, Metric]:
        """Return the metrics of other packages for the model as it is now; nothing but in the main process."""
        if not trainer.is_world_process_zero():
            return {}
        return extra_metrics(self.objective, self.forget, self.retain, self.training.seed)

    @property
    def shows_stages(self) -> bool:
        """Whether this process announces stages."""
        return True


class DiffusionRun(Run):
    """A run whose losses are measured before and after, in `losses`."""

    def __init__(self, parts: Sequence[Any]):
        super().__init__(parts)
        self.losses: dict[str, dict[str, float]] = {}

    def before(self, trainer: UnlearnTrainer) -> None:
        self.losses["before"] = trainer.evaluate()

    def after(self, trainer: UnlearnTrainer) -> None:
        self.losses["after"] = trainer.evaluate()


def execute(run: Run, name: str | None = None, argv: Sequence[str] = ()) -> None:
    """Do the whole run, or with --dry_run print its configuration.

    Args:
        name, argv: the command that asked for it, such as "sd", and its words, which the record keeps.
    """
    run.command = None if name is None else without_secrets(["hf-unlearn", name, *argv])
    training = run.training
    if training.dry_run:
        given = resolved(run.parts)
        told = planned(run, run.outlined(), Room.at_hand(), Stages(training.output_dir, run.all_stages, show=False))
        print(given + "".join(f"# {line}\n" for line in told), end="")
        return
    check_precision(training.mixed_precision)
    run.check()
    check_folders(run.parts)
    check_flags(training, run.lora, run.method)
    check_attack(run)
    registered_metrics()  # one that does not load is named before anything is drawn or trained
    check_writable(training.output_dir)
    run.begin()
    check_arguments(run.config())
    repo = prepare_repo(training, run.hub_revision)
    set_seed(training.seed)
    room = Room.at_hand()  # before the model takes its part
    phase("loading the model")
    run.load()
    run.loaded_weights = run.digest() if is_first() else None
    stages = Stages(training.output_dir, run.all_stages, show=run.shows_stages)
    told = planned(run, sketch(run.objective.network), room, stages)
    check_model(run.objective, run.method, training, run.lora, run.config())
    say("\n".join(told))

    stages.begin("data")
    run.sets()
    made_from = run.made_from
    run.lora.apply(run.objective, run.forget, run.retain, training)
    data = (run.forget, run.retain)
    options = {"masks": training.mask_path, "forgotten": run.forgotten, "eval_retain_dataset": run.eval_retain}
    trainer = UnlearnTrainer(run.objective, run.config(), run.method, *data, **options, holdout_dataset=run.holdout)
    if run.masks_folder is not None:
        stages.begin("masks")
        trainer.prepare_masks(run.masks_folder)
    run.before(trainer)
    trainer.evaluator.prepare(trainer.eval_dataset)
    measured = {"before": run.registered(trainer)}
    done = made_from is not None and stages.finished("save", made_from)
    if done and has_record(training.output_dir, run.shows_stages):
        stages.begin("save", "finished before")
        load_saved(run.objective, training.output_dir)
    else:
        stages.begin("unlearn")
        stages.keep()
        trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
        stages.begin("save")
        trainer.save_model()
        if made_from is not None:
            if trainer.is_world_process_zero():  # a later call that only measures again knows the run from here
                run.record(trainer, {}).write(training.output_dir)
            stages.finish("save", made_from, trainer.exported)
    stages.begin("evaluate")
    run.after(trainer)
    progress = progress_figures(trainer.evaluator.progress())
    if not trainer.is_world_process_zero():
        return
    measured["after"] = {**progress, **run.registered(trainer)}
    table, metrics, rows = run.evaluate(trainer)
    metrics = {model: joined(own, measured.get(model, {})) for model, own in metrics.items()}
    if made_from is not None:
        record = remeasured(read_record(training.output_dir), metrics, run.command)
    else:
        record = run.record(trainer, metrics, rows)
    if training.attack != "none":
        stages.begin("attack")
        record, table = attacked(run, record, table)
    stages.close()
    finish(training, repo, record, table, trainer, run.command)


def need_modules(extra: str, purpose: str, *modules: str) -> None:
    """Raise OSError, before anything is trained, unless these modules are installed."""
    for module in modules:
        if find_spec(module) is None:
            raise OSError(f"{purpose} needs {module}: install hf-unlearn[{extra}]")
