"""Base: errors, atomic files, YAML, stopping, ports, shared options. Uses no other room."""
