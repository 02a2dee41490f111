"""A model's tensors: where they lie, what they hold, and a hash of all that numbers depend on."""
