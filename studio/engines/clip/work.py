"""How much a CLIP computes, and how much of that at a time. No torch."""

# CLIP looks at a chunk of the cutouts at a time, so that memory does not grow with their number: 16
# of 224x224 pixels, or as many pixels of another size.
CUTOUTS_AT_A_TIME = 16
SMALL_CLIP_MACS = 0.08e9  # a picture through the bundled CLIP
CLIP_MACS = {  # a picture through the visual tower, counted on OpenAI's models
    "RN50": 5.8e9,
    "RN101": 9.5e9,
    "RN50x4": 20.6e9,
    "RN50x16": 72.9e9,
    "RN50x64": 260.1e9,
    "ViT-B/32": 4.4e9,
    "ViT-B/16": 17.6e9,
    "ViT-L/14": 81.0e9,
    "ViT-L/14@336px": 191.0e9,
}


def clip_macs(name: str) -> float:
    """Multiply-adds that a CLIP takes to see a picture."""
    return CLIP_MACS.get(name, SMALL_CLIP_MACS)
