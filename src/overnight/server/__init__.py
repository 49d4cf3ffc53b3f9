"""HTTP in, HTTP out: the Messages and Message Batches endpoints over a store and a runner."""
