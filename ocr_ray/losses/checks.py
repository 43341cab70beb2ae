"""Checks that the losses' configs share."""

from math import inf

from ocr_ray.errors import ConfigError


def require_not_negative(section: str, **numbers: float) -> None:
    """Raises: ConfigError naming the first key of `section` whose number is below 0 or not finite."""
    for key, value in numbers.items():
        if not 0 <= value < inf:
            raise ConfigError(f"{section}.{key}: expected a number of at least 0, found {value:g}")


def require_positive(section: str, **numbers: float) -> None:
    """Raises: ConfigError naming the first key of `section` whose number is not above 0 or not finite."""
    for key, value in numbers.items():
        if not 0 < value < inf:
            raise ConfigError(f"{section}.{key}: expected a number above 0, found {value:g}")
