"""The commands of `hf-unlearn`, one a module, imported when it is called."""
