"""The exit handler: close MLflow's runs and write the end of the run."""

from kfp import dsl

from components import IMAGES, component


@component(base_image=IMAGES["cpu"])
def finish(run: str, recipe_uri: str, recipe_digest: str, status: dsl.PipelineTaskFinalStatus):
    """Runs after success and after failure."""
    from ichigo.steps import finish as step

    step.main(run, recipe_uri, recipe_digest, status.state, status.error_message or "")
