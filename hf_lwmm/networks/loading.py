"""Load any supported checkpoint as a network that runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel

from hf_lwmm import hub
from hf_lwmm.checkpoints.checkpoint import Checkpoint, classifier_rows, main_float_type, open_checkpoint, with_labels
from hf_lwmm.checkpoints.companions import (
    CONFIG,
    WEIGHTS_NAME,
    class_count,
    companion,
    placeholders,
    with_class_names,
)
from hf_lwmm.checkpoints.shard_index import INDEX_SUFFIX
from hf_lwmm.checkpoints.weight_files import default_files
from hf_lwmm.describing.kinds import check_no_system
from hf_lwmm.describing.libraries import SMP, TIMM, library_of
from hf_lwmm.describing.network_slots import misfits, some
from hf_lwmm.describing.stated_names import foreign_parts
from hf_lwmm.errors import CheckpointError, HfLwmmError, LayoutError, PlanError, first_line
from hf_lwmm.files.documents import shortened
from hf_lwmm.hub import Ref, parse_ref
from hf_lwmm.labels import read_label_set
from hf_lwmm.layouts import SlotMap
from hf_lwmm.networks.families import FAMILIES, Family, family_of, is_known
from hf_lwmm.networks.finite import check_weights
from hf_lwmm.networks.loaded_model import LoadedModel
from hf_lwmm.networks.module_slots import fill, slots_of, state_of
from hf_lwmm.networks.one_row import classes_of_one_row
from hf_lwmm.networks.own_code import own_network
from hf_lwmm.networks.processors import image_processor, stated_processor
from hf_lwmm.planning.groups import check_runnable
from hf_lwmm.planning.inputs import NetworkOptions

# Tasks of the networks that transformers has itself, by the end of the class's name.
_TASKS = {
    "ForSemanticSegmentation": "semantic",
    "ForImageClassification": "classification",
    "ForObjectDetection": "detection",
}


def load(model: Ref, network: NetworkOptions = NetworkOptions(), name: str = "") -> LoadedModel:
    """Load a model as a network of transformers, timm, segmentation_models.pytorch or `hf_lwmm.networks`.

    Args:
        model: a reference, as for `merge`.
        network: the code base of a DeepLabV2 checkpoint, the user's own code for a model that no family knows, label
            sets for one that does not name its classes, the branch of a self-training checkpoint, the device, and the
            type to compute in.
        name: a name for messages and reports in place of the reference, if not empty.

    Raises:
        HfLwmmError: a subclass that says what is wrong, such as which tensors are missing.
    """
    device = _device(network.device)
    source = replace(hub.resolve(parse_ref(model)), name=name)
    checkpoint = open_checkpoint(source, branch=network.branch)
    try:
        check_runnable(checkpoint)
        checkpoint = with_labels(checkpoint, [read_label_set(labels) for labels in network.labels])
        loaded = _network_of(checkpoint, network)
        stored = network.compute_dtype == "stored"
        dtype = main_float_type(checkpoint) if stored else network.compute_dtype
        module: Any = loaded.model
        module.to(device=device, dtype=getattr(torch, dtype)).eval()
        check_weights(module, checkpoint)
        return replace(loaded, files=checkpoint.files, branch=checkpoint.branch)
    finally:
        checkpoint.close()


def _network_of(checkpoint: Checkpoint, network: NetworkOptions) -> LoadedModel:
    """A network of some library or of a family, or else, if there is none, one of the user's own code."""
    if (library := library_of(checkpoint.config)) is not None:
        loaded = _of_library(checkpoint, network, library)
    elif (hosted := _family_in_transformers(checkpoint)) is not None:
        loaded = _from_pretrained(checkpoint, hosted)
    elif network.network is not None and not is_known(checkpoint.slot_map):
        return _of_own_code(checkpoint, network)
    else:
        loaded = _from_slots(checkpoint, network.system)
    if network.network is None:
        return loaded
    note = f"{checkpoint.label}: is a {loaded.family.name}, so --network was not used for it"
    return replace(loaded, notes=(*loaded.notes, note))


