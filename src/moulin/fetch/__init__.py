"""Models from elsewhere: the Hugging Face hub, release archives, and a short list of known ones."""
