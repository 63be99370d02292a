"""Export and reload models: checkpoints, adapters and the unlearning history."""
