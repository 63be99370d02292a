"""Helpers without knowledge of methods or families: files, errors, limits, sharding, weights, names, cache keys."""
