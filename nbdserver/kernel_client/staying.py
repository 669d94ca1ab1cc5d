"""The life of a process that keeps one device: attach, stay, and leave as the device allows it."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from enum import Enum

from nbdserver.kernel_client.attaching import AttachSettings, attach, let_go
from nbdserver.kernel_client.endurance import endure
from nbdserver.kernel_client.kernel_device import KernelDevice
from nbdserver.kernel_client.netlink_socket import KernelClient

logger = logging.getLogger("nbdserver")


class Ending(Enum):
    """What became of the device."""

    DETACHED = "detached"
    LEFT_ATTACHED = "left attached"
    """It was in use when this process was asked to end. Nobody connects it again until somebody attaches it again."""


async def stay(
    settings: AttachSettings, attached: Callable[[KernelDevice], None], reload: Callable[[], None]
) -> tuple[KernelDevice, Ending]:
    """Attach, call `attached`, and keep the device until somebody detaches it or SIGTERM or SIGINT comes; SIGHUP calls
    `reload`. What `attach`, `attached` and `Keeper.keep` raise.
    """
    loop = asyncio.get_running_loop()
    with KernelClient() as kernel:
        device, keeper, lock = await attach(kernel, settings)
        task = asyncio.ensure_future(keeper.keep())
        try:
            for each in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(each, task.cancel)
            loop.add_signal_handler(signal.SIGHUP, reload)
            try:
                attached(device)
            except BaseException:
                _leave(kernel, device)  # who asked for it is gone, or is told that it failed
                raise
            facts: dict[str, object] = {"device": str(device.path), "export": settings.address.uri}
            failed = endure()
            if failed:
                logger.warning("not_out_of_memorys_way", extra={**facts, "error": ", ".join(failed)})
            logger.info("attached", extra={**facts, "bytes": device.size})
            try:
                await task
            except asyncio.CancelledError:
                return device, _leave(kernel, device)
            logger.info("detached", extra=facts)
            return device, Ending.DETACHED
        finally:
            task.cancel()
            keeper.close()
            lock.close()


def _leave(kernel: KernelClient, device: KernelDevice) -> Ending:
    """Detach the device unless that would tear it away from somebody."""
    if not let_go(kernel, device):
        logger.warning("left_attached", extra={"device": str(device.path)})
        return Ending.LEFT_ATTACHED
    logger.info("detached", extra={"device": str(device.path)})
    return Ending.DETACHED
