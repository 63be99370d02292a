"""`hf-unlearn attack`, and `--attack` of the training commands: from a run's folder to attacks on its model."""
