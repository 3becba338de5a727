"""Runs: their folders, who owns them, their index, their checkpoints, and the trash."""
