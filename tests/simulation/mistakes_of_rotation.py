"""Mistakes in a rotation of the data key: what is sealed anew, and when the older keys may leave."""

from tests.simulation.mutation import Mutation

ROTATION = [
    Mutation(
        "rotation: the older key leaves while the manifest lists what it sealed",
        "storage/fs/key_retirement.py",
        "        if left_of_rotation(engine).objects:\n",
        "        if False:\n",
    ),
    Mutation(
        "rotation: the older key leaves at once",
        "storage/crypto/key_rotation.py",
        "    ring = (seal_older(newest, data_key, env.random_bytes(NONCE_BYTES)),)\n",
        "    ring = ()\n",
    ),
    Mutation(
        "rotation: frames are copied as they are",
        "storage/lsm/compaction/repack.py",
        "frame.sealed, None if codec is context.codec else codec)",
        "frame.sealed)",
    ),
    Mutation(
        "rotation: a start knows a frame that was sealed anew by its old tag",
        "storage/lsm/index/image.py",
        '            rows = {**rows, "tag": np.where(self._old[at] == location, self._tags[at], rows["tag"])}\n',
        "",
    ),
]
