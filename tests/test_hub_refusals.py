"""A Hub that refuses, stumbles, stays down or cannot be reached: one clear message, and no work lost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import Run
from huggingface_hub import HfApi

from hf_lwmm.localhub import Fault, LocalHub


def test_errors_of_the_hub_are_one_clear_message(
    run: Run, hub_models: tuple[str, str], hub: LocalHub, api: HfApi
) -> None:
    a, b = hub_models
    api.create_repo("org/empty", exist_ok=True)
    for arguments, says in (
        ((a, "org/nothing"), "no such model on the Hub"),
        ((a, f"{b}@nowhere"), "has no revision 'nowhere'"),
        ((a, f"{b}:nothing.pth"), "has no file 'nothing.pth'"),
        ((a, "org/empty"), "no weights found"),
        ((a,), "at least two models"),
        ((), "at least two models"),
        ((a, b, "--anchor", "org/other"), "not among the models"),
        ((a, b, "--ramp", "steep"), "--ramp steep is not one of"),
        ((a, b, "--head", "off"), "--head off is not one of"),
        ((a, b, "--dtype", "int8"), "--dtype int8 is not one of"),
        ((a, b, "--alpha", "0.1"), "--alpha 0.1 must be between"),
        ((a, "no such/thing"), "neither a local path nor a Hub model id"),
    ):
        code, _, err = run("merge", *arguments)
        assert code == 1 and says in err and err.startswith("Error: "), (arguments, err)
    assert not list(Path().iterdir())


def test_private_and_gated_models_say_what_to_do(
    run: Run, hub_models: tuple[str, str], hub: LocalHub, api: HfApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = hub_models
    monkeypatch.setenv("HF_TOKEN", "hf_stranger")
    api.update_repo_settings(b, private=True)
    code, _, err = run("merge", a, b)
    assert code == 1 and "private" in err and "hf auth login" in err
    api.update_repo_settings(b, private=False, gated="auto")
    for token in ("hf_stranger", None):
        if token is None:
            monkeypatch.delenv("HF_TOKEN")
        code, _, err = run("merge", a, b)
        assert code == 1 and "gated" in err and "conditions" in err
    code, _, err = run("merge", a, a, "--push")
    assert code == 1 and "needs a token" in err


@pytest.mark.parametrize("token", ["hf_reader", "hf_stranger", "hf_wrong"])
def test_a_token_that_may_not_write_is_found_out_before_any_work(
    token: str, run: Run, hub_models: tuple[str, str], hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    hub.faults.append(Fault(path="resolve", status=500, times=99))
    for repo in ("org/new-one", hub_models[0]):
        code, _, err = run("merge", *hub_models, "--push", repo)
        assert code == 1 and ("may not" in err or "can only read" in err or "does not accept" in err), err
    assert not any(fault.times < 99 for fault in hub.faults)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(path="/api/models/", status=429, retry_after=1, times=2),
        Fault(path="/api/models/", status=500, times=2),
        Fault(path=r"resolve/.*model\.safetensors", status=503, times=1),
        Fault(path=r"resolve/.*model\.safetensors", method="HEAD", status=503, times=2),
        Fault(path="/commit/", method="POST", status=500, times=1),
        Fault(path="/commit/", method="POST", status=429, retry_after=1, times=2),
        Fault(path=r"resolve/.*model\.safetensors", drop_after_bytes=20_000, times=2),
        Fault(path="/lfs/", method="PUT", status=500, times=1),
        Fault(path="/api/", delay=0.3, times=4),
    ],
    ids=["429", "500", "503 file", "503 head", "500 commit", "429 commit", "cut file", "500 upload", "slow"],
)
def test_a_hub_that_stumbles_is_waited_for(
    fault: Fault, run: Run, hub_models: tuple[str, str], hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleep = time.sleep
    monkeypatch.setattr("time.sleep", lambda seconds: sleep(seconds / 20))
    hub.faults.append(fault)
    repo = f"local/{hub_models[0].split('/')[1]}"[:80].rstrip("-")
    code, out, err = run("merge", *hub_models, "--push", repo)
    assert code == 0 and repo in out, err
    assert fault.times == 0, "the fault never happened"


@pytest.mark.parametrize("fault", [{"status": 503}, {"drop_after_bytes": 0}], ids=["503", "cut"])
def test_a_model_whose_first_answers_fail_is_asked_for_again(
    fault: dict[str, Any], run: Run, hub_models: tuple[str, str], hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.faults.append(Fault(path=f"/api/models/{hub_models[0]}$", times=4, **fault))
    code, _, err = run("inspect", hub_models[0])
    assert code == 0 and hub.faults[-1].times == 0, err


def test_a_hub_that_stays_down_is_reported(
    run: Run, hub_models: tuple[str, str], hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.faults.append(Fault(path="/api/models/", status=500, times=999))
    code, _, err = run("merge", *hub_models)
    assert code == 1 and "the Hub answered 500" in err and "offline" not in err
    hub.faults[-1] = Fault(path="/api/models/", drop_after_bytes=0, times=999)
    code, _, err = run("inspect", hub_models[0])
    assert code == 1 and "the Hub cannot be reached (" in err and "offline" not in err
    hub.faults[-1] = Fault(path="/api/models/", status=500, times=999)
    Path("streets.pth").touch()
    code, _, err = run("inspect", "streats.pth")
    assert code == 1 and "did you mean streets.pth? streats.pth: the Hub answered 500" in err and "reach" not in err


def offline(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "hf_lwmm", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_offline_mode_works_from_the_cache_and_says_when_it_cannot(
    run: Run, hub_models: tuple[str, str], tmp_path: Path
) -> None:
    without = offline(["merge", *hub_models], tmp_path)
    assert without.returncode == 1 and "not in the cache" in without.stderr and "Traceback" not in without.stderr
    assert run("merge", *hub_models, "--output", "online")[0] == 0
    within = offline(["merge", *hub_models, "--output", "offline"], tmp_path)
    assert within.returncode == 0, within.stderr
    assert Path("online/model.safetensors").read_bytes() == Path("offline/model.safetensors").read_bytes()


def test_offline_mode_says_what_the_cache_lacks(run: Run, hub_models: tuple[str, str], tmp_path: Path) -> None:
    run("inspect", hub_models[0])  # reads headers, and keeps the configuration
    within = offline(["inspect", hub_models[0]], tmp_path)
    assert within.returncode == 1 and "This is what the cache holds. Unset HF_HUB_OFFLINE" in within.stderr
