"""How well the shipped digits models draw: accuracy of 50 samples a class by the judge, Frechet distance.

python benchmarks/digits_samples.py
"""

from hf_unlearn import digits, load_ddpm_pipeline
from hf_unlearn.evaluation import (
    DIGITS_DDPM,
    SamplingConfig,
    digits_judge,
    evaluate_classes,
    markdown_table,
    retrained_digits_ddpm,
)
from hf_unlearn.evaluation.metric import share_text


def main() -> None:
    real, judge = digits(), digits_judge()
    config = SamplingConfig(samples_per_class=50)
    rows = []
    for name, excluded in [("digits_ddpm", None), *((f"retrained without {k}", k) for k in range(10))]:
        pipeline = load_ddpm_pipeline(str(DIGITS_DDPM)) if excluded is None else retrained_digits_ddpm(excluded)
        classes = [0] if excluded is None else [excluded]
        figures = evaluate_classes(pipeline, judge, classes, real.pixel_values, real.label_tensor, config)
        drawn = [share for c, share in figures.per_class.items() if c != excluded]
        each = config.samples_per_class
        missing = "" if excluded is None else share_text(figures.per_class[excluded], each)
        mean = share_text(sum(drawn) / len(drawn), each * len(drawn))
        rows.append([name, mean, share_text(min(drawn), each), missing])
    print(markdown_table(["model", "accuracy of samples", "worst class", "excluded class read as itself"], rows))


if __name__ == "__main__":
    main()
