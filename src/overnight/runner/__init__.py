"""The loops that lease segments, keep engines full, seal results, and end what has to end."""
