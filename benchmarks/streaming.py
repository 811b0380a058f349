"""What `erase` and the package cost at FLUX.1's true size: memory, and seconds beside those of a plain copy.

    python benchmarks/streaming.py --place /tmp/streaming                # 24 GB and the disk for one package
    python benchmarks/streaming.py --place /tmp/streaming --depth 0.25   # a quarter of the blocks
    python benchmarks/streaming.py --place /tmp/streaming --dense        # the source takes its disk too

The transformer has all tensors of FLUX.1 dev, by name, shape and bfloat16, in shards of at most 10 GB. Text entries are
random; all else is a hole in a sparse file, or with `--dense` repeated random bytes. Text encoders have the true widths
(T5 4096, CLIP 768) and one layer: how large they are is another question than how large the transformer is.

A child process plans, runs the step, lays the package out, and reads it again as `publisher verify` does. Its peak
memory is what the system says of it. Nothing is generated. The last lines are of a plain copy of the largest shard.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

SHARD = 10 * 10**9
"""Bytes of a shard at most, as diffusers has it."""
ENTRIES = ("context_embedder.weight", "time_text_embed.text_embedder.linear_1.weight")
NAME = "diffusion_pytorch_model"
CHUNK = 1 << 22
KEPT = 40


def shapes(depth: float) -> tuple[dict[str, tuple[int, ...]], dict[str, Any]]:
    """Return the tensors of the transformer, and its configuration."""
    import torch
    from diffusers import FluxTransformer2DModel

    with torch.device("meta"):
        model = FluxTransformer2DModel(
            num_layers=round(19 * depth), num_single_layers=round(38 * depth), guidance_embeds=True
        )
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}, dict(model.config)


def write_transformer(folder: Path, depth: float, *, dense: bool) -> None:
    """Write the configuration, the shards and their index."""
    tensors, config = shapes(depth)
    shutil.rmtree(folder)
    folder.mkdir()
    known = {name: value for name, value in config.items() if not name.startswith("_")}
    (folder / "config.json").write_text(json.dumps({"_class_name": "FluxTransformer2DModel", **known}))
    shards: list[list[str]] = [[]]
    room = SHARD
    for name, shape in tensors.items():
        if 2 * prod(shape) > room:
            shards.append([])
            room = SHARD
        shards[-1].append(name)
        room -= 2 * prod(shape)
    index: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"{NAME}-{number:05}-of-{len(shards):05}.safetensors"
        index |= dict.fromkeys(names, file)
        write_shard(folder / file, {name: tensors[name] for name in names}, dense=dense)
    (folder / f"{NAME}.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def write_shard(path: Path, tensors: dict[str, tuple[int, ...]], *, dense: bool) -> None:
    """Write a header, and data of which only the entries need to be there."""
    import torch

    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, shape in tensors.items():
        end = place + 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [place, end]}
        place = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        start = file.tell()
        block = os.urandom(CHUNK) if dense else b""
        for left in range(place if dense else 0, 0, -CHUNK):
            file.write(block[:left])
        file.truncate(start + place)
        for name in set(ENTRIES) & tensors.keys():
            file.seek(start + header[name]["data_offsets"][0])
            weight = torch.randn(tensors[name], generator=torch.Generator().manual_seed(0)) / tensors[name][1] ** 0.5
            file.write(weight.bfloat16().view(torch.uint8).numpy().tobytes())


def write_model(folder: Path, depth: float, *, dense: bool) -> None:
    """Write the whole folder: the pipeline with small parts first, then the transformer in its true size."""
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

    from publisher_emoji import model_folder

    tokenizer = CLIPTokenizer.from_pretrained(model_folder() / "tokenizer")
    letters = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -10.0)] + [
        (x, -2.0) for x in "\u2581abcdefghijklmnopqrstuvwxyz"
    ]
    clip = CLIPTextConfig(
        hidden_size=768,
        intermediate_size=64,
        num_attention_heads=12,
        num_hidden_layers=1,
        vocab_size=len(tokenizer),
        max_position_embeddings=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        layers_per_block=1,
        latent_channels=16,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        scaling_factor=0.3611,
        shift_factor=0.1159,
    )
    FluxPipeline(
        transformer=FluxTransformer2DModel(num_layers=1, num_single_layers=1, num_attention_heads=1),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae,
        text_encoder=CLIPTextModel(clip),
        tokenizer=tokenizer,
        text_encoder_2=T5EncoderModel(
            T5Config(vocab_size=len(letters), d_model=4096, d_kv=64, d_ff=64, num_layers=1, num_heads=2)
        ),
        tokenizer_2=T5Tokenizer(vocab=letters, extra_ids=0, model_max_length=512),
    ).save_pretrained(folder)
    write_transformer(folder / "transformer", depth, dense=dense)


def write_manifest(path: Path) -> None:
    """Write one concept to go and many prompts to stay."""
    from publisher_emoji import vocabulary

    kept = [name for name in vocabulary().object_names if name not in ("pistol", "pizza")][:KEPT]
    manifest = {
        "release": {"name": "streamed", "version": "1", "license": "other"},
        "model": "./model",
        "device": "cpu",
        "dtype": "bfloat16",
        "concepts": [{"id": "pistol", "prompts": ["a pistol emoji", "a red pistol", "a pistol in a hand"]}],
        "keep": {"concepts": [{"id": "pizza"}], "prompts": [f"a {name} emoji" for name in kept]},
        "steps": [{"use": "erase", "with": {"method": "rece"}}],
        "evaluate": {"scorer": "emoji"},
    }
    path.write_text(json.dumps(manifest))


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Print the seconds of the clock and of the processor that the inside takes, and the peak memory so far."""
    clock, processor = time.monotonic(), time.process_time()
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    seconds = time.monotonic() - clock, time.process_time() - processor
    print(f"{name:32} {seconds[0]:9.1f} {seconds[1]:9.1f} {peak:9.2f}", flush=True)


