"""How close a picture is to prompts, as CLIP sees it: what engines share."""
