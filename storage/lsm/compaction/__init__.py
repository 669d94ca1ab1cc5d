"""Keeping a store small and fast while it is written: checkpoints, repacking, consolidation, dropping."""
