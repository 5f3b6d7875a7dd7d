"""The model bundle ``NAME.cvgl/``: an embedding network, how its input is made, and the proof of both."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvgl.engines import Engine, FrameEngine, RawFrame
from cvgl.engines.choose import choose_engine
from cvgl.errors import ModelError
from cvgl.files import atomic_folder, check_files, hash_files, read_json, write_json
from cvgl.manifest import MANIFEST, Fields, is_plain_name, refuse_to_replace_others

__all__ = ["FORMAT_VERSION", "Model", "View", "read_manifest", "write_bundle"]

FORMAT_VERSION = 1
_VIEWS = ("query", "reference")
_CHUNK = 64


@dataclass(frozen=True)
class View:
    """How patches of one view enter the network.

    Args:
        file: name of the network's file in the bundle; both views name the same one where they share weights.
        input_size: (height, width) of a patch, pixels.
        mean, std: of the red, green and blue values scaled to 0..1; the network sees (value - mean) / std.
        gsd_m: ground sampling distance that the network was made for, m/px; None where its maker does not say.
        channels: order in which the network takes them; "rgb".
        interpolation: "bilinear" or "bicubic", always antialiased: how images of another size were brought to this one
            in training. Flight resamples to the input's very size and has no use for it.
    """

    file: str
    input_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    gsd_m: float | None
    channels: str = "rgb"
    interpolation: str = "bilinear"

    @property
    def normalisation(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Scale and offset by channel: the network sees grey * scale + offset of grey levels 0 to 255."""
        red, green, blue = (1 / (255 * std) for std in self.std)
        offset = [-mean / std for mean, std in zip(self.mean, self.std, strict=True)]
        return (red, green, blue), (offset[0], offset[1], offset[2])


