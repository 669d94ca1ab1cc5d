"""Mistakes in the copies of the newest manifest and the keys: who writes them, when they count, and when they go."""

from tests.mutants.mutant import mutants

COPIES = [
    *mutants(
        "storage/lsm/manifest/manifest_store.py",
        "tests/storage/lsm/recovery/test_spare_manifest.py",
        (
            "copies: of a manifest before it has won",
            "            if not await self.create(sealed):\n                raise Fenced\n",
            "            self.won(sealed)\n"
            "            if not await self.create(sealed):\n"
            "                await asyncio.sleep(0.1)\n"
            "                raise Fenced\n",
        ),
        (
            "copies: of a lost race",
            "            if not await self.create(sealed):\n                raise Fenced\n",
            "            if not await self.create(sealed):\n"
            "                self.won(sealed)\n"
            "                await asyncio.sleep(0.1)\n"
            "                raise Fenced\n",
        ),
        (
            "copies: a deleted newest manifest is an older state",
            "            number = max([*listed, *copies], default=0)\n",
            "            number = max(listed, default=0)\n",
        ),
        (
            "copies: who was quicker with the number of a deleted manifest is passed over",
            "        except Taken:\n            raise Fenced(f",
            "        except Taken:\n            return\n            raise Fenced(f",
        ),
    ),
    *mutants(
        "storage/lsm/manifest/read_manifest.py",
        "tests/storage/lsm/recovery/test_spare_manifest.py",
        (
            "copies: a copy is not compared with the number",
            "raw, store_id=self.store_id, kinds=_KINDS, number=number)\n",
            "raw, store_id=self.store_id, kinds=_KINDS)\n",
        ),
        (
            "copies: one that went with its manifest is missed",
            "            await self.check_newest(number)  # its writer",
            "            # its writer",
        ),
    ),
    *mutants(
        "storage/lsm/manifest/spare_copies.py",
        "tests/storage/lsm/recovery/test_verified_copies.py",
        (
            "copies: a manifest that comes while another is copied gets none",
            "        if self._manifests.uncopied is sealed:\n",
            "        if True:\n",
        ),
    ),
    *mutants(
        "storage/lsm/manifest/read_manifest.py",
        "tests/storage/lsm/recovery/test_verified_copies.py",
        (
            "copies: any sound manifest of its number is the newest",
            'return raw, "" if found.tag == tag else "it is another manifest"',
            'return raw, ""',
        ),
    ),
    *mutants(
        "storage/lsm/recovery/take_over.py",
        "tests/storage/lsm/recovery/test_spare_manifest.py",
        ("copies: a deleted manifest is not put back", "            await manifests.put_back()\n", ""),
    ),
    *mutants(
        "storage/lsm/manifest/spare_copies.py",
        "tests/storage/lsm/recovery/test_spare_manifest.py",
        (
            "copies: what the manifest gave up goes before it has a copy",
            "            self._hold.enter_context(self._keep())\n",
            "",
        ),
        ("copies: older ones stay", "        self._discard(", "        list("),
        (
            "copies: what lies under the name is taken for it",
            "info.size == len(sealed.content) and await self._store.get(name, limit=info.size) == sealed.content",
            "info.size >= 0",
        ),
        (
            "copies: that of a manifest which was won before is replaced",
            "            await self._manifests.check_copy(sealed)\n",
            "",
        ),
    ),
    *mutants(
        "storage/lsm/manifest/spare_copies.py",
        "tests/storage/lsm/recovery/test_copies_held_up.py",
        (
            "copies: one that hangs keeps garbage for ever",
            "loop.call_at(ends, self._settle)",
            "loop.call_at(ends, list)",
        ),
        (
            "copies: who commits without a pause keeps garbage for ever",
            "min(loop.time() + HOLD_SECONDS_MAX, self._held_at + 2 * HOLD_SECONDS_MAX)",
            "loop.time() + HOLD_SECONDS_MAX",
        ),
        (
            "copies: garbage of one that was won behind another goes before it has its own",
            "                if self._manifests.uncopied is None:",
            "                if True:",
        ),
        (
            "copies: those that are refused keep garbage",
            "        if self.failing is None:\n            self._hold_garbage()",
            "        if True:\n            self._hold_garbage()",
        ),
        ("copies: one that hangs holds up the end", "asyncio.timeout(FINISH_SECONDS_MAX):", "asyncio.timeout(None):"),
        (
            "copies: a store that refuses to be looked at ends the writer",
            "        except (TimeoutError, StorageError):\n            return  #",
            "        except TimeoutError:\n            return  #",
        ),
        (
            "copies: a store that does not answer a look ends the writer",
            "        except (TimeoutError, StorageError):\n            return  #",
            "        except StorageError:\n            return  #",
        ),
        (
            "copies: that of an older manifest takes the place of the newest one's",
            "if not number or manifests.number != number:",
            "if not number:",
        ),
    ),
    *mutants(
        "storage/lsm/engine.py",
        "tests/storage/lsm/recovery/test_spare_manifest.py",
        ("copies: the last manifest has none", "                await self.copies.finish()\n", ""),
    ),
    *mutants(
        "storage/lsm/gc/sweep.py",
        "tests/storage/lsm/gc/test_sweep.py",
        ("copies: the sweep takes the newest", "number is not None and number < manifest", "number is not None"),
        ("copies: the sweep leaves those of old keys", "of_keys is not None and of_keys < keys", "False"),
    ),
    *mutants(
        "storage/crypto/keys.py",
        "tests/storage/crypto/test_spare_keys.py",
        (
            "copies: of the keys of a lost race",
            "    try:\n        await store.create(name, data)\n    except AlreadyExists:\n",
            "    await copy_keys(store, number, data)\n"
            "    try:\n        await store.create(name, data)\n    except AlreadyExists:\n",
        ),
        (
            "copies: those of old keys are left",
            "    return old + [spare_keys_name(n) for n in await copies(store) if n < number]\n",
            "    return old\n",
        ),
        (
            "copies: a change of passwords goes on from keys that were altered",
            "        content = other\n",
            "",
        ),
        (
            "copies: the next number of keys is not seen",
            "    if newest > number:\n",
            "    if newest > number + 1:\n",
        ),
        (
            "copies: anybody vouches for the keys in force",
            "if seal_fits(await read_either(store, newest, memory_kib_min=0), data_key):",
            "if await read_either(store, newest, memory_kib_min=0):",
        ),
        (
            "copies: deleted keys let an older password in",
            "    return await _objects(store) | set(await copies(store))\n",
            "    return await _objects(store)\n",
        ),
        (
            "copies: who copies keys late does not look again",
            "            if max(await _numbers(store), default=number) > number:\n"
            "                await store.delete([spare_keys_name(number)])\n",
            "",
        ),
    ),
    *mutants(
        "storage/crypto/spare_keys.py",
        "tests/storage/crypto/test_spare_keys.py",
        (
            "copies: keys whose seal alone was altered have no other copy",
            "if (other.sealed, other.seal) == (content.sealed, content.seal) else",
            "if other.sealed == content.sealed else",
        ),
    ),
    *mutants(
        "storage/crypto/spare_keys.py",
        "tests/storage/crypto/test_keys_recreated.py",
        (
            "copies: a sound one of keys that somebody else won is written over",
            "        if is_sound(found, number):\n",
            "        if False:\n",
        ),
    ),
    *mutants(
        "storage/crypto/keys.py",
        "tests/storage/crypto/test_keys_recreated.py",
        (
            "copies: keys that came after a sound copy stay",
            "            if await holds(store, name, data):\n",
            "            if False:\n",
        ),
    ),
    *mutants(
        "storage/lsm/manifest/spare_copies.py",
        "tests/storage/lsm/recovery/test_verified_copies.py",
        (
            "copies: one that was damaged since is left so",
            "            manifests.won(SealedManifest(number, manifest, content, tag))\n",
            "",
        ),
        (
            "copies: a manifest that was damaged since stays the newest",
            "            self._renewing = asyncio.ensure_future(self._renew())\n"
            "            self._renewing.add_done_callback(lambda done: done.cancelled() or done.exception())\n",
            "",
        ),
    ),
    *mutants(
        "storage/fs/store_passwords.py",
        "tests/storage/fs/test_copies_of_keys.py",
        ("copies: keys that are there twice are never looked at again", "pause = VERIFY_KEYS_SECONDS", "return"),
    ),
    *mutants(
        "storage/crypto/mend_keys.py",
        "tests/storage/crypto/test_spare_keys.py",
        (
            "copies: keys that were altered are taken for sound",
            "        return seal_fits(decode(raw, number, memory_kib_min), data_key)\n",
            "        return bool(decode(raw, number, memory_kib_min))\n",
        ),
        ("copies: keys that have none are taken for mended", "    if not copied:\n", "    if False:\n"),
    ),
    *mutants(
        "storage/fs/store_passwords.py",
        "tests/storage/fs/test_copies_of_keys.py",
        (
            "copies: of changed keys only if the store takes it at once",
            "        self.keep_twice()  # the store may have taken no copy of them\n",
            "",
        ),
    ),
    *mutants(
        "storage/fs/store_passwords.py",
        "tests/storage/fs/test_passwords_changed_to_the_end.py",
        ("passwords: a change ends with who asked for it", "await asyncio.shield(task)", "await task"),
        (
            "passwords: what was wiped by who asked becomes one",
            "[Secret(each) for each in passwords]",
            "list(passwords)",
        ),
    ),
    *mutants(
        "storage/fs/store.py",
        "tests/storage/fs/test_passwords_changed_to_the_end.py",
        ("passwords: a close cuts their change short", "            await self.passwords.finish()\n", ""),
    ),
    *mutants(
        "storage/check/copies.py",
        "tests/storage/check/test_spare_findings.py",
        ("check: a copy is not compared", "        if own != other:\n", "        if False:\n"),
        ("check: a copy that is missing is not missed", "    if subject.moment is None:\n", "    if False:\n"),
    ),
    *mutants(
        "storage/lsm/manifest/read_manifest.py",
        "tests/storage/lsm/recovery/test_withheld_manifest.py",
        (
            "copies: a manifest that may be gone is taken for withheld",
            "            if size is None:\n",
            "            if False:\n",
        ),
        (
            "copies: what its copy was refused with is said of the manifest",
            "                raise error if isinstance(error, REFUSALS) else second from None\n",
            "                raise second from None\n",
        ),
        (
            "copies: a withheld manifest without a copy is said to be damaged",
            "            if isinstance(error, REFUSALS):\n",
            "            if False:\n",
        ),
    ),
    *mutants(
        "storage/crypto/spare_keys.py",
        "tests/storage/crypto/test_spare_keys.py",
        (
            "copies: withheld keys with a damaged copy are said to be damaged",
            "        if not isinstance(refusal, Corrupt | NotFound):\n",
            "        if False:\n",
        ),
    ),
]
