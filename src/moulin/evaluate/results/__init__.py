"""Results that `moulin bench` writes and reads back: the figures of each kind of benchmark as dataclasses."""
