"""Step kinds, one a file: what a part of the spec becomes in the plan."""
