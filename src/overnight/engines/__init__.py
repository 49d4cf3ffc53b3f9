"""Params in, outcome out: one file per engine kind, one Protocol (`engine.Engine`) for all."""
