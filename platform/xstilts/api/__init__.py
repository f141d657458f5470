"""Everything the command line can do, for notebooks and scripts.

from xstilts import api
job = api.open_job("jobs/quickstart.yaml")
api.run(job)
api.results(job)          # a pandas data frame, one row a score
"""

from xstilts.api.answers import compare, export_xtreme, power, report, results, study
from xstilts.api.clusters import cancel, exit_code, logs, status, submit, why
from xstilts.api.planning import look, plan, stored_plan
from xstilts.api.running import run
from xstilts.api.views import dashboard, export_mlflow
from xstilts.execute.jobs import DEFAULT_STORE, Job, open_job, open_stored

__all__ = [
    "DEFAULT_STORE",
    "Job",
    "cancel",
    "compare",
    "dashboard",
    "exit_code",
    "export_mlflow",
    "export_xtreme",
    "logs",
    "look",
    "open_job",
    "open_stored",
    "plan",
    "power",
    "report",
    "results",
    "run",
    "status",
    "stored_plan",
    "study",
    "submit",
    "why",
]
