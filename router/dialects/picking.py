"""Taking keys out of a sender's objects: what every dialect does, in the same words."""

from __future__ import annotations

from typing import Any

from router.dialects.reading import Object, Reading


def fill(reading: Reading, fields: Object) -> None:
    """What was read of one part, by the reading's own field names."""
    for field, value in fields.items():
        setattr(reading, field, value)


def copied(value: Any) -> Object:
    """A copy to take keys out of; an empty object where the sender wrote something else."""
    return dict(value) if isinstance(value, dict) else {}


def first(*values: Any) -> Any:
    """The first value that says something."""
    for value in values:
        if value is not None and value != "":
            return value
    return None


_HARDWARE = {
    "cpu_cores": ("cpu_cores", "cpuCores"),
    "storage": ("storage", "storage_gb", "storageGb"),
    "free_storage": ("free_storage", "free_storage_gb", "freeStorage", "freeStorageGb"),
}
_ATT = ("att_status", "attStatus", "attTrackingStatus", "trackingStatus")


def built(device: Object) -> Object:
    """Take what a device is made of and its answer on tracking, which every dialect writes alike, out of ``device``."""
    hardware = {field: first(*(device.pop(key, None) for key in keys)) for field, keys in _HARDWARE.items()}
    return {
        "hardware": {field: said for field, said in hardware.items() if said is not None},
        "att_status": first(*(device.pop(key, None) for key in _ATT)),
    }


def keep(properties: Object, key: str, rest: Any) -> None:
    """Put what a dialect did not know under ``key``, beside what the sender already has there."""
    if not rest:
        return
    there = properties.get(key)
    if there is None:
        properties[key] = rest
    elif isinstance(there, dict) and isinstance(rest, dict):
        properties[key] = {**rest, **there}
