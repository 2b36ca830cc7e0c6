"""All doubles of models of other repositories, by name."""

from __future__ import annotations

from tests.support.tiny_models.other_repositories.argument_objects import OBJECTS
from tests.support.tiny_models.other_repositories.comfy import COMFY
from tests.support.tiny_models.other_repositories.double import Double
from tests.support.tiny_models.other_repositories.five_dimensions import FIVE_DIMENSIONS
from tests.support.tiny_models.other_repositories.outside_of_forward import OUTSIDE
from tests.support.tiny_models.other_repositories.packed import PACKED
from tests.support.tiny_models.other_repositories.same_names import SAME_NAMES
from tests.support.tiny_models.other_repositories.videox_fun import VIDEOX_FUN
from tests.support.tiny_models.other_repositories.wan import WAN

DOUBLES: dict[str, Double] = {
    **WAN,
    **PACKED,
    **SAME_NAMES,
    **VIDEOX_FUN,
    **COMFY,
    **FIVE_DIMENSIONS,
    **OBJECTS,
    **OUTSIDE,
}
