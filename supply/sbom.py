"""Writes a bill of materials (CycloneDX 1.6, JSON): the exporter and its packages, with versions and licences.

It is for the running version of Python. Use it to check whether a known weakness affects the exporter.

Usage: python -m supply.sbom > dist/sbom.cdx.json
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import metadata

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from exporter import __version__
from supply.licences import Licensed, licensed

OWN_NAME = "mqi-beam-exporter"

_EXTRAS = {OWN_NAME: ("postgresql",), "psycopg": ("binary",)}
"""Extras that are delivered, by package."""


class InvalidBillOfMaterials(Exception):
    """The bill of materials does not follow CycloneDX."""


def bill_of_materials() -> str:
    """Return the document as JSON.

    Raises:
        InvalidBillOfMaterials: it does not match the schema of CycloneDX.
        supply.licences.UnknownLicence: a package states no known licence.
    """
    packages = licensed(f"{sys.version_info.major}.{sys.version_info.minor}")
    exporter = _component(Licensed(OWN_NAME, __version__, "Apache-2.0"), ComponentType.APPLICATION)
    components = {each.name: _component(each, ComponentType.LIBRARY) for each in packages}
    bom = Bom(components=components.values())
    bom.metadata.component = exporter
    for component in (exporter, *components.values()):
        needed = _needed(component.name) & components.keys()
        bom.register_dependency(component, [components[name] for name in sorted(needed)])
    text = JsonV1Dot6(bom).output_as_string(indent=2)
    fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if isinstance(fault, Iterable):
        fault = next(iter(fault), None)
    if fault is not None:
        raise InvalidBillOfMaterials(str(fault))
    return text


def _component(package: Licensed, kind: ComponentType) -> Component:
    one = " " not in package.licence
    licence = DisjunctiveLicense(id=package.licence) if one else LicenseExpression(package.licence)
    url = PackageURL("pypi", name=package.name, version=package.version)
    return Component(
        name=package.name, version=package.version, type=kind, licenses=[licence], purl=url, bom_ref=str(url)
    )


def _needed(name: str) -> set[str]:
    """Return the names of the packages that a package requires, with the delivered extras only."""
    requirements = map(Requirement, metadata.requires(name) or [])
    return {
        canonicalize_name(each.name)
        for each in requirements
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in ("", *_EXTRAS.get(name, ())))
    }


if __name__ == "__main__":
    sys.stdout.write(bill_of_materials() + "\n")
