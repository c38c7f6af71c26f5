"""One module per pipeline step: open inputs, call a room, commit outputs; no maths here.

A KFP component's body is one call of a step's ``main`` with a run URI, the paths of small input references and the
paths where output references go. ``context`` holds what every step shares: the run record, reuse, the nested MLflow
run, and the small record that ``finish`` gathers into the summary.
"""

import time

ENTERED = time.time()  # when our code was first imported: what came before is the interpreter's and KFP's time
