"""What another user of the machine sees: root, as whom tests may run, is kept out of nothing."""

from __future__ import annotations

import os
from collections.abc import Callable


def as_nobody(call: Callable[[], str]) -> str:
    """What a call gives to a user who may do nothing, in a process of its own."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(write, call().encode())
        except BaseException as error:
            os.write(write, repr(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    return text
