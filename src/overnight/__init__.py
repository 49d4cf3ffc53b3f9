"""`overnight`: the Message Batches API on your own machines. See ARCHITECTURE.md for the way of a batch."""

__version__ = "0.1.0"
