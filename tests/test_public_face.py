"""The public names of the package, and the command line that is made of them."""

from __future__ import annotations

import ast
import inspect
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import yaml

import hf_lwmm
from hf_lwmm.cli import COMMANDS, load_command
from hf_lwmm.errors import PlanError
from hf_lwmm.options import Options, declarations, option_name
from hf_lwmm.recipes.recipe import Recipe

_PACKAGE = Path(hf_lwmm.__file__).parent
_ROOT = _PACKAGE.parent
VERBS = {"methods": "list_methods", "hub": "serve"}
WITH_VERBS = [name for name in COMMANDS if name != "demo"]  # it runs other commands


def test_every_public_name_is_there() -> None:
    assert len(set(hf_lwmm.__all__)) == len(hf_lwmm.__all__) > 60
    for name in hf_lwmm.__all__:
        assert getattr(hf_lwmm, name) is not None
    assert dir(hf_lwmm) == sorted(hf_lwmm.__all__)
    with pytest.raises(AttributeError, match="no attribute 'merg'"):
        hf_lwmm.merg  # noqa: B018


def test_every_command_has_its_verb_and_every_verb_returns_a_public_type() -> None:
    for command in WITH_VERBS:
        verb = getattr(hf_lwmm, VERBS.get(command, command))
        answer = (
            str(inspect.signature(verb).return_annotation).split(" | ")[0].removeprefix("tuple[type[").split("]")[0]
        )
        assert answer in ("None", *hf_lwmm.__all__), (command, answer)


def test_a_described_model_prints_as_one_line() -> None:
    text = str(hf_lwmm.inspect(_PACKAGE / "demo" / "models" / "streets-gta"))
    assert text == (
        "streets-gta: MiT with 1-1-1-1 blocks, SegFormer head (mit/transformers + segformer/transformers), "
        "656,683 parameters in float16, i64, 11 classes, licence apache-2.0"
    )


