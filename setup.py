"""Where the packages lie: ``recipes/`` is installed as ``ctde_kit.recipes``; all else stands in pyproject.toml."""

from setuptools import find_packages, setup

recipes = [f"ctde_kit.{name}" for name in find_packages(include=["recipes", "recipes.*"])]
setup(
    packages=[*find_packages(include=["ctde_kit", "ctde_kit.*"]), *recipes],
    package_dir={"ctde_kit": "ctde_kit", "ctde_kit.recipes": "recipes"},
)
