"""Mutants of what clients are told when they come back: who is remembered, which disk it is, what was lost."""

from tests.mutants.mutant import mutants

CLIENTS = [
    *mutants(
        "nbdserver/tls.py",
        "tests/nbdserver/test_tls.py",
        (
            "tls: the end of a list of revoked certificates is told to nobody",
            "    if REVOKED in files:\n",
            "    if False:\n",
        ),
        (
            "tls: a list from the future is taken",
            "lists if each.last_update_utc <= now]\n        if not",
            "lists]\n        if not",
        ),
    ),
    *mutants(
        "nbdserver/server/throughput.py",
        "tests/nbdserver/server/test_throughput.py",
        (
            "throughput: a pause of the server counts as the client's",
            "        if now - looked > self._gap_seconds:\n",
            "        if False:\n",
        ),
    ),
    *mutants(
        "nbdserver/server/read_tasks.py",
        "tests/nbdserver/server/test_cost_of_reads.py",
        ("reads: a tiny one costs nothing", ".take(cost(offset, length))", ".take(length)"),
        ("reads: who looks ahead has any number", "has_place(reads=self._unanswered)", "has_place()"),
    ),
    *mutants(
        "nbdserver/protocol/option_data.py",
        "tests/nbdserver/protocol/test_contexts.py",
        ("contexts: any number of queries", "if number == QUERIES_MAX:", "if False:"),
        ("info: any number of requests", "if len(wanted) > INFO_REQUESTS_MAX:", "if False:"),
    ),
    *mutants(
        "nbdserver/server/crowds.py",
        "tests/nbdserver/server/test_crowds_in_order.py",
        (
            "crowds: whoever was dropped is still waited for",
            "            self._keep_order(address)\n\n    def closed",
            "\n    def closed",
        ),
        ("crowds: every crowd is full", "longest if self.is_full(address) else None", "longest"),
        (
            "crowds: of several the newest is the busiest",
            "len(haggling), -longest[1], address",
            "len(haggling), longest[1], address",
        ),
    ),
    *mutants(
        "nbdserver/attachments.py",
        "tests/nbdserver/test_attachments.py",
        ("attachments: forgotten before its writes are durable", "if device.want_durable(wanted):", "if wanted >= 0:"),
        ("attachments: the first of two connections takes the other along", "if self._connections[who] or", "if"),
        ("attachments: one that comes back meanwhile is forgotten", "if not self._connections[who] and", "if"),
        (
            "attachments: one that left twice is forgotten with what it wrote first",
            " and not self._leaving[who]:",
            ":",
        ),
        ("attachments: what is being forgotten counts as kept", "            self._recorded.discard(who)\n", ""),
        ("attachments: nobody is refused after a loss", "(*record.refused, *lost)", "record.refused"),
        ("attachments: a refusal ends with the next start", "(*record.refused, *lost)", "lost"),
        ("attachments: this machine's clients outlive its boot", " or record.boot == boot}", " or record.boot}"),
    ),
    *mutants(
        "nbdserver/service/last_server.py",
        "tests/nbdserver/service/test_last_server.py",
        (
            "attachments: another host's record is all there is",
            "        if all(record.boot != now for record in records):\n",
            "        if not records:\n",
        ),
    ),
    *mutants(
        "storage/lsm/recovery/anchor.py",
        "tests/nbdserver/service/test_last_server.py",
        (
            "attachments: a record of a life before the store was set back counts for ever",
            'path.rename(self._folder / "attached-0.json")',
            "path.stat()",
        ),
    ),
    *mutants(
        "storage/fs/incarnation.py",
        "tests/nbdserver/service/test_last_server.py",
        (
            "attachments: a host that is full keeps the record from the other",
            'self._host.unsaved.attempt(self._env, "attached", partial(self._host.save_attached, epoch, data))',
            'self._env.run("store", partial(self._host.save_attached, epoch, data))',
        ),
    ),
    *mutants(
        "nbdserver/web_port.py",
        "tests/nbdserver/test_web_port.py",
        (
            "web: a crowd has all the descriptors there are",
            "if len(there) + len(self._beginning) < self._most:",
            "if there is not None:",
        ),
        (
            "web: a crowd that begins no handshake counts for nothing",
            "if len(there) + len(self._beginning) < self._most:",
            "if len(there) < self._most:",
        ),
        ("web: what is no HTTP fills the log", "_faults.addFilter(_is_own_fault)", ""),
        ("web: who waits for an answer is dropped", "if connection not in self._asking:", "if connection is not None:"),
    ),
    *mutants(
        "nbdserver/server/transmission_phase.py",
        "tests/nbdserver/server/test_attachment_record.py",
        ("attachments: requests go before the record", "        if recorded is None:\n", "        if not rest:\n"),
        (
            "attachments: what came with the handshake goes before the record",
            "        if recorded is None:\n",
            "        if recorded is None or rest:\n",
        ),
        ("attachments: the phase that is over begins", "if self._unrecorded:  # and", "if True:  # and"),
    ),
    *mutants(
        "nbdserver/server/transmission_phase.py",
        "tests/nbdserver/server/test_lost_connections.py",
        ("vanished: nobody looks", "if liveness.vanished(now):", "if liveness.unread_since == now:"),
        ("vanished: one look is enough", "owed = liveness.may_vanish and (", "owed = False and ("),
    ),
    *mutants(
        "nbdserver/server/peer_liveness.py",
        "tests/nbdserver/server/test_peer_liveness.py",
        ("vanished: one lost packet is enough", "UNANSWERED_MIN = 3", "UNANSWERED_MIN = 1"),
        ("vanished: answers do not count", " or silent < (now - since) * 1000:", ":"),
    ),
    *mutants(
        "nbdserver/server/transmission_phase.py",
        "tests/nbdserver/server/test_draining.py",
        (
            "draining: what comes is carried out",
            "        if self._draining:\n            return\n        transmission",
            "        transmission",
        ),
        ("draining: it ends at once", "        if not self._admission.outstanding:\n            return False\n", ""),
    ),
    *mutants(
        "nbdserver/admin/api.py",
        "tests/nbdserver/service/test_predecessor.py",
        ("restart: the word comes before the end", "        await self._ended.wait()\n", ""),
    ),
    *mutants(
        "nbdserver/service/predecessor.py",
        "tests/nbdserver/service/test_predecessor.py",
        (
            "restart: no answer is taken for the word",
            "        over = always\n",
            "        over = True\n",
        ),
        (
            "restart: passwords that change meanwhile are taken for older ones that were put back",
            "UnlockedBefore(settings.store, early, OPEN_SECONDS_MAX)",
            "early",
        ),
    ),
    *mutants(
        "storage/fs/maintenance.py",
        "tests/nbdserver/service/test_predecessor.py",
        (
            "restart: everything is left to the last flush",
            "        for _ in range(AHEAD_FLUSHES_MAX):\n",
            "        for _ in range(0):\n",
        ),
    ),
    *mutants(
        "storage/fs/maintenance.py",
        "tests/storage/fs/test_maintenance.py",
        ("restart: jobs change what the successor reads", "        await self._rest()\n", ""),
    ),
    *mutants(
        "nbdserver/protocol/option_answers.py",
        "tests/nbdserver/protocol/test_contexts.py",
        (
            "handshake: another disk than the one confirmed",
            "if chosen and not chosen.issubset(",
            "if False and not chosen.issubset(",
        ),
    ),
    *mutants(
        "nbdserver/kernel_client/attaching.py",
        "tests/nbdserver/kernel_client/test_attaching.py",
        (
            "attach: remembers another moment than it attaches",
            "if same and after == before and all(",
            "if same and all(",
        ),
        ("attach: compares with the first answer for ever", "            before = after\n", ""),
    ),
    *mutants(
        "nbdserver/kernel_client/keeper.py",
        "tests/nbdserver/kernel_client/test_keeper.py",
        ("keeper: goes on over a loss", "lost = forgotten(attached.incarnation, lineage)", "lost = None"),
        (
            "keeper: waits where it is refused for a loss",
            "        except StorageError as error:\n            complaint = str(error)\n",
            "        except StorageError as error:\n            return str(error)\n",
        ),
        ("keeper: asks only after it has connected", "if before != lineage.incarnation:", "if False:"),
        ("keeper: asks about its first incarnation for ever", "if incarnation != self._attached.incarnation:", "if 0:"),
        ("keeper: goes on where nobody says", "and lineage.incarnation is None:", "and lineage is None:"),
        (
            "keeper: keeps a device that was detached",
            "while self._attached.device.attached:\n                miss",
            "while 1:\n                miss",
        ),
    ),
    *mutants(
        "nbdserver/exports.py",
        "tests/nbdserver/kernel_client/test_keeper.py",
        ("identity: the disk does not count", 'f"{INCARNATION}{each}-{disk}"', "INCARNATION + each"),
        ("identity: no disk is a disk", "or not incarnation.id or not disk:", "or not incarnation.id:"),
    ),
    *mutants(
        "storage/fs/metadata/inode_table.py",
        "tests/storage/fs/devices/test_identity.py",
        ("identity: a rollback leaves the same disk", "generation=inode.generation + 1", "generation=inode.generation"),
    ),
    *mutants(
        "storage/fs/metadata/device_plans.py",
        "tests/storage/fs/devices/test_identity.py",
        ("identity: what was cut off is the same disk", "inode.generation + (size < layer.size)", "inode.generation"),
        ("identity: what grew is another disk", "+ (size < layer.size)", "+ (size != layer.size)"),
    ),
    *mutants(
        "storage/fs/devices/open_devices.py",
        "tests/storage/fs/devices/test_identity.py",
        ("identity: a snapshot is its name", 'partial("@{}".format, record.number)', 'partial("@{}".format, snapshot)'),
    ),
    *mutants(
        "nbdserver/server/crowds.py",
        "tests/nbdserver/server/test_crowds_in_order.py",
        (
            "crowds: another share does not count for who is there",
            "        for address in list(self._standing):\n            self._keep_order(address)\n",
            "",
        ),
    ),
    *mutants(
        "nbdserver/server/connection_table.py",
        "tests/nbdserver/server/test_crowds.py",
        (
            "crowds: the share of an address never changes",
            "        self._crowds.use_share(limits.connections_per_address)\n",
            "",
        ),
    ),
    *mutants(
        "nbdserver/service/rehearsal.py",
        "tests/nbdserver/service/test_rehearsal.py",
        (
            "rehearsal: a changed address for a port that is held is not tried",
            "            if port not in held.ports or not in_use(error):\n                raise\n",
            "            raise\n",
        ),
        (
            "rehearsal: a disk that was made larger is refused",
            "found is not None and found < size",
            "found is not None and found != size",
        ),
        ("rehearsal: a disk that is smaller is served", "found is not None and found < size", "0"),
        ("rehearsal: what is not there is to be served", '"@" not in name and name not in known', "0"),
    ),
    *mutants(
        "nbdserver/service/launch.py",
        "tests/nbdserver/service/test_rehearsal.py",
        (
            "rehearsal: the ports for people are not looked at",
            "(settings.tcp, settings.metrics, settings.dashboard)",
            "(settings.tcp,)",
        ),
    ),
    *mutants(
        "nbdserver/service/predecessor.py",
        "tests/nbdserver/service/test_predecessor.py",
        (
            "rehearsal: the devices are looked at when the old one has gone",
            "        check_devices(settings, devices)\n",
            "        pass\n",
        ),
    ),
    *mutants(
        "nbdserver/service/daemon.py",
        "tests/nbdserver/service/test_daemon.py",
        ("daemon: nobody hears that nobody waits", '            os.write(writer, b"\\0")\n', "            pass\n"),
    ),
]
