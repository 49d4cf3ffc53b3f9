"""Shipped to users and used by our own suites: virtual time, a disk that loses power, scripted engines,
and the conformance suites that every store, transport and engine must pass."""
