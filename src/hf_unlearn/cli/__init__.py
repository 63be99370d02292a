"""Flags, commands and how they begin and end."""
