"""Agents: each file holds one, as a `Config` and a `make(config, ...) -> Agent`."""
