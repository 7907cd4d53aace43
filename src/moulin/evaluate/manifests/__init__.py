"""Readers of manifests, one file for each form in which recordings and transcripts are kept."""
