"""Names that other tools give the tensors and layers of a model, looked up in the model itself: nothing is guessed.

diffusers       down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight, also behind "unet."
LDM             model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight
kohya           lora_unet_<either of them, _ for .>, lora_te_<...>, lora_te1_<...>, lora_te2_<...>
older versions  text_model.encoder..., or the same without "text_model."
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from publisher.api import ModelInfo, TensorInfo
from publisher.api.ldm_names import LDM_TEXT, ldm_layers
from publisher.api.weight_names import KOHYA, WRAPPERS, modern


class ComponentNames:
    """Names of one component's tensors.

    Args:
        component: folder of the component.
        model: the model.
    """

    def __init__(self, component: str, model: ModelInfo) -> None:
        self.component = component
        self.tensors: Mapping[str, TensorInfo] = model.tensors(component)
        denoises = component == model.anatomy.denoiser
        places = [one.component for one in model.anatomy.text_encoders]
        self._prefixes = (*WRAPPERS, f"{component}.") if denoises else (f"{component}.", *WRAPPERS[:3])
        if component in places[:1]:
            self._prefixes = (*self._prefixes, LDM_TEXT)
        self.kohya: tuple[str, ...] = KOHYA if denoises else ()
        if component in places:
            number = places.index(component) + 1
            self.kohya = (f"lora_te{number}_", *(("lora_te_",) if number == 1 else ()))
        ldm = ldm_layers(model.config(component), self.tensors) if denoises else {}
        self._layers = {alias: layer for layer in self._own() for alias in (modern(f"{layer}.")[:-1], layer)} | ldm
        self._stems = {alias.replace(".", "_"): layer for alias, layer in self._layers.items()}

    def _own(self) -> Iterator[str]:
        yield from dict.fromkeys(name.rpartition(".")[0] for name in self.tensors)

    def claims(self, name: str) -> bool:
        """Return whether the name says by its beginning that it is of this component."""
        return name.startswith((f"{self.component}.", *self.kohya)) or (
            LDM_TEXT in self._prefixes and name.startswith(LDM_TEXT)
        )

    def tensor(self, name: str) -> str:
        """Return the model's name of a tensor; empty where it has none."""
        layer, _, leaf = name.rpartition(".")
        found = self.layer(layer)
        return full if found and (full := f"{found}.{leaf}") in self.tensors else ""

    def layer(self, name: str) -> str:
        """Return the model's name of a layer; empty where it has none."""
        for prefix in self.kohya:
            if name.startswith(prefix):
                return self._stems.get(name.removeprefix(prefix), "")
        while name not in self._layers and name.startswith(self._prefixes):
            name = name.removeprefix(next(one for one in self._prefixes if name.startswith(one)))
        return self._layers.get(name) or self._layers.get(modern(f"{name}.")[:-1], "")
