"""Making: from a request to a finished run."""
