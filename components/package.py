"""Put model, speech tokenizer and the code that answers into one folder that MLflow and Hugging Face load."""

from kfp import dsl

from components import IMAGES, component


@component(base_image=IMAGES["train"])  # the package pins the versions of torch and transformers that are here
def package(run: str, model: dsl.Input[dsl.Model], tokenizer: dsl.Input[dsl.Model], package: dsl.Output[dsl.Model]):
    """Runs only when the verdict is not ``refuse``."""
    from ichigo.steps import package as step

    step.main(run, model=model.path, tokenizer=tokenizer.path, package=package.path)
