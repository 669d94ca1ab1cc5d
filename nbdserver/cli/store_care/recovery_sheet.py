"""The recovery sheet: a code that is one more password of a store, and what to do with it, as plain text to print."""

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32: no letter is taken for a digit."""
GROUPS, GROUP_LETTERS = 8, 4
"""160 bits: nobody guesses it, however cheap a guess is."""


def draw() -> str:
    """A new code, from the randomness of the operating system."""
    from storage.env import RealEnv

    env = RealEnv()
    drawn = env.random_bytes(GROUPS * GROUP_LETTERS)
    env.close()
    letters = "".join(ALPHABET[byte % len(ALPHABET)] for byte in drawn)  # 32 divides 256: no letter is likelier
    return "-".join(letters[at : at + GROUP_LETTERS] for at in range(0, len(letters), GROUP_LETTERS))


def text(store: str, label: str, code: str, date: str) -> str:
    """The sheet, in lines of 76 letters at most but for where the store is."""
    return f"""\
RECOVERY SHEET FOR A STORE OF NBDSERVER

    store        {store}
    made         {date}
    label        {label}

The recovery code, 32 letters and digits with dashes:

    {code}

There is no letter I, L, O or U in it: 1 is one, 0 is zero.

What it is: one more password of the store, that works also when all others
are forgotten or were changed. Whoever has this sheet and the bucket (or a
copy of it) can read all disks. Keep it on paper, locked away, and not in the
place where the bucket's credentials are.

To use it, type, and give the code where a password is asked for, in capitals
and with the dashes:

    nbdserver device list --store {store}

Then give the store a new password of your own, again with the code where the
old one is asked for:

    nbdserver password add LABEL --store {store}

Without nbdserver: copy the bucket into a folder, take the file
scripts/recover of its source, and type

    python3 recover FOLDER list
    python3 recover FOLDER export DISK IMAGE

To make this sheet worthless, and to make another one:

    nbdserver password remove {label} --store {store}
    nbdserver password sheet --label {label} --store {store}
"""
