"""One of two processes of `test_processes.py`: runs the command line several times, and fails where it is to.

Arguments: a JSON list of [port, what fails, arguments of the command line]. Prints the exit statuses as JSON.
"""

import json
import os
import sys

from hellomeme.cli import main
from hellomeme.errors import HelloMemeError
from hellomeme.io import ffmpeg
from hellomeme.pipeline import HelloMemePipeline


def failing(error):
    def fail(*_, **__):
        raise error

    return fail


FAILURES = {
    "second": (1, HelloMemePipeline, "prepare_reference", HelloMemeError("The second process\nfailed.")),
    "first": (0, ffmpeg.ClipWriter, "write", HelloMemeError("The disk of the first process is full.")),
    "internal": (1, HelloMemePipeline, "prepare_reference", ZeroDivisionError("of a test")),
    "interrupted": (1, HelloMemePipeline, "prepare_reference", KeyboardInterrupt()),
}


def run(port, failure, arguments):
    """The exit status."""
    os.environ["MASTER_PORT"] = str(port)
    rank, owner, name, error = FAILURES.get(failure, (None, None, None, None))
    here = rank == int(os.environ["RANK"])
    if here:
        kept = getattr(owner, name)
        setattr(owner, name, failing(error))
    try:
        return main.main(arguments)
    except SystemExit as end:
        return end.code
    except ZeroDivisionError as error:
        return repr(error)
    finally:
        if here:
            setattr(owner, name, kept)


if __name__ == "__main__":
    print(json.dumps([run(*each) for each in json.loads(sys.argv[1])]))
