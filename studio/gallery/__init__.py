"""The gallery, in Flask."""
