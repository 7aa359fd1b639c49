"""``ray start`` for nodes that stay on 127.0.0.1: Ray would rewrite that address to the machine's own.

``RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0`` is Ray's own switch for loopback alone, and every process of the node
has it. With the switch alone, ``ray start`` would refuse a second node.
"""

import os

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

from ray._private import ray_constants, services
from ray.scripts.scripts import main

ray_constants.ENABLE_RAY_CLUSTER = True
services.node_ip_address_from_perspective = lambda *_: "127.0.0.1"
main()
