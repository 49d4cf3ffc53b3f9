"""The nightly jobs: rows out of a database or files, batches, answers written back, a summary by mail.

Speaks the public wire format to a server, ours or another, and imports nothing of ours.
"""
