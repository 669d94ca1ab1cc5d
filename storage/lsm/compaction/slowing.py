"""Slowing: which jobs of maintenance a budget of requests may make wait. Pure."""

from storage.lsm.compaction.plan import Decision, Drop, WriteCheckpoint


def can_wait(decision: Decision) -> bool:
    """Whether nothing grows without bound while its job waits: not of a store beyond its space target, nor of what
    takes SSTs off the list, nor of a checkpoint, without which nothing can be taken off it and starts get longer.
    """
    return not (decision.job is None or decision.over_target or isinstance(decision.job, Drop | WriteCheckpoint))
