"""What clients may say, right and wrong, as a table of data, and what the NBD specification answers to it.

Written from the specification (NetworkBlockDevice/nbd, doc/proto.md, and its branch extension-ext-header) and
docs/bad-inputs.md, with numbers and layouts of its own: nothing here is taken from the server that is judged.
"""
