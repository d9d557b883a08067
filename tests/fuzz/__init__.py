"""Random and mutated frames: what they are, and what a stream must hold against them."""
