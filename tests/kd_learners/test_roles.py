"""The roles: where they come from, how many they are, and whose are learnt."""

from __future__ import annotations

import pytest
import torch

from kd_core.errors import UserError
from kd_learners import roles
from tiny_students import make_learner


def test_kmeans_finds_the_directions_of_the_clusters():
    centres = 4 * torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 0]])
    rows = centres.repeat_interleave(200, 0) + 0.01 * torch.randn(600, 4)
    projection = roles.teacher_roles(rows[torch.randperm(600)], 3, "kmeans", seed=0)
    directions = torch.nn.functional.normalize(centres - centres.mean(0), dim=1)
    assert projection.shape == (3, 4) and projection.dtype == torch.float32
    torch.testing.assert_close(projection.norm(dim=1), torch.ones(3))
    nearest = (projection @ directions.T).max(0).values
    torch.testing.assert_close(nearest, torch.ones(3), rtol=0, atol=1e-4)
    # Each embedding's most probable role is its cluster.
    found = (rows @ projection.T).view(3, 200, 3).argmax(-1)
    assert all(len(cluster.unique()) == 1 for cluster in found)


def test_orthogonal_roles_are_orthonormal_and_ignore_the_embeddings():
    first, other = (roles.teacher_roles(torch.randn(5, 6), 4, "orthogonal", seed=3) for _ in range(2))
    assert torch.equal(first, other)
    torch.testing.assert_close(first @ first.T, torch.eye(4), rtol=0, atol=1e-5)
    assert not torch.equal(first, roles.teacher_roles(torch.randn(5, 6), 4, "orthogonal", seed=4))


def test_roles_are_the_same_for_the_same_seed():
    rows = torch.randn(300, 8)
    assert torch.equal(*(roles.teacher_roles(rows, 4, "kmeans", seed=1) for _ in range(2)))


@pytest.mark.parametrize(
    ("count", "init", "message"),
    [
        (3, "kmeans", "3 embeddings make no 4 roles: export more episodes or set n_roles"),
        (9, "kmean", "role_init is 'kmean': choose one of kmeans, orthogonal"),
    ],
)
def test_wrong_roles_are_refused(count, init, message):
    with pytest.raises(UserError, match=message):
        roles.teacher_roles(torch.randn(count, 8), 4, init, seed=0)


def test_the_number_of_roles_follows_the_number_of_agents():
    assert [roles.default_n_roles(n) for n in (1, 2, 3, 8, 27)] == [2, 2, 3, 8, 8]


@pytest.mark.parametrize(("role_init", "n_roles"), [("kmeans", 0), ("orthogonal", 5)])
def test_the_teachers_roles_are_fixed_and_the_students_are_learnt(results, tmp_path, role_init, n_roles):
    learner = make_learner(results, tmp_path, role_init=role_init, n_roles=n_roles, distill_on="expert")
    count = n_roles or 2
    assert learner.labeller.teacher_roles.shape == (count, 16)
    assert learner.student_roles.shape == (count, 12)
    fixed, learnt = learner.labeller.teacher_roles.clone(), learner.student_roles.detach().clone()
    learner._update(learner._minibatch(), with_diagnostics=False)
    assert torch.equal(learner.labeller.teacher_roles, fixed)
    assert not torch.equal(learner.student_roles, learnt)