def unfilled_network(checkpoint: Checkpoint, network: NetworkOptions = NetworkOptions()) -> Any:
    """Return the network that a checkpoint is for, without its weights and also without a head.

    Args:
        checkpoint: headers are enough.
        network: as for `load`.

    Raises:
        HfLwmmError: if there is no such network, or it is larger than the checkpoint.
    """
    library = library_of(checkpoint.config)
    if library == TIMM:
        from hf_lwmm.networks.timm_models import timm_network

        return timm_network(checkpoint)
    if library == SMP:
        from hf_lwmm.networks.smp_models import smp_network

        return smp_network(checkpoint)
    if network.network is not None and not is_known(checkpoint.slot_map):
        return own_network(checkpoint, network).module
    if (model_class := _class_in_transformers(checkpoint)) is None:
        family, notes = family_of(checkpoint.slot_map, checkpoint.label), list[str]()
        model = _stored_network(checkpoint, family, notes) if network.system is None else None
        return model or family.model_class(_config_of_slots(checkpoint, family, network.system, notes))
    try:
        config: Any = model_class.config_class
        settings = config.from_dict(_named_content(checkpoint, []))
        with torch.device("meta"):  # where a network takes no memory, whatever size the configuration asks for
            size = sum(tensor.numel() for tensor in model_class(settings).state_dict().values())
        if size <= 2 * sum(info.count for info in checkpoint.tensors.values()):
            return model_class(settings)
    except HfLwmmError:
        raise
    except Exception as error:  # a contradictory configuration fails wherever the network's code first meets it
        why = f"its config.json does not make a {model_class.__name__}: {first_line(error)}"
        raise CheckpointError(f"{checkpoint.label}: {why}") from None
    raise CheckpointError(
        f"{checkpoint.label}: its config.json makes a {model_class.__name__} of {size:,} weights, more than its own."
    )


def _of_library(checkpoint: Checkpoint, network: NetworkOptions, library: str) -> LoadedModel:
    """A network of another library than transformers, as its repository's config.json describes it."""
    check_no_system(network.system)
    label_sets = [read_label_set(labels) for labels in network.labels]
    if library == TIMM:
        from hf_lwmm.networks.timm_models import timm_model as found_in
    else:
        from hf_lwmm.networks.smp_models import smp_model as found_in
    found = found_in(checkpoint, label_sets)
    kind: Any = type(found.module)
    return LoadedModel(
        found.module,
        found.image_processor,
        found.classes,
        Family(found.name, kind, (), _no_config, found.task),
        checkpoint.source,
        found.notes,
        library=library,
        library_config=found.config,
    )


def _of_own_code(checkpoint: Checkpoint, network: NetworkOptions) -> LoadedModel:
    """A network of the user's own code, filled slot by slot."""
    own = own_network(checkpoint, network)
    unused = fill(own.module, checkpoint)
    kind: Any = type(own.module)
    family = Family(own.name, kind, (), _no_config)
    notes = (*checkpoint.notes, *own.notes, *unused)
    return LoadedModel(
        own.module, own.image_processor, own.classes, family, checkpoint.source, notes, own_code=own.identity
    )


