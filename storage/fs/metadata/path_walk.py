"""Path walk: from the root of the tree of names along a path, through symbolic links. No I/O."""

from storage.errors import Invalid, NotFound
from storage.fs.metadata.inode_table import ROOT, InodeTable
from storage.fs.metadata.inodes import LINKS_MAX, InodeKind

Trail = list[tuple[str, int]]
"""Names and inode numbers from the root (whose name is empty) to where a path leads, all links followed."""


def walk(tree: InodeTable, path: str, *, follow: bool = True) -> Trail:
    """Where an absolute path leads; `follow` says whether a symbolic link at its very end is followed.

    NotFound: it leads nowhere. Invalid: it goes through too many links.
    """
    trail: Trail = [("", ROOT)]
    pending = path.split("/")[::-1]
    links = 0
    while pending:
        part = pending.pop()
        if part in ("", "."):
            continue
        if part == "..":
            trail = trail[:-1] if len(trail) > 1 else trail
            continue
        names = tree.entries.get(trail[-1][1])
        if names is None or part not in names:
            raise NotFound(f"there is no {path!a}")
        inode = tree.inodes[names[part]]
        if inode.kind is not InodeKind.SYMLINK or not (pending or follow):
            trail.append((part, inode.number))
            continue
        links += 1
        if links > LINKS_MAX:
            raise Invalid(f"{path!r} leads through more than {LINKS_MAX} symbolic links")
        if inode.target.startswith("/"):
            trail = trail[:1]
        pending += inode.target.split("/")[::-1]
    return trail
