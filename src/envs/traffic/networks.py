"""Road networks by name: RESCO's and a small grid, whose files the package sumo-rl brings."""

from __future__ import annotations

import importlib.util
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from kd_core.errors import UserError, how_to_install, nearest

# Who chooses the phases.
CONTROLS = ("agents", "fixed_time", "max_pressure")
# What the two packages are for: the simulation, and the networks' files.
_PACKAGES = ("libsumo", "sumo_rl")
_NO_HOUR = (0, 3600)


@dataclass(frozen=True)
class Network:
    """A network's files and the time that its demand covers.

    Attributes:
        name: what it is called.
        roads: its ``.net.xml``.
        demand: its ``.rou.xml`` files.
        begin: the first second of the demand, in the files' time.
        seconds: how long it lasts.
    """

    name: str
    roads: Path
    demand: tuple[Path, ...]
    begin: int
    seconds: int

    def vehicles(self) -> float:
        """Return how many vehicles set out in the time of the demand; for flows by chance, the number to expect."""
        end = self.begin + self.seconds
        count = 0.0
        for path in self.demand:
            for _, element in ElementTree.iterparse(path):
                if element.tag in ("trip", "vehicle"):
                    count += self.begin <= _seconds(element.get("depart", "0")) < end
                elif element.tag == "flow":
                    first = max(self.begin, _seconds(element.get("begin", "0")))
                    count += _flow(element, max(0.0, min(end, _seconds(element.get("end", str(end)))) - first))
        return count


def networks() -> dict[str, Path]:
    """Return the folders of the networks that are installed, by their names.

    Raises:
        UserError: SUMO or the networks are not installed.
    """
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise UserError(f"env 'traffic' needs {package}, which is not installed: {how_to_install('traffic')}")
    # Only its files are used: importing it would need a SUMO of its own.
    spec = importlib.util.find_spec("sumo_rl")
    assert spec is not None and spec.origin is not None, "a package that was just found"
    root = Path(spec.origin).parent / "nets"
    folders = {path.name: path for path in sorted((root / "RESCO").iterdir()) if path.is_dir()}
    return {**folders, "2x2grid": root / "2x2grid"}


def find_network(name: str, sumocfg: str | None = None) -> Network:
    """Find a network.

    Args:
        name: of one that comes with sumo-rl, or of the user's own.
        sumocfg: SUMO configuration of a network of the user's own; None or "" for one that comes with sumo-rl.

    Raises:
        UserError: there is no such network or file, the file is no SUMO configuration, or SUMO is not installed.
    """
    known = networks()
    if sumocfg:
        return _configured(name, Path(sumocfg).expanduser())
    if name not in known:
        raise UserError(f"map_name '{name}' is no road network; {nearest(str(name), known)} (or give env_args.sumocfg)")
    folder = known[name]
    if configurations := sorted(folder.glob("*.sumocfg")):
        return _configured(name, configurations[0])
    return Network(name, next(folder.glob("*.net.xml")), tuple(sorted(folder.glob("*.rou.xml"))), *_NO_HOUR)


def _configured(name: str, path: Path) -> Network:
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise UserError(f"env_args.sumocfg={path} cannot be read as a SUMO configuration: {error}") from None
    values = {element.tag: element.get("value", "") for element in root.iter()}
    roads, demand = values.get("net-file"), values.get("route-files")
    if not roads or not demand:
        raise UserError(f"{path} names no net-file and route-files: give a SUMO configuration that has both")
    files = [path.parent / word.strip() for word in (roads, *demand.split(","))]
    if missing := [file for file in files if not file.is_file()]:
        raise UserError(f"{path} names {missing[0]}, which does not exist")
    begin = int(_seconds(values.get("begin", "0")))
    end = int(_seconds(values.get("end", ""))) if values.get("end") else begin + _NO_HOUR[1]
    return Network(name, files[0], tuple(files[1:]), begin, max(1, end - begin))


def _seconds(text: str) -> float:
    """Read a time as SUMO writes it: seconds, or hours:minutes:seconds; a word such as "triggered" counts as 0."""
    try:
        value = 0.0
        for part in text.split(":"):
            value = 60 * value + float(part)
        return value
    except ValueError:
        return 0.0


def _flow(element: ElementTree.Element, seconds: float) -> float:
    for key, rate in (("probability", 1.0), ("vehsPerHour", 1 / 3600)):
        if value := element.get(key):
            return float(value) * rate * seconds
    if period := element.get("period"):
        # exp(rate): intervals by chance.
        return float(period[4:-1]) * seconds if period.startswith("exp") else seconds / float(period)
    return float(element.get("number", 0))
