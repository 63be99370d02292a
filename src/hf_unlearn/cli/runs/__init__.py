"""What a training run does, in one order for all families, and what each family adds."""
