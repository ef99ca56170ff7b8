"""The command line: a file per command, each only a call of a public function and the printing of its answer."""

from __future__ import annotations

import signal
import sys
from types import FrameType

import typer

from hf_lwmm._version import __version__
from hf_lwmm.cli import (
    convert,
    diff,
    evaluate,
    hub,
    inspect,
    measure,
    merge,
    methods,
    plan,
    predict,
    reproduce,
    search,
    sweep,
)

app = typer.Typer(
    name="hf-lwmm",
    help="Merge segmentation models of the Hugging Face Hub, layer by layer.",
    epilog="Example: hf-lwmm merge org/a org/b --anchor org/a --push",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("merge", epilog=merge.EXAMPLES)(merge.merge)
app.command("plan", epilog=plan.EXAMPLES)(plan.plan)
app.command("inspect", epilog=inspect.EXAMPLES)(inspect.inspect)
app.command("search", epilog=search.EXAMPLES)(search.search)
app.command("diff", epilog=diff.EXAMPLES)(diff.diff)
app.command("reproduce", epilog=reproduce.EXAMPLES)(reproduce.reproduce)
app.command("methods")(methods.methods)
app.command("measure", epilog=measure.EXAMPLES)(measure.measure)
app.command("evaluate", epilog=evaluate.EXAMPLES)(evaluate.evaluate)
app.command("sweep", epilog=sweep.EXAMPLES)(sweep.sweep)
app.command("predict", epilog=predict.EXAMPLES)(predict.predict)
app.command("convert", epilog=convert.EXAMPLES)(convert.convert)
app.add_typer(hub.app, name="hub", help="A local Hub, for try-outs, tests and air-gapped sites.")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None: ...


def main() -> None:
    """Run the command line; errors are one message on stderr and exit code 1, Ctrl-C is 130."""
    from hf_lwmm.errors import HfLwmmError

    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app(_with_bare_push(sys.argv[1:]))
    except HfLwmmError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("Interrupted; nothing half-written remains.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


def _with_bare_push(arguments: list[str]) -> list[str]:
    """`--push` may stand without a value; typer knows no such options, so it is given an empty one."""
    expanded = []
    for argument, following in zip(arguments, [*arguments[1:], "-"], strict=True):
        expanded += [argument, ""] if argument == "--push" and following.startswith("-") else [argument]
    return expanded


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
