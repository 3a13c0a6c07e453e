"""`python -m methodhub`: the same as the command `methodhub`."""

import sys

from methodhub.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
