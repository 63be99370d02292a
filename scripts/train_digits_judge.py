"""Train the digit judge on 1,437 of scikit-learn's digits and print its accuracy on the other 360.

python scripts/train_digits_judge.py --output_dir digits-judge
"""

import torch
from torch.nn import functional as F

from hf_unlearn.cli import parsing as cli
from hf_unlearn.common.limits import SEEDS, check_limits
from hf_unlearn.data.images import digits
from hf_unlearn.evaluation import DigitsJudge


def shifted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The batch moved by up to one pixel, with a little noise."""
    top, left = torch.randint(0, 3, (2,), generator=generator).tolist()
    images = F.pad(images, (1, 1, 1, 1), value=-1)[:, :, top : top + 8, left : left + 8]
    return images + 0.15 * torch.rand(1, generator=generator) * torch.randn(images.shape, generator=generator)


def main() -> None:
    parser = cli.CommandParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    check_limits(options, seed=SEEDS, steps="[1, inf)")
    cli.check_writable(options.output_dir)

    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    data = digits()
    order = torch.randperm(len(data), generator=generator)
    test, train = order[:360], order[360:]
    judge = DigitsJudge()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=options.steps)
    for _ in range(options.steps):
        chosen = train[torch.randint(len(train), (128,), generator=generator)]
        logits = judge(shifted(data.pixel_values[chosen], generator))
        loss = F.cross_entropy(logits, data.label_tensor[chosen], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    judge.eval()
    with torch.no_grad():
        correct = judge(data.pixel_values[test]).argmax(1) == data.label_tensor[test]
    judge.save_pretrained(options.output_dir)
    print(f"accuracy on {len(test)} held-out digits: {correct.double().mean():.4f}")


if __name__ == "__main__":
    cli.run(main)