class Model:
    """An embedding network, opened from its bundle. Use :meth:`open`.

    Attributes:
        path: of the bundle.
        name, architecture, precision, opset, training: as the manifest states them.
        descriptor_size: length of a descriptor.
        views: by name, "query" for frames and "reference" for tiles.
        fingerprint: SHA-256 over everything that decides what a descriptor is; a gallery belongs to one.
        runtime: what runs it here, and why that.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], engines: dict[str, Engine], runtime: str = "") -> None:
        fields = Fields(manifest, path / MANIFEST, ModelError)
        self.path = path
        self.name = fields.text("name")
        self.architecture = fields.text("architecture")
        self.descriptor_size = fields.integer("descriptor_size")
        self.views = _read_views(fields)
        self.precision = fields.text("precision")
        self.opset = fields.integer("opset")
        self.training: dict[str, Any] = manifest.get("training", {})
        self.fingerprint = _fingerprint(self.descriptor_size, self.views, fields.files())
        self.runtime = runtime
        self._engines = engines

    @classmethod
    def open(
        cls, path: str | Path, threads: int | None = None, views: tuple[str, ...] = _VIEWS, engine: str = "auto"
    ) -> Model:
        """Check every file's hash, then load the network and run it once.

        Args:
            path: the bundle's folder.
            threads: threads of one inference on the CPU; by default two, or one on a single core.
            views: those that will be embedded. A drone needs no reference network where the two differ.
            engine: "auto" takes TensorRT where the bundle has an engine that fits this GPU (`cvgl.engines.choose`
                says where it lies), else ONNX Runtime; "tensorrt" or "onnxruntime" insists on one.

        Raises:
            ModelError: no bundle, a field missing or unusable, a file absent or altered, or a network that
                does not load or does not do what the manifest says.
            MissingDependencyError: TensorRT is insisted on, and it or a GPU is not here.
        """
        path = Path(path)
        manifest = read_manifest(path)
        fields = Fields(manifest, path / MANIFEST, ModelError)
        check_files(path, fields.files(), ModelError)
        size, descriptions = fields.integer("descriptor_size"), _read_views(fields)
        fingerprint = _fingerprint(size, descriptions, fields.files())
        engines: dict[str, Engine] = {}
        by_file: dict[str, Engine] = {}
        runtimes = []
        for name in views:
            view = descriptions[_known(name, path)]
            if view.file not in by_file:
                served = [other for other in views if descriptions[_known(other, path)].file == view.file]
                by_file[view.file], why = choose_engine(
                    path / view.file, views=served, fingerprint=fingerprint, engine=engine, threads=threads
                )
                runtimes.append(f"{by_file[view.file].description} ({why})")
            network = engines[name] = by_file[view.file]
            for field, found, expected in (
                (f"views.{name}.input_size", network.input_size, view.input_size),
                ("descriptor_size", network.descriptor_size, size),
            ):
                if found != expected:
                    raise ModelError(
                        "the network is another than the manifest's",
                        file=path / view.file,
                        field=field,
                        found=found,
                        expected=str(expected),
                    )
        return cls(path, manifest, engines, "; ".join(dict.fromkeys(runtimes)))

    def embed(
        self, patches: NDArray[np.uint8], masks: NDArray[Any] | None = None, view: str = "query"
    ) -> NDArray[np.float32]:
        """Descriptors of patches.

        Args:
            patches: (B, H, W, 3) uint8 BGR of exactly the view's input size. Nothing is resized here: how a
                patch is reduced decides the accuracy, and is for those who know its ground sampling distance.
            masks: (B, H, W) uint8 or bool, nonzero where the patch shows ground; None for everywhere. The
                rest enters the network as exactly 0, the mean colour.
            view: "query" or "reference".

        Returns:
            (B, D) float32 of unit length.

        Raises:
            ModelError: wrong shapes, an unknown view, or a descriptor that is not finite.
        """
        chunks = (slice(start, start + _CHUNK) for start in range(0, max(len(patches), 1), _CHUNK))
        found = [
            self.embed_inputs(self.inputs_of(patches[chunk], None if masks is None else masks[chunk], view), view)
            for chunk in chunks
        ]
        return np.concatenate(found)

    def inputs_of(
        self, patches: NDArray[np.uint8], masks: NDArray[Any] | None = None, view: str = "query"
    ) -> NDArray[np.float32]:
        """What the network takes for patches, for :meth:`embed_inputs`; arguments and errors as :meth:`embed`'s."""
        shape = (*self.views[_known(view, self.path)].input_size, 3)
        if patches.dtype != np.uint8 or patches.shape[1:] != shape:
            raise ModelError(
                "wrong patches",
                field=f"{view} patches",
                found=f"{patches.dtype} {patches.shape}",
                expected=f"uint8 (B, {', '.join(map(str, shape))})",
            )
        if masks is not None and (masks.shape != patches.shape[:3] or masks.dtype not in (np.uint8, np.bool_)):
            raise ModelError(
                "wrong masks",
                field=f"{view} masks",
                found=f"{masks.dtype} {masks.shape}",
                expected=f"uint8 or bool {patches.shape[:3]}",
            )
        return _normalise(patches, masks, self.views[view])

    def takes_frames(self, view: str = "query") -> bool:
        """Whether :meth:`embed_inputs` takes raw frames: they are then warped where the network runs."""
        engine = self._engines.get(_known(view, self.path))
        return isinstance(engine, FrameEngine) and engine.takes_frames

    def embed_inputs(self, inputs: NDArray[Any] | RawFrame, view: str = "query") -> NDArray[np.float32]:
        """Descriptors of what the network takes, as :func:`cvgl.rectify.warp_to_input` makes it.

        Args:
            inputs: (B, 3, H, W) float32 or float16, normalised by the view's :attr:`View.normalisation`, channels in
                the view's order, 0 where nothing is seen. Or a raw frame and its maps, where the engine takes them.
            view: "query" or "reference".

        Returns:
            (B, D) float32 of unit length.

        Raises:
            ModelError: wrong shapes, an unknown view, or a descriptor that is not finite.
        """
        engine = self._engines.get(_known(view, self.path))
        if engine is None:
            raise ModelError("the model was opened without this view", file=self.path, field="view", found=view)
        if not isinstance(inputs, RawFrame):
            descriptors = self._run(engine, inputs, view)
        elif isinstance(engine, FrameEngine) and engine.takes_frames:
            descriptors = engine.run_frame(inputs)
        else:
            raise ModelError("this engine takes no raw frames", file=self.path, found=engine.description)
        lengths = np.linalg.norm(descriptors, axis=1, keepdims=True)
        bad = ~(np.isfinite(lengths) & (lengths > 0))[:, 0]
        if bad.any():
            raise ModelError(
                "the network gave no usable descriptor",
                file=self.path / self.views[view].file,
                field=f"descriptor of {view} {int(np.flatnonzero(bad)[0])}",
                found=float(lengths[bad][0, 0]),
                expected="a finite length above 0",
            )
        descriptors /= lengths
        return descriptors

    def _run(self, engine: Engine, inputs: NDArray[Any], view: str) -> NDArray[np.float32]:
        """Descriptors of any length, in batches that the engine takes."""
        shape = (3, *self.views[view].input_size)
        if inputs.dtype not in (np.float32, np.float16) or inputs.shape[1:] != shape:
            raise ModelError(
                "wrong inputs",
                field=f"{view} inputs",
                found=f"{inputs.dtype} {inputs.shape}",
                expected=f"float32 or float16 (B, {', '.join(map(str, shape))})",
            )
        descriptors = np.empty((len(inputs), self.descriptor_size), np.float32)
        step = engine.batch or _CHUNK
        for start in range(0, len(inputs), step):
            batch = inputs[start : start + step].astype(np.float32, copy=False)
            missing = (engine.batch or 0) - len(batch)
            if missing > 0:
                batch = np.concatenate([batch, np.zeros((missing, *shape), np.float32)])
            descriptors[start : start + step] = engine.run(batch)[: len(batch) - max(missing, 0)]
        return descriptors

    def __repr__(self) -> str:
        query = self.views["query"]
        height, width = query.input_size
        at = "" if query.gsd_m is None else f" at {query.gsd_m:g} m/px"
        return (
            f"<Model {self.name}: {self.architecture}, {self.precision}, {height} x {width} px"
            f"{at} -> {self.descriptor_size}-d, fingerprint {self.fingerprint[:12]}>"
        )


