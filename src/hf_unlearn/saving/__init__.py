"""Export, checkpoints, adapters and the history of a model."""