def test_a_traceback_names_an_option_as_python_has_it(tmp_path: Path) -> None:
    def shown(call: Callable[[], object]) -> str:
        with pytest.raises(hf_lwmm.HfLwmmError) as caught:
            call()
        assert caught.value.__notes__[0] not in str(caught.value)  # which the command line prints
        return caught.value.__notes__[0].removeprefix("Arguments or fields in Python: ")

    model = _PACKAGE / "demo" / "models" / "streets-gta"
    assert shown(lambda: hf_lwmm.Layerwise(start=1.5)) == "start"
    assert shown(lambda: hf_lwmm.Ties(density=3)) == "density"
    assert shown(lambda: hf_lwmm.convert(model, tmp_path, to="transformers")) == "overwrite=True"
    assert shown(lambda: hf_lwmm.plan([model, model], knobs=hf_lwmm.Knobs(method="wise"))).startswith("method")
    assert not hasattr(hf_lwmm.PlanError("nothing of it"), "__notes__")


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys, hf_lwmm; print(sorted({'numpy', 'huggingface_hub', 'torch', 'click'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def imported(path: Path) -> set[str]:
    """The modules of the package that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] == "hf_lwmm"}


@pytest.mark.parametrize("path", sorted((_PACKAGE / "cli").glob("*.py")), ids=lambda path: path.stem)
def test_the_command_line_imports_the_public_face_alone(path: Path) -> None:
    own = {"hf_lwmm", "hf_lwmm.errors", "hf_lwmm.options", "hf_lwmm.text", "hf_lwmm._version"}
    assert {name for name in imported(path) if not name.startswith("hf_lwmm.cli")} <= own


@pytest.mark.parametrize("command", COMMANDS)
def test_the_list_of_commands_has_each_commands_first_line(command: str) -> None:
    help = load_command(command).help
    assert help.splitlines()[0] == COMMANDS[command]


@pytest.mark.parametrize("command", [name for name in WITH_VERBS if name != "hub"])
def test_functions_take_few_parameters_and_no_bags(command: str) -> None:
    names = [VERBS.get(command, command)] + (["export"] if command == "convert" else [])
    for name in names:
        parameters = inspect.signature(getattr(hf_lwmm, name)).parameters.values()
        assert len(parameters) <= 10
        assert not any(each.kind in (each.VAR_KEYWORD, each.VAR_POSITIONAL) for each in parameters)


def test_an_option_has_one_name_in_the_command_the_function_and_the_recipe() -> None:
    flags = {flag for parameter in load_command("merge").params for flag in parameter.opts}
    recipe = yaml.safe_load(Recipe(("org/a", "org/b"), "org/a").to_yaml())
    for each in fields(hf_lwmm.Knobs):
        if each.name != "method":
            assert option_name(each.name) in flags and each.name in recipe["knobs"]
    assert "--method" in flags and recipe["method"]["name"] == "layerwise"
    for name in declarations(hf_lwmm.Layerwise):
        assert option_name(name) in flags and name in recipe["method"]
    for each in fields(hf_lwmm.ImageSource):
        assert {option_name(each.name, prefix=prefix) for prefix in ("tune-", "eval-")} <= flags
    evaluate = {flag for parameter in load_command("evaluate").params for flag in parameter.opts}
    for cls in (hf_lwmm.ImageSource, hf_lwmm.EvaluationSpec, hf_lwmm.NetworkOptions):
        assert {option_name(name) for name in declarations(cls)} <= evaluate


def test_declared_limits_and_choices_hold_for_every_class_of_options() -> None:
    for name in hf_lwmm.__all__:
        cls = getattr(hf_lwmm, name)
        if not (isinstance(cls, type) and issubclass(cls, Options)) or cls is hf_lwmm.Method:
            continue
        for field, declared in declarations(cls).items():
            if declared.choices:
                with pytest.raises(hf_lwmm.HfLwmmError, match=r"is not one of|must be"):
                    cls(**{**_needed(cls), field: "no such choice"})
            for bound, step in (
                (declared.minimum, -1),
                (declared.above, 0),
                (declared.maximum, 1),
                (declared.below, 0),
            ):
                if bound is not None:
                    with pytest.raises(hf_lwmm.HfLwmmError, match="must be"):
                        cls(**{**_needed(cls), field: type(bound)(bound + step)})


def _needed(cls: type) -> dict[str, str]:
    return {"data": "org/data"} if cls is hf_lwmm.ImageSource else {}


def test_arguments_of_another_type_are_named(tmp_path: Path) -> None:
    two: Any = [tmp_path, tmp_path]
    calls: list[tuple[Callable[..., object], tuple[Any, ...], dict[str, Any], str]] = [
        (hf_lwmm.plan, ("streets-gta",), {}, r"models must be a list, not 'streets-gta'\."),
        (hf_lwmm.merge, (tmp_path,), {}, "models must be a list"),
        (hf_lwmm.evaluate, ("streets-gta", "d"), {}, "models must be a list"),
        (hf_lwmm.sweep, ("streets-gta", "d"), {}, "models must be a list"),
        (hf_lwmm.predict, (tmp_path, "x.png"), {}, r"pictures must be a list, not 'x\.png'"),
        (hf_lwmm.diff, two, {"taus": 10.0}, r"taus must be a list, not 10\.0"),
        (hf_lwmm.plan, (two,), {"knobs": "slerp"}, r"knobs must be hf_lwmm\.Knobs\(\.\.\.\), not 'slerp'\."),
        (hf_lwmm.plan, (two,), {"knobs": None}, "not None"),
        (hf_lwmm.plan, (two,), {"inputs": {}}, r"inputs must be hf_lwmm\.MergeInputs\(\.\.\.\), not {}\."),
        (hf_lwmm.merge, (two,), {"writing": {}}, "writing must be"),
        (hf_lwmm.merge, (two,), {"evaluation": "d"}, "evaluation must be"),
        (hf_lwmm.load, (tmp_path,), {"network": "cuda"}, "network must be"),
        (hf_lwmm.evaluate, (two, None), {}, "Name images by a data set, a folder or"),
        (hf_lwmm.sweep, (two, "d"), {"run": hf_lwmm.Knobs()}, "run must be .* not a Knobs"),
    ]
    for function, arguments, options, message in calls:
        with pytest.raises(hf_lwmm.PlanError, match=message):
            function(*arguments, **options)


def test_no_command_builds_options_twice() -> None:
    for command in COMMANDS:
        built = load_command(command)
        assert isinstance(built, click.Command)
        flags = [flag for parameter in built.params for flag in parameter.opts]
        assert len(flags) == len(set(flags)), command


def test_the_bare_command_shows_help() -> None:
    done = subprocess.run([sys.executable, "-m", "hf_lwmm"], capture_output=True, text=True, check=False)
    shown = done.stdout + done.stderr
    assert "Usage" in shown and "Traceback" not in shown
    assert all(f"{command} " in shown and line in shown for command, line in COMMANDS.items())


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: hf_lwmm.MergeInputs(measurements="f.safetensors"), "measurements must be a list, each entry"),
        (lambda: hf_lwmm.MergeInputs(base=3), "base must be text or .*, not 3"),
        (lambda: hf_lwmm.MergeInputs(network="cpu"), "network must be of type NetworkOptions, not 'cpu'"),
        (lambda: hf_lwmm.MergeInputs(tuning=[[1, 0]]), "tuning must be of type Tuning or nothing"),
        (lambda: hf_lwmm.MergeInputs(eval_images=3), "eval_images must be of type ImageSource or nothing, not 3"),
        (lambda: hf_lwmm.Knobs(method=None), "method must be of type Method, not None"),
        (lambda: hf_lwmm.Knobs(method=hf_lwmm.Slerp), "method must be of type Method, not <class"),
        (lambda: hf_lwmm.TaskArithmetic(scale=math.nan), "--option scale nan must be a finite number"),
        (lambda: hf_lwmm.TaskArithmetic(scale=True), "--option scale must be a number, not True"),
        (lambda: hf_lwmm.TaskArithmetic(scale="1"), "--option scale must be a number, not '1'"),
        (lambda: hf_lwmm.TaskArithmetic(scale=10**400), "--option scale must be a number"),
        (lambda: hf_lwmm.TaskArithmetic(scale=Fraction(10**400)), "--option scale must be a number"),
        (lambda: hf_lwmm.TaskArithmetic(scale=np.array([1.0, 2.0])), "--option scale must be a number"),
        (lambda: hf_lwmm.TaskArithmetic(scale=np.complex128(1)), "--option scale must be a number"),
        (lambda: hf_lwmm.TaskArithmetic(scale=b"1"), "--option scale must be a number"),
        (lambda: hf_lwmm.Dare(seed=np.array(1.0)), "--option seed must be a whole number"),
        (lambda: hf_lwmm.Dare(seed="3"), "--option seed must be a whole number, not '3'"),
        (lambda: hf_lwmm.Dare(seed=1.0), r"--option seed must be a whole number, not 1\.0"),
        (lambda: hf_lwmm.Dare(seed=True), "--option seed must be a whole number, not True"),
        (lambda: hf_lwmm.Knobs(permute=1), "--permute must be true or false, not 1"),
        (lambda: hf_lwmm.TaskArithmetic(scale=math.inf), "--option scale inf must be a finite number"),
    ],
)
def test_values_refuse_what_does_not_fit_when_they_are_made(made: Callable[[], object], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        made()


class Place(IntEnum):
    THIRD = 3


class Ramp(str, Enum):
    LINEAR = "linear"


def test_values_take_what_means_the_same() -> None:
    assert hf_lwmm.Dare(seed=np.int64(3)) == hf_lwmm.Dare(seed=3)
    assert hf_lwmm.Layerwise(start=np.float32(0.5)) == hf_lwmm.Layerwise(start=0.5)
    for half in (np.float32(0.5), np.float64(0.5), np.array(0.5), Decimal("0.5"), Fraction(1, 2)):
        assert type(hf_lwmm.Dare(scale=half).scale) is float and hf_lwmm.Dare(scale=half) == hf_lwmm.Dare(scale=0.5)
    assert type(hf_lwmm.Dare(scale=1).scale) is float
    for three in (np.int64(3), np.array(3), Place.THIRD):
        assert type(hf_lwmm.Dare(seed=three).seed) is int and hf_lwmm.Dare(seed=three) == hf_lwmm.Dare(seed=3)
    for text in (np.str_("linear"), Ramp.LINEAR):
        assert type(hf_lwmm.Layerwise(ramp=text).ramp) is str and hf_lwmm.Layerwise(ramp=text) == hf_lwmm.Layerwise()
    assert type(hf_lwmm.Knobs(keep=[np.str_("head")]).keep[0]) is str
    given = hf_lwmm.MergeInputs(base=Path("org/a"), measurements=["f", Path("g")], bn_images="org/d")
    assert given == hf_lwmm.MergeInputs(base="org/a", measurements=("f", "g"), bn_images=hf_lwmm.ImageSource("org/d"))
