"""What authface raises on purpose: one clear line, and the exit code of the command line."""

import shlex


class AuthfaceError(Exception):
    """A failure a person can act on.

    The message is one line that holds the value, the limit and the next step; the command line prints
    it in red and ends with `exit_code` (1: nothing could be done or a run failed).
    """

    exit_code = 1


class UsageError(AuthfaceError):
    """The command, a setting or a file the user named is wrong (exit code 2)."""

    exit_code = 2


class ImageError(AuthfaceError):
    """One image cannot be used; steps turn it into a `failed` row and go on.

    `reason` is the short name that reports count, such as ``truncated`` or ``too_large``.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def was_interrupted(error: BaseException) -> bool:
    """Whether Ctrl-C is behind an error: one that comes while a library loads ends as that library's own."""
    before = error.__cause__ or error.__context__
    return isinstance(error, KeyboardInterrupt) or (before is not None and was_interrupted(before))


def one_line(text: object, limit: int = 300) -> str:
    """`text` fit for a log line: control characters and newlines escaped, at most `limit` characters."""
    clean = str(text)
    if not clean.isprintable():
        clean = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in clean)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def shell_word(text: object, limit: int = 300) -> str:
    """`one_line` of a path or a name for a command that a person copies into a shell: quoted where it has to be."""
    return shlex.quote(one_line(text, limit))


def first_line(error: BaseException, limit: int = 160) -> str:
    """What an error of another library says, in a line: the first of its text, or its type where it says nothing.

    Of one like pydantic's, whose text is a table, the first place and what is wrong there.
    """
    listed = getattr(error, "errors", None)
    first = listed()[0] if callable(listed) else None
    if isinstance(first, dict) and "msg" in first:
        return one_line(f"{'.'.join(map(str, first.get('loc', ())))}: {first['msg']}".removeprefix(": "), limit)
    lines = (line.strip() for line in str(error).splitlines())
    return one_line(next(filter(None, lines), type(error).__name__), limit)
