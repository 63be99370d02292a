"""Bad inputs: what is wrong, how it is called, and words that the one line must hold.

{work} is the folder with copies of what `given` makes, those that the call names; {out} holds an earlier result.
Calls begin with a key of `CALLS`, which stands for flags that would work.
"""

from dataclasses import dataclass

from spoil import Spoiler

FAST = "--max_train_steps 2 --train_batch_size 4 --output_dir {out}"
CALLS = {
    "ddpm": f"unlearn_ddpm {FAST} --fisher_samples 4 --eval_samples_per_class 4 --num_inference_steps 2",
    "dit": f"unlearn_dit {FAST} --fisher_samples 4 --num_inference_steps 2",
    "sd": f"unlearn_sd {FAST} --fisher_samples 4 --num_inference_steps 2 --eval_profile quick "
    "--num_forget_images 8 --num_retain_images 2",
    "vit": "unlearn_classification --max_steps 2 --per_device_train_batch_size 4 --fisher_samples 4 --use_cpu True "
    "--disable_tqdm True --output_dir {out}",
    "compare": "hf-unlearn compare --output_dir {out} --jobs 0",
    "requests": "hf-unlearn requests {out}",
    "publish": "hf-unlearn publish",
    "report": "hf-unlearn report",
    "check": "hf-unlearn check",
    "demo": "hf-unlearn demo",
    "saliency": "hf-unlearn saliency --fisher_samples 4 --output {out}/masks.safetensors",
    "env": "hf-unlearn env",
    "export": "hf-unlearn export",
    "attack": "hf-unlearn attack",
    "augment": "hf-unlearn augment --output_dir {out}",
    "estimate": "hf-unlearn estimate",
    "train_ddpm": "train_digits_ddpm --max_train_steps 2 --output_dir {out}",
    "train_dit": "train_digits_dit --max_train_steps 2 --vae_steps 2 --output_dir {out}",
    "train_judge": "train_digits_judge --steps 2 --output_dir {out}",
    "train_emoji": "train_emoji_sd --judge_steps 1 --vae_steps 1 --max_train_steps 1 --output_dir {out}",
}


@dataclass(frozen=True)
class Case:
    name: str
    call: str
    says: str
    spoil: Spoiler = lambda folder: None

    def argv(self, **places) -> list[str]:
        first, _, rest = self.call.partition(" ")
        return [word.format(**places) for word in f"{CALLS[first]} {rest}".split()]
