"""What a Ray Job runs: the driver of one job, on the cluster it was submitted to.

    xstilts submit JOB --address http://HOST:8265        # what users type; it makes this call
    python jobs/drive.py NAME --store s3://BUCKET/PREFIX [--data FOLDER]

The job file is read from the store, where `submit` left it. Started again, it does what is still missing.
"""

import sys

from xstilts.cli.main import main

if __name__ == "__main__":
    sys.argv.insert(1, "drive")
    main()
