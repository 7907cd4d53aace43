"""Recordings of any length: cut at silences into pieces that a model takes, and put together again."""
