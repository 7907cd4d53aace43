"""What `moulin serve` serves without a model, and the demonstration of it."""
