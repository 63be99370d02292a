"""The trainer, its parts and its configuration."""
