"""Diffusion models: Stable Diffusion and its kin, in diffusers' formats and in single files."""