def _device(name: str) -> str:
    """The device, checked; if every process has a GPU of its own, "cuda" is this process's."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise PlanError(f"--device {name}: cannot be used here: {first_line(error)}") from None
    return f"cuda:{os.environ['LOCAL_RANK']}" if name == "cuda" and "LOCAL_RANK" in os.environ else name


def _from_slots(checkpoint: Checkpoint, system: str | None) -> LoadedModel:
    """A network of one of the families, filled slot by slot."""
    family = family_of(checkpoint.slot_map, checkpoint.label)
    notes = list(checkpoint.notes)
    model = _stored_network(checkpoint, family, notes) if system is None else None
    if model is None:
        model = family.model_class(_config_of_slots(checkpoint, family, system, notes))
    notes += fill(model, checkpoint)
    processor = image_processor(checkpoint, model.config, notes)
    return _loaded(checkpoint, model, processor, family, notes)


def _loaded(
    checkpoint: Checkpoint, model: PreTrainedModel, processor: Any, family: Family, notes: Sequence[str]
) -> LoadedModel:
    classes = _classes(model.config, family.task)
    settings = checkpoint.processor
    if settings is not None and settings.names_it_as_before and family.task in ("semantic", "panoptic"):
        notes = (
            *notes,
            f"{checkpoint.label}: reduce_labels in its {settings.file} has no effect, as in transformers 5; if labels "
            "number the classes from 1, say --ids from-1",
        )
    return LoadedModel(model, processor, classes, family, checkpoint.source, tuple(notes), checkpoint.reduces_labels)


def _stored_network(checkpoint: Checkpoint, family: Family, notes: list[str]) -> PreTrainedModel | None:
    """The network that the repository's config.json describes, None if it describes no network of this family."""
    wanted = family.model_class.config_class
    if wanted is None or checkpoint.config.get("model_type") != wanted.model_type:
        return None
    content = _named_content(checkpoint, notes)
    try:
        config = wanted.from_dict(content)
        with torch.device("meta"):  # where a network takes no memory, whatever size the configuration asks for
            faults = misfits(slots_of(family.model_class(config)).shapes, checkpoint.slot_map.shapes)
        if not faults:
            return family.model_class(config)
    except Exception as error:  # a contradictory configuration fails wherever the network's code first meets it
        why = f"its config.json does not make a {family.name}: {first_line(error)}"
        raise CheckpointError(f"{checkpoint.label}: {why}") from None
    raise LayoutError(f"{checkpoint.label} does not fit the {family.name} of its config.json: {faults}.")


def _named_content(checkpoint: Checkpoint, notes: list[str]) -> dict[str, Any]:
    """The content of the config.json with the names of the checkpoint's classes, as many as its classifier has rows."""
    content, rows = dict(checkpoint.config), classifier_rows(checkpoint.slot_map)
    content.pop(WEIGHTS_NAME, None)
    _check_layers(content, checkpoint)
    classes, stated = checkpoint.classes, content.get("id2label")
    if classes is None and rows is not None and class_count(content) != rows:
        classes = _placeholders(checkpoint, notes)
    if classes is None or (rows is None and stated and len(stated) != len(classes)):
        return content
    return with_class_names(content, classes)


def _check_layers(content: Mapping[str, Any], checkpoint: Checkpoint) -> None:
    """Refuse a configuration of more layers than there are tensors, which would take long to build for nothing."""
    for name, value in content.items():
        if isinstance(value, Mapping):
            _check_layers(value, checkpoint)
        if name == "depths" or name.endswith("layers"):
            counts = value if isinstance(value, list) else [value]
            if sum(each for each in counts if isinstance(each, int)) > len(checkpoint.tensors):
                raise CheckpointError(
                    f"{checkpoint.label}: its config.json asks for {name} {shortened(value)}, more layers than the "
                    f"{len(checkpoint.tensors):,} tensors that it has."
                )


def _config_of_slots(checkpoint: Checkpoint, family: Family, system: str | None, notes: list[str]) -> PreTrainedConfig:
    """The configuration that follows from the slots; assumptions are added to the notes."""
    classes = checkpoint.classes or _placeholders(checkpoint, notes)
    try:
        config = family.config_for(checkpoint.slot_map, classes, system)
    except LayoutError as error:
        raise LayoutError(f"{checkpoint.label}: {error}") from None
    except Exception as error:  # tensors of impossible shapes fail wherever they are first computed with
        raise LayoutError(f"{checkpoint.label}: its shapes do not make a {family.name}: {first_line(error)}") from None
    if (assumed := getattr(config, "system", None)) and system is None:
        notes.append(f"{checkpoint.label}: assumed to be {assumed}'s; --system chooses another")
    return config


def _placeholders(checkpoint: Checkpoint, notes: list[str]) -> tuple[str, ...]:
    rows = classifier_rows(checkpoint.slot_map)
    if rows is None:
        raise LayoutError(
            f"{checkpoint.label}: its classifier cannot be told from its other layers; `hf-lwmm inspect` shows them."
        )
    notes.append(f"{checkpoint.label}: names none of its {rows} classes; --labels does")
    return placeholders(rows)