def write_bundle(
    path: str | Path,
    *,
    name: str,
    architecture: str,
    descriptor_size: int,
    views: Mapping[str, View],
    files: Mapping[str, str | Path],
    precision: str,
    opset: int,
    training: Mapping[str, Any] | None = None,
) -> str:
    """Write a bundle, whole or not at all; one that stands at ``path`` is replaced.

    Args:
        path: the folder, by custom ``NAME.cvgl``.
        name, architecture: in plain words.
        descriptor_size: length of a descriptor.
        views: "query" and "reference".
        files: name in the bundle -> file to copy: the views' networks and whatever belongs to them.
        precision: achieved, such as "fp32" or "fp16".
        opset: of ONNX.
        training: a free record of how the network was made (data, time, results); JSON values.

    Returns:
        The fingerprint.

    Raises:
        ModelError: a file is absent, a field is not usable, or another folder stands at ``path``.
    """
    path = Path(path)
    refuse_to_replace_others(path, ModelError)
    for target, source in files.items():
        if not is_plain_name(target) or target == MANIFEST:
            raise ModelError("not usable", field="files", found=target, expected="a plain file name")
        if not Path(source).is_file():
            raise ModelError("no such file", file=source)
    with atomic_folder(path) as folder:
        for target, source in files.items():
            shutil.copyfile(source, folder / target)
        manifest = {
            "format_version": FORMAT_VERSION,
            "name": name,
            "architecture": architecture,
            "descriptor_size": descriptor_size,
            "views": {key: asdict(view) for key, view in views.items()},
            "precision": precision,
            "opset": opset,
            "files": hash_files(folder, sorted(files)),
            "training": dict(training or {}),
        }
        write_json(folder / MANIFEST, manifest)
        # Read back what a drone will read, so that no bundle appears that cannot be opened.
        fields = Fields(read_manifest(folder, name=path), path / MANIFEST, ModelError)
        return _fingerprint(descriptor_size, _read_views(fields), fields.files())


