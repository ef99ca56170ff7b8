"""What is published: the wheel's files and metadata, the account's name in one place, citation and workflows."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

import hf_lwmm

ROOT = Path(__file__).resolve().parents[1]
TRACKED = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True).stdout.split("\0")[:-1]


def copied(folder: Path, *under: str) -> Path:
    """A copy of the repository's files with these beginnings."""
    for name in TRACKED:
        if name.startswith(under) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = copied(tmp_path_factory.mktemp("source"), "hf_lwmm/", "pyproject.toml", "README.md", "LICENSE")
    code = "import sys; from hatchling import build; print(build.build_wheel(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, "dist"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next((folder / "dist").glob("*.whl")))


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    name = next(name for name in wheel.namelist() if name.endswith("METADATA"))
    return Parser().parsestr(wheel.read(name).decode())


def test_the_wheel_has_every_file_of_the_package_and_is_small(wheel: zipfile.ZipFile) -> None:
    packed = {name for name in wheel.namelist() if name.startswith("hf_lwmm/")}
    assert packed == {name for name in TRACKED if name.startswith("hf_lwmm/")}
    assert sum(each.compress_size for each in wheel.infolist()) < 4_000_000


def test_links_and_pictures_of_the_readme_work_on_pypi(metadata: Message) -> None:
    assert metadata["Description-Content-Type"] == "text/markdown"
    text = str(metadata.get_payload())
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert len(links) > 20 and all(link.startswith("https://") for link in links)
    ours = [
        re.fullmatch(r"https://github\.com/[\w-]+/hf-lwmm/(?:blob|tree|raw)/main/([^#]+)(?:#.*)?", x) for x in links
    ]
    assert len([found for found in ours if found]) > 15
    assert all((ROOT / found[1]).exists() for found in ours if found)


def test_the_metadata_say_who_where_and_for_what(metadata: Message) -> None:
    assert metadata["Version"] == hf_lwmm.__version__ and metadata["Author"]
    urls = dict(each.split(", ", 1) for each in metadata.get_all("Project-URL", []))
    assert {"Homepage", "Documentation", "Repository", "Changelog", "Issues"} <= set(urls)
    versions = [each.rsplit(" ", 1)[1] for each in metadata.get_all("Classifier", []) if " 3." in each]
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in versions


def test_one_command_names_the_account_everywhere(tmp_path: Path) -> None:
    names = ("README.md", "pyproject.toml", "mkdocs.yml", "CITATION.cff", "docs/", "notebooks/", "scripts/")
    folder = copied(tmp_path, *names)
    for arguments in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    subprocess.run(["scripts/owner.sh", "some-body"], cwd=folder, check=True)
    left = subprocess.run(["git", "grep", "-lw", "OWNER"], cwd=folder, capture_output=True, text=True).stdout.split()
    assert left == ["scripts/owner.sh"]
    for path in (folder / "notebooks").glob("*.ipynb"):
        badge = f"https://colab.research.google.com/github/some-body/hf-lwmm/blob/main/notebooks/{path.name}"
        assert badge in path.read_text() and "https://github.com/some-body/hf-lwmm" in path.read_text()
    assert "https://some-body.github.io/hf-lwmm/" in (folder / "mkdocs.yml").read_text()
    assert 'Repository = "https://github.com/some-body/hf-lwmm"' in (folder / "pyproject.toml").read_text()


def test_the_citation_is_of_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == hf_lwmm.__version__ and cited["license"] == "Apache-2.0" and cited["authors"]
    assert cited["preferred-citation"]["title"] in (ROOT / "README.md").read_text(encoding="utf-8")


def test_workflows_run_scripts_that_are_there() -> None:
    workflows = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    assert len(workflows) == 2
    for path in workflows:
        jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
        commands = [step["run"].split()[0] for job in jobs.values() for step in job["steps"] if "run" in step]
        assert commands and all((ROOT / command).stat().st_mode & 0o111 for command in commands)


def test_the_changelog_keeps_its_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert titles[0] == "[Unreleased]" and titles[1].startswith(f"[{hf_lwmm.__version__}]")
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", title) for title in titles[1:])
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= kinds
