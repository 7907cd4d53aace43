"""Fetching published models: from the Hugging Face hub, from archives, and by the names of a short list."""
