"""Engines: the contract, the registry, the device, and one folder for each engine."""
