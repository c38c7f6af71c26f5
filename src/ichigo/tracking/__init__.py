"""What happened: one MLflow run tree per pipeline run.

``runs``  the parent run, one nested run per step, parameters, curves, dataset inputs, and closing what is still open

The server is the one named by ``MLFLOW_TRACKING_URI``; credentials come from MLflow's own variables.
"""
