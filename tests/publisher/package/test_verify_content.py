"""What lies in a package must be what its name says, even if it is signed."""

from __future__ import annotations

import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest

from publisher.package.upload import read_upload
from publisher.package.verify import verify
from support.evaluating import UNET, codes, places, resign


@pytest.mark.parametrize(
    "name", ["unet/weights.bin", "unet/weights.ckpt", "weights.safetensors", "unet/page.html", "x.md"]
)
def test_a_file_of_another_type_is_refused_even_if_signed(
    package: Path, key_pair: tuple[Path, Path], name: str
) -> None:
    (package / name).write_bytes(b"x")
    resign(package, key_pair[0])
    assert places(verify(package, key_pair[1]), "V021") == {name}


class Explode:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("exploded",))


def test_a_pickle_under_a_good_name_is_refused_and_never_unpickled(
    package: Path, key_pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (package / UNET).write_bytes(pickle.dumps(Explode()))
    resign(package, key_pair[0])
    assert places(verify(package, key_pair[1]), "V021") == {UNET}
    assert not (tmp_path / "exploded").exists()


def test_an_archive_behind_weights_is_refused(package: Path, key_pair: tuple[Path, Path], tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x", "y")
    with (package / UNET).open("ab") as file:
        file.write((tmp_path / "a.zip").read_bytes())
    resign(package, key_pair[0])
    assert places(verify(package, key_pair[1]), "V021") == {UNET}


def test_truncated_weights_are_refused(package: Path, key_pair: tuple[Path, Path]) -> None:
    (package / UNET).write_bytes((package / UNET).read_bytes()[:-1])
    resign(package, key_pair[0])
    assert places(verify(package, key_pair[1]), "V020") == {UNET}


def test_a_header_of_other_types_is_malformed_weights_for_verify_and_audit(
    package: Path, key_pair: tuple[Path, Path]
) -> None:
    header = b'{"a": {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]}}'
    (package / UNET).write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    resign(package, key_pair[0])
    assert places(verify(package, key_pair[1]), "V020") == {UNET}
    upload, _ = read_upload(package / "unet")
    assert "unknown dtype" in upload.unexamined["model.safetensors"]


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("unet/run.py", "print()"),
        ("unet/config.json", '{"auto_map": {"AutoModel": "x.Y"}}'),
        ("unet/config.json", '{"deep": [{"auto_map": {}}]}'),
        ("unet/config.json", '{"_class_name": ["x", "Y"]}'),
        ("model_index.json", '{"_class_name": ["x", "Y"], "unet": ["diffusers", "UNet2DConditionModel"]}'),
        ("model_index.json", '{"_class_name": "SomePipeline", "unet": ["evil", "UNet2DConditionModel"]}'),
        ("model_index.json", '{"_class_name": "SomePipeline", "unet": ["diffusers", "os.system"]}'),
        ("model_index.json", '{"_class_name": "SomePipeline", "unet": ["diffusers", "A", "B"]}'),
    ],
)
def test_custom_code_is_refused_even_if_signed(
    package: Path, key_pair: tuple[Path, Path], path: str, content: str
) -> None:
    (package / path).write_text(content)
    resign(package, key_pair[0])
    assert places(verify(package, key_pair[1]), "V022") == {path}


@pytest.mark.parametrize(
    "content",
    [
        '{"attn_implementation": "org/kernel"}',
        '{"_attn_implementation": "kernels-community/flash-attn"}',
        '{"text_config": {"attn_implementation": {"vision": "org/kernel:name"}}}',
        '{"attn_implementation": "flash_attention_2"}',
        '{"attn_implementation": ["sdpa"]}',
        '{"experts_implementation": "org/kernel"}',
        '{"trust_remote_code": true}',
        '{"deep": [{"trust_remote_code": 1}]}',
        '{"custom_generate": "org/repository"}',
        '{"use_kernels": true}',
        '{"use_pretrained_backbone": true, "backbone": "org/network"}',
        '{"quantization_config": {"quant_method": "mxfp4"}}',
        '{"quantization_config": {"quant_method": ["torchao"]}}',
        '{"transformers_weights": "../vae/model.safetensors"}',
        '{"vocab_file": "/etc/passwd"}',
    ],
)
def test_a_configuration_that_makes_loaders_fetch_code_or_read_elsewhere_is_refused(
    package: Path, key_pair: tuple[Path, Path], content: str
) -> None:
    (package / "unet/config.json").write_text(content)
    resign(package, key_pair[0])
    assert places(verify(package, key_pair[1]), "V022") == {"unet/config.json"}


