"""What a type checker must see of the public names: `make lint` fails if one of the errors is missing.

mypy is told to expect them, and `warn_unused_ignores` has it complain where it finds none. Nothing runs this file.
"""

import hf_unlearn
from hf_unlearn import METHODS, SFRon, UnlearnConfig, UnlearnTrainer, digits

unknown = hf_unlearn.nothing  # type: ignore[attr-defined]
UnlearnConfig(output_dir="a", target_forget=0.1)
UnlearnConfig(outputdir=1)  # type: ignore[call-arg]
UnlearnConfig(output_dir="a", target_forget="low")  # type: ignore[arg-type]
SFRon(fisher="bogus")  # type: ignore[arg-type]
digits(1)  # type: ignore[call-arg]
METHODS["esd"](negative_guidance=2.0)
UnlearnTrainer(None, UnlearnConfig(), SFRon(), forget_dataset=3)  # type: ignore[arg-type]
