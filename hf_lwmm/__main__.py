"""`python -m hf_lwmm` is `hf-lwmm`."""

import gc
import sys


def main() -> None:
    """Run the command line; Ctrl-C ends it quietly even while it is being imported."""
    gc.set_threshold(250_000)  # imports and plans make so many objects that stay; to look through them takes time
    try:
        from hf_lwmm import cli

        cli.main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
