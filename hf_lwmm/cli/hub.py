"""`hf-lwmm hub`."""

import typer

app = typer.Typer()


@app.command()
def serve() -> None: ...
