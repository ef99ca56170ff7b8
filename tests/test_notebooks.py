"""The notebooks run from top to bottom on a local Hub, one after the other in one kernel, sharing no names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

FOLDER = Path(__file__).parents[1] / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KernelManager]:
    """A kernel that has no Hub yet: the notebooks start one. All share it, as importing torch is most of their time.

    When it ends, nothing of the notebooks may be left.
    """
    scratch = tmp_path_factory.mktemp("scratch")
    manager = KernelManager(kernel_name="python3")
    own = ("HF_ENDPOINT", "HF_HOME", "HF_TOKEN")
    environment = {name: value for name, value in os.environ.items() if name not in own}
    manager.start_kernel(env={**environment, "TMPDIR": str(scratch)}, cwd=str(FOLDER))
    yield manager
    manager.shutdown_kernel()
    assert not list(scratch.glob("hf-lwmm-*"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path: Path, kernel: KernelManager) -> None:
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, new_code_cell("%reset -f"))
    NotebookClient(notebook, km=kernel, timeout=300).execute()
    outputs = [output for cell in _code(notebook) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    if "progress_bar" in str(notebook.cells):
        assert any("% |" in output.get("text", "") or WIDGET in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs_and_opens_in_colab(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    code = _code(notebook)
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    repository = code[0].source.split('"https://github.com/')[1].split('"')[0]  # the badge and the clone are of one
    assert f"/github/{repository}/blob/main/notebooks/{path.name})" in notebook.cells[0].source
    assert sum('HUB = "local"' in cell.source for cell in code) == 1


def _code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]
