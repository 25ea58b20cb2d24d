"""`python -m aios` is the console script `aios`."""

from __future__ import annotations

import sys

from aios.extras import missing

_SYSTEMS = "The aios command needs Linux or macOS; aios.auto_lr and aios.integrations work here, too."


def main() -> None:
    """Run the command line; a package that it needs and that is missing is named in one sentence, with exit code 2."""
    if sys.platform == "win32":
        sys.exit(_refused(_SYSTEMS))
    try:
        from aios.cli.app import main as run_command

        run_command()
    except ModuleNotFoundError as error:
        sentence = missing(error)
        if sentence is None or "--debug" in sys.argv:
            raise
        sys.exit(_refused(sentence))
    except KeyboardInterrupt:  # before anything has begun
        sys.exit(130)


def _refused(sentence: str) -> int:
    """Say why nothing can be run; the exit code."""
    sys.stderr.write(f"Error: {sentence}\n")
    return 2


if __name__ == "__main__":
    main()
