"""Data sets: reading, checking, splitting, pairing and streaming."""
