"""The queue: its order, the messages that wake up workers, and the workers."""
