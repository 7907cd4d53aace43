"""Recordings of any length: cut at silences into pieces short enough for a model, and their transcripts joined."""
