"""torch's compiler is imported by whoever compiles, not by every optimiser."""

import subprocess
import sys

PROGRAM = """
import sys
import torch
from kd_core import torch_compiler

torch_compiler.defer()
weight = torch.nn.Parameter(torch.ones(3))
optimiser = torch.optim.Adam([weight], lr=0.5)
(weight**2).sum().backward()
optimiser.step()
optimiser.zero_grad()
optimiser.load_state_dict(optimiser.state_dict())
assert all(abs(value - 0.5) < 1e-6 for value in weight.tolist()), weight
assert "torch._dynamo.convert_frame" not in sys.modules
kept = torch.compiler.disable()(lambda x: x + 1)
assert kept(torch.ones(1)).tolist() == [2.0]
assert "torch._dynamo.convert_frame" in sys.modules
doubled = torch.compile(lambda x: 2 * x, backend="eager")(torch.ones(2))
assert doubled.tolist() == [2.0, 2.0]
torch_compiler.defer()
assert torch._dynamo is sys.modules["torch._dynamo"] and hasattr(torch._dynamo, "optimize")
"""


def test_an_optimiser_steps_without_it_and_it_still_compiles():
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