def test_an_adapter_beside_weights_is_refused(package: Path, key_pair: tuple[Path, Path]) -> None:
    (package / "unet/adapter_config.json").write_text('{"base_model_name_or_path": "org/name"}')
    resign(package, key_pair[0])
    assert places(verify(package, key_pair[1]), "V022") == {"unet/adapter_config.json"}


@pytest.mark.parametrize(
    "content",
    [
        '{"_attn_implementation": "sdpa", "text_config": {"attn_implementation": {"": "eager", "vision": null}}}',
        '{"trust_remote_code": false, "use_kernels": null, "quantization_config": null}',
        '{"quantization_config": {"quant_method": "bitsandbytes"}}',
        '{"special_tokens_map_file": "./special_tokens_map.json", "name_or_path": "openai/clip-vit-large-patch14"}',
        '{"vocab_file": "vocab.json", "tokenizer_file": null}',
    ],
)
def test_what_ordinary_configurations_say_is_accepted(package: Path, key_pair: tuple[Path, Path], content: str) -> None:
    (package / "unet/config.json").write_text(content)
    resign(package, key_pair[0])
    assert "V022" not in codes(verify(package, key_pair[1]))


@pytest.mark.parametrize(
    "content", ['{"a": 1, "a": 2}', '{"a": 1e999}', '{"a": Infinity}', "[" * 500 + "]" * 500, "\0", "no"]
)
def test_json_that_is_none_is_refused(package: Path, key_pair: tuple[Path, Path], content: str) -> None:
    (package / "unet/config.json").write_text(content)
    resign(package, key_pair[0])
    assert places(verify(package, key_pair[1]), "V021") == {"unet/config.json"}


@pytest.mark.parametrize(
    ("content", "refused"), [('{"lambda_min_clipped": -Infinity}', False), ('{"lambda_min_clipped": NaN}', True)]
)
def test_a_scheduler_may_say_infinity_as_diffusers_writes_it(
    package: Path, key_pair: tuple[Path, Path], content: str, *, refused: bool
) -> None:
    (package / "unet/scheduler_config.json").write_text(content)
    resign(package, key_pair[0])
    assert ("unet/scheduler_config.json" in places(verify(package, key_pair[1]), "V021")) == refused


def test_a_component_that_is_missing_or_unnamed_is_refused(package: Path, key_pair: tuple[Path, Path]) -> None:
    (package / "unet").rename(package / "unet2")
    resign(package, key_pair[0])
    assert places(verify(package, key_pair[1]), "V023") == {"model_index.json", "unet2"}


@pytest.mark.parametrize(
    ("weight_map", "code"),
    [
        ({"attn2.to_k.weight": "model.safetensors"}, None),
        ({"attn2.to_k.weight": "../../x.safetensors"}, "V014"),
        ({"attn2.to_k.weight": "other.safetensors"}, "V023"),
        ({"attn2.to_v.weight": "model.safetensors"}, "V023"),
        ({"attn2.to_k.weight": 1}, "V023"),
    ],
)
def test_an_index_must_fit_its_shards(
    package: Path, key_pair: tuple[Path, Path], weight_map: dict[str, Any], code: str | None
) -> None:
    (package / "unet/model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    resign(package, key_pair[0])
    found = codes(verify(package, key_pair[1])) - {"V031"}
    assert found == ({code} if code else set())
