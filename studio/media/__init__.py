"""Media: pictures and videos, read and written."""
