"""What unlearning costs: one module a section, each with `measure(profile)`, `text(result)` and `goals(result)`."""
