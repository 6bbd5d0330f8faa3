"""The command line, one file a command.

Nothing here imports torch, numpy or scipy before a command runs: that keeps ``--help`` and a mistyped option quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hoarfrost.cli.terminal import close_quietly, flush_stdout, prepare_streams, tell
from hoarfrost.errors import FinishedError, HoarfrostError, StoppedError, ToldElsewhereError, UsageError
from hoarfrost.parallel.launch import is_first

if TYPE_CHECKING:
    from cyclopts import CycloptsError

EXIT_INTERRUPTED = 130
"""What shells report for a program ended by Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` (default: the process's own) name, and return its exit code.

    A user's mistake is one line on stderr, never a traceback: 2 for the command itself, 3 for a file's content, 1 for
    what the operating system refuses. A run that stopped as it was asked to ends with 5. Anything else that is raised
    is a bug, and shows its traceback. Of several processes that torchrun started with the same mistake, one tells it.
    """
    # OpenMP reads this when torch loads. Threads that spin for long while they wait are slow where other programs run.
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    from cyclopts import CycloptsError

    from hoarfrost.cli.app import app, commands

    prepare_streams()
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    program = app if any(not token.startswith("-") for token in tokens) else commands(summaries_only=True)
    try:
        program(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        flush_stdout()
    except CycloptsError as error:
        return _fail(_mistake(error), UsageError.exit_code, told=not is_first())
    except ToldElsewhereError as error:
        return error.exit_code
    except HoarfrostError as error:
        # Neither a run that stops as it was asked to nor one that has finished has failed.
        is_error = error.exit_code not in (FinishedError.exit_code, StoppedError.exit_code)
        return _fail(str(error), error.exit_code, is_error=is_error)
    except KeyboardInterrupt:
        return _fail("interrupted", EXIT_INTERRUPTED, told=not is_first())
    except BrokenPipeError:  # the reader of our output, `head` perhaps, has left: nothing to say, nobody to say it to
        return 1
    except OSError as error:
        if error.strerror is None:
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        return _fail(f"{where}{error.strerror}", 1)
    finally:
        close_quietly()
    return 0


def _mistake(error: CycloptsError) -> str:
    """What is wrong with a command line, and where help is."""
    from cyclopts import UnknownCommandError, UnusedCliTokensError

    from hoarfrost.cli.app import app

    command = " ".join(["hoarfrost", *(error.command_chain or ())])
    if isinstance(error, UnknownCommandError):  # cyclopts lists some of the commands
        name, known = (error.unused_tokens or [""])[0], ", ".join(name for name in app if not name.startswith("-"))
        return f"there is no command {name}; known are {known}; see {command} --help"
    if isinstance(error, UnusedCliTokensError):
        found = (error.unused_tokens or [""])[0]
        return f"expected no argument here, found '{found}'; see {command} --help"
    return f"{str(error).rstrip('.')}; see {command} --help"


def _fail(message: str, exit_code: int, *, told: bool = False, is_error: bool = True) -> int:
    """Print `message` as one line on stderr, unless another process does, and return `exit_code`."""
    if not told:
        tell(f"{'error: ' if is_error else ''}{message}")
    return exit_code
