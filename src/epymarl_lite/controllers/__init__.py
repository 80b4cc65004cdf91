"""Multi-agent controllers, by the name that the `mac` key gives."""

from epymarl_lite.controllers.basic_controller import BasicMAC
from epymarl_lite.controllers.non_shared_controller import NonSharedMAC

REGISTRY = {"basic_mac": BasicMAC, "non_shared_mac": NonSharedMAC}
