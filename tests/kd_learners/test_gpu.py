"""Stages on a GPU: with a pretended one what is moved and what is not, and with a real one the same losses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kd_core.artifacts.expert_buffer import ExpertBuffer
from pretended_gpu import GPU, PretendedGpu
from tiny_stages import run_stage, stage_args
from tiny_students import same, student_args, weights

# Every path that data take: both kinds of masks, what is learnt from, messages, widths, other methods' terms, int8.
STUDENTS = [
    {"distill_on": "mixed"},
    {"distill_on": "mixed", "limits": "lh", "masks": "", "masks_preset": "random"},
    {"distill_on": "mixed", "message_bits": 3, "message_loss": 0.2, "message_latency": 2},
    {"distill_on": "student", "widths": [8, 12], "feature_coef": 1.0},
    {"distill_on": "student", "quantise": "int8", "quantise_share": 0.6},
    {"distill_on": "student", "agent": "attention_rnn", "attention_window": 3},
    {"distill_on": "student", "agent": "personal_rnn", "personal_coef": 1.0, "privileged_coef": 1.0},
]


def on_gpu(args, device="cuda"):
    args.use_cuda, args.device = True, device
    return args


@pytest.mark.parametrize("changes", STUDENTS, ids=lambda changes: "-".join(map(str, changes.values())))
def test_students_learn_on_a_pretended_gpu_what_they_learn_on_the_cpu(results, tmp_path, changes):
    plain = run_stage(student_args(results, tmp_path / "cpu", **changes))
    with PretendedGpu() as gpu:
        moved = run_stage(on_gpu(student_args(results, tmp_path / "gpu", **changes)))
        assert {parameter.device for parameter in moved.learnt} == {GPU} == {moved.teacher.device}
        assert all(gpu.holds(parameter) for parameter in moved.learnt)
    assert same(weights(plain), weights(moved))
    assert plain.logger.stats["retention"] == moved.logger.stats["retention"]


def test_a_teacher_exports_on_a_pretended_gpu_what_it_exports_on_the_cpu(results, tmp_path):
    folders = {}
    for name in ("cpu", "gpu"):
        folders[name] = tmp_path / name
        args = stage_args("kd_export", tmp_path / name / "results", teacher=str(results / "teacher"))
        args.expert_buffer = str(folders[name] / "buffer")
        if name == "cpu":
            run_stage(args)
        else:
            with PretendedGpu():
                run_stage(on_gpu(args))
    first, other = (ExpertBuffer.open(folder / "buffer").gather(np.arange(24)) for folder in folders.values())
    assert same(first, other)


def test_a_teacher_learns_on_a_pretended_gpu_what_it_learns_on_the_cpu(tmp_path):
    def trained(folder, **changes):
        args = stage_args("kd_teacher", folder, t_max=40, autocast="none", save_model=False)
        return run_stage(on_gpu(args) if changes else args)

    plain = trained(tmp_path / "cpu")
    with PretendedGpu() as gpu:
        moved = trained(tmp_path / "gpu", gpu=True)
        assert all(gpu.holds(parameter) for parameter in (*moved.mac.parameters(), *moved.critic.parameters()))
    assert same(plain.mac.agent.state_dict(), moved.mac.agent.state_dict())
    assert same(plain.critic.state_dict(), moved.critic.state_dict())


def test_a_tensor_made_on_the_wrong_device_is_found():
    with PretendedGpu():
        x = torch.arange(3.0).to("cuda")
        assert (x + 1).device == GPU and x.new_zeros(2).device == GPU and x.cpu().device == torch.device("cpu")
        assert torch.zeros(2, device=x.device).device == GPU
        assert x[torch.tensor([0])].device == GPU and (x * torch.tensor(2.0)).device == GPU
        for mixed in (
            lambda: x + torch.ones(3),
            lambda: torch.ones(3)[x.long()],
            lambda: torch.cat([x, torch.ones(1)]),
        ):
            with pytest.raises(RuntimeError, match="to be on the same device"):
                mixed()
        with pytest.raises(TypeError, match="can't convert cuda"):
            x.numpy()
    # Of what was made before and after, nothing is there.
    assert (torch.ones(3) + 1).device == torch.device("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("changes", STUDENTS[:3], ids=lambda changes: "-".join(map(str, changes.values())))
def test_a_real_gpu_has_the_losses_of_the_cpu(results, tmp_path, changes):
    found = []
    for device in ("cpu", "cuda"):
        args = student_args(results, tmp_path / device, **changes, distillation_final_share=1.0)
        args.distill_on = "expert"
        learner = run_stage(on_gpu(args) if device == "cuda" else args)
        found.append([value for _, value in learner.logger.stats["loss"]][:2])
    np.testing.assert_allclose(found[1], found[0], atol=1e-4)
