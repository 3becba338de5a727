"""The studio: one room for each concern. docs/architecture.md describes them."""
