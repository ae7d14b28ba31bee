"""What pyproject.toml cannot say: dashboards, rules and runbooks are copied into the package when it is built."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

_SHIPPED = {
    "dashboards": ("*.json",),
    "alerts": ("*.yml", "*.tmpl"),
    "docs/runbooks": ("*.md",),
}


class BuildWithFiles(build_py):
    """Builds the package and puts the files into ``exporter/_shipped``."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return  # they are where they are made
        for folder, patterns in _SHIPPED.items():
            target = Path(self.build_lib) / "exporter" / "_shipped" / folder
            target.mkdir(parents=True, exist_ok=True)
            for pattern in patterns:
                for path in Path(folder).glob(pattern):
                    shutil.copyfile(path, target / path.name)


setup(cmdclass={"build_py": BuildWithFiles})
