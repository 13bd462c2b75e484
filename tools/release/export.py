"""Export a trained bundle to one TorchScript or ONNX file.

python -m tools export neuroseg3d --format onnx

MONAI's own exporters write the network, its weights and, in TorchScript, the flat configs of the release. The
file is then read and compared with PyTorch on a random patch.
"""

import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from timeit import repeat
from typing import Any

import torch
from monai.bundle import ConfigParser, ckpt_export, onnx_export
from tumour.errors import InputError, one_of
from tumour.files import atomic_write
from tumour.runs.checkpoints import load_weights, read_weights

from tools.release.metadata import metadata
from tools.release.pack import checkpoint_of, content, require_fit

Network = Callable[[torch.Tensor], torch.Tensor]
PATCH = 64  # side length in voxels of the patch for the comparison
ROUNDS = 5  # of the time, of which the shortest is given
INFERENCE = "configs/inference.json"
AXES = {0: "batch", 2: "x", 3: "y", 4: "z"}  # may be of any size


def read_torchscript(path: Path) -> Network:
    """A TorchScript file as a function from images to logits."""
    return torch.jit.load(str(path), map_location="cpu").eval()


def read_onnx(path: Path) -> Network:
    """An ONNX file as a function from images to logits, run by onnxruntime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


def to_torchscript(folder: Path, target: Path) -> None:
    """Script the network; the configs are stored in the file, where MONAI Deploy looks for them."""
    ckpt_export("network_def", str(target), bundle_root=str(folder), **files_of(folder))


def to_onnx(folder: Path, target: Path) -> None:
    """Export the graph in the opset that PyTorch writes by default, for any batch and patch size."""
    names = {"input_names": ["image"], "output_names": ["pred"], "dynamic_axes": {"image": AXES, "pred": AXES}}
    options = {**names, "filename": str(target)}  # else MONAI leaves the weights in the system's temporary folder
    shape = [2, *random_patch(folder).shape[1:]]
    onnx_export("network_def", str(target), input_shape=shape, converter_kwargs=options, **files_of(folder))


FORMATS = {"torchscript": (to_torchscript, read_torchscript, "ts"), "onnx": (to_onnx, read_onnx, "onnx")}


def files_of(folder: Path) -> dict[str, Any]:
    """The files of an unpacked bundle, as MONAI's exporters name them."""
    files = {"ckpt_file": "models/model.pt", "meta_file": "configs/metadata.json", "config_file": INFERENCE}
    return {option: str(folder / name) for option, name in files.items()}


def unpack(bundle: str, checkpoint: Path, folder: Path) -> None:
    """Write the files of a release into a folder."""
    for name, data in content(bundle, checkpoint).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def network_of(folder: Path) -> torch.nn.Module:
    """The PyTorch network of an unpacked bundle, with its weights."""
    parser = ConfigParser()
    parser.read_config(folder / INFERENCE)
    parser["bundle_root"] = str(folder)
    network = parser.get_parsed_content("network_def")
    load_weights(network, read_weights(folder / "models" / "model.pt"), folder / "models" / "model.pt")
    return network.eval()


def random_patch(folder: Path) -> torch.Tensor:
    """A patch with the channels of an unpacked bundle's network."""
    metadata = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
    return torch.randn(1, metadata["network_data_format"]["inputs"]["image"]["num_channels"], PATCH, PATCH, PATCH)


def difference(logits: torch.Tensor, others: torch.Tensor) -> float:
    """The largest difference, as a share of the largest logit where that is over 1."""
    return float((logits - others).abs().max() / logits.abs().max().clamp(min=1))


def export(bundle: str, format: str = "torchscript", output: str = "dist", weights: str = "") -> str:
    """Export a trained bundle to one file, and compare it with PyTorch.

    Args:
        bundle: a folder of bundles/.
        format: torchscript or onnx.
        output: folder for the file.
        weights: the checkpoint; default: `models/model.pt` of the bundle, else `weights/model.pt`.
    """
    write, read, ending = one_of(FORMATS, format, setting="format")
    checkpoint = Path(weights) if weights else checkpoint_of(bundle)
    target = (Path(output) / f"{bundle}_v{metadata(bundle)['version']}.{ending}").resolve()
    require_fit(bundle, checkpoint)
    with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
        folder, part = Path(scratch), Path(scratch) / target.name
        unpack(bundle, checkpoint, folder)
        write(folder, part)
        ours, exported, image = network_of(folder), read(part), random_patch(folder)
        error = difference(ours(image), exported(image))
        if error > 1e-4:
            raise InputError(f"The {format} file of {bundle} differs by {error:.1e} from PyTorch; nothing is written.")
        seconds = [min(repeat(partial(network, image), number=1, repeat=ROUNDS)) for network in (exported, ours)]
        with atomic_write(target) as temporary:
            temporary.write_bytes(part.read_bytes())
    return (
        f"{target}: {target.stat().st_size / 1e6:.1f} MB, within {error:.0e} of PyTorch; "
        f"a patch of {PATCH}³ takes {1000 * seconds[0]:.0f} ms, in PyTorch {1000 * seconds[1]:.0f} ms "
        f"({torch.get_num_threads()} threads, float32)."
    )
