"""`python -m aios` is the console script `aios`."""

from aios.cli.app import main

if __name__ == "__main__":
    main()