def work(place: Path) -> None:
    """Do what a release does but for generating: plan, harden, lay out, read again."""
    from publisher.engine.run import harden
    from publisher.model.state import State
    from publisher.package.tree import read_tree
    from publisher.release.make import lay_out_hardened
    from publisher.release.prepare import prepare
    from publisher.testing.running import Silent

    with phase("plan, which hashes the base"):
        prepared = prepare(place / "manifest.yaml", place / "work", fetch=False)
        if prepared.model is None:
            raise SystemExit("the model is not there")
        base = State(prepared.model.folder, (), place / "states")
        _ = base.digest
    with phase("erase, RECE"):
        hardened = harden(base, prepared.steps, place / "work", Silent(), lambda *_: None)
    with phase("package: copy, overwrite, hash"):
        laid = lay_out_hardened(hardened, place / "package")
    with phase("read it again, as verify does"):
        found = read_tree(place / "package")
    if found.digests != laid.digests:
        raise SystemExit("the package has other digests than its writer said")


def reference(place: Path) -> None:
    """Time a plain read with its hash, and a plain copy that is on disk, of the largest shard."""
    shard = max((place / "model" / "transformer").glob("*.safetensors"), key=lambda path: path.stat().st_size)
    size = shard.stat().st_size / 1e9

    def copy() -> None:
        with shard.open("rb") as reader, (place / "copy").open("wb") as writer:
            shutil.copyfileobj(reader, writer, CHUNK)
            os.fsync(writer.fileno())

    actions: dict[str, Callable[[], object]] = {"read and hash": lambda: _hash(shard), "copy": copy}
    for name, action in actions.items():
        with phase(f"{name}, {size:.1f} GB"):
            action()
    (place / "copy").unlink()


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    """Make the folder, do the work in a child, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--place", type=Path, required=True, help="folder to make; it is removed at the end")
    parser.add_argument("--depth", type=float, default=1.0, help="share of the transformer's blocks")
    parser.add_argument("--dense", action="store_true", help="the source has no holes")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        work(options.place)
        return
    options.place.mkdir(parents=True)
    try:
        write_model(options.place / "model", options.depth, dense=options.dense)
        write_manifest(options.place / "manifest.yaml")
        files = [path for path in (options.place / "model").rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files) / 1e9
        shards = len(list((options.place / "model" / "transformer").glob("*.safetensors")))
        print(f"{size:.1f} GB in {len(files)} files, the transformer in {shards} shards")
        print(f"{'':32} {'seconds':>9} {'processor':>9} {'peak GiB':>9}", flush=True)
        subprocess.run([sys.executable, __file__, "--place", str(options.place), "--child"], check=True)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        print(f"peak memory of all of it: {peak:.2f} GiB", flush=True)
        shutil.rmtree(options.place / "package")
        reference(options.place)
    finally:
        shutil.rmtree(options.place)


if __name__ == "__main__":
    main()
