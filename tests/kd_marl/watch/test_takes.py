"""Takes: what a film shows of an episode is what was played, and what the teacher would have done there."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kd_core.host import get_host

HOST = get_host()  # before anything of ours asks the host for its classes

from kd_controllers.hetero_mac import HeteroMAC  # noqa: E402
from kd_controllers.messages import Radio  # noqa: E402
from kd_core.artifacts.teacher import load_teacher  # noqa: E402
from kd_core.errors import UserError  # noqa: E402
from kd_envs.hetero_mask.presets import mask_for  # noqa: E402
from kd_envs.worlds import Shape, World  # noqa: E402
from kd_learners.frozen_teacher import FrozenTeacher  # noqa: E402
from kd_marl.evaluation.episodes import PairedEpisodes  # noqa: E402
from kd_marl.stress.envs import Trouble  # noqa: E402
from kd_marl.watch.film import Film  # noqa: E402
from kd_marl.watch.sensors import failed_sensors  # noqa: E402
from kd_marl.watch.takes import Player, play  # noqa: E402

EPISODES = 6


@pytest.fixture
def teacher(learner, results):
    return FrozenTeacher(load_teacher(results / "teacher"), learner.args)


def student_player(learner, teacher):
    def make(scheme, options):
        mac = HeteroMAC(scheme, None, options, learner.mac.mask)
        mac.load_state(learner.mac)
        mac.greedy = True
        return mac

    return Player("student", "Student", "a toy", learner.mac.mask, make, learner.args, teacher)


def teacher_player(learner, teacher):
    def make(scheme, options):
        teacher.mac.greedy = True
        return teacher.mac

    full = mask_for(learner.mac.mask.layout, "fo")
    return Player("teacher", "Teacher", "a toy", full, make, learner.args, teacher)


def taken(player, trouble=None, block=EPISODES):
    return play(HOST, player, trouble or Trouble(), EPISODES, block)


def test_takes_are_the_episodes_that_an_evaluation_plays(learner, teacher):
    player = student_player(learner, teacher)
    args = SimpleNamespace(**{**vars(learner.args), "runner": "vector", "batch_size_run": EPISODES})
    played = PairedEpisodes(HOST, args, None, EPISODES).play(player.make, masked=False, label="")
    takes = taken(player)
    assert [take.returned for take in takes] == pytest.approx(played.returns.tolist())
    assert [take.steps for take in takes] == played.lengths.tolist()
    assert all(take.obs.shape == (take.steps + 1, 2, 5) for take in takes)
    assert len({take.steps for take in takes}) > 1, "episodes of several lengths"
    # The toy does not say what a win is, or where anything is.
    assert {(take.won, take.worlds) for take in takes} == {(None, None)}


def test_a_teacher_never_differs_from_itself_and_its_chances_are_those_of_its_actions(learner, teacher):
    for take in taken(teacher_player(learner, teacher)):
        assert take.disagreement == 0 and not take.differs.any()
        assert (take.chances.argmax(-1) == take.actions).all()
        assert take.chances.sum(-1) == pytest.approx(1.0, abs=1e-5)
        assert not take.chances[~take.available].any()


def test_what_differs_is_what_the_teacher_would_choose_step_by_step_in_the_students_place(learner, teacher):
    found = 0
    for take in taken(student_player(learner, teacher)):
        assert (take.chances.argmax(-1) == take.actions).all()
        hidden = None
        for t in range(take.steps):
            steps = {"obs": torch.from_numpy(take.obs[None, t : t + 1]), "state": torch.zeros(1, 1, 6)}
            logits, hidden = teacher.mac.unroll_inputs(teacher.sizes.inputs(steps, None), hidden)
            hidden = hidden[:, -1]
            for agent in range(2):
                may = take.available[t, agent]
                choice = int(np.where(may, logits[0, 0, agent].numpy(), -np.inf).argmax())
                assert take.teacher_actions[t, agent] == choice
                assert take.differs[t, agent] == (choice != take.actions[t, agent] and may.sum() > 1)
        found += take.differs.sum()
    assert found, "an untrained student differs somewhere"


def test_the_disagreement_is_the_evaluations_agreement(learner, teacher):
    from kd_marl.evaluation.evaluator import _agreement

    player = student_player(learner, teacher)
    args = SimpleNamespace(**{**vars(learner.args), "runner": "vector", "batch_size_run": EPISODES})
    agreement, _ = _agreement(PairedEpisodes(HOST, args, None, EPISODES), teacher, player.make)
    takes = taken(player)
    decisions = sum(take.deciding.sum() for take in takes)
    assert sum(take.differs.sum() for take in takes) / decisions == pytest.approx(1 - agreement)


def test_a_talking_student_is_shown_with_its_messages(learner, teacher, results, tmp_path):
    from tiny_students import make_learner

    learner = make_learner(results, tmp_path, message_bits=3)
    # Two blocks: in the second episode of an environment agent 1 dies, and says no more.
    student, takes = learner.mac.agent, taken(student_player(learner, teacher), block=3)
    for take in takes:
        # What it was told counts: without that, its chances are not those of what it did.
        assert (take.chances.argmax(-1) == take.actions).all()
        state = torch.zeros(1, 2, student.state_size)
        for t in range(take.steps):
            speaks = torch.from_numpy(take.deciding[None, t].astype(np.uint8))
            obs = torch.from_numpy(take.obs[None, t : t + 1])
            _, state = student.advance(obs, state, Radio(speaks, None))
            # The state ends with the message that is not heard yet.
            assert (state[0, :, -3:].detach().numpy() == take.messages[t]).all()
    assert {value for take in takes for value in take.messages.flat} == {-1.0, 0.0, 1.0}
    assert all(take.messages is None for take in taken(teacher_player(learner, teacher)))


def test_values_are_the_critics_in_its_own_unit(learner, teacher):
    take = taken(teacher_player(learner, teacher))[0]
    # The toy's state, which the critic reads: agent 0's signal, both noises, the time; then the agent's identity.
    obs = torch.from_numpy(take.obs)
    state = torch.cat([obs[:, 0, :3], obs[:, 0, 3:4], obs[:, 1, 3:4], obs[:, 0, 4:]], dim=1)
    critic, scale = teacher.critic, teacher.value_scale
    for agent in range(2):
        inputs = torch.cat([state, torch.eye(2)[agent].expand(len(state), 2)], dim=1)
        value = critic.fc3(critic.fc2(critic.fc1(inputs).relu()).relu()).squeeze(-1) * scale.std + scale.mean
        assert take.values[:, agent] == pytest.approx(value.numpy(), abs=1e-5)


def test_all_players_begin_alike_and_the_film_says_so(learner, teacher):
    players = [teacher_player(learner, teacher), student_player(learner, teacher)]
    layout = players[0].mask.layout
    none = failed_sensors([], layout)
    film = Film("toy", "tiny_signals", 1, players, [taken(player) for player in players], none)
    assert all(film.same_start(episode) for episode in range(EPISODES))
    # In blocks of one the toy draws on through its episodes, whose lengths are its own: still alike.
    other = Film("toy", "tiny_signals", 1, players, [taken(players[0]), taken(players[1], block=1)], none)
    assert other.same_start(0) and not other.same_start(1)


def test_a_mask_that_hides_is_in_the_take_but_the_numbers_are_whole(learner, teacher):
    take = taken(student_player(learner, teacher))[0]
    assert take.visible.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 0, 1]]
    assert take.obs[:, :, 3].all(), "the noise, which nobody sees, is there to be drawn"


def test_a_failed_sensor_reads_zero_from_its_step_on_for_all_players(learner, teacher):
    for player in (teacher_player(learner, teacher), student_player(learner, teacher)):
        failed = failed_sensors(["1:3@2"], player.mask.layout)
        for take in taken(player, Trouble(failed)):
            assert take.obs[:2, 1, 3].all() and not take.obs[2:, 1, 3].any()
            assert take.obs[:, 0, 3].all()


def world_of(names):
    """A method ``world()`` for the toy: one shape for each name, which moves by one a step."""

    def world(env):
        shape = {"kind": "agent", "agent": 0, "x": env.t, "y": 0, "radius": 1}
        return {"bounds": [0, 0, 9, 9], "shapes": [{**shape, "name": name} for name in names(env)]}

    return world


def test_the_world_of_an_environment_of_ones_own_is_in_the_take(learner, teacher, monkeypatch):
    from tiny_stages import SignalEnv

    monkeypatch.setattr(SignalEnv, "world", world_of(lambda env: ["robot"]), raising=False)
    for take in taken(teacher_player(learner, teacher)):
        assert take.worlds == tuple(
            World((0, 0, 9, 9), (Shape("robot", "agent", float(t), 0.0, 1.0, 0),)) for t in range(take.steps + 1)
        )


def test_shapes_that_come_and_go_are_refused(learner, teacher, monkeypatch):
    from tiny_stages import SignalEnv

    monkeypatch.setattr(SignalEnv, "world", world_of(lambda env: [f"robot {env.t}"]), raising=False)
    with pytest.raises(UserError, match="other shapes from step to step"):
        taken(teacher_player(learner, teacher))


def test_an_agent_that_there_is_not_is_refused(learner, teacher, monkeypatch):
    from tiny_stages import SignalEnv

    shape = {"name": "robot", "kind": "agent", "agent": 9, "x": 0, "y": 0, "radius": 1}
    world = {"bounds": [0, 0, 9, 9], "shapes": [shape]}
    monkeypatch.setattr(SignalEnv, "world", lambda env: world, raising=False)
    with pytest.raises(UserError, match=r"world\(\) says that robot is agent 9: there are \d, from 0"):
        taken(teacher_player(learner, teacher))
