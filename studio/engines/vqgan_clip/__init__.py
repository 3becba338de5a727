"""The VQGAN-CLIP engine: a VQGAN latent, optimised until CLIP finds the prompt in it."""
