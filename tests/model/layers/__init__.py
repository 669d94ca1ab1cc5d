"""Layers, as trunks of indexes, as a model, checked in every state within small bounds."""
