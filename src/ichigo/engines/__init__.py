"""What runs us: the embedded platform, ``kfp.local`` and the Kubeflow Pipelines client."""
