"""Text from elsewhere as something that may be printed: names and messages of stores, clients and certificates.

What a terminal would act on instead of showing it (control characters, escape sequences, marks that turn the direction
of writing, characters without a shape, halves of a surrogate pair) is written as its escape; then a backslash is
doubled, so that nothing looks like something it is not. Text without any of that stays as it is. JSON is printed as
JSON, which has escapes of its own and keeps the data.
"""


def printable(text: str) -> str:
    """One line, of which every character is shown: no line end and no tab in it is the text's own."""
    if text.isprintable():
        return text
    return "".join(_escaped(character) for character in text)


def printable_lines(text: str) -> str:
    """Several lines of our own making, as a traceback, that may hold text from elsewhere: line ends stay."""
    return "\n".join(printable(line) for line in text.split("\n"))


def shell_word(text: str) -> str:
    """A word for a shell, to be copied from a terminal: what cannot be shown is in the form $'...', which bash, ksh,
    zsh and POSIX.1-2024 know."""
    if text.isprintable():
        import shlex

        return shlex.quote(text)
    shown = (
        character if character.isprintable() and character not in "\\'" else _bytes_escaped(character)
        for character in text
    )
    return f"$'{''.join(shown)}'"


def _escaped(character: str) -> str:
    if character == "\\":
        return "\\\\"
    return character if character.isprintable() else ascii(character)[1:-1]


def _bytes_escaped(character: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in character.encode(errors="surrogateescape"))
