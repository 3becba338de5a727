"""Models: the catalogue of weights, and reading their files."""
