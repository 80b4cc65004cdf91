"""kd-marl: the package. Exact versions are in requirements.lock, tool settings in pyproject.toml."""

from pathlib import Path

from setuptools import find_namespace_packages, setup

# The one place that states the version: the code reads it through importlib.metadata.
VERSION = "0.1.0"

setup(
    name="kd-marl",
    version=VERSION,
    description="Distil a multi-agent teacher into small decentralised students: an EPyMARL plug-in",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10,<3.15",
    package_dir={"": "src"},
    # src/kd_envs is a link to src/envs, and kd_core/data holds links to config/, zoo/ and main.py. A wheel has files
    # there, so the only names it adds are ours. src/envs has no __init__.py: a checkout has its own `envs` package.
    packages=find_namespace_packages(
        where="src",
        include=[
            "epymarl_lite*",
            "kd_controllers*",
            "kd_core*",
            "kd_envs*",
            "kd_learners*",
            "kd_marl*",
            "kd_onboard*",
            "kd_runners*",
        ],
        exclude=["*.__pycache__", "*.egg-info"],
    ),
    package_data={
        "": ["*.yaml", "*.json", "*.th", "*.safetensors", "py.typed"],
        "kd_marl.dashboard": ["page/*"],
        "kd_marl.deploy": ["templates/**/*.in"],
        "kd_marl.watch": ["page.*"],
    },
    install_requires=[
        "gymnasium>=1.0",
        "mpe2>=1.0",
        "numpy>=1.26",
        # mpe2 does not import on 1.24.3. EPyMARL finds no MPE from 1.26 on, and earlier ones do not install on 3.13.
        "pettingzoo>=1.24.4,<1.26; python_version < '3.13'",
        "pettingzoo>=1.26; python_version >= '3.13'",
        "ptflops>=0.7.4",
        "PyYAML>=6.0",
        "rich>=13",
        "sacred>=0.8.5",
        "safetensors>=0.4.3",
        "scipy>=1.15",
        "tqdm>=4.66",
        "torch>=2.4",
    ],
    extras_require={
        # SMAX, StarCraft's micromanagement maps in JAX
        "smax": ["jaxmarl>=0.2; python_version >= '3.11'"],
        # traffic lights: SUMO, and the road networks that sumo-rl brings (about 150 MB to download)
        "traffic": ["libsumo>=1.20", "sumo-rl>=1.4.5"],
        # warehouse robots and level-based foraging, which gymma reaches
        "grids": ["lbforaging>=2.0", "rware>=2.0"],
        # student bundles: ONNX, C, signatures and their checks
        "onboard": [
            "cryptography>=42",
            "jsonschema>=4.20",
            "onnx>=1.17",
            "onnxruntime>=1.20",
        ],
        # grids of runs on a cluster
        "suite": ["ray>=2.10"],
        # figures of `kd-marl report` and `kd-marl stress`
        "report": ["jsonschema>=4.20", "markdown-it-py>=3", "matplotlib>=3.8"],
        # tracking=mongo, use_tensorboard=True and use_wandb=True
        "track": ["pymongo>=4.6", "tensorboard>=2.15", "wandb>=0.17"],
        # the local page of `kd-marl dashboard`
        "dashboard": ["plotly>=6", "starlette>=0.40", "uvicorn>=0.30"],
        # films of `kd-marl watch`; its pages need nothing
        "watch": ["imageio-ffmpeg>=0.5", "matplotlib>=3.8"],
        "dev": [
            "codespell>=2.3",
            "hypothesis>=6.100",
            "import-linter>=2.15",
            "latex2mathml>=3.77",
            "mongomock>=4.3",
            "mkdocs>=1.6,<2",
            "mkdocs-material>=9.6",
            "mkdocstrings-python>=1.16",
            "mypy>=1.11",
            "playwright>=1.50",
            "psutil>=5.9",
            "pytest>=8",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "ruff>=0.6",
            "types-PyYAML",
            "types-tqdm",
            "uv>=0.5",
        ],
    },
    entry_points={"console_scripts": ["kd-marl = kd_marl.cli:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
