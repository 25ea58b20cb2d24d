"""`python -m aios` is the console script `aios`."""

from __future__ import annotations

import sys

from aios.extras import missing


def main() -> None:
    """Run the command line; a package that it needs and that is missing is named in one sentence, with exit code 2."""
    try:
        from aios.cli.app import main as run_command

        run_command()
    except ModuleNotFoundError as error:
        sentence = missing(error)
        if sentence is None or "--debug" in sys.argv:
            raise
        sys.stderr.write(f"Error: {sentence}\n")
        sys.exit(2)
    except KeyboardInterrupt:  # before anything has begun
        sys.exit(130)


if __name__ == "__main__":
    main()
