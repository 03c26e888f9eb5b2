"""Environments: one adapter a file, each importing its heavy simulator only when it is used."""
