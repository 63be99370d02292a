"""Helpers that know nothing of models: files, errors, limits, shards, weights, names."""
