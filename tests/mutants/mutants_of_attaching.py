"""Mistakes in what keeps a disk of the kernel attached: whom it is taken from, what it goes on over, what is heard."""

from tests.mutants.mutant import mutants

CLIENT = "nbdserver/kernel_client/"
TESTS = "tests/nbdserver/kernel_client/"

ATTACHING = [
    *mutants(
        f"{CLIENT}attaching.py",
        f"{TESTS}test_devices_of_the_kernel.py",
        (
            "attach: who keeps a device again goes on over a loss",
            "    incarnation = recall(settings.address)\n",
            "    incarnation = None\n",
        ),
        (
            "attach: who keeps a device again does not know whose the server was",
            "    user = recall_user(settings.address)\n",
            "    user = None\n",
        ),
        ("attach: two at once are two devices", "    with attaching_alone(settings.address):\n", "    if True:\n"),
        (
            "attach: a device that somebody keeps is kept twice",
            "        if found.keeper is not None:\n",
            "        if False:\n",
        ),
        (
            "attach: a device of another export is gone on with",
            "        if found.device.backend != settings.address.uri:\n            continue\n",
            "",
        ),
        (
            "attach: one export is two devices",
            "        if settings.device is not None and settings.device.index != found.device.index:\n",
            "        if False:\n",
        ),
        (
            "attach: what is kept again has one connection",
            "export, settings.connections, settings.waits, incarnation, user)\n    return device",
            "export, 1, settings.waits, incarnation, user)\n    return device",
        ),
        (
            "attach: what was detached and is open counts",
            " for device in found if device.attached]",
            " for device in found]",
        ),
        (
            "attach: the waits are exchanged",
            "Timeouts(self.request_seconds or usual, self.dead_seconds)",
            "Timeouts(self.dead_seconds, self.request_seconds or usual)",
        ),
        (
            "attach: a server elsewhere is waited for no longer than one here",
            "LOCAL_REQUEST_SECONDS if self.address.is_local else REMOTE_REQUEST_SECONDS",
            "LOCAL_REQUEST_SECONDS",
        ),
        ("attach: requests fail without a server", "FOR_EVER_SECONDS = 100 * 365 * 86400", "FOR_EVER_SECONDS = 1000"),
        (
            "attach: how a device was served is not known of one that is kept again",
            "OfferedExport(device.size, device.flags)",
            "OfferedExport(device.size, 0)",
        ),
        ("detach: what is mounted is torn away", "if not force and device.claimed:", "if False:"),
    ),
    *mutants(
        f"{CLIENT}attaching.py",
        f"{TESTS}test_attaching.py",
        (
            "attach: several connections where nothing is promised of them",
            "    if connections[0].export.flags & wire.FLAG_CAN_MULTI_CONN:\n",
            "    if True:\n",
        ),
    ),
    *mutants(
        f"{CLIENT}staying.py",
        f"{TESTS}test_devices_of_the_kernel.py",
        (
            "attach: what nobody could be told of stays",
            "                _leave(kernel, device)  # who asked",
            "                pass  # who asked",
        ),
    ),
    *mutants(
        f"{CLIENT}attaching.py",
        f"{TESTS}test_devices_of_the_kernel.py",
        ("attach: a signal tears away what is mounted", "    if device.attached and device.claimed:", "    if False:"),
        (
            "attach: a signal leaves what nobody uses",
            "    if device.attached:\n        kernel.disconnect(device.index)\n",
            "",
        ),
        ("attach: what nobody can keep stays", "        undo.callback(let_go, kernel, device)\n", ""),
    ),
    *mutants(
        f"{CLIENT}dialing.py",
        f"{TESTS}test_dialing.py",
        (
            "attach: a name has one address",
            "    for family, _, _, _, where in found[:-1]:\n",
            "    for family, _, _, _, where in found[:0]:\n",
        ),
        (
            "attach: a server without power is never missed",
            "            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)\n",
            "",
        ),
    ),
    *mutants(
        f"{CLIENT}keeper.py",
        f"{TESTS}test_keeper.py",
        ("keeper: the device stays as small as it was", "            self._reconfigure([])\n", ""),
        ("keeper: the largest of the sizes counts", "size = min((connection", "size = max((connection"),
        (
            "keeper: goes on over a disk that was cut off",
            "                lost = lost or loss(attached.export, connection.export)\n",
            "",
        ),
        (
            "keeper: goes on with what it may not ask for any more",
            "                complaint = hindrance(attached.export, connection.export)\n",
            "",
        ),
        ("keeper: what was not taken is offered once", "self._wait(pause if missing else None)", "self._wait(None)"),
        (
            "keeper: what was not taken counts",
            "        if taken:\n            self._add(connection)\n        return taken\n",
            "        self._add(connection)\n        return True\n",
        ),
        (
            "keeper: the kernel is not heard",
            "        if news(self._told, self._attached.device.index) and",
            "        if news(self._told, self._attached.device.index) is None and",
        ),
        ("keeper: says for ever what it waited for", '        self._lock.say("")\n', ""),
    ),
    *mutants(
        f"{CLIENT}keeper.py",
        f"{TESTS}test_keeper_detached.py",
        (
            "keeper: what somebody detached while it was open is an error",
            "        except Conflict:\n            # It was detached.",
            "        except RolledBack:\n            # It was detached.",
        ),
        (
            "keeper: a server is looked for though the device was detached",
            "        while self._attached.device.attached:\n            complaint",
            "        while True:\n            complaint",
        ),
        (
            "keeper: a connection that the kernel refuses stays with the server",
            "        except StorageError:\n            connection.sock.close()\n            raise\n",
            "        except StorageError:\n            raise\n",
        ),
        (
            "keeper: it says that it waits though nothing is missing",
            "                connection.sock.close()\n                self._settle()\n",
            "                connection.sock.close()\n",
        ),
        (
            "keeper: a loss is not told of a device that was detached meanwhile",
            "        with contextlib.suppress(StorageError):\n            self._kernel.disconnect",
            "        if True:\n            self._kernel.disconnect",
        ),
    ),
    *mutants(
        f"{CLIENT}keeper.py",
        f"{TESTS}test_server_user.py",
        (
            "keeper: a stranger gets the disk",
            "            self._refuse_stranger(connection.server)\n",
            "            pass\n",
        ),
        ("keeper: a stranger is believed", "        self._refuse_stranger(lineage.server)\n", ""),
    ),
    *mutants(
        f"{CLIENT}server_user.py",
        f"{TESTS}test_server_user.py",
        ("attach: a connection that was closed is root's", "uid if state == TCP_ESTABLISHED else None", "uid"),
    ),
    *mutants(
        f"{CLIENT}netlink_socket.py",
        f"{TESTS}test_netlink_socket.py {TESTS}test_news.py",
        (
            "netlink: what another device lost is lost of this one",
            "and nbd_family.index_of(message.attributes) == index:",
            "and index >= 0:",
        ),
        (
            "netlink: news that were lost are none",
            "            told = True\n            continue",
            "            continue",
        ),
        (
            "netlink: news that were lost end the keeper",
            "            if error.errno != errno.ENOBUFS:\n                raise\n",
            "            raise\n",
        ),
        (
            "netlink: who keeps what was detached goes on",
            "            if error.errno == errno.EINVAL:\n",
            "            if error.errno == errno.EBUSY:\n",
        ),
        (
            "netlink: answers of before count",
            "                if message.sequence != self._sequence:\n                    continue\n",
            "",
        ),
        ("netlink: what is not attached is", ".items() if used]", ".items()]"),
        (
            "netlink: nobody listens",
            "            listener.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, self._group)\n",
            "",
        ),
        ("netlink: the loop waits for news", "            listener.setblocking(False)\n", ""),
    ),
]
