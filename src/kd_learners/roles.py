"""The teacher's role projection U_T (Eq. 11), fixed before Stage 2 (decision 8)."""

from __future__ import annotations

import torch
from torch import Tensor

from kd_core.errors import UserError

ROLE_INITS = ("kmeans", "orthogonal")


def default_n_roles(n_agents: int) -> int:
    """Return min(8, max(2, N)), the default number of roles for N agents."""
    return min(8, max(2, n_agents))


def teacher_roles(embeddings: Tensor, n_roles: int, init: str, seed: int) -> Tensor:
    """Compute the teacher's role projection U_T of Eq. 11.

    Args:
        embeddings: phi_T of acting agents, ``(count, hidden_dim)`` float32.
        n_roles: number of roles.
        init: ``kmeans``: the directions of the embeddings' k-means centroids around their mean; ``orthogonal``:
            random orthonormal directions, independent of the embeddings.
        seed: of the random choices.

    Returns:
        ``(n_roles, hidden_dim)`` float32, rows of length 1, so that a temperature of 1 leaves the roles soft.

    Raises:
        UserError: an unknown ``init``, fewer embeddings than roles, or more orthogonal roles than ``hidden_dim``.
    """
    if init not in ROLE_INITS:
        raise UserError(f"role_init is '{init}': choose one of {', '.join(ROLE_INITS)}")
    hidden_dim = embeddings.shape[1]
    if init == "orthogonal" and n_roles > hidden_dim:
        raise UserError(f"n_roles is {n_roles}: at most {hidden_dim} directions of the teacher's state are orthogonal")
    if init == "orthogonal":
        generator = torch.Generator().manual_seed(seed)
        directions = torch.linalg.qr(torch.randn(hidden_dim, n_roles, generator=generator))[0].T
        return directions.contiguous()
    if len(embeddings) < n_roles:
        raise UserError(f"{len(embeddings)} embeddings make no {n_roles} roles: export more episodes or set n_roles")
    from scipy.cluster.vq import kmeans2  # late: it takes half a second of every start, and only students need it

    centred = embeddings.double() - embeddings.double().mean(0)
    centroids, _ = kmeans2(centred.numpy(), n_roles, iter=50, minit="++", rng=seed)
    return torch.nn.functional.normalize(torch.from_numpy(centroids), dim=1).float()
