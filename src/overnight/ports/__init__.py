"""The non-deterministic world as small Protocols, each with its real implementation beside it."""
