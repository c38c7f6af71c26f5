"""What happened: one MLflow run tree per pipeline run.

``runs``      the parent run, one nested run per step, parameters, curves, dataset inputs, closing what is still open
``patience``  what a call does while the server does not answer
``owners``    the process that a run lives and dies with

The server is the one named by ``MLFLOW_TRACKING_URI``; credentials come from MLflow's own variables.
"""
