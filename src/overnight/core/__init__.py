"""Decisions. State + event + now gives state: no I/O, no clock, no await, no dice."""
