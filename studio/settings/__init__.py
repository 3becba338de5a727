"""Settings: declared, checked, and layered from defaults to a person's choices."""
