"""The denoising network: a UNet of diffusers with SAS in every cross-attention."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from diffusers.models.attention_processor import Attention
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from privdiff_infer.errors import BundleError, OptionError
from privdiff_infer.model.conditioning import CategoryEmbeddings, Condition
from privdiff_infer.model.erasers import Erasers
from privdiff_infer.model.sas import SASContext, SASProcessor, SASSettings, SelfAttentionProcessor
from privdiff_infer.model.strict_model import StrictModel, refuse_incomplete

ADAPTED_LAYERS = ("to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2")
ADAPTER_WEIGHTS = "pytorch_lora_weights.safetensors"


class PrivDiffDenoiser(StrictModel, ConfigMixin):
    """UNet2DConditionModel whose cross-attentions see categories instead of text.

    Parameters
    ----------
    unet_config
        Arguments of `UNet2DConditionModel`; `cross_attention_dim` is the width of every token.
    identity_prototypes
        Size of the identity codebook.
    gate
        Initial value of the residual gates (see `SASProcessor`).

    Notes
    -----
    The SAS processors hold weights. They are installed here, before any weights are loaded, because
    `UNet2DConditionModel.from_pretrained` drops the weights of processors that are not there yet.
    """

    @register_to_config
    def __init__(
        self, unet_config: Mapping[str, Any], identity_prototypes: int = 32, gate: float = 0.0
    ) -> None:
        super().__init__()
        self.unet = UNet2DConditionModel(**unet_config)
        dim = self.unet.config.cross_attention_dim
        self.embeddings = CategoryEmbeddings(dim, identity_prototypes)
        _install_processors(self.unet, dim, gate)

    @classmethod
    def from_unet(
        cls, unet: UNet2DConditionModel, identity_prototypes: int = 32
    ) -> PrivDiffDenoiser:
        """Put SAS into a trained UNet of any Stable-Diffusion-like shape.

        Codebooks and sensitive keys start at random: the result is a base for training, without
        privacy tuning.
        """
        arguments = {key: value for key, value in unet.config.items() if not key.startswith("_")}
        denoiser = cls(arguments, identity_prototypes, gate=1.0)
        missing, unexpected = denoiser.unet.load_state_dict(unet.state_dict(), strict=False)
        added = [key for key in missing if ".processor." not in key]
        refuse_incomplete("UNet2DConditionModel", added, unexpected)
        return denoiser

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | int,
        condition: Condition,
        settings: SASSettings | None = None,
        erasers: Erasers | None = None,
    ) -> Tensor:
        """Predict what the scheduler's `prediction_type` names.

        Parameters
        ----------
        sample
            Noisy latents, shape (n, channels, h, w).
        timestep
            One step index for all rows or one per row, shape (n,).
        condition
            One condition per row.
        settings
            SAS settings of this call; the repaired defaults if None.
        erasers
            Of this denoiser; nothing is erased if None.

        Returns
        -------
        Tensor
            Same shape as `sample`.

        Raises
        ------
        OptionError
            If the mode of SAS erases the context and there is no eraser of it.
        """
        settings, erasers = settings or SASSettings(), erasers or Erasers()
        context = SASContext(self.embeddings, condition, settings)
        with erasers.acting_on(self.unet, timestep):
            output: tuple[Tensor] = self.unet(
                sample,
                timestep,
                encoder_hidden_states=self._finding_tokens(condition, settings, erasers),
                cross_attention_kwargs={"context": context},
                return_dict=False,
            )
        return output[0]

    def _finding_tokens(
        self, condition: Condition, settings: SASSettings, erasers: Erasers
    ) -> Tensor:
        """Return the diagnostic tokens (n, 15, dim), erased where the mode of SAS says so."""
        tokens = self.embeddings.finding_tokens(condition.findings)
        if not settings.mode.erases_context:
            return tokens
        if erasers.context is None:
            raise OptionError(
                f"SAS mode {settings.mode.value!r} without an eraser of the context",
                "fit one, or use mode 'centered'",
            )
        return erasers.context(tokens, settings.strength)

    @torch.no_grad()
    def open_gates(self, size: float) -> None:
        """Raise every residual gate of a cross-attention that is smaller than `size` to it.

        A gate at zero passes nothing forward and no gradient to keys and values, so in a short
        training it hardly opens by itself and the conditions stay without effect.
        """
        for module in self.unet.modules():
            if isinstance(module, SASProcessor):
                sign = 1.0 if module.gate >= 0 else -1.0
                module.gate.copy_(sign * module.gate.abs().clamp_min(size))

    def add_adapter(self, name: str, rank: int) -> None:
        """Put fresh LoRA weights into attentions and residual blocks; freeze the base."""
        self.unet.add_adapter(
            LoraConfig(r=rank, lora_alpha=rank, target_modules=list(ADAPTED_LAYERS)), name
        )

    def save_adapter(self, name: str, folder: Path) -> None:
        """Write the LoRA weights of one adapter to `folder`."""
        weights = get_peft_model_state_dict(self.unet, adapter_name=name)
        write_adapter(weights, self.unet.peft_config[name].to_dict(), folder)

    def adapter_rank(self, name: str) -> int:
        """Return the rank of an adapter's LoRA weights."""
        return int(self.unet.peft_config[name].r)

    def load_adapter(self, folder: Path) -> None:
        """Load LoRA weights under the name of their folder and leave them switched off.

        Raises
        ------
        BundleError
            If the weights do not fit this denoiser key by key.
        """
        name = folder.name
        stored = set(load_file(folder / ADAPTER_WEIGHTS))
        with warnings.catch_warnings():
            # Several adapters beside each other are what a bundle is meant to have.
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            self.unet.load_lora_adapter(
                str(folder),
                prefix=None,
                adapter_name=name,
                weight_name=ADAPTER_WEIGHTS,
                use_safetensors=True,
                local_files_only=True,
            )
        expected = set(get_peft_model_state_dict(self.unet, adapter_name=name))
        refuse_incomplete(f"adapter {name}", sorted(expected - stored), sorted(stored - expected))
        self.activate_adapter(None)

    def merged(self, folder: Path) -> PrivDiffDenoiser:
        """Return a copy with the LoRA weights of `folder` added to the base weights.

        The copy has no adapters, so that nothing is left to compute for them while sampling.

        Raises
        ------
        BundleError
            If the weights do not fit this denoiser key by key.
        """
        merged = copy.deepcopy(self)
        merged.load_adapter(folder)
        merged.merge_adapter(folder.name)
        return merged

    def merge_adapter(self, name: str) -> None:
        """Add the LoRA weights of one adapter to the base weights and drop all adapters."""
        self.activate_adapter(name)
        self.unet.fuse_lora(adapter_names=[name])
        self.unet.unload_lora()

    def activate_adapter(self, name: str | None) -> None:
        """Use one adapter, or the base weights alone if `name` is None."""
        if not getattr(self.unet, "peft_config", None):
            return
        if name is None:
            self.unet.disable_lora()
        else:
            self.unet.enable_lora()
            self.unet.set_adapters([name])

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """Save the base weights; see `ModelMixin.save_pretrained`.

        Raises
        ------
        BundleError
            If adapters are attached: their presence renames the base weights.
        """
        if getattr(self.unet, "peft_config", None):
            raise BundleError(
                "a denoiser with adapters cannot be saved as a whole",
                "save the base before adding adapters, and adapters with save_adapter",
            )
        super().save_pretrained(*args, **kwargs)


