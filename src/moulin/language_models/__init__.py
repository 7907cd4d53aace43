"""n-gram language models: read, made, written, and looked up for many histories at once. Knows no acoustic models."""
