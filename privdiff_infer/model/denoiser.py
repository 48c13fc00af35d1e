"""The denoising network: a UNet of diffusers with SAS in every cross-attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusers import UNet2DConditionModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.attention_processor import Attention
from torch import Tensor

from privdiff_infer.model.conditioning import CategoryEmbeddings, Condition
from privdiff_infer.model.sas import SASContext, SASProcessor, SASSettings, SelfAttentionProcessor
from privdiff_infer.model.strict_model import StrictModel, refuse_incomplete


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

        Returns
        -------
        Tensor
            Same shape as `sample`.
        """
        context = SASContext(self.embeddings, condition, settings or SASSettings())
        output: tuple[Tensor] = self.unet(
            sample,
            timestep,
            encoder_hidden_states=self.embeddings.finding_tokens(condition.findings),
            cross_attention_kwargs={"context": context},
            return_dict=False,
        )
        return output[0]


def _install_processors(unet: UNet2DConditionModel, context_dim: int, gate: float) -> None:
    for name, module in unet.named_modules():
        if not isinstance(module, Attention):
            continue
        if name.endswith("attn2"):
            inner_dim = module.to_k.weight.shape[0]
            module.set_processor(SASProcessor(context_dim, inner_dim, gate))
        else:
            module.set_processor(SelfAttentionProcessor())
