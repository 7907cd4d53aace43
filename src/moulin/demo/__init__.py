"""The models that `moulin serve` serves by default, and a demonstration of them."""
