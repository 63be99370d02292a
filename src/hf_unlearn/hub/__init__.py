"""Uploads to the Hub and what is known of a model there."""
