"""The import of the networks, which takes seconds and is delayed until they are needed."""

from __future__ import annotations

import threading

_lock = threading.Lock()


def import_networks() -> None:
    """Imports `hellomeme.reenactor` and all it needs, in one thread at a time.

    To be called before an event imports any of it. At the end of its import diffusers replaces its module by
    another object, and a thread that imports it meanwhile is left with an empty module.
    """
    with _lock:
        import hellomeme.reenactor  # noqa: F401
