"""`python -m hf_lwmm` is `hf-lwmm`."""

from hf_lwmm.cli import main

main()
