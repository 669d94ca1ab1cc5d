"""Devices and the namespace that names them."""
