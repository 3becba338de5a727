"""Fast versions of the frozen networks, each with a slow reference in the tests."""
