"""Sacred where setuptools no longer has ``pkg_resources``."""

import subprocess
import sys

WITHOUT = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = classmethod(lambda cls, name, *rest: None if name == "pkg_resources" else find(name, *rest))
import importlib.util, sys
from importlib import metadata
from epymarl_lite import main
import sacred, yaml
from sacred.dependencies import PackageDependency, get_dependencies_from_pkg
from sacred.observers import mongo

package = PackageDependency.create(yaml)
assert (package.name, package.version) == ("PyYAML", metadata.version("PyYAML")), package
installed = {found.name: found.version for found in get_dependencies_from_pkg({}, "")}
assert installed["sacred"] == metadata.version("sacred")
assert mongo.mimetype_detector.guess_type("a.json")[0] == "application/json"
assert "pkg_resources" not in sys.modules and importlib.util.find_spec("pkg_resources") is None
"""


def test_sacred_imports_and_records_versions_without_pkg_resources(source_root):
    done = subprocess.run([sys.executable, "-c", WITHOUT], cwd=source_root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
