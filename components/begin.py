"""Open the run: check the platform, make the MLflow parent run, write the run record."""

from components import IMAGES, component


@component(base_image=IMAGES["cpu"])
def begin(run: str, recipe_uri: str, recipe_digest: str):
    """``run`` is the URI of the run record to write."""
    from ichigo.steps import begin as step

    step.main(run, recipe_uri, recipe_digest)
