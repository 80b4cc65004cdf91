"""The check of a bundle: all that `read_bundle` checks, and all that needs more than numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jsonschema
import onnx

from kd_core.costs.budget import Budget, agent_budget
from kd_core.versions import package_version
from kd_marl.deploy import csource, int8, profile, selftest
from kd_marl.deploy.onnx_graph import contract, policy_model
from kd_marl.deploy.program import AgentC, Named, identifiers
from kd_marl.deploy.weights import Weights
from kd_onboard.bundle import Bundle, read_bundle
from kd_onboard.errors import BundleError
from kd_onboard.fields import quoted
from kd_onboard.profile import AgentProfile


def check_bundle(folder: Path) -> Bundle:
    """Verify a whole bundle: hashes, schema, sizes and costs, and that ONNX and C hold the weights and nothing else.

    Every program is written again from the weights and compared. One that other packages wrote otherwise is refused.

    Returns:
        The bundle.

    Raises:
        BundleError: the first fault.
    """
    bundle = read_bundle(folder)
    _check_schema(bundle)
    _check_messages(bundle)
    used = {csource.TEAM_HEADER}
    names = identifiers([agent.name for agent in bundle.agents])
    programs: list[tuple[str, Named]] = []
    checked: dict[str, Named] = {}
    first: dict[str, AgentProfile] = {}
    for agent in bundle.agents:
        assert agent.c is not None, "the schema asks for it"
        said = bundle.profile.raw["agents"][agent.index]
        _check_costs(bundle, agent)
        _check_budget(bundle, agent, agent_budget(said["budget"]))
        # Agents with equal networks and inputs share files, which bear the name of the first and are checked once.
        first.setdefault(agent.c.folder, agent)
        facts = ("weights", "onnx", "onnx_int8", "int8_scope", "c", "features", "actions", "noop_action")
        key = repr([[said[name] for name in facts], said.get("messages")])
        if key not in checked:
            weights = bundle.weights(agent)
            _check_onnx(bundle, agent, first[agent.c.folder], weights)
            checked[key], written = _check_c(bundle, agent, first[agent.c.folder], names, weights)
            used |= written
        programs.append((agent.name, checked[key]))
        used.update(agent.paths)
    _check_team_header(bundle, programs)
    if strangers := sorted(set(bundle.profile.files) - used):
        raise BundleError(f"{folder}: no agent uses {strangers[0]}, and a bundle holds nothing else: export it again")
    return bundle


def _check_schema(bundle: Bundle) -> None:
    fault = jsonschema.exceptions.best_match(
        jsonschema.Draft202012Validator(profile.schema()).iter_errors(bundle.profile.raw)
    )
    if fault is not None:
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault.absolute_path)
        reason = " ".join(fault.message.split())
        raise BundleError(f"{bundle.folder}: profile.json{place} breaks its schema: {reason[:200]}")


def _check_messages(bundle: Bundle) -> None:
    """Refuse a team whose radio is described where nobody talks, or is not, or has another rate than its agents."""
    team = bundle.profile.raw.get("messages")
    rates = {agent.messages.bits / agent.messages.every for agent in bundle.agents if agent.messages is not None}
    said = set() if team is None else {team["bits_per_step"]}
    if said != rates:
        raise BundleError(
            f"{bundle.folder}: its agents say {_bits(rates)} a step, profile.json's messages {_bits(said)}: export it "
            "again"
        )
    for agent in bundle.agents:
        if agent.messages is not None and (agent.onnx_int8 is not None or _weights_of(agent) == "int8"):
            raise BundleError(f"{bundle.folder}: {agent.label} talks, and int8 is for silent agents: export it again")


def _bits(rates: set[float]) -> str:
    return f"{min(rates):g} bits" if rates else "nothing"


def _check_costs(bundle: Bundle, agent: AgentProfile) -> None:
    """Refuse a profile whose costs are not those of its sizes."""
    said = bundle.profile.raw["agents"][agent.index]
    true = profile.costs(agent.inputs, agent.width, agent.n_actions, _weights_of(agent), *agent.exchanged)
    for key, value in true.items():
        if said[key] != value:
            raise BundleError(
                f"{bundle.folder}: {agent.label} of width {agent.width} with {agent.inputs} inputs has {key} {value}, "
                f"the profile says {said[key]}: export it again"
            )


def check_budgets(bundle: Bundle, budgets: Sequence[Budget]) -> None:
    """Refuse a bundle that does not fit budgets other than its own.

    Args:
        bundle: a bundle that `check_bundle` has found sound.
        budgets: one an agent.

    Raises:
        BundleError: the first agent that does not fit.
    """
    for agent, budget in zip(bundle.agents, budgets, strict=True):
        _check_budget(bundle, agent, budget)


def _check_budget(bundle: Bundle, agent: AgentProfile, budget: Budget | None) -> None:
    if budget is None:
        return
    weights, sizes = _weights_of(agent), (agent.inputs, agent.width, agent.n_actions)
    if faults := replace(budget, weights=weights).excess(*sizes, *agent.exchanged):
        board = f" ({budget.board})" if budget.board else ""
        meant = "; the budget is one of int8 weights, and its C has float32" if budget.weights != weights else ""
        raise BundleError(
            f"{bundle.folder}: {agent.label} of width {agent.width} does not fit its budget{board}: it takes "
            f"{' and '.join(faults)}{meant}"
        )


def _weights_of(agent: AgentProfile) -> str:
    """Return what the weights of its C are, one of `kd_core.costs.footprint.WEIGHTS`."""
    return "float32" if agent.c is None or agent.c.int8 is None else "int8"


def _check_onnx(bundle: Bundle, agent: AgentProfile, first: AgentProfile, weights: Weights) -> None:
    """Refuse models that are not those that an export writes of the weights; nothing of theirs is run.

    They also say what the profile says of features, actions and state; ``first`` is the agent whose name they bear.
    """
    assert agent.onnx is not None, "the schema asks for it"
    features = bundle.profile.raw["agents"][agent.index]["features"]
    properties = contract(weights, bundle.task.name, first.name, features, agent.actions, agent.messages)
    expected, found = policy_model(weights, properties, agent.messages), _read_onnx(bundle, agent.onnx)
    told = {entry.key: entry.value for entry in found.metadata_props}
    for key in properties:
        if told.get(key) != properties[key]:
            raise BundleError(
                f"{bundle.folder}: {agent.onnx} has another {key} in its metadata_props than the profile's: export it "
                "again"
            )
    if found != expected:
        raise BundleError(f"{bundle.folder}: {agent.onnx} is not the network of {agent.label}: export it again")
    if agent.onnx_int8 is not None:
        scope = bundle.profile.raw["agents"][agent.index]["int8_scope"]
        if scope not in int8.EXCLUDED:
            raise BundleError(f"{bundle.folder}: {agent.label} has the int8_scope {quoted(scope)}, which is not one")
        if int8.quantise(weights, int8.EXCLUDED[scope], properties) != bundle.read(agent.onnx_int8):
            raise BundleError(
                f"{bundle.folder}: {agent.onnx_int8} is not the network of {agent.label}: {_other_packages(bundle)}"
            )


def _read_onnx(bundle: Bundle, path: str) -> onnx.ModelProto:
    try:
        return onnx.load_model_from_string(bundle.read(path))
    except BundleError:
        raise
    # Whatever protobuf makes of a damaged file.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise BundleError(f"{bundle.folder}: {path} is no valid ONNX model: {reason[:160]}") from error


def _check_c(
    bundle: Bundle, agent: AgentProfile, first: AgentProfile, names: Sequence[str], weights: Weights
) -> tuple[Named, set[str]]:
    """Refuse C that holds other numbers than the weights, or other code than an export writes.

    Args:
        bundle: the bundle.
        agent: whose C it is.
        first: the first agent with this C, whose name it bears.
        names: identifiers of all agents.
        weights: the agent's network.

    Returns:
        What the C is called, and its files.
    """
    assert agent.c is not None, "the schema asks for it"
    named = Named.of(names[first.index])
    found = (agent.c.folder, agent.c.prefix, agent.c.header, agent.c.sources)
    if found != (named.folder, named.prefix, named.header, (named.source,)):
        raise BundleError(
            f"{bundle.folder}: {agent.label} has other C files than {named.header} and {named.source}: export it again"
        )
    features = bundle.profile.raw["agents"][agent.index]["features"]
    told = (features, agent.actions, bundle.profile.on_fault, agent.noop_action, agent.c.int8, agent.messages)
    files = csource.all_files(AgentC(weights, named, bundle.task.name, first.name, *told))
    for path, expected in files.items():
        if bundle.read(path) != expected:
            holds = path in (named.weights, named.binary)
            fault = "does not hold the weights of" if holds else "is not what this version writes for"
            raise BundleError(f"{bundle.folder}: {path} {fault} {agent.label}: {_other_packages(bundle)}")
    if fault := selftest.fault(bundle.read(named.test), weights, named, first.name, agent.c.int8):
        raise BundleError(f"{bundle.folder}: {named.test} {fault}: export it again")
    return named, {*files, named.test}


def _check_team_header(bundle: Bundle, agents: Sequence[tuple[str, Named]]) -> None:
    if bundle.read(csource.TEAM_HEADER) != csource.team_header(bundle.task.name, agents).encode():
        raise BundleError(
            f"{bundle.folder}: {csource.TEAM_HEADER} is not what this version writes: {_other_packages(bundle)}"
        )


def _other_packages(bundle: Bundle) -> str:
    """Say why a program may differ, and what to do; the profile's own word decides nothing but this text."""
    made = bundle.profile.provenance["versions"]
    here = {name: package_version(name) for name in profile.PACKAGES}
    others = [f"{name} {quoted(made.get(name))} (here {here[name]})" for name in here if made.get(name) != here[name]]
    by = f", or written with {', '.join(others)}" if others else ", or written by an earlier state of the source"
    return f"it was changed{by}; export it again, or check it where it was exported"