def write_adapter(weights: Mapping[str, Tensor], config: Mapping[str, Any], folder: Path) -> None:
    """Write LoRA weights as `PrivDiffDenoiser.load_adapter` reads them.

    Equal weights give equal bytes: the layers of a configuration are a set, whose order differs
    from run to run, and safetensors writes several entries of a header in random order.

    Parameters
    ----------
    weights
        By name, as peft gives them.
    config
        Of the adapter, as `LoraConfig.to_dict` gives it.
    folder
        Where to write; made if it is not there.
    """
    plain = {**config, "target_modules": sorted(config["target_modules"])}
    header = {LORA_ADAPTER_METADATA_KEY: json.dumps(plain, indent=2, sort_keys=True)}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(weights), folder / ADAPTER_WEIGHTS, metadata=header)


def read_adapter(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return LoRA weights and their configuration as `write_adapter` takes them."""
    with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}
        return weights, json.loads(file.metadata()[LORA_ADAPTER_METADATA_KEY])


def _install_processors(unet: UNet2DConditionModel, context_dim: int, gate: float) -> None:
    for name, module in unet.named_modules():
        if not isinstance(module, Attention):
            continue
        if name.endswith("attn2"):
            inner_dim = module.to_k.weight.shape[0]
            module.set_processor(SASProcessor(context_dim, inner_dim, gate))
        else:
            module.set_processor(SelfAttentionProcessor())
