"""A refusal is one sentence, and nothing on disk has changed after it."""

import zlib

import pytest

from hellomeme.errors import HelloMemeError


def disk(folder):
    """Every path under the folder with its kind, size, time and content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        facts = path.lstat()
        found[path] = (
            facts.st_mode,
            facts.st_size,
            facts.st_mtime_ns,
            zlib.crc32(path.read_bytes()) if path.is_file() and not path.is_symlink() else None,
        )
    return found


def refused(folder, case, call, sentence):
    """The call must raise the sentence (which may end in "..." where a library's words follow) and change
    nothing."""
    before = disk(folder)
    with pytest.raises(HelloMemeError) as caught:
        call()
    received = str(caught.value)
    beginning = sentence.endswith("...")
    assert received.startswith(sentence[:-3]) if beginning else received == sentence, f"{case}: {received}"
    assert received.endswith((".", ").")) and "\n" not in received and len(received) < 1000, (
        f"{case}: {received}"
    )
    assert disk(folder) == before, case
