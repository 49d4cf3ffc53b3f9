"""Bytes to structs and back: the API's words and nothing else. Pure: no clock, disk, network or dice."""
