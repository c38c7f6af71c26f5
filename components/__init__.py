"""The KFP surface: one file per step, a body of a few lines, no logic.

Each body imports its step inside the function, because KFP ships the function's source and nothing around it. Small
JSON references travel as KFP artifacts; heavy bytes move through ``ichigo.store``.
"""

from functools import partial

from kfp import dsl

IMAGES = {"cpu": "ichigo-cpu:0.1.0", "train": "ichigo-train:0.1.0"}

component = partial(dsl.component, packages_to_install=[], install_kfp_package=False)
"""``dsl.component`` for images that already hold everything: nothing is installed when a pod starts."""
