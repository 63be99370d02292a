"""Find the weights that matter for the forget data: Fishers, masks and LoRA ranks."""
