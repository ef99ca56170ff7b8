"""`python -m hf_lwmm` is `hf-lwmm`."""

import gc
import sys

# Half a million objects of imported libraries stay to the end. With Python's thresholds the collector of cycles looks
# through them again and again, which takes half a second of a command that runs networks.
_COLLECTIONS = (50_000, 20, 100)


def main() -> None:
    """Run the command line; Ctrl-C ends it quietly even while it is being imported."""
    gc.set_threshold(*_COLLECTIONS)
    try:
        from hf_lwmm import cli

        cli.main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
