"""Publish results to the Hugging Face Hub and read where a model comes from."""
