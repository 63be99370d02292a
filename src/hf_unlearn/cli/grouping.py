"""How `--help` is ordered: groups of flags, the few that most runs need, each flag once."""

import argparse
from collections.abc import Collection
from typing import Any

# Where each flag of the training commands stands; the fields of a method stand under "Method".
GROUPS: dict[str, tuple[str, ...]] = {
    "Model": (
        *("pretrained_model_name_or_path", "model_config", "revision", "variant", "retrained_model", "train_method"),
        *("null_class", "use_lora", "rank", "lora_alpha", "lora_select", "rank_budget", "merge", "base_precision"),
    ),
    "Concept": (
        *("concept", "anchor_concept", "prompt_templates", "held_out_templates", "list_concepts", "retain_prompts"),
        *("num_forget_images", "num_retain_images", "guidance_scale", "num_inference_steps"),
    ),
    "Data": (
        *("dataset_name", "dataset_config_name", "train_data_dir", "validation_data_dir", "forget_class"),
        *("forget_indices", "forget_fraction", "forget_data_dir", "forget_dataset_name", "retain_data_dir"),
        *("retain_dataset_name", "image_column", "label_column", "caption_column", "resolution", "center_crop"),
        *("random_flip", "streaming", "max_train_samples", "skip_unreadable_images", "image_mean", "image_std"),
        "cache_dir",
        "dataloader_num_workers",
        *(
            "augment_with",
            "augment_by",
            "augment_factor",
            "augment_strength",
            "augment_times",
            "augment_steps",
            "augment_prompt",
        ),
    ),
    "Method": ("method", "preset", "mask_path"),
    "Training": (
        *("output_dir", "max_train_steps", "extend_to", "train_batch_size"),
        *("learning_rate", "lr_scheduler", "lr_warmup_steps"),
        *("adam_beta1", "adam_beta2", "adam_epsilon", "adam_weight_decay", "max_grad_norm", "label_dropout"),
        *(
            "antithetic",
            "variance_weight",
            "weighting_scheme",
            "logit_mean",
            "logit_std",
            "seed",
            "checkpointing_steps",
            "checkpoints_total_limit",
        ),
        *("resume_from_checkpoint", "logging_steps", "report_to", "eval_steps", "target_forget", "max_retain_drift"),
        "max_loss_ratio",
    ),
    "Memory": (
        *("mixed_precision", "gradient_accumulation_steps", "gradient_checkpointing", "offload", "use_8bit_adam"),
        *("masked_moments", "bf16_weights", "original_precision"),
        "low_memory",
        *("enable_xformers_memory_efficient_attention", "drawing_batch_size"),
    ),
    "Evaluation": (
        *("classifier_model_name_or_path", "classifier_revision", "eval_classes", "eval_samples_per_class"),
        *("eval_profile", "eval_prompts", "eval_retain_prompts", "num_eval_images", "safety_detector", "clip_model"),
        *("validation_prompts", "num_validation_images"),
        *("feature_model", "inception_weights", "lpips_weights", "eval_batch_size", "max_eval_samples", "attack"),
    ),
    "Hub": ("push_to_hub", "hub_model_id", "hub_token", "hub_private_repo", "push_masks"),
}
ALWAYS = ("help", "help_all", "config", "dry_run")


class Formatter(argparse.HelpFormatter):
    """Adds the default of each flag that has one."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=34, width=110)

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        if action.nargs == "?" and action.const is True:  # a switch, which may also be given true or false
            return ""
        return super()._format_args(action, default_metavar)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        return super()._format_action_invocation(action).rstrip()

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        return {int: "INT", float: "FLOAT"}.get(action.type, "TEXT")  # type: ignore[call-overload]

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        unsaid = action.default is None or action.default is argparse.SUPPRESS or action.default is False
        return text if unsaid or "efault" in text else f"{text} Default: %(default)s."


class Help(argparse.Action):
    """Prints the help: of the flags in `basic`, or of all."""

    def __init__(self, option_strings: list[str], dest: str, basic: Collection[str] | None = None, **options: Any):
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=options["help"])
        self.basic = basic

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        if self.basic is not None:
            for action in parser._actions:
                if action.dest not in self.basic and not isinstance(action, Help) and action.dest not in ALWAYS:
                    action.help = argparse.SUPPRESS
        parser.print_help()
        parser.exit()


def once(parser: argparse.ArgumentParser) -> None:
    """Have each flag shown once, under its own name; other spellings and --no_x stay, unseen."""
    for action in parser._actions:
        own = f"--{action.dest}"
        if isinstance(action, argparse._StoreFalseAction) and own not in action.option_strings:
            action.help = argparse.SUPPRESS
        elif own in action.option_strings:
            action.option_strings = [own]


def group(parser: argparse.ArgumentParser, method_fields: Collection[str]) -> None:
    """Put the parser's flags into `GROUPS`; flags that are in none stay where they are."""
    places = {name: (title, k) for title, names in GROUPS.items() for k, name in enumerate(names)}
    places |= {name: ("Method", 100) for name in method_fields if name not in places}
    titled = {title: parser.add_argument_group(title) for title in GROUPS}
    here = parser._optionals._group_actions
    for action in sorted(here, key=lambda action: places.get(action.dest, ("", 0))[1]):
        if action.dest in places:
            here.remove(action)
            titled[places[action.dest][0]]._group_actions.append(action)
