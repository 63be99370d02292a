"""Which weights matter for the forget data: Fishers, masks, ranks."""
