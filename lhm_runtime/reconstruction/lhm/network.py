"""LHM (Qiu et al. 2025) after its two encoders: points look at image features and become Gaussians.

photo --preprocessing--> body picture --Sapiens--> body features ----┐
                         head picture --DINOv2---> head features --┐ │
query points --embedding--> tokens --body-head transformer x L <---┴-┴-- person (mean of the body features)
                              └--decoder--> offset, rotation, scale, opacity, colour of each Gaussian
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lhm_runtime.errors import InvalidInputError
from lhm_runtime.reconstruction.lhm.config import LhmConfig
from lhm_runtime.reconstruction.lhm.decoder import DecodedGaussians, GaussianDecoder
from lhm_runtime.reconstruction.lhm.points import PointEmbedding
from lhm_runtime.reconstruction.lhm.transformer import BodyHeadTransformer


class LhmNetwork(nn.Module):
    """Everything in a checkpoint but the head encoder and the body model."""

    def __init__(self, config: LhmConfig) -> None:
        super().__init__()
        self.config = config
        self.point_embedding = PointEmbedding(config.width)
        self.person = nn.Sequential(
            nn.Linear(config.body_feature_dim, config.body_feature_dim // 2),
            nn.SiLU(),
            nn.Linear(config.body_feature_dim // 2, 2 * config.width),
        )
        self.transformer = BodyHeadTransformer(config)
        self.decoder = GaussianDecoder(config)

    @torch.inference_mode()
    def forward(
        self,
        query_points: Float[Tensor, "p 3"],
        body_features: Float[Tensor, "1 i d"],
        head_features: Float[Tensor, "1 j e"],
        is_upper_body: Bool[Tensor, " p"],
    ) -> DecodedGaussians:
        """Gaussians around the query points.

        Args:
            query_points: in the pose of ``animation.open_hips``, metres; those of the head last.
            body_features: of ``sapiens.encode_body``.
            head_features: of ``dinov2.HeadEncoder``.
            is_upper_body: points whose Gaussians are kept small.

        Raises:
            InvalidInputError: features with other channels than the network was trained for.
        """
        expected = (self.config.body_feature_dim, self.config.head_feature_dim)
        if (body_features.shape[2], head_features.shape[2]) != expected:
            raise InvalidInputError(
                f"features of body and head have {body_features.shape[2]} and {head_features.shape[2]} channels, "
                f"expected {expected[0]} and {expected[1]}"
            )
        body_person, head_person = self.person(body_features.mean(dim=1)).chunk(2, dim=1)
        tokens = self.transformer(
            self.point_embedding(query_points[None]), body_features, head_features, body_person, head_person
        )
        return self.decoder(tokens[0], is_upper_body)

    def to_precision(self, dtype: torch.dtype) -> "LhmNetwork":
        """Store the transformer's weights as ``dtype``; what is small stays float32. Returns the network itself."""
        self.transformer.to(dtype)
        return self