def _classes(config: PreTrainedConfig, task: str) -> tuple[str, ...]:
    labels: dict[Any, str] = dict(config.id2label or {})
    names = tuple(str(labels[row]) for row in sorted(labels))
    return classes_of_one_row(names) if task in ("semantic", "classification") and len(names) == 1 else names


def _family_in_transformers(checkpoint: Checkpoint) -> Family | None:
    """The network that transformers itself has for a repository; None if it has none or a family here takes it."""
    model_class = _class_in_transformers(checkpoint)
    named = model_class.__name__ if model_class is not None else ""
    task = next((task for ending, task in _TASKS.items() if named.endswith(ending)), None)
    own = _takes_default_files(checkpoint) or bool(foreign_parts(checkpoint))
    if model_class is None or task is None or not own:
        return None
    return Family(f"transformers' {named}", model_class, (), _no_config, task)


def _class_in_transformers(checkpoint: Checkpoint) -> type[PreTrainedModel] | None:
    """The class of transformers that a config.json names; None if it names none or a family here takes it."""
    architectures = checkpoint.config.get("architectures")
    named = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    found = getattr(transformers, named, None) if "model_type" in checkpoint.config else None
    if not (isinstance(found, type) and issubclass(found, PreTrainedModel)):
        return None
    return None if any(family.model_class is found for family in FAMILIES) else found


def _takes_default_files(checkpoint: Checkpoint) -> bool:
    """True if transformers would take the same files from the folder of the weights."""
    chosen = default_files(checkpoint.source, checkpoint.folder)
    return bool(chosen) and (chosen[0].endswith(INDEX_SUFFIX) or chosen == checkpoint.files)


def _no_config(slot_map: SlotMap, classes: Sequence[str], system: str | None) -> PreTrainedConfig:
    raise LayoutError("The configuration of a network of transformers is its repository's config.json.")


def _from_pretrained(checkpoint: Checkpoint, family: Family) -> LoadedModel:
    """A network of transformers by its own `from_pretrained`, from files alone and without running their code."""
    source = checkpoint.source
    path = companion(source, checkpoint.folder, CONFIG)
    assert path is not None, "the architecture comes from a config.json"
    indices = [name for name in default_files(source, checkpoint.folder) if name.endswith(INDEX_SUFFIX)]
    # A local folder has all files already, and transformers reads them itself: none may lead out of the folder.
    local = source.files if source.ref.path is not None else ()
    folder = PurePosixPath(path).parent
    beside = [name for name in local if name.endswith(".json") and PurePosixPath(name).parent == folder]
    for name in (*checkpoint.files, *indices, *beside):
        hub.fetch(source, name)
    model_class: Any = family.model_class
    notes = list(checkpoint.notes)
    try:
        config = model_class.config_class.from_dict(_named_content(checkpoint, notes))
        how: dict[str, Any] = {"config": config, "output_loading_info": True}
        found: Mapping[str, Any] = {"missing_keys": ()}
        if foreign_parts(checkpoint):  # transformers would pass over them
            model = model_class(config)
            notes += fill(model, checkpoint)
        elif checkpoint.renamed:  # transformers would look for the names of its own, and find none
            model, found = model_class.from_pretrained(None, state_dict=state_of(checkpoint), **how)
        else:
            model, found = model_class.from_pretrained(hub.fetch(source, path).parent, local_files_only=True, **how)
    except HfLwmmError:
        raise
    except Exception as error:  # a contradictory configuration fails wherever the network's code first meets it
        if "ignore_mismatched_sizes" in str(error):  # what transformers names then is a remedy that loses weights
            raise CheckpointError(
                f"{checkpoint.label}: its weights have other shapes than its config.json describes of "
                f"{model_class.__name__}. If those of the classifier have, give id2label as many classes as it has "
                "rows."
            ) from None
        raise CheckpointError(f"{checkpoint.label}: {first_line(error)}") from None
    if missing := sorted(name for name in found["missing_keys"] if not name.endswith("num_batches_tracked")):
        faults = f"{len(missing)} tensors are missing ({some(missing)})"  # which transformers fills at random
        raise LayoutError(f"{checkpoint.label} does not fit {model_class.__name__}: {faults}.")
    return _loaded(checkpoint, model, stated_processor(checkpoint, model.config), family, notes)