def read_manifest(path: str | Path, *, name: Path | None = None) -> dict[str, Any]:
    """The manifest of a bundle, every field checked; no other file is read.

    Args:
        path: the bundle's folder.
        name: what errors call the folder, if not ``path``.

    Raises:
        ModelError: no bundle, or a field missing or unusable.
    """
    path = Path(path)
    if not path.is_dir():
        raise ModelError("no model bundle there", file=path, expected="a folder NAME.cvgl with a manifest.json")
    manifest = read_json(path / MANIFEST, ModelError)
    fields = Fields(manifest, (name or path) / MANIFEST, ModelError)
    fields.version(FORMAT_VERSION)
    for field in ("name", "architecture", "precision"):
        fields.text(field)
    fields.integer("descriptor_size")
    fields.integer("opset")
    fields.files(*{view.file for view in _read_views(fields).values()})
    if "training" in manifest:
        fields.section("training")
    return manifest


def _read_views(fields: Fields) -> dict[str, View]:
    section = fields.section("views")
    views = {}
    for name in _VIEWS:
        view = section.section(name)
        height, width = view.numbers("input_size", 2, low=1)
        if height != int(height) or width != int(width):
            raise view.refuse("input_size", "two whole numbers of pixels")
        if view.text("channels") != "rgb":
            raise view.refuse("channels", "'rgb'")
        interpolation = view.text("interpolation") if "interpolation" in view.names() else "bilinear"
        if interpolation not in ("bilinear", "bicubic"):
            raise view.refuse("interpolation", "'bilinear' or 'bicubic'")
        gsd = view.positive_or_none("gsd_m")
        red, green, blue = view.numbers("mean", 3)
        std = view.numbers("std", 3)
        if min(std) <= 0.0:
            raise view.refuse("std", "3 numbers above 0")
        views[name] = View(
            file=view.text("file"),
            input_size=(int(height), int(width)),
            mean=(red, green, blue),
            std=(std[0], std[1], std[2]),
            gsd_m=gsd,
            interpolation=interpolation,
        )
    return views


def _known(view: str, path: Path) -> str:
    if view not in _VIEWS:
        raise ModelError("unknown view", file=path, field="view", found=view, expected=" or ".join(_VIEWS))
    return view


def _fingerprint(descriptor_size: int, views: Mapping[str, View], files: Mapping[str, Mapping[str, Any]]) -> str:
    """Over content, not names: renaming a bundle or rewording its record leaves its galleries usable."""
    decisive = {
        "descriptor_size": descriptor_size,
        "views": {name: {**_decisive(view), "file": files[view.file]["sha256"]} for name, view in views.items()},
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _decisive(view: View) -> dict[str, Any]:
    """A view's fields; the interpolation came later than the first galleries, which must keep their fingerprints."""
    fields = asdict(view)
    if view.interpolation == "bilinear":
        del fields["interpolation"]
    return fields


def _normalise(patches: NDArray[np.uint8], masks: NDArray[Any] | None, view: View) -> NDArray[np.float32]:
    """(B, H, W, 3) BGR to the network's (B, 3, H, W) RGB."""
    scale, offset = (np.array(values, np.float32)[:, None, None] for values in view.normalisation)
    batch = np.empty((len(patches), 3, *view.input_size), np.float32)
    np.multiply(patches[..., ::-1].transpose(0, 3, 1, 2), scale, out=batch)
    batch += offset
    if masks is not None:
        batch *= (masks != 0)[:, None]
    return batch
